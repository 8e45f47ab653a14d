"""The page that holder and supervisor share: what is being answered right now, a slot for each answering thread.

A slot is written by the kernel (the call), then by the supervisor (evidence, "answered"), and emptied once the agent
has been told. So whoever looks at it knows what is owed: an answer to the caller, or word to the agent.
"""

from __future__ import annotations

import ctypes
import mmap

from nbsentinel_guard import abi
from nbsentinel_guard.seccomp import Notification

COUNT = 512
"""Listeners at once; more are held and answered without being told of."""
LANES = 2
"""Threads, and slots, for each listener: one is always back in RECV while the other looks at what it has answered. A
call that nobody has received yet can be interrupted by a signal, and callers mistake that for success."""
CLAIM_SIZE = 128


class Slot(ctypes.Structure):
    """One thread's present call."""

    _fields_ = [
        ("call", Notification),
        ("progress", ctypes.c_uint64),
        ("answered", ctypes.c_uint32),
        ("claim_length", ctypes.c_uint32),
        ("claim", ctypes.c_ubyte * CLAIM_SIZE),
    ]

    def clear(self) -> None:
        """Make room for the next call: the kernel wants zeros."""
        self.answered = 0
        self.claim_length = 0
        ctypes.memset(ctypes.addressof(self.call), 0, abi.NOTIF_SIZE)

    def claim_bytes(self) -> bytes:
        """Return the copy of the memory that the call pointed to."""
        return bytes(self.claim[: self.claim_length])


class Page:
    """Shared memory for all slots; children of this process see the same."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, ctypes.sizeof(Slot) * COUNT * LANES)
        self._slots = (Slot * (COUNT * LANES)).from_buffer(self._memory)

    def slots_of(self, index: int) -> list[Slot]:
        """Return the slots of one listener."""
        return [self._slots[index * LANES + lane] for lane in range(LANES)]
