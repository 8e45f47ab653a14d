"""Whatever comes in, a verifier says what is wrong with it and never breaks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest.writing import check, session, values
from nbsentinel.attest import canonical
from nbsentinel.attest.keys import KeyFormatError
from nbsentinel.attest.verify import (
    IntegrityError,
    TrustedKeys,
    heads_from_json,
    verify_export,
    verify_genesis,
    verify_next,
)

WRITTEN = session(4)
STATE = verify_next(WRITTEN.lines[1], verify_genesis(WRITTEN.lines[0]).state).state
NEXT = WRITTEN.lines[2]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


def refuse(line: bytes, *, across_gap: bool = False) -> None:
    """Check that all three ways of verification take a line without any error but theirs."""
    for verify in (verify_genesis, lambda line: verify_next(line, STATE, across_gap=across_gap)):
        with pytest.raises(IntegrityError):
            verify(line)
    assert not check([WRITTEN.lines[0], line], WRITTEN).verified


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(line: bytes) -> None:
    """Any bytes are refused with IntegrityError."""
    refuse(line)


@settings(deadline=None)
@given(anything)
def test_any_json(value: object) -> None:
    """Any JSON value, as Python or as the canonical encoder writes it, is refused with IntegrityError."""
    refuse(json.dumps(value).encode("utf-8", "surrogatepass"))
    refuse(msgspec.json.encode(value, order="sorted"))


def paths(value: object, path: tuple[object, ...] = ()) -> Iterable[tuple[object, ...]]:
    """Yield the path to every value inside an event."""
    yield path
    children: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        yield from paths(child, (*path, key))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_value_anywhere(data: st.DataObject) -> None:
    """A valid event with any value in any place is refused with IntegrityError, or it is the same event."""
    event = canonical.decode(data.draw(st.sampled_from(WRITTEN.lines)))
    place = data.draw(st.sampled_from([path for path in paths(event) if path]))
    owner: object = event
    for key in place[:-1]:
        owner = owner[key]  # type: ignore[index]
    before = owner[place[-1]]  # type: ignore[index]
    value = data.draw(values | st.sampled_from([True, 1, 3, 2**53 - 1, "", [], {}, [{}], "0" * 64, "A" * 86]))
    if value == before and type(value) is type(before):
        return
    owner[place[-1]] = value  # type: ignore[index]
    refuse(canonical.encode(event), across_gap=data.draw(st.booleans()))


@pytest.mark.parametrize(
    "rubbish",
    [
        b"[" * 200_000,
        b'{"a":' * 50_000,
        b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
        b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"attestation_list":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b"NaN",
        b"1e400",
        b'{"metadata":{"sequence":1e400}}',
        b'{"metadata":{"sequence":NaN}}',
        b'{"metadata":{"sequence":' + b"9" * 100_000 + b"}}",
        b'{"a":"\xff\xfe"}',
        b'{"a":"\\ud800"}',
        b"\x00",
        b"\xef\xbb\xbf{}",
        NEXT[:-1],
        NEXT + NEXT,
        NEXT.replace(b'"time":', b'"time":1,"time":', 1),
        b"x" * 2_000_000,
    ],
    ids=lambda line: ascii(line[:30]),
)
def test_hostile_lines(rubbish: bytes) -> None:
    """Deep nesting, numbers out of range, broken text, cut and doubled lines and endless lines are refused."""
    refuse(rubbish)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*WRITTEN.lines, b"", b"{}", b"\n"]) | st.binary(max_size=30), max_size=12))
def test_any_file(lines: list[bytes]) -> None:
    """Any mixture of genuine lines and rubbish gives a report that accounts for every line."""
    report = verify_export(lines, WRITTEN.trust, {"session-1": WRITTEN.head()})
    assert len(lines) == report.lines
    assert report.events <= len(WRITTEN.lines)
    assert report.verified == (lines == WRITTEN.lines)
    assert msgspec.json.decode(msgspec.json.encode(report))["problem_count"] == report.problem_count


@settings(deadline=None)
@given(st.binary(max_size=60) | anything.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")))
def test_any_keys_and_heads_file(data: bytes) -> None:
    """A file of keys or heads is read, or refused with KeyFormatError."""
    for parse in (TrustedKeys.from_json, heads_from_json):
        with contextlib.suppress(KeyFormatError):
            parse(data)
