"""What the guard tells the agent, as bytes: one format for who writes (supervisor, holder) and the agent that reads.

Texts are the bytes that the kernel or the caller gave; nothing here interprets them.
"""

from __future__ import annotations

import struct
from typing import List, NamedTuple, Sequence, Tuple

CONNECT, ATTEMPT, IMAGE, CALL, NAME, HIDDEN, NOTICE, FORK = range(1, 9)
"""Kinds of records."""
HELD, UNREADABLE, PRIVILEGED = 1, 2, 4
"""Flags of an image: its caller waits for the agent; it may not be looked into; its file would give it rights."""
BY_CALL, BY_DATAGRAM, BY_FAST_OPEN = 0, 1, 2
"""How a connection was asked for."""
_WHO = struct.Struct("=QIIQQ")
_CONNECT = struct.Struct("=QIHH")
_WHOLE_CONNECT = struct.Struct("=QIIQQQIHH")
_IMAGE = struct.Struct("=IQIIiI")
_COUNT, _LENGTH = struct.Struct("=I"), struct.Struct("=I")


class Who(NamedTuple):
    """Who called, when."""

    at: int
    """Milliseconds since the epoch."""
    tid: int
    pid: int
    start: int
    """Start of the process in clock ticks since boot; 0 where it was gone before it could be read."""
    call: int
    """The call's id at its listener; 0 where the record is about no call."""


class Connect(NamedTuple):
    """A socket address that a call named."""

    who: Who
    inode: int
    """The socket, 0 where it could not be read."""
    descriptor: int
    way: int
    claim: bytes
    """struct sockaddr as the caller had it; empty where its memory may not be read."""


class Image(NamedTuple):
    """What runs in a process since its last execve."""

    who: Who
    parent: int
    parent_start: int
    session: int
    terminal: int
    uid: int
    flags: int
    name: bytes
    exe: bytes
    cwd: bytes
    streams: Tuple[bytes, bytes, bytes]
    preloads: bytes
    attempted: bytes
    """The path that execve was asked for, for example of a script or of an unreadable file."""
    argv: bytes


def _texts(texts: Sequence[bytes]) -> bytes:
    lengths = b"".join([_LENGTH.pack(len(text)) for text in texts])
    return _COUNT.pack(len(texts)) + lengths + b"".join(texts)


def _split(data: bytes, offset: int) -> List[bytes]:
    count = _COUNT.unpack_from(data, offset)[0]
    offset += _COUNT.size
    lengths = struct.unpack_from("=%dI" % count, data, offset)
    offset += _LENGTH.size * count
    found = []
    for length in lengths:
        found.append(data[offset : offset + length])
        offset += length
    return found


def connect(
    at: int, tid: int, pid: int, start: int, call: int, inode: int, descriptor: int, way: int, claim: bytes
) -> bytes:
    """Return a CONNECT record; the members of `Who` and `Connect` one by one, because this is the busiest path."""
    return _WHOLE_CONNECT.pack(at, tid, pid, start, call, inode, descriptor, way, len(claim)) + claim


def read_connect(data: bytes) -> Connect:
    """Return the content of a CONNECT record."""
    inode, descriptor, way, length = _CONNECT.unpack_from(data, _WHO.size)
    start = _WHO.size + _CONNECT.size
    return Connect(read_who(data), inode, descriptor, way, data[start : start + length])


def read_who(data: bytes) -> Who:
    """Return who a record is about; every kind begins with it."""
    return Who(*_WHO.unpack_from(data))


def told(who: Who, *texts: bytes) -> bytes:
    """Return a record of who and some texts.

    ATTEMPT (path, streams), CALL (name, refused, key, value ...), FORK (parent, start), NAME (what was asked for) ...
    """
    return _WHO.pack(*who) + _texts(texts)


def read_told(data: bytes) -> Tuple[Who, List[bytes]]:
    """Return the content of such a record."""
    return read_who(data), _split(data, _WHO.size)


def image(value: Image) -> bytes:
    """Return an IMAGE record."""
    numbers = _IMAGE.pack(
        value.parent, value.parent_start, value.session, value.terminal & 0xFFFFFFFF, value.uid, value.flags
    )
    texts = (value.name, value.exe, value.cwd, *value.streams, value.preloads, value.attempted, value.argv)
    return _WHO.pack(*value.who) + numbers + _texts(texts)


def read_image(data: bytes) -> Image:
    """Return the content of an IMAGE record."""
    numbers = _IMAGE.unpack_from(data, _WHO.size)
    name, exe, cwd, zero, one, two, preloads, attempted, argv = _split(data, _WHO.size + _IMAGE.size)
    texts = (name, exe, cwd, (zero, one, two), preloads, attempted, argv)
    return Image._make((read_who(data), *numbers, *texts))
