"""The keeper's parts that need no agent."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nbsentinel.protect import standing
from nbsentinel.protect.estate import HALF, ROOM, Estate
from nbsentinel.protect.keeper import Bond, pause_after

FOREIGN = ("click", "msgspec", "psutil", "typing", "dataclasses", "socket", "json", "nbsentinel.cli")


def test_keeper_loads_little() -> None:
    """What stays in memory for ever is the interpreter, and a few modules of its own."""
    code = f"import sys, nbsentinel.protect.keeper; print([m for m in {FOREIGN!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_pauses_double_up_to_a_minute() -> None:
    """1, 2, 4 ... 60 s."""
    assert [pause_after(n) for n in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert pause_after(10_000) == 60


def test_facts_are_read_in_order() -> None:
    """Each packet is one fact; none is a reason to wait."""
    reading, writing = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    bond = Bond(1, reading, Estate(), {})
    assert bond.facts() == []
    os.write(writing, b"stopped 19 2")
    os.write(writing, b"ended signal 9 1")
    assert bond.facts() == [["stopped", "19", "2"], ["ended", "signal", "9", "1"]]
    os.close(writing)
    assert bond.facts() == []
    os.close(reading)


def test_estate_holds_what_was_left_last() -> None:
    """The newest whole testament counts, across a fork too."""
    estate = Estate()
    assert estate.left() is None
    assert not estate.used
    for content in (b"first", b"", b"third" * 1000):
        assert estate.leave(content)
        assert estate.left() == content
    pid = os.fork()
    if pid == 0:
        estate.leave(b"from a child")
        os._exit(0)
    os.waitpid(pid, 0)
    assert estate.left() == b"from a child"
    assert not estate.leave(bytes(ROOM + 1))
    assert estate.left() == b"from a child"


@pytest.mark.parametrize("damage", ["head", "content"])
def test_torn_testament_leaves_the_one_before(damage: str) -> None:
    """Who dies while writing does not take the earlier one along."""
    estate = Estate()
    estate.leave(b"good" * 100)
    estate.leave(b"torn" * 100)
    begin = 0  # the second is in the first half
    where = begin + (0 if damage == "head" else 20)
    estate._memory[where : where + 8] = bytes(8)
    assert estate.left() == b"good" * 100
    assert HALF > ROOM


def test_differences_are_told_in_words() -> None:
    """The operator reads what was and what is."""
    before = {"RLIMIT_NOFILE": (1024, -1), "nice": (0,), "processors": (0, 1), "old": (1,)}
    now = {"RLIMIT_NOFILE": (3, 3), "nice": (0, 19), "processors": (0, 1), "new": (1,)}
    assert standing.differences(before, now) == [
        "RLIMIT_NOFILE was 1024:unlimited, is 3:3",
        "nice was 0, is 0:19",
    ]


def test_soft_limits_are_put_back() -> None:
    """An unprivileged process can raise its soft limit up to the hard one, and does."""
    code = (
        "import os, resource\n"
        "from nbsentinel.protect import standing\n"
        "own = os.getpid(); before = standing.read(own)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, before['RLIMIT_NOFILE'][1]))\n"
        "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))\n"
        "assert standing.changed(before, standing.read(own)) == ['RLIMIT_NOFILE', 'scheduler']\n"
        "standing.mend(own, before)\n"
        "print(standing.differences(before, standing.read(own)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
