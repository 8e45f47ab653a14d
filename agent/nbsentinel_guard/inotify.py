"""inotify through ctypes: what both the agent's sensors and the lessor need of it, and nothing else."""

from __future__ import annotations

import ctypes
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Tuple

    Event = Tuple[int, int, bytes]

ACCESS, MODIFY, ATTRIB, CLOSE_WRITE, CLOSE_NOWRITE, OPEN = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x40, 0x80, 0x100, 0x200, 0x400, 0x800
OVERFLOW, IGNORED, ONLY_FOLDER, IS_FOLDER = 0x4000, 0x8000, 0x1000000, 0x40000000
"""See inotify(7)."""
_HEAD = struct.Struct("=iIII")
_READ = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """One instance, with a queue of its own in the kernel: a flood of events elsewhere does not overflow it.

    Raises:
        OSError: There is none to be had.
    """

    def __init__(self) -> None:
        self.descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify: " + os.strerror(ctypes.get_errno()))

    def add(self, path: bytes, mask: int) -> int:
        """Watch a path and return the watch's number; the same inode under another path has the same number.

        Raises:
            OSError: It is not there, may not be read, or there are too many watches (ENOSPC).
        """
        number: int = _libc.inotify_add_watch(self.descriptor, path, ctypes.c_uint32(mask))
        if number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return number

    def remove(self, number: int) -> None:
        """Forget a watch; one that the kernel has removed already is no mistake."""
        _libc.inotify_rm_watch(self.descriptor, number)

    def read(self) -> List[Event]:
        """Return what waits, as (watch, mask, name) in order, without blocking."""
        try:
            data = os.read(self.descriptor, _READ)
        except BlockingIOError:
            return []
        found: List[Event] = []
        at = 0
        while at < len(data):
            number, mask, _, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            found.append((number, mask, data[at : at + length].rstrip(b"\0")))
            at += length
        return found

    def close(self) -> None:
        """Let go of everything."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
