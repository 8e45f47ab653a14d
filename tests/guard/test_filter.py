"""The filter, run by a small interpreter of classic BPF: what is trapped, refused and left alone."""

from __future__ import annotations

import struct

import pytest

from nbsentinel_guard import abi
from nbsentinel_guard.filter import Program, build

TRAPPED = abi.RET_USER_NOTIF


def decide(program: bytes, number: int, *arguments: int, arch: int) -> int:
    """Return the action that the kernel would take; seccomp_data is 64 bytes (linux/seccomp.h)."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=iIQ6Q", number, arch, 0, *(value & (1 << 64) - 1 for value in padded))
    at, loaded = 0, 0
    for _ in range(len(program) // 8):
        code, then, otherwise, value = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            loaded = struct.unpack_from("=I", data, value)[0]
        elif code == 0x06:
            return value
        else:
            holds = {0x15: loaded == value, 0x45: bool(loaded & value), 0x35: loaded >= value}[code]
            at += then if holds else otherwise
    raise AssertionError("the program does not end")


@pytest.fixture(params=sorted(abi.CALLS))
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def action(machine: str, name: str, *arguments: int, **options: bool) -> int:
    return decide(build(machine, **options), abi.CALLS[machine][name], *arguments, arch=abi.AUDIT_ARCH[machine])


def test_connect_is_trapped(machine: str) -> None:
    """Connections go to the supervisor whatever their arguments."""
    assert action(machine, "connect", 5, 6, 7) == TRAPPED


def test_connect_can_be_left_alone(machine: str) -> None:
    """On a kernel without WAIT_KILLABLE_RECV connect is not trapped, everything else is."""
    assert action(machine, "connect", trap_connect=False) == abi.RET_ALLOW
    assert action(machine, "kill", 1, 9, trap_connect=False) == TRAPPED


@pytest.mark.parametrize(
    "name",
    [
        "execve",
        "execveat",
        "io_uring_setup",
        "listen",
        "memfd_create",
        "mount",
        "pidfd_getfd",
        "process_vm_readv",
        "process_vm_writev",
        "sendmmsg",
        "setns",
        "unshare",
    ],
)
def test_always_trapped(machine: str, name: str) -> None:
    """Rare calls that are worth telling, or are refused, are judged whatever their arguments."""
    assert action(machine, name) == action(machine, name, 5, 6, 7, 8, 9, 10) == TRAPPED


def test_every_other_call_is_allowed(machine: str) -> None:
    """Nothing that the table does not name is touched: no read, no write, no open, no clone."""
    named = set(abi.CALLS[machine].values())
    program = build(machine)
    for number in range(470):
        if number not in named:
            assert decide(program, number, 1, 2, 3, arch=abi.AUDIT_ARCH[machine]) == abi.RET_ALLOW, number


def test_second_exec_stop() -> None:
    """A new image is stopped when it sets up its first thread: by another call on each machine."""
    assert action("x86_64", "arch_prctl", abi.ARCH_SET_FS, 1) == TRAPPED
    assert action("x86_64", "arch_prctl", 0x1001, 1) == abi.RET_ALLOW
    assert action("x86_64", "set_tid_address", 1) == abi.RET_ALLOW
    assert action("aarch64", "set_tid_address", 1) == TRAPPED


@pytest.mark.parametrize(("name", "flags"), [("sendto", 3), ("sendmsg", 2)])
def test_fast_open_is_a_connection(machine: str, name: str, flags: int) -> None:
    """A send that connects is trapped like connect; what goes out on a connection never waits."""
    plain, fast = [9, 9, 9, 9, 0, 0], [9, 9, 9, 9, 0, 0]
    plain[flags], fast[flags] = 0x4040, abi.MSG_FASTOPEN | 0x4000
    assert action(machine, name, *plain) == abi.RET_ALLOW
    assert action(machine, name, *fast) == TRAPPED


@pytest.mark.parametrize("address", [1, 1 << 32, 0x7FFF_FFFF_0000])
def test_datagram_with_an_address(machine: str, address: int) -> None:
    """A datagram that names its receiver is trapped, wherever in memory that name is."""
    assert action(machine, "sendto", 3, 4, 5, 0, address, 16) == TRAPPED
    assert action(machine, "sendto", 3, 4, 5, 0, 0, 0) == abi.RET_ALLOW


def test_foreign_calls_are_judged(machine: str) -> None:
    """Other architectures' numbers mean other calls: they are trapped, and refused there."""
    other = next(value for name, value in abi.AUDIT_ARCH.items() if name != machine)
    assert decide(build(machine), abi.CALLS[machine]["execve"], arch=other) == TRAPPED
    if machine == "x86_64":
        assert decide(build(machine), 520 | abi.X32_BIT, arch=abi.AUDIT_ARCH[machine]) == TRAPPED


def test_tracing(machine: str) -> None:
    """Attaching to another process is trapped; what a debugger does with the one it has is not."""
    for request in (abi.PTRACE_ATTACH, abi.PTRACE_SEIZE):
        assert action(machine, "ptrace", request, 77) == TRAPPED
    for request in (0, 1, 4, 7, 24, 0x4200):
        assert action(machine, "ptrace", request, 77) == abi.RET_ALLOW


def test_hiding(machine: str) -> None:
    """Making oneself not dumpable is trapped; nothing else that prctl does is."""
    assert action(machine, "prctl", abi.PR_SET_DUMPABLE, 0) == TRAPPED
    assert action(machine, "prctl", abi.PR_SET_DUMPABLE, 1) == abi.RET_ALLOW
    assert all(action(machine, "prctl", option, 0) == abi.RET_ALLOW for option in range(80) if option != 4)


@pytest.mark.parametrize(("name", "position"), [("kill", 1), ("tkill", 1), ("tgkill", 2), ("pidfd_send_signal", 1)])
def test_signals(machine: str, name: str, position: int) -> None:
    """Signals that could end or stop the agent are judged; all others never wait."""
    for number in range(65):
        arguments = [77] * 6
        arguments[position] = number
        wanted = TRAPPED if number in (1, 2, 9, 15, 19) else abi.RET_ALLOW
        assert action(machine, name, *arguments) == wanted, number


@pytest.mark.parametrize(
    ("name", "position"),
    [
        ("prlimit64", 0),
        ("sched_setaffinity", 0),
        ("sched_setscheduler", 0),
        ("sched_setparam", 0),
        ("sched_setattr", 0),
    ],
)
def test_limits_of_others(machine: str, name: str, position: int) -> None:
    """A process may always change itself; what names another one is judged."""
    ours, theirs = [9] * 6, [9] * 6
    ours[position], theirs[position] = 0, 4711
    assert action(machine, name, *ours) == abi.RET_ALLOW
    assert action(machine, name, *theirs) == TRAPPED


@pytest.mark.parametrize(("name", "user"), [("setpriority", 2), ("ioprio_set", 3)])
def test_priorities_of_others(machine: str, name: str, user: int) -> None:
    """Who 0 means oneself, except where a whole user is meant."""
    assert action(machine, name, user - 2, 0, 5) == abi.RET_ALLOW
    assert action(machine, name, user - 2, 4711, 5) == TRAPPED
    assert action(machine, name, user, 0, 5) == TRAPPED


def test_jump_out_of_reach() -> None:
    """A jump that one byte cannot express is an error, never a wrong filter."""
    program = Program()
    program.jump(0x15, 1, then="far")
    for _ in range(300):
        program.load(0)
    program.label("far")
    with pytest.raises(ValueError, match="out of reach"):
        program.assemble()
