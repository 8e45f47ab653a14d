"""The canonical form is RFC 8785, and a line has one spelling."""

from __future__ import annotations

import json
import sys
from enum import IntEnum

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from attest.writing import free_events, names, property_test, text
from nbsentinel.attest.canonical import DEPTH_LIMIT, LINE_LIMIT, CanonicalError, Settled, decode, encode


def nested(depth: int, kind: str) -> object:
    """Return a value inside so many arrays or objects."""
    value: object = 1
    for _ in range(depth):
        value = [value] if kind == "array" else {"a": value}
    return value


@property_test
@given(free_events)
def test_equals_the_reference_implementation(event: dict[str, object]) -> None:
    """Whatever an event holds, its canonical form is what the rfc8785 package gives, and decodes to the same event."""
    line = encode(event)
    assert rfc8785.dumps(event) == line
    assert decode(line) == event


def test_every_character_is_escaped_as_the_rfc_says() -> None:
    """Each character, DEL, U+2028 and those beyond U+FFFF among them, is written as the rfc8785 package does."""
    every = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    for start in range(0, len(every), 20_000):
        event = {"a": every[start : start + 20_000]}
        assert rfc8785.dumps(event) == encode(event)


def test_every_ascii_key_is_ordered_as_the_rfc_says() -> None:
    """Keys of any ASCII characters, controls among them, are ordered and escaped as the rfc8785 package does."""
    event = {f"{chr(first)}{chr(second)}": 1 for first in range(128) for second in range(0, 128, 3)}
    event |= {chr(only): 2 for only in range(128)} | {"": 3}
    assert rfc8785.dumps(event) == encode(event)


@property_test
@given(free_events, st.data())
def test_other_spellings_are_refused(event: dict[str, object], data: st.DataObject) -> None:
    """A line that means the same event but is written otherwise is not the event's line."""
    separators, ensure_ascii = (
        data.draw(st.sampled_from([(",", ":"), (", ", ":"), (",", ": ")])),
        data.draw(st.booleans()),
    )
    spelled = json.dumps(event, separators=separators, ensure_ascii=ensure_ascii, sort_keys=data.draw(st.booleans()))
    line = spelled.encode()
    if line == encode(event):
        assert decode(line) == event
    else:
        with pytest.raises(CanonicalError):
            decode(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"a": 1}',
        b'{"a":1} ',
        b' {"a":1}',
        b'{"a":1}\n',
        b'{"a":1}\r',
        b'{"b":1,"a":1}',
        b'{"a":"\\u0061"}',
        b'{"\\u0061":1}',
        b'{"a":"\\/"}',
        b'{"a":"\\u000A"}',
        b'{"a":"\\u001F"}',
        b'{"a":"\\u007f"}',
        b'{"a":"\\ud83d\\ude00"}',
        b'{"a":"\\ud800"}',
        b'{"a":1.0}',
        b'{"a":1e2}',
        b'{"a":-0}',
        b'{"a":01}',
        b'{"a":1e400}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":9007199254740992}',
        b'{"a":-9007199254740992}',
        b'{"a":18446744073709551616}',
        b'{"a":' + b"9" * 5000 + b"}",
        '{"\N{SNOWMAN}":1}'.encode(),
        '{"a":{"b":[{"\N{SNOWMAN}":1}]}}'.encode(),
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\xaf"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\x00"}',
        b"[]",
        b"1",
        b"null",
        b"",
        b"[" * 100_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    ],
    ids=lambda line: ascii(line[:24]),
)
def test_what_is_no_canonical_event_is_refused(line: bytes) -> None:
    """Duplicate keys, blanks, needless escapes, other numbers, other keys and broken text all raise CanonicalError."""
    with pytest.raises(CanonicalError):
        decode(line)


