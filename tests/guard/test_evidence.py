"""What is read of a caller: the same as /proc gives, whichever way it is read."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nbsentinel_guard import evidence, proc
from support.waiting import wait_until


@contextmanager
def sleeping(*command: str, **environment: str) -> Iterator[int]:
    """Run a command that sleeps; yield its pid once it is the new image."""
    with subprocess.Popen(command, env=environment) as child:
        try:
            assert wait_until(lambda: proc.read_bytes(f"/proc/{child.pid}/cmdline") == _block(*command), 5)
            yield child.pid
        finally:
            child.kill()


def _block(*texts: str) -> bytes:
    return b"".join(os.fsencode(text) + b"\0" for text in texts)


@pytest.mark.parametrize("permitted", [True, False])
@pytest.mark.parametrize("filler", [0, 1, evidence.ROOM])
def test_arguments_and_environment(permitted: bool, filler: int) -> None:
    """Both are what was given to execve, read from memory or, where that is refused or much, from /proc."""
    environment = {"LD_PRELOAD": "/nonexistent.so", "FILLER": "x" * filler}
    with sleeping("sleep", "60", **environment) as pid:
        place = proc.stat_fields(pid)
        assert place is not None
        arguments, found = evidence.Memory(permitted=permitted).start_of(pid, place[1])
    assert arguments == _block("sleep", "60")
    assert found == _block(*(f"{name}={value}" for name, value in environment.items()))
    assert evidence.preloads(found) == b"LD_PRELOAD=/nonexistent.so"


def test_nothing_is_read_of_who_is_gone() -> None:
    """A process that has ended has no arguments and no environment, whatever its stat said."""
    with sleeping("sleep", "60") as pid:
        place = proc.stat_fields(pid)
    assert place is not None
    assert evidence.Memory().start_of(pid, place[1]) == (b"", b"")


def test_variables_that_load_code() -> None:
    """Only whole names count."""
    assert evidence.preloads(_block("A=1", "OLD_PRELOAD=a", "LD_AUDIT=b c", "X=LD_PRELOAD=d")) == b"LD_AUDIT=b c"
    assert evidence.preloads(b"") == b""


def test_leader() -> None:
    """A thread leads to its process, a process to itself, and so does what is no thread at all."""
    begun, end = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (begun.set(), end.wait(10)))
    thread.start()
    try:
        assert begun.wait(5)
        assert thread.native_id is not None
        assert evidence.leader(thread.native_id) == evidence.leader(os.getpid()) == os.getpid()
    finally:
        end.set()
        thread.join()
    for number in (-1, 0, 2**22 + 1, 2**31, 2**63):
        assert evidence.leader(number) == number


def test_a_file_that_comes_to_give_rights(tmp_path: Path) -> None:
    """What is remembered of a file does not outlive a change of its rights."""
    program = tmp_path / "program"
    shutil.copy("/bin/sleep", program)
    with sleeping(str(program), "60") as pid:
        assert not evidence.gives_rights(pid)
        assert not evidence.gives_rights(pid)
        program.chmod(0o4755)
        assert evidence.gives_rights(pid)
        program.chmod(0o755)
        assert not evidence.gives_rights(pid)
    assert not evidence.gives_rights(pid)
