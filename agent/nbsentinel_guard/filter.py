"""The seccomp filter as a list of BPF instructions. Pure: nothing here talks to the kernel.

A filter reads registers only. What it cannot decide there (whom a signal is meant for, where a connection goes) it
hands to the supervisor, and so it does with what the supervisor refuses: a refusal is told as well.
"""

from __future__ import annotations

import struct

from nbsentinel_guard import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LD_ABS, _JEQ, _JSET, _JGE, _RET = 0x20, 0x15, 0x45, 0x35, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16
_FATAL_SIGNALS = (1, 2, 9, 15, 19)
"""HUP, INT, KILL, TERM, STOP: what would end or stop the agent; it ignores every other signal that can be ignored."""
_SIGNAL_ARGUMENT = {"kill": 1, "tkill": 1, "tgkill": 2, "pidfd_send_signal": 1}
_TARGET_ARGUMENT = {
    "prlimit64": 0,
    "sched_setparam": 0,
    "sched_setscheduler": 0,
    "sched_setaffinity": 0,
    "sched_setattr": 0,
}
"""Calls that can starve another process, with the argument that names it; 0 there is the caller itself."""
_WHO_ARGUMENT = {"setpriority": abi.PRIO_USER, "ioprio_set": abi.IOPRIO_WHO_USER}
"""The same where the first argument says whether the second names a process, a group or a whole user."""
_EXECUTES = ("execve", "execveat")
_ALWAYS = (
    "listen",
    "memfd_create",
    "mount",
    "pidfd_getfd",
    "process_vm_readv",
    "process_vm_writev",
    "sendmmsg",
    "setns",
    "unshare",
)
"""Calls that are rare and worth telling whatever their arguments; sendmmsg asks for names."""
_FLAGS_ARGUMENT = {"sendto": 3, "sendmsg": 2}
"""Calls that connect by themselves when MSG_FASTOPEN is among their flags."""


class Program:
    """Instructions with labels that are resolved at the end; jumps go forward only, as BPF wants them."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str | None, str | None, int]] = []
        self._labels: dict[str, int] = {}

    def load(self, offset: int) -> None:
        """Load a word of the call's data."""
        self._lines.append((_LD_ABS, None, None, offset))

    def jump(self, code: int, value: int, then: str | None = None, otherwise: str | None = None) -> None:
        """Compare what is loaded; a missing label means the next instruction."""
        self._lines.append((code, then, otherwise, value))

    def give(self, action: int) -> None:
        """End with an action."""
        self._lines.append((_RET, None, None, action))

    def label(self, name: str) -> None:
        """Name the next instruction."""
        self._labels[name] = len(self._lines)

    def assemble(self) -> bytes:
        """Return the program as the kernel takes it: struct sock_filter, 8 bytes each."""
        found = []
        for at, (code, then, otherwise, value) in enumerate(self._lines):
            distances = [0 if name is None else self._labels[name] - at - 1 for name in (then, otherwise)]
            if any(not 0 <= distance <= 255 for distance in distances):
                raise ValueError("a jump of the filter is out of reach")
            found.append(struct.pack("=HBBI", code, distances[0], distances[1], value))
        return b"".join(found)