def test_longest_line() -> None:
    """A line of exactly the limit passes, one byte more does not, and a caller may set a lower limit."""
    line = encode({"a": "x" * (LINE_LIMIT - len('{"a":""}'))})
    assert LINE_LIMIT == len(line)
    assert decode(line)
    with pytest.raises(CanonicalError, match="longer than"):
        decode(line[:-2] + b'x"}')
    with pytest.raises(CanonicalError, match="longer than 10 bytes"):
        decode(b'{"a":12345}', limit=10)


@pytest.mark.parametrize("kind", ["array", "object"])
def test_deepest_nesting(kind: str) -> None:
    """The event is level 1; DEPTH_LIMIT levels pass both ways and one more passes neither."""
    deepest = {"a": nested(DEPTH_LIMIT - 1, kind)}
    assert decode(encode(deepest)) == deepest
    beyond = {"a": nested(DEPTH_LIMIT, kind)}
    with pytest.raises(CanonicalError, match="nested deeper"):
        encode(beyond)
    with pytest.raises(CanonicalError, match="nested deeper"):
        decode(json.dumps(beyond, separators=(",", ":")).encode())


class Level(IntEnum):
    HIGH = 4


@pytest.mark.parametrize(
    ("event", "place"),
    [
        ({"a": {"b": [1, 1.5]}}, "a.b.1: float"),
        ({"a": [{"b": float("nan")}]}, "a.0.b: float"),
        ({"a": 2**53}, "a: integer beyond"),
        ({"a": -(2**53)}, "a: integer beyond"),
        ({"a": {"b": Level.HIGH}}, "a.b: Level"),
        ({"a": b"x"}, "a: bytes"),
        ({"a": {1: 2}}, "a.1: key is not a string"),
        ({"a": {"\N{SNOWMAN}": 2}}, "a..u2603: key is not ASCII"),
        ({"a": ({"b": object()},)}, "a.0.b: object"),
        ({"a": ["\ud800"]}, "lone surrogate U.D800"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_without_canonical_form_is_named(event: dict[str, object], place: str) -> None:
    """The error says where in the event the value stands and why it is refused."""
    with pytest.raises(CanonicalError, match=place):
        encode(event)


@property_test
@given(names, text)
def test_tuples_are_arrays(name: str, value: str) -> None:
    """A tuple is written as the list of its items."""
    assert encode({name: [value]}) == encode({name: (value,)})


def settled(value: object) -> object:
    """Return a value with every object in it settled, from the inside out."""
    if isinstance(value, dict):
        return Settled({name: settled(child) for name, child in value.items()})
    return [settled(child) for child in value] if isinstance(value, (list, tuple)) else value


@property_test
@given(free_events)
def test_a_settled_object_is_written_as_any_other(event: dict[str, object]) -> None:
    """Whether objects were checked before makes no difference to what is written."""
    assert encode({name: settled(child) for name, child in event.items()}) == encode(event)


@pytest.mark.parametrize("kind", ["array", "object"])
@pytest.mark.parametrize("inside", [1, DEPTH_LIMIT // 2, DEPTH_LIMIT - 1])
def test_a_settled_object_counts_for_the_depth(kind: str, inside: int) -> None:
    """An event is as deep with a settled object as without, and refused where that is too deep."""
    fits = DEPTH_LIMIT - 1 - inside
    for more, refused in ((0, False), (1, True)):
        value: object = Settled({"a": nested(inside - 1, kind)})
        for _ in range(fits + more):
            value = {"a": value}
        if refused:
            with pytest.raises(CanonicalError, match="nested deeper"):
                encode({"a": value})
        else:
            encode({"a": value})


def test_a_settled_object_does_not_change() -> None:
    """Whoever would change what events share is told so, and what cannot be written cannot be settled."""
    one = Settled({"a": [1]})
    for change in (
        lambda: one.update(b=2),
        lambda: one.__setitem__("b", 2),
        lambda: one.pop("a"),
        one.clear,
        lambda: one.setdefault("b", 1),
    ):
        with pytest.raises(TypeError, match="does not change"):
            change()
    assert one == {"a": [1]}
    with pytest.raises(CanonicalError, match="float"):
        Settled({"a": {"b": 0.5}})
