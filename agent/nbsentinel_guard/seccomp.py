"""Installing a filter and answering its listener, through ctypes: every call goes straight to the kernel."""

from __future__ import annotations

import ctypes
import errno
import os

from nbsentinel_guard import abi

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_ioctl = _libc.ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


class Data(ctypes.Structure):
    """struct seccomp_data."""

    _fields_ = [
        ("nr", ctypes.c_int),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
    ]


class Notification(ctypes.Structure):
    """struct seccomp_notif."""

    _fields_ = [("id", ctypes.c_uint64), ("pid", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("data", Data)]


class Response(ctypes.Structure):
    """struct seccomp_notif_resp."""

    _fields_ = [
        ("id", ctypes.c_uint64),
        ("val", ctypes.c_int64),
        ("error", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
    ]


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def install(program: bytes, flags: int) -> int:
    """Put a filter on this process and return the listener's descriptor (close-on-exec).

    Raises:
        OSError: EBUSY where a listener is in force already, EINVAL where the kernel does not know a flag.
    """
    if _libc.prctl(abi.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs is refused")
    buffer = ctypes.create_string_buffer(program, len(program))
    argument = _FilterProgram(len(program) // 8, ctypes.addressof(buffer))
    calls = abi.calls()
    found = _libc.syscall(
        ctypes.c_long(calls["seccomp"]),
        ctypes.c_uint(abi.SECCOMP_SET_MODE_FILTER),
        ctypes.c_uint(flags),
        ctypes.byref(argument),
    )
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(found)


def forbid_dumps() -> bool:
    """Make this process unreadable for others of the same user; an execve undoes it."""
    return bool(_libc.prctl(abi.PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)


def wake_on_this_core(listener: int) -> bool:
    """Ask for the synchronous wake-up (kernel 6.6); return whether the kernel has it."""
    return bool(_ioctl(listener, abi.NOTIF_SET_FLAGS, abi.SYNC_WAKE_UP) == 0)


def receive(listener: int, address: int) -> int:
    """Wait for a call and write it to an address whose 80 bytes are zero; return 0 or an errno."""
    return 0 if _ioctl(listener, abi.NOTIF_RECV, address) == 0 else ctypes.get_errno()


def send(listener: int, response: Response) -> int:
    """Answer a call; return 0 or an errno (ENOENT: the caller is gone, or somebody has answered)."""
    return 0 if _ioctl(listener, abi.NOTIF_SEND, ctypes.addressof(response)) == 0 else ctypes.get_errno()


def let_go(listener: int, identity: int) -> bool:
    """Let a call proceed; return whether it was this answer that did it."""
    return send(listener, Response(identity, 0, 0, abi.CONTINUE)) == 0


def is_waiting(listener: int, identity: int) -> bool:
    """Return whether the caller still waits."""
    value = ctypes.c_uint64(identity)
    return bool(_ioctl(listener, abi.NOTIF_ID_VALID, ctypes.addressof(value)) == 0)


def answer_forever(listener: int) -> None:
    """Let everything proceed until the last guarded process is gone; for whoever is left alone with a listener."""
    import select

    poll = select.poll()
    poll.register(listener, select.POLLIN)
    notification = Notification()
    while True:
        for _, events in poll.poll():
            if events & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                return
        ctypes.memset(ctypes.addressof(notification), 0, abi.NOTIF_SIZE)
        if receive(listener, ctypes.addressof(notification)) in (0, errno.EINTR) and notification.id:
            let_go(listener, notification.id)
