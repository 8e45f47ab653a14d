"""What the kernel allows a process: limits, priority, scheduler, processors.

Standard library alone and without `typing`, because the keeper uses it and has to stay small. Processes of one user may
change all of this for each other: `prlimit`, `renice`, `taskset`, `chrt` and `ionice` ask for nothing but the same uid.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterable

Standing = dict[str, tuple[int, ...]]
"""Values by name, for example `{"RLIMIT_NOFILE": (1024, 4096), "nice": (0,)}`; more than one where threads differ."""

LIMITS = {
    name: number
    for name, number in sorted(vars(resource).items())
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"  # the old name of RLIMIT_NOFILE
}
_IOPRIO = {"x86_64": (251, 252), "aarch64": (30, 31)}
"""Numbers of ioprio_set and ioprio_get; libc has no name for them."""
_CLASS_SHIFT = 13
_libc = ctypes.CDLL(None, use_errno=True)


def read(pid: int, threads: Iterable[int] = ()) -> Standing:
    """Return what a process is allowed now; what cannot be asked is left out.

    Args:
        pid: The process.
        threads: Its threads as well: priority, scheduler and processors belong to each of them.
    """
    found: Standing = {}
    for name, number in LIMITS.items():
        with contextlib.suppress(OSError, ValueError):
            found[name] = resource.prlimit(pid, number)
    every = {pid, *threads}
    for name, ask in _PER_THREAD.items():
        values: set[tuple[int, ...]] = set()
        for thread in every:
            with contextlib.suppress(OSError):  # the thread is gone
                values.add(ask(thread))
        if values:
            # All alike is the usual case; else the odd ones are listed one behind the other.
            found[name] = tuple(number for value in sorted(values) for number in value)
    return found


def mend(pid: int, wanted: Standing, threads: Iterable[int] = ()) -> None:
    """Put back what an unprivileged process can put back: soft limits, processors, scheduler; the rest stays."""
    for name, number in LIMITS.items():
        if name in wanted:
            _set_limit(pid, number, wanted[name])
    for thread in {pid, *threads}:
        for name, restore in _RESTORE.items():
            if name in wanted:
                with contextlib.suppress(OSError):
                    restore(thread, wanted[name])


def differences(before: Standing, now: Standing) -> list[str]:
    """Return what changed, in words for the operator; pure."""
    return [f"{name} was {_words(before[name])}, is {_words(now[name])}" for name in changed(before, now)]


def changed(before: Standing, now: Standing) -> list[str]:
    """Return the names of what is in both and not the same; pure."""
    return [name for name in before if name in now and before[name] != now[name]]


def _words(value: tuple[int, ...]) -> str:
    return ":".join("unlimited" if number == resource.RLIM_INFINITY else str(number) for number in value)


def _set_limit(pid: int, number: int, wanted: tuple[int, ...]) -> None:
    with contextlib.suppress(OSError, ValueError):
        now = resource.prlimit(pid, number)
        if now == wanted:
            return
        resource.prlimit(pid, number, (_lower(wanted[0], now[1]), now[1]))
        resource.prlimit(pid, number, (wanted[0], wanted[1]))  # a hard limit only goes up again for root


def _lower(first: int, second: int) -> int:
    if resource.RLIM_INFINITY in (first, second):
        return first if second == resource.RLIM_INFINITY else second
    return min(first, second)


def _libc_call(number: int, *arguments: int) -> int:
    answer: int = _libc.syscall(number, *arguments)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def _io_priority(thread: int) -> tuple[int, ...]:
    numbers = _IOPRIO.get(os.uname().machine)
    if numbers is None:
        raise OSError
    value = _libc_call(numbers[1], 1, thread)
    # Without a class the level says nothing, and kernels differ in what they show there.
    return (value,) if value >> _CLASS_SHIFT else (0,)


def _set_io_priority(thread: int, value: tuple[int, ...]) -> None:
    numbers = _IOPRIO.get(os.uname().machine)
    if numbers is not None and _io_priority(thread) != value[:1]:
        _libc_call(numbers[0], 1, thread, value[0])


def _set_scheduler(thread: int, value: tuple[int, ...]) -> None:
    if os.sched_getscheduler(thread) != value[0]:
        os.sched_setscheduler(thread, value[0], os.sched_param(0))


def _set_nice(thread: int, value: tuple[int, ...]) -> None:
    if os.getpriority(os.PRIO_PROCESS, thread) != value[0]:
        os.setpriority(os.PRIO_PROCESS, thread, value[0])


def _set_processors(thread: int, value: tuple[int, ...]) -> None:
    if os.sched_getaffinity(thread) != set(value):
        os.sched_setaffinity(thread, value)


_PER_THREAD = {
    "scheduler": lambda thread: (os.sched_getscheduler(thread),),
    "nice": lambda thread: (os.getpriority(os.PRIO_PROCESS, thread),),
    "processors": lambda thread: tuple(sorted(os.sched_getaffinity(thread))),
    "ioprio": _io_priority,
}
_RESTORE = {
    "scheduler": _set_scheduler,
    "nice": _set_nice,
    "processors": _set_processors,
    "ioprio": _set_io_priority,
}
