"""What the guard refuses: whatever would stop, starve or blind one of ours, and ways around the filter. Pure.

Everything here is decided on registers, which cannot change under us; what a number stands for is looked up by the
functions that are passed in.
"""

from __future__ import annotations

import errno

from nbsentinel_guard import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, FrozenSet, List

SIGNALS = {"kill": 0, "tkill": 0, "tgkill": 0, "pidfd_send_signal": 0}
TARGETS = {
    "prlimit64": 0,
    "sched_setparam": 0,
    "sched_setscheduler": 0,
    "sched_setaffinity": 0,
    "sched_setattr": 0,
    "ptrace": 1,
    "process_vm_readv": 0,
    "process_vm_writev": 0,
}
"""Calls with the argument that names the process or thread they are about."""
WHO = {"setpriority": abi.PRIO_USER, "ioprio_set": abi.IOPRIO_WHO_USER}
EVERYBODY = -1


def signed(value: int) -> int:
    """Return the low 32 bits of a register as the kernel takes an int."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


class Policy:
    """Judges calls.

    Args:
        leader_of: Returns the process of a thread.
        group_of: Returns the process group of a process, 0 where it is gone.
        of_descriptor: Returns the process behind a pidfd of a thread, 0 for none.
        uid: The user that all of ours run as.
    """

    def __init__(
        self,
        leader_of: Callable[[int], int],
        group_of: Callable[[int], int],
        of_descriptor: Callable[[int, int], int],
        uid: int,
    ) -> None:
        self._leader_of, self._group_of, self._of_descriptor, self._uid = leader_of, group_of, of_descriptor, uid
        self._names: Dict[int, str] = {number: name for name, number in abi.calls().items()}

    def target(self, tid: int, number: int, arguments: List[int], protected: FrozenSet[int]) -> int:
        """Return the process of ours that a call is aimed at, EVERYBODY where it is among many, 0 for none."""
        name = self._names.get(number, "")
        if name == "pidfd_send_signal":
            return self._one(self._of_descriptor(tid, signed(arguments[0])), protected)
        if name == "pidfd_getfd":
            return self._one(self._of_descriptor(tid, signed(arguments[0])), protected)
        if name in SIGNALS:
            return self._signalled(tid, signed(arguments[0]), protected)
        if name in WHO:
            return self._prioritised(tid, name, signed(arguments[0]), signed(arguments[1]), protected)
        if name == "prlimit64" and not arguments[2]:
            return 0  # it only reads
        if name in TARGETS:
            return self._one(signed(arguments[TARGETS[name]]), protected)
        return 0

    def _one(self, number: int, protected: FrozenSet[int]) -> int:
        if number <= 0:
            return 0
        if number in protected:
            return number
        leader = self._leader_of(number)
        return leader if leader in protected else 0

    def _signalled(self, tid: int, number: int, protected: FrozenSet[int]) -> int:
        if number == -1:
            return EVERYBODY
        if number > 0:
            return self._one(number, protected)
        return self._grouped(self._group_of(tid) if number == 0 else -number, protected)

    def _grouped(self, group: int, protected: FrozenSet[int]) -> int:
        return EVERYBODY if group and any(self._group_of(pid) == group for pid in protected) else 0

    def _prioritised(self, tid: int, name: str, which: int, who: int, protected: FrozenSet[int]) -> int:
        kind = which - (WHO[name] - 2)  # 0: process, 1: group, 2: user, in both calls
        if kind == 2:
            return EVERYBODY if who in (0, self._uid) else 0
        if kind == 1:
            return self._grouped(self._group_of(tid) if who == 0 else who, protected)
        return self._one(who, protected)


def is_foreign(architecture: int, number: int) -> bool:
    """Return whether a call uses another architecture's numbers (32-bit, x32): its arguments cannot be judged."""
    machine = abi.machine()
    if machine is None or architecture != abi.AUDIT_ARCH[machine]:
        return True
    return machine == "x86_64" and number & 0xFFFFFFFF >= abi.X32_BIT


def default_error(architecture: int, number: int) -> int:
    """Return the errno for a call that nobody could look at in time; 0 lets it proceed."""
    if is_foreign(architecture, number) or number == abi.calls()["io_uring_setup"]:
        return errno.ENOSYS
    return 0
