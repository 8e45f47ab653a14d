"""Missing ranges and the signed statements that excuse them.

An agent whose spool is full drops old events of low severity and says so in a later event: which numbers, the
fingerprint before the first, fingerprint and signature of the last. A hole in a chain is excused when such statements
cover it and agree with the events on both sides. A rotation of keys is never dropped, and a hole over one is never
excused: the statement would be signed by the very key that nobody has vouched for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from nbsentinel.attest import attestation
from nbsentinel.attest.canonical import MAX_SAFE_INTEGER

MAX_OPEN_GAPS = 4096
"""Holes of one chain that may wait for a statement at a time; bounds what a verifier remembers."""

_Hash = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Gap(Struct, frozen=True):
    """Missing events with the values that a statement about them must agree with."""

    first: int
    last: int
    prev_fingerprint: str
    """Of the event before `first`."""
    last_fingerprint: str
    """What follows names this as its predecessor."""
    last_signature_sha256: str | None
    """None where only a neighbouring statement tells the end."""


class Pruned(Struct, frozen=True, order=True):
    """Missing events that the agent stated, signed, to have dropped."""

    first: int
    last: int


class Range(Struct, frozen=True):
    """One member of a drop statement's `ranges`."""

    first: Annotated[int, Meta(ge=2, le=MAX_SAFE_INTEGER)]
    last: Annotated[int, Meta(ge=2, le=MAX_SAFE_INTEGER)]
    prev_fingerprint: _Hash
    last_fingerprint: _Hash
    last_signature_sha256: _Hash
    counts: dict[str, Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]]
    """Number of dropped events by severity_id; together exactly the length of the range."""


def stated(event: Mapping[str, object]) -> list[Range]:
    """Return the well-formed ranges of a drop statement; a malformed one excuses nothing and is left out."""
    own = attestation.lifecycle(event)
    ranges = own.get("ranges")
    if own.get("what") != "dropped" or not isinstance(ranges, list):
        return []
    found = []
    for item in ranges:
        try:
            entry = msgspec.convert(item, Range)
        except msgspec.ValidationError:
            continue
        if sum(entry.counts.values()) == entry.last - entry.first + 1:
            found.append(entry)
    return found


def excuse(gaps: Sequence[Gap], ranges: Sequence[Range]) -> tuple[tuple[Gap, ...], tuple[Pruned, ...]]:
    """Return the gaps, ordered by `first`, without what the ranges excuse, and what these excuse."""
    left, pruned = list(gaps), []
    for entry in ranges:
        place = bisect_right(left, entry.last, key=lambda gap: gap.first) - 1
        if place >= 0:
            rest = _without(left[place], entry)
            if rest is not None:
                pruned.append(Pruned(max(entry.first, left[place].first), entry.last))
                left[place : place + 1] = rest
    return tuple(left), tuple(pruned)


def _without(gap: Gap, entry: Range) -> list[Gap] | None:
    """Return what stays of a gap, or None when the range does not end inside it or contradicts what is around it.

    The range may begin before the gap: events that were delivered while they waited to be dropped are there. Then the
    fingerprint before the range belongs to an earlier event than the one before the gap, and cannot be the same.
    """
    if not gap.first <= entry.last <= gap.last:
        return None
    rest = []
    if entry.first > gap.first:
        rest.append(Gap(gap.first, entry.first - 1, gap.prev_fingerprint, entry.prev_fingerprint, None))
    elif (entry.first == gap.first) != (entry.prev_fingerprint == gap.prev_fingerprint):
        return None
    if entry.last < gap.last:
        end = (gap.last_fingerprint, gap.last_signature_sha256)
        rest.append(Gap(entry.last + 1, gap.last, entry.last_fingerprint, *end))
    elif entry.last_fingerprint != gap.last_fingerprint or (
        gap.last_signature_sha256 not in (None, entry.last_signature_sha256)
    ):
        return None
    return rest
