"""The canonical form of an event: RFC 8785 (JSON Canonicalization Scheme, JCS) over the part of JSON that events use.

A stored line is exactly its canonical form, so one event has one spelling: no blanks, no other key order, no other
escapes, no key twice. Allowed are objects with ASCII keys, arrays, strings, integers up to 2^53 - 1, booleans and null.
Within these limits msgspec's sorted encoding is byte for byte JCS: for ASCII keys the order by UTF-8 bytes is the order
by UTF-16 code units, and both escape only the quotation mark, the backslash and the controls below U+0020. Floats are
refused because their shortest form is where JSON writers differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import msgspec

from nbsentinel.errors import VerificationError

LINE_LIMIT = 262_144
"""Longest line in bytes, without the newline. A quarter of the 1 MiB record that Amazon Kinesis Data Streams takes."""
DEPTH_LIMIT = 32
"""Deepest nesting; the event itself is level 1."""
MAX_SAFE_INTEGER = 2**53 - 1
"""Largest integer that every JSON reader keeps exact (RFC 7493, I-JSON)."""

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode


class CanonicalError(VerificationError):
    """A value has no canonical form, or a line is not one."""


class _RefusedError(Exception):
    """A value inside an event is refused; the path to it is collected on the way up."""

    def __init__(self, why: str, place: object) -> None:
        super().__init__(why)
        self.why = why
        self.path = [place]


def _why(value: object) -> str | None:
    """Return why a value is refused, or None for a value without children that is allowed."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return None
    if isinstance(value, int) and kind is int:
        return (
            None if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else "integer beyond 2^53 - 1; write it as a string"
        )
    return f"{kind.__name__} has no canonical form here"


class Settled(dict[str, object]):
    """An object that was checked once and never changes: events that share it are not checked there again.

    Args:
        members: Its members, which must not change either.

    Raises:
        CanonicalError: As for `encode`.
    """

    __slots__ = ("height",)

    def __init__(self, members: Mapping[str, object]) -> None:
        super().__init__(members)
        _check(self)
        self.height = _height(self)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a settled object does not change")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse


def _height(value: object) -> int:
    """Return how many levels an object or array has, itself included; 0 for anything else."""
    if isinstance(value, Settled) and hasattr(value, "height"):
        return value.height
    children = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else None
    return 0 if children is None else 1 + max(map(_height, children), default=0)


def _check_object(value: Mapping[str, object], depth: int) -> None:
    for key, child in value.items():
        if type(key) is not str:
            raise _RefusedError("key is not a string", key)
        if not key.isascii():
            raise _RefusedError("key is not ASCII", key)
        kind = type(child)
        if kind is str:
            continue
        if kind is dict or kind is list or kind is tuple or kind is Settled:
            _descend(child, depth, key)
        elif why := _why(child):
            raise _RefusedError(why, key)


def _check_array(value: list[object] | tuple[object, ...], depth: int) -> None:
    for place, child in enumerate(value):
        kind = type(child)
        if kind is str:
            continue
        if kind is dict or kind is list or kind is tuple or kind is Settled:
            _descend(child, depth, place)
        elif why := _why(child):
            raise _RefusedError(why, place)


def _descend(child: object, depth: int, place: object) -> None:
    if depth >= DEPTH_LIMIT or (type(child) is Settled and depth + child.height > DEPTH_LIMIT):
        raise _RefusedError(f"nested deeper than {DEPTH_LIMIT} levels", place)
    if type(child) is Settled:
        return
    try:
        if isinstance(child, dict):
            _check_object(child, depth + 1)
        elif isinstance(child, (list, tuple)):
            _check_array(child, depth + 1)
    except _RefusedError as refused:
        refused.path.append(place)
        raise


def _check(event: Mapping[str, object]) -> None:
    try:
        _check_object(event, 1)
    except _RefusedError as refused:
        path = ".".join(ascii(place).strip("'")[:80] for place in reversed(refused.path))
        raise CanonicalError(f"{path}: {refused.why}") from None


def encode_checked(event: Mapping[str, object]) -> bytes:
    """Return the canonical bytes of an event whose parts have all passed `encode` or `decode` before.

    Raises:
        CanonicalError: A string holds a lone surrogate.
    """
    try:
        return _encode(event)
    except UnicodeEncodeError as error:
        raise CanonicalError(f"a string holds a lone surrogate U+{ord(error.object[error.start]):04X}") from None


def encode(event: Mapping[str, object]) -> bytes:
    """Return the canonical bytes of an event.

    Tuples count as arrays.

    Raises:
        CanonicalError: A float or another type without a canonical form, a key that is not ASCII, an integer beyond
            2^53 - 1, a lone surrogate, or nesting beyond DEPTH_LIMIT.
    """
    _check(event)
    return encode_checked(event)


def decode(line: bytes, *, limit: int = LINE_LIMIT) -> dict[str, object]:
    """Return the event of a line that is exactly its canonical form.

    Args:
        line: Without the newline.
        limit: Longest line in bytes.

    Raises:
        CanonicalError: Too long, not JSON, not an object, or not byte for byte what `encode` gives.
    """
    if len(line) > limit:
        raise CanonicalError(f"the line is longer than {limit} bytes")
    try:
        event = _decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CanonicalError(f"not JSON: {error}") from None
    if not isinstance(event, dict):
        raise CanonicalError("not a JSON object")
    _check(event)
    if encode_checked(event) != line:
        raise CanonicalError("not in canonical form (blanks, key order, escapes, a number's spelling or a key twice)")
    return event
