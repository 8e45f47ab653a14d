"""The memory that holder, supervisor and agent share: what is being answered right now, and what the agent is told.

It lives in a memfd and outlives each of them. A slot belongs to one answering thread: the kernel writes the call into
it, the thread adds its evidence and marks how far it came, so whoever looks at it knows what is owed: an answer to the
caller, or word to the agent. The rings carry that word, one for each process that writes.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import threading
import time

from nbsentinel_guard import abi
from nbsentinel_guard.standdown import WORDS, StandDown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, List, Tuple

COUNT = 256
"""Listeners at once; the launchers of more are refused, say so and keep their own."""
LANES = 2
"""Threads, and slots, for each listener: one is always back in RECV while the other looks at what it has answered. A
call that nobody has received yet can be interrupted by a signal, and callers mistake that for success."""
CLAIM_SIZE = 128
HOLDS = 64
"""Images that may wait for the agent's verdict at once."""
SLOW_S = 0.005
"""Longest time that a caller is slowed before its record is dropped."""
AWAKE, DOZING, ASLEEP = range(3)
"""How a reader waits. One that is woken for every record costs its writer more than the record does."""
_RING_SIZES = (4 << 20, 1 << 20, 1 << 18)
SUPERVISOR, HOLDER, AGENT = range(3)
"""Which ring is whose; the agent writes one where it answers in place of all others."""
_VERSION = 4
"""Of the layout: another one is not read."""
_SLOT_SIZE, _HOLD_SIZE, _RING_HEAD = 256, 32, 64
_HEADER = 4096
_SLOTS_AT = _HEADER
_CARE_AT = _SLOTS_AT + COUNT * LANES * _SLOT_SIZE
_HOLDS_AT = _CARE_AT + len(_RING_SIZES) * _SLOT_SIZE
_RINGS_AT = _HOLDS_AT + HOLDS * _HOLD_SIZE
SIZE = _RINGS_AT + sum(_RING_HEAD + size for size in _RING_SIZES)
_RECORD = struct.Struct("=IHH")
_SKIP = 0
_NO_HOLDS = bytes(HOLDS * _HOLD_SIZE)
RECORD_LIMIT = 1 << 17
PROTECTED = 8
"""Places for processes of ours, by role: holder, supervisor, agent, keeper, lessor, decoy, and two more."""
_STAND_DOWN_AT = 32


class Slot:
    """One thread's present call; every member is a view of the shared memory.

    Layout: struct seccomp_notif (80 bytes), progress, state, claim length (8 each), claim (128), listener (8).
    """

    __slots__ = ("_listener", "address", "claim", "claim_address", "words")

    IDLE, ANSWERED, TOLD = 0, 1, 2

    def __init__(self, memory: memoryview, base: int, offset: int) -> None:
        self.address = base + offset
        self.words = memory[offset : offset + 104].cast("Q")
        self.claim = memory[offset + 104 : offset + 104 + CLAIM_SIZE]
        self.claim_address = self.address + 104
        self._listener = memory[offset + 232 : offset + 240].cast("Q")

    @property
    def identity(self) -> int:
        """The call's id; 0 while there is none."""
        return self.words[0]

    @property
    def listener(self) -> int:
        """The listener's place, where a slot serves them all."""
        return self._listener[0]

    @listener.setter
    def listener(self, index: int) -> None:
        self._listener[0] = index

    @property
    def tid(self) -> int:
        """The calling thread."""
        return self.words[1] & 0xFFFFFFFF

    @property
    def number(self) -> int:
        """The system call's number."""
        return self.words[2] & 0xFFFFFFFF

    @property
    def architecture(self) -> int:
        """The AUDIT_ARCH of the call."""
        return self.words[2] >> 32

    def argument(self, index: int) -> int:
        """Return an argument of the call, 64 bits."""
        return self.words[4 + index]

    def copy_call(self) -> List[int]:
        """Return the words of the call: id, thread, number and architecture, instruction, six arguments."""
        return self.words[:10].tolist()

    def clear(self) -> None:
        """Make room for the next call: the kernel wants zeros."""
        self.words[11] = self.words[12] = 0
        ctypes.memset(self.address, 0, abi.NOTIF_SIZE)

    @property
    def progress(self) -> int:
        """How many calls this slot's thread has taken."""
        return self.words[10]

    def claim_bytes(self) -> bytes:
        """Return the copy of the memory that the call pointed to."""
        return bytes(self.claim[: min(self.words[12], CLAIM_SIZE)])


