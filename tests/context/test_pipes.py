"""Who writes what another program reads."""

from __future__ import annotations

import itertools

import pytest

from nbsentinel.context.pipes import Pipes
from nbsentinel.events import Process, ProcessKey

_pids = itertools.count(10)


def program(exe: str, source: str, sink: str) -> Process:
    pid = next(_pids)
    return Process(
        key=ProcessKey(pid, pid),
        parent=None,
        name=exe,
        exe=f"/bin/{exe}",
        argv=(exe,),
        argv_length=1,
        stdio=(source, sink, sink),
    )


@pytest.mark.parametrize("between", ["pipe:[7]", "/home/u/way", "/tmp/setup.sh"])
def test_what_joins(between: str) -> None:
    """A pipe, a fifo with a name and a file join the program that writes it with the one that reads it."""
    pipes = Pipes()
    curl, shell = program("curl", "/dev/null", between), program("sh", between, "/dev/pts/1")
    for one in (curl, shell):
        pipes.learn(one)
    assert pipes.upstream(shell) == (curl,)
    assert pipes.downstream(curl) == (shell,)


@pytest.mark.parametrize("between", ["/dev/pts/1", "/dev/null", "socket:[7]"])
def test_what_does_not_join(between: str) -> None:
    """A terminal, /dev/null and a socket are no way from one program to another."""
    pipes = Pipes()
    curl, shell = program("curl", "/dev/null", between), program("sh", between, "/dev/pts/2")
    for one in (curl, shell):
        pipes.learn(one)
    assert pipes.upstream(shell) == ()
    assert pipes.downstream(curl) == ()
