"""Programs of cases: a text in some language, put into a folder of its own and made ready to run."""

from __future__ import annotations

import fcntl
import inspect
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from live.account import PATH, Account
from live.drivers import RUN_CELLS, USE_SERVER


class Language(str, Enum):
    """What a text is written in, by the suffix of its file."""

    BASH = "sh"
    ZSH = "zsh"
    KSH = "ksh"
    PYTHON = "py"
    PERL = "pl"
    RUBY = "rb"
    PHP = "php"
    LUA = "lua"
    TCL = "tcl"
    NODE = "js"
    GAWK = "awk"
    JAVA = "java"
    C = "c"
    CELLS = "cells"
    """Cells of a Python kernel that jupyter_client starts; it ends after the last."""
    CELLS_STAY = "staying"
    """The same; the kernel stays."""
    SERVER_CELLS = "served"
    """Cells of a kernel that a Jupyter server starts for a browser."""
    SERVER_TERMINAL = "typed"
    """Lines that are typed into a terminal of a Jupyter server."""


_RUN: dict[Language, tuple[str, ...]] = {
    Language.BASH: ("bash",),
    Language.ZSH: ("zsh", "-f"),
    Language.KSH: ("ksh93",),
    Language.PERL: ("perl",),
    Language.RUBY: ("ruby",),
    Language.PHP: ("php",),
    Language.LUA: ("lua5.4",),
    Language.TCL: ("tclsh",),
    Language.NODE: ("node",),
    Language.GAWK: ("gawk", "-f"),
    Language.JAVA: ("java",),
}
_RUN_BY_PYTHON: dict[Language, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Language.PYTHON: ((), ()),
    Language.CELLS: ((str(RUN_CELLS),), ()),
    Language.CELLS_STAY: ((str(RUN_CELLS),), ("--stay",)),
    Language.SERVER_CELLS: ((str(USE_SERVER), "cells"), ()),
    Language.SERVER_TERMINAL: ((str(USE_SERVER), "terminal"), ()),
}
_SERVER = Path(tempfile.gettempdir(), f"nbsentinel-tests-{os.geteuid()}.lock")
_COMPILER = ("gcc", "-O1", "-w", "-o")


def needed(language: Language) -> tuple[str, ...]:
    """Return the programs without which a language cannot be run."""
    return {Language.C: ("gcc",), Language.JAVA: ("javac",)}.get(language, _RUN.get(language, ())[:1])


@contextmanager
def turn(language: Language) -> Iterator[None]:
    """Wait until no other test on this machine uses a Jupyter server, if this does.

    A space has one server, and an agent trusts only one; an agent sees the processes of all tests of its user.
    """
    if language not in (Language.SERVER_CELLS, Language.SERVER_TERMINAL):
        yield
        return
    with _SERVER.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare(account: Account, folder: Path, language: Language, text: str, flags: tuple[str, ...] = ()) -> list[str]:
    """Make the folder, put the program there and return the command that runs it.

    Args:
        account: Whom it will run as, and who gets the folder.
        folder: A folder that does not exist yet.
        language: What it is written in.
        text: The program; common indentation is removed.
        flags: For the compiler.
    """
    folder.mkdir()
    source = folder / f"main.{language.value}"
    source.write_text(inspect.cleandoc(text) + "\n")
    account.own(folder, source)
    if language is Language.C:
        program = folder / "main"
        done = subprocess.run([*_COMPILER, str(program), *flags, str(source)], capture_output=True, text=True)
        assert done.returncode == 0, f"{folder.name} does not compile: {done.stderr}"
        return [str(program)]
    if language in _RUN_BY_PYTHON:
        before, after = _RUN_BY_PYTHON[language]
        return [account.python, *before, str(source), *after]
    interpreter = shutil.which(_RUN[language][0], path=PATH)
    assert interpreter, f"{folder.name} was started without {_RUN[language][0]}"
    return [interpreter, *_RUN[language][1:], str(source)]