class Ring:
    """Records from one process to the agent, in order; what does not fit is counted.

    A record counts when `head` has passed it, so a writer that dies in the middle leaves nothing half.
    """

    def __init__(self, memory: memoryview, offset: int, size: int) -> None:
        self._head = memory[offset : offset + _RING_HEAD].cast("Q")
        self._data = memory[offset + _RING_HEAD : offset + _RING_HEAD + size]
        self._size = size
        self._lock = threading.Lock()
        self.wake = -1
        """A pipe that is written to when the reader sleeps; -1 for none."""

    @property
    def dropped(self) -> int:
        """Records that did not fit since the beginning."""
        return self._head[2]

    @property
    def tail(self) -> int:
        """How far the reader has settled what it read; a new reader begins there."""
        return self._head[1]

    def put(self, kind: int, index: int, payload: bytes, *, urgent: bool = False) -> bool:
        """Add a record; where there is no room, wait a moment for the reader, then count a drop.

        Args:
            kind: See `nbsentinel_guard.records`.
            index: The listener's place.
            payload: The record.
            urgent: Wake a reader that only dozes, too.
        """
        need = (_RECORD.size + len(payload) + 7) & ~7
        with self._lock:
            if not self._has_room(need):
                deadline = time.monotonic() + SLOW_S
                while self._head[3] and not self._has_room(need) and time.monotonic() < deadline:
                    time.sleep(0.0005)
                if not self._has_room(need):
                    self._head[2] += 1
                    return False
            head = self._head[0]
            at = head % self._size
            if self._size - at < need:
                if self._size - at >= _RECORD.size:
                    _RECORD.pack_into(self._data, at, self._size - at, _SKIP, 0)
                head += self._size - at
                at = 0
            _RECORD.pack_into(self._data, at, need, kind, index)
            start = at + _RECORD.size
            self._data[start : start + len(payload)] = payload
            self._head[0] = head + need
        if self._head[4] > (DOZING if not urgent else AWAKE) and self.wake >= 0:
            self._head[4] = 0
            try:
                os.write(self.wake, b"x")
            except OSError:
                pass
        return True

    def _has_room(self, need: int) -> bool:
        # Twice: a record never wraps, so the rest of the last turn may be lost to it.
        return self._size - (self._head[0] - self._head[1]) >= 2 * need

    def read(self, cursor: int, most: int = 500) -> Tuple[List[Tuple[int, int, bytes]], int]:
        """Return up to `most` records (kind, listener, payload padded to 8 bytes) from a place on, and the next."""
        found: List[Tuple[int, int, bytes]] = []
        head = self._head[0]
        while cursor < head and len(found) < most:
            at = cursor % self._size
            if self._size - at < _RECORD.size:
                cursor += self._size - at
                continue
            length, kind, index = _RECORD.unpack_from(self._data, at)
            if not _RECORD.size <= length <= self._size - at:
                return found, head  # a writer that came back from the dead: what is left cannot be told apart
            if kind != _SKIP:
                found.append((kind, index, bytes(self._data[at + _RECORD.size : at + length])))
            cursor += length
        return found, cursor

    def settle(self, cursor: int) -> None:
        """Give everything before a place free: it is recorded, and need not be read again."""
        self._head[1] = cursor

    def attend(self, *, present: bool) -> None:
        """Say whether there is a reader that can make room."""
        self._head[3] = int(present)

    def sleep(self, cursor: int, depth: int) -> bool:
        """Announce that the reader goes to sleep; return whether it may (nothing came meanwhile).

        Args:
            cursor: How far it has read.
            depth: DOZING to be woken by what is urgent alone, ASLEEP by everything.
        """
        self._head[4] = depth
        if self._head[0] == cursor:
            return True
        self._head[4] = AWAKE
        return False


