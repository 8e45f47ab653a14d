"""A process that exists to be read: tells when somebody has looked at its environment.

Its environment lies in a mapping of its own (PR_SET_MM_MAP needs no privilege), which nothing of it touches. When
another process reads /proc/PID/environ the kernel marks that page as referenced. Names nobody: whoever swept all
environments lived since the last look. It looks once a second, and whenever it is asked to.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import signal
import struct
import time
from typing import NoReturn

from nbsentinel_guard import proc, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

LOOK_S = 1.0
ACTIVATIONS = 128
"""How often to try at most: each processor has a batch of its own."""
_PR_SET_PDEATHSIG, _PR_SET_MM, _PR_SET_MM_MAP, _PR_SET_DUMPABLE = 1, 35, 14, 4
_MAP = struct.Struct("=12QIi")
"""struct prctl_mm_map: code, data, heap, stack, arguments, environment; auxiliary vector and file stay as they are."""
_KEPT = (b"PATH", b"HOME", b"USER", b"LANG", b"SHELL", b"LOGNAME")


class Decoy:
    """The page that its environment is on.

    Raises:
        OSError: The kernel does not let it move, or does not tell.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.sbrk.restype = ctypes.c_void_p
        # What a process of this user has; nothing of value.
        shown = b"".join(b"%s=%s\0" % (name, os.environb[name]) for name in _KEPT if name in os.environb)
        shown = (shown or b"PATH=/usr/bin:/bin\0")[: mmap.PAGESIZE]
        self._memory = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory[: len(shown)] = shown
        self._at = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        place = proc.stat_fields(os.getpid())
        if place is None or len(place[1]) < 49:
            raise OSError("no stat")
        code, end, stack, data, data_end, heap, arguments, arguments_end = (
            int(place[1][number - 3]) for number in (26, 27, 28, 45, 46, 47, 48, 49)
        )
        places = (code, end, data, data_end, heap, libc.sbrk(0), stack, arguments, arguments_end)
        packed = _MAP.pack(*places, self._at, self._at + len(shown), 0, 0, -1)
        buffer = ctypes.create_string_buffer(packed, len(packed))
        size = ctypes.c_ulong(len(packed))
        if libc.prctl(_PR_SET_MM, ctypes.c_ulong(_PR_SET_MM_MAP), ctypes.byref(buffer), size, ctypes.c_ulong(0)):
            raise OSError(ctypes.get_errno(), "PR_SET_MM_MAP: " + os.strerror(ctypes.get_errno()))
        self.forget()

    def forget(self) -> None:
        """Begin anew: nobody has read it."""
        # Of an inactive page a second read takes the mark of the first away (folio_mark_accessed). Reads of ours make
        # it active, once a processor's batch of such pages is full: 15 or 31 of them.
        for _ in range(ACTIVATIONS):
            self._clear()
            self._read_twice()
            if self.was_read():
                break
        self._clear()

    @staticmethod
    def _clear() -> None:
        with open("/proc/self/clear_refs", "wb", buffering=0) as file:
            file.write(b"1")

    @staticmethod
    def _read_twice() -> None:
        for _ in range(2):
            with open("/proc/self/environ", "rb", buffering=0) as file:
                file.read(1)

    def was_read(self) -> bool:
        """Return whether somebody has read the environment since the last `forget`."""
        start = b"%x-" % self._at
        inside = False
        with open("/proc/self/smaps", "rb") as file:
            for line in file:
                if line.startswith(start):
                    inside = True
                elif inside and line.startswith(b"Referenced:"):
                    return int(line.split()[1]) > 0
        raise OSError("the mapping is not listed")


def main(connection: socket.socket, parent: int) -> NoReturn:
    """Run as the holder's child; never returns. Tells the agent `read MS` each time, and `failed` with a reason.

    MS is the time since the look before, in milliseconds.
    """
    try:
        seccomp.ignore_signals()
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # its environment must be readable; it has nothing else
        try:
            _watch(connection, Decoy(), parent)
        except OSError as error:
            connection.send(b"failed " + (error.strerror or str(error)).encode())
    finally:
        os._exit(0)


def _watch(connection: socket.socket, decoy: Decoy, parent: int) -> None:
    connection.send(b"ok %d" % os.getpid())
    looked = time.monotonic()
    while os.getppid() == parent:
        if select.select([connection], [], [], LOOK_S)[0] and not connection.recv(16):
            return
        if decoy.was_read():
            decoy.forget()
            connection.send(b"read %d" % (1000 * (time.monotonic() - looked)))
        looked = time.monotonic()
