"""A shell for a remote peer: a program that finds its operator in HOST, PORT and PORT2, and PYTHON for an interpreter."""

from __future__ import annotations

import inspect
import shutil
import subprocess
from enum import Enum
from pathlib import Path

import msgspec

from live.account import PATH, Account
from live.channels import Transport
from live.drivers import RUN_CELLS, USE_SERVER
from live.shells import Speech


class Language(str, Enum):
    """What the text of a case is written in, by the suffix of its file."""

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
    CELL = "cell"
    """A cell of a Python kernel."""
    TERMINAL = "typed"
    """A line that is typed into a terminal of a Jupyter server."""


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
_COMPILER = ("gcc", "-O1", "-w", "-o")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One shell."""

    name: str
    language: Language
    text: str
    transport: Transport = Transport.TCP
    speech: Speech = Speech.SH
    programs: tuple[str, ...] = ()
    """Needed beside the language's own."""
    flags: tuple[str, ...] = ()
    """For the compiler."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Everything without which it cannot run here."""
        own = {Language.C: ("gcc",), Language.JAVA: ("javac",)}.get(self.language, _RUN.get(self.language, ())[:1])
        return (*own, *(("ipv6",) if self.transport is Transport.TCP6 else ()), *self.programs)

    def prepare(self, account: Account, folder: Path) -> list[str]:
        """Put the case into a folder of its own and return the command that runs it."""
        folder.mkdir()
        source = folder / f"main.{self.language.value}"
        source.write_text(inspect.cleandoc(self.text) + "\n")
        account.own(folder, source)
        if self.language is Language.C:
            program = folder / "main"
            done = subprocess.run([*_COMPILER, str(program), *self.flags, str(source)], capture_output=True, text=True)
            assert done.returncode == 0, f"{self.name} does not compile: {done.stderr}"
            return [str(program)]
        if self.language is Language.CELL:
            return [account.python, str(RUN_CELLS), str(source), "--stay"]
        if self.language is Language.TERMINAL:
            return [account.python, str(USE_SERVER), "terminal", str(source)]
        if self.language is Language.PYTHON:
            return [account.python, str(source)]
        program_path = shutil.which(_RUN[self.language][0], path=PATH)
        assert program_path, f"{self.name} was started without {self.needs}"
        return [program_path, *_RUN[self.language][1:], str(source)]
