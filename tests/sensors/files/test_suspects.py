"""Who had just started when a file was opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbsentinel.events import Millis, Process, ProcessKey
from nbsentinel.sensors.files import suspects

AT = Millis(1_700_000_000_000)


def started(pid: int, before: int, *argv: str, parent: int = 1) -> Process:
    """Return a process that started so many milliseconds before the file was opened."""
    key = ProcessKey(pid, pid)
    exe = f"/bin/{argv[0] if argv else 'p'}"
    return Process(
        key=key,
        parent=ProcessKey(parent, parent),
        name="p",
        exe=exe,
        argv=argv or ("p",),
        argv_length=1,
        uid=os.getuid(),
        started=Millis(AT - before),
        cwd="/",
    )


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / ".netrc"
    path.write_text("x")
    return str(path)


def test_the_only_fresh_one_is_it(secret: str) -> None:
    """What started long before, or after, could have read it at any time, or not at all."""
    old, late = started(5, 60_000), started(9, -500)
    assert suspects.by_timing([old, started(7, 300), late], secret, AT) == ProcessKey(7, 7)
    assert suspects.by_timing([old, late], secret, AT) is None


def test_a_shell_and_its_program_are_one(secret: str) -> None:
    """The program that a fresh shell started is meant; two programs side by side are nobody."""
    shell, program = started(7, 300, "bash", "x.sh"), started(8, 200, "python3", "x.py", parent=7)
    assert suspects.by_timing([shell, program], secret, AT) == program.key
    assert suspects.by_timing([shell, program, started(9, 100, parent=7)], secret, AT) is None


def test_of_several_the_one_that_names_the_file(secret: str) -> None:
    """`cat file | base64`: both are fresh, one says what it reads."""
    cat, other = started(7, 20, "cat", secret), started(8, 20, "base64")
    assert suspects.by_timing([cat, other], secret, AT) == cat.key
    assert suspects.by_timing([cat, started(8, 20, "wc", secret)], secret, AT) is None
