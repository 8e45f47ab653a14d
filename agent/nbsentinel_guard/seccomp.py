"""Installing a filter and answering its listener, through ctypes: every call goes straight to the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import select

from nbsentinel_guard import abi

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_ioctl = _libc.ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


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


def let_read(pid: int) -> bool:
    """Let a process and those below it read our memory; return whether that makes a difference.

    Where Yama restricts that to ancestors, the guard would otherwise not see which address we connect to. It survives
    an execve and is not passed on to children (Documentation/admin-guide/LSM/Yama.rst).
    """
    return bool(_libc.prctl(abi.PR_SET_PTRACER, pid, 0, 0, 0) == 0)


def forbid_dumps() -> bool:
    """Make this process unreadable for others of the same user, so that nobody traces it or takes its descriptors.

    From then on even we cannot read our own environ or io under /proc. An execve undoes it.
    """
    return bool(_libc.prctl(abi.PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)


def ignore_signals(but: tuple[int, ...] = ()) -> None:
    """Ignore every signal that would end or stop this process and can be ignored, but those that it handles."""
    import signal

    needed = {signal.SIGCHLD, signal.SIGCONT, signal.SIGKILL, signal.SIGSTOP, *but}
    for number in set(range(1, signal.NSIG)) - needed:
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass  # a number that the C library keeps for itself


def be_hard_to_meddle_with() -> None:
    """Leave nobody of the same user more than SIGKILL and SIGSTOP."""
    forbid_dumps()
    ignore_signals()


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


PATIENCE_MS = 600_000
"""How long whoever is left alone with a listener goes on when nothing asks."""


class Answer:
    """Answers the calls of one listener again and again, with one buffer: struct seccomp_notif_resp."""

    def __init__(self, listener: int) -> None:
        self._listener = listener
        self._buffer = bytearray(abi.RESPONSE_SIZE)
        self._words = memoryview(self._buffer).cast("Q")
        self._address = ctypes.addressof((ctypes.c_char * abi.RESPONSE_SIZE).from_buffer(self._buffer))

    def __call__(self, identity: int, error: int = 0) -> int:
        """Let a call proceed, or refuse it with an errno; return 0, or an errno as `send` does."""
        words = self._words
        words[0] = identity
        words[2] = (-error & 0xFFFFFFFF) if error else abi.CONTINUE << 32
        return 0 if _ioctl(self._listener, abi.NOTIF_SEND, self._address) == 0 else ctypes.get_errno()


def is_over(events: int) -> bool:
    """Return whether a listener's poll events say that its last process is gone.

    POLLERR does not: the kernel gives it where a signal interrupted its look (seccomp_notify_poll in kernel/seccomp.c).
    """
    return bool(events & (select.POLLHUP | select.POLLNVAL))


def is_listener(descriptor: int) -> bool:
    """Return whether a descriptor is the listener of a filter: others do not know its calls."""
    value = ctypes.c_uint64(0)
    found = _ioctl(descriptor, abi.NOTIF_ID_VALID, ctypes.addressof(value))
    return bool(found == 0 or ctypes.get_errno() == errno.ENOENT)


def is_waiting(listener: int, identity: int) -> bool:
    """Return whether the caller still waits."""
    value = ctypes.c_uint64(identity)
    return bool(_ioctl(listener, abi.NOTIF_ID_VALID, ctypes.addressof(value)) == 0)


def answer_forever(listener: int, parent: int = 0) -> None:
    """Answer by default until the last guarded process is gone; for whoever is left alone with a listener.

    Args:
        listener: The listener.
        parent: Where we are guarded ourselves, so that the listener never hangs up: our parent; some time after its
            end, when nothing asks any more, we end too.
    """
    import struct

    from nbsentinel_guard.policy import default_error

    poll = select.poll()
    poll.register(listener, select.POLLIN)
    buffer = ctypes.create_string_buffer(abi.NOTIF_SIZE)
    response = Response(0, 0, 0, 0)
    while True:
        ready = poll.poll(PATIENCE_MS if parent else None)
        if not ready and os.getppid() != parent:
            return
        for _, events in ready:
            if is_over(events):
                return
        if not ready:
            continue
        ctypes.memset(buffer, 0, abi.NOTIF_SIZE)
        if receive(listener, ctypes.addressof(buffer)):
            continue
        response.id, _, number, architecture = struct.unpack_from("=QQII", buffer)
        error = default_error(architecture, number)
        response.error, response.flags = -error, 0 if error else abi.CONTINUE
        send(listener, response)