class Page:
    """The whole of it.

    Args:
        descriptor: The memfd of an existing one, which is closed with the process; None makes a new one.

    Raises:
        OSError: It is of another version.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        made = descriptor is None
        if descriptor is None:
            descriptor = _make()
        elif os.fstat(descriptor).st_size != SIZE:
            raise OSError(errno.EPROTO, "the guard that runs is of another version")
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, SIZE)
        view = memoryview(self._memory)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._header = view[:_HEADER].cast("Q")
        if made:
            self._header[PROTECTED + 1] = _VERSION
        elif self._header[PROTECTED + 1] != _VERSION:
            raise OSError(errno.EPROTO, "the guard that runs is of another version")
        self.stand_down = StandDown(self._header[_STAND_DOWN_AT : _STAND_DOWN_AT + WORDS])
        self.slots = [Slot(view, base, _SLOTS_AT + number * _SLOT_SIZE) for number in range(COUNT * LANES)]
        self.care_slots = [Slot(view, base, _CARE_AT + number * _SLOT_SIZE) for number in range(len(_RING_SIZES))]
        """For calls that holder and agent take in somebody's place, by ring; see `Slot.listener`."""
        self._holds = view[_HOLDS_AT : _HOLDS_AT + HOLDS * _HOLD_SIZE].cast("Q")
        self._hold_bytes = view[_HOLDS_AT : _HOLDS_AT + HOLDS * _HOLD_SIZE]
        self._hold_lock = threading.Lock()
        self.rouser = -1
        """A pipe that ends the holder's rest; -1 for none."""
        self.held = threading.Event()
        """Set by `hold`, for whoever ends the waiting in this process."""
        offset, rings = _RINGS_AT, []
        for size in _RING_SIZES:
            rings.append(Ring(view, offset, size))
            offset += _RING_HEAD + size
        self.rings = tuple(rings)

    def slots_of(self, index: int) -> List[Slot]:
        """Return the slots of one listener."""
        return self.slots[index * LANES : (index + 1) * LANES]

    # Who is who

    def introduce(self, role: int, pid: int) -> None:
        """Write down the process of a role; 0 for none. See `PROTECTED`."""
        self._header[role] = pid

    def who(self, role: int) -> int:
        """Return the process of a role, 0 for none."""
        return self._header[role]

    def protected(self) -> frozenset[int]:
        """Return the processes that nothing guarded may stop or starve."""
        return frozenset(self._header[:PROTECTED].tolist()) - {0}

    def beat(self) -> None:
        """Say that the holder looks after callers."""
        self._header[PROTECTED] = time.monotonic_ns()

    def last_beat(self) -> float:
        """Return when the holder last said so, in seconds of the monotonic clock."""
        return self._header[PROTECTED] / 1e9

    def rest(self) -> None:
        """Say that the holder looks no more until it is roused: nothing is being answered."""
        self._header[PROTECTED + 2] = 1

    @property
    def is_resting(self) -> bool:
        """Whether the holder rests; whoever takes a call rouses it first."""
        return self._header[PROTECTED + 2] != 0

    def wake(self) -> None:
        """Say that the holder looks again."""
        self.beat()
        self._header[PROTECTED + 2] = 0

    def rouse(self) -> None:
        """End the holder's rest; from here on it is silent if it does not say that it looks."""
        self.wake()
        if self.rouser >= 0:
            try:
                os.write(self.rouser, b"x")
            except OSError:
                pass

    # Images that wait for a verdict

    def hold(self, index: int, identity: int) -> bool:
        """Note that a call waits for the agent; return False where too many do."""
        with self._hold_lock:
            for at in range(0, HOLDS * 4, 4):
                if not self._holds[at + 1]:
                    self._holds[at], self._holds[at + 2] = index, time.monotonic_ns()
                    self._holds[at + 1] = identity
                    self.held.set()
                    return True
        return False

    def holds(self) -> Iterator[Tuple[int, int, int, float]]:
        """Yield (place, listener, call, since) of each that waits; since in seconds of the monotonic clock."""
        for place, at in enumerate(range(0, HOLDS * 4, 4)):
            identity = self._holds[at + 1]
            if identity:
                yield place, self._holds[at], identity, self._holds[at + 2] / 1e9

    def holds_any(self) -> bool:
        """Return whether anything waits; cheaper than to look at each."""
        return self._hold_bytes != _NO_HOLDS

    def release(self, place: int) -> None:
        """Forget one that waited."""
        at = place * 4
        self._holds[at + 1] = self._holds[at] = self._holds[at + 2] = 0


def _make() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.syscall(abi.calls()["memfd_create"], b"nbsentinel", 1))  # MFD_CLOEXEC
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "memfd_create is refused")
    os.ftruncate(descriptor, SIZE)
    return descriptor