def build(machine: str, *, trap_connect: bool = True) -> bytes:
    """Return the filter for a machine ("x86_64", "aarch64").

    Args:
        machine: Whose numbers to use.
        trap_connect: Whether connect is handed over; kernels without WAIT_KILLABLE_RECV do it harm.
    """
    calls = abi.CALLS[machine]
    trap = abi.RET_USER_NOTIF
    p = Program()
    p.load(_ARCH)
    p.jump(_JEQ, abi.AUDIT_ARCH[machine], then="ours")
    p.give(trap)
    p.label("ours")
    p.load(_NR)
    if machine == "x86_64":
        p.jump(_JGE, abi.X32_BIT, otherwise="native")
        p.give(trap)
        p.label("native")
    if trap_connect:
        _when(p, calls["connect"], "connect", Program.give, trap)
    for name in (*_EXECUTES, *_ALWAYS, "io_uring_setup"):
        _when(p, calls[name], name, Program.give, trap)
    if machine == "x86_64":
        _when(p, calls["arch_prctl"], "image", _if_argument, 0, (abi.ARCH_SET_FS,), trap)
    else:
        _when(p, calls["set_tid_address"], "image", Program.give, trap)
    for name, argument in sorted(_FLAGS_ARGUMENT.items()):
        _when(p, calls[name], name, _if_sends_with_address, argument, name == "sendto")
    for name, argument in sorted(_SIGNAL_ARGUMENT.items()):
        _when(p, calls[name], name, _if_argument, argument, _FATAL_SIGNALS, trap)
    for name, argument in sorted(_TARGET_ARGUMENT.items()):
        _when(p, calls[name], name, _unless_zero, argument)
    for name, user in sorted(_WHO_ARGUMENT.items()):
        _when(p, calls[name], name, _unless_oneself, user)
    _when(p, calls["ptrace"], "ptrace", _if_argument, 0, (abi.PTRACE_ATTACH, abi.PTRACE_SEIZE), trap)
    _when(p, calls["prctl"], "prctl", _if_hides)
    p.give(abi.RET_ALLOW)
    return p.assemble()


def _when(p: Program, number: int, name: str, body: Callable[..., None], *arguments: object) -> None:
    """Add instructions for one system call; the call's number stays loaded for what follows."""
    p.jump(_JEQ, number, otherwise="after " + name)
    body(p, *arguments)
    p.label("after " + name)


def _low(argument: int) -> int:
    return _ARGS + 8 * argument


def _if_argument(p: Program, argument: int, values: tuple[int, ...], action: int) -> None:
    p.load(_low(argument))
    for value in values:
        label = "is %d at %d" % (value, len(p._lines))
        p.jump(_JEQ, value, otherwise=label)
        p.give(action)
        p.label(label)
    p.give(abi.RET_ALLOW)


def _unless_zero(p: Program, argument: int) -> None:
    p.load(_low(argument))
    label = "zero at %d" % len(p._lines)
    p.jump(_JEQ, 0, then=label)
    p.give(abi.RET_USER_NOTIF)
    p.label(label)
    p.give(abi.RET_ALLOW)


def _unless_oneself(p: Program, user: int) -> None:
    """Trap unless argument 1 is 0, which means oneself, but not where argument 0 says that it means a user."""
    p.load(_low(0))
    label = "one user at %d" % len(p._lines)
    p.jump(_JEQ, user, otherwise=label)
    p.give(abi.RET_USER_NOTIF)
    p.label(label)
    _unless_zero(p, 1)


def _if_sends_with_address(p: Program, flags: int, named: bool) -> None:
    """Trap a send that connects by itself, and one that names its receiver in a register."""
    p.load(_low(flags))
    label = "no fast open at %d" % len(p._lines)
    p.jump(_JSET, abi.MSG_FASTOPEN, otherwise=label)
    p.give(abi.RET_USER_NOTIF)
    p.label(label)
    if named:
        for half in (_low(4), _low(4) + 4):
            p.load(half)
            label = "empty half at %d" % len(p._lines)
            p.jump(_JEQ, 0, then=label)
            p.give(abi.RET_USER_NOTIF)
            p.label(label)
    p.give(abi.RET_ALLOW)


def _if_hides(p: Program) -> None:
    """Trap prctl(PR_SET_DUMPABLE, 0): the process becomes unreadable."""
    p.load(_low(0))
    p.jump(_JEQ, abi.PR_SET_DUMPABLE, then="dumpable")
    p.give(abi.RET_ALLOW)
    p.label("dumpable")
    _if_argument(p, 1, (0,), abi.RET_USER_NOTIF)
