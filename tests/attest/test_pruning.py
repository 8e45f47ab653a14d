"""Dropped events: a hole is excused by exactly the truth about it, signed by the agent, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.writing import Session, check, own_event, property_test, reasons, session
from nbsentinel.attest.gaps import MAX_OPEN_GAPS, Pruned
from nbsentinel.attest.verify import IntegrityError, Reason, verify_genesis, verify_next


def dropped(changed: dict[str, Any] | None = None) -> tuple[Session, list[bytes]]:
    """Return a chain whose statement about a range has some members changed, and its lines without that range."""
    written = session(9, rotate_at=())
    written.state_drop({**written.range(4, 6), **(changed or {})})
    written.add()
    return written, written.without(4, 6)


def test_stated_range_verifies() -> None:
    """A hole that a later statement describes truthfully is no problem, and the report lists it."""
    written, lines = dropped()
    report = check(lines, written, heads=True)
    assert report.verified
    assert report.chains[0].pruned == (Pruned(4, 6),)


@property_test
@given(st.data())
def test_many_ranges_in_many_statements(data: st.DataObject) -> None:
    """Neighbouring and scattered ranges, stated at once or bit by bit as the spool filled, excuse the whole hole."""
    written = session(14, rotate_at=data.draw(st.sampled_from([(), (0,), (13,)])))
    gone = data.draw(st.sets(st.integers(4, 12), min_size=1))
    cuts = data.draw(st.sets(st.integers(4, 13)))
    ranges: list[tuple[int, int]] = []
    for place in sorted(gone):
        if ranges and ranges[-1][1] + 1 == place and place not in cuts:
            ranges[-1] = (ranges[-1][0], place)
        else:
            ranges.append((place, place))
    for batch in data.draw(st.permutations(ranges)):
        written.state_drop(written.range(*batch))
    lines = [line for place, line in enumerate(written.lines, 1) if place not in gone]
    report = check(lines, written, heads=True)
    assert report.verified, report.problems
    assert gone == {place for run in report.chains[0].pruned for place in range(run.first, run.last + 1)}


HASH = "0" * 64


@pytest.mark.parametrize(
    "lie",
    [
        {"first": 5, "counts": {"1": 2}},
        {"first": 3, "counts": {"1": 4}},
        {"first": 5},
        {"first": 3},
        {"last": 5, "counts": {"1": 2}},
        {"last": 7, "counts": {"1": 4}},
        {"last": 5},
        {"last": 7},
        {"first": 3, "last": 5},
        {"first": 5, "last": 7},
        {"counts": {"1": 2}},
        {"counts": {"1": 4}},
        {"counts": {"1": 4, "2": -1}},
        {"counts": {}},
        {"counts": None},
        {"prev_fingerprint": HASH},
        {"last_fingerprint": HASH},
        {"last_signature_sha256": HASH},
        {"prev_fingerprint": ""},
        {"first": "4"},
        {"first": True},
        {"first": 1, "counts": {"1": 6}},
        {"last": 2**53 - 1},
    ],
    ids=str,
)
def test_statement_that_lies(lie: dict[str, Any]) -> None:
    """A statement that is off by one at either end, miscounts, or names other neighbours excuses nothing."""
    written, lines = dropped(lie)
    assert reasons(check(lines, written, heads=True)) == ["GAP"]


@pytest.mark.parametrize("removed", [(3, 6), (4, 7), (4, 5), (5, 6), (4, 4), (7, 7)])
def test_more_or_other_than_stated(removed: tuple[int, int]) -> None:
    """Whoever removes events beside a stated range, or leaves the end of it, is found out, unless the rest fits."""
    written, _ = dropped()
    report = check(written.without(*removed), written, heads=True)
    # A hole at the end of the range is what remains when the beginning was delivered before it was dropped.
    assert reasons(report) == ([] if removed == (5, 6) else ["GAP"])


def test_removed_statement() -> None:
    """A hole whose statement was removed too is two holes."""
    written, lines = dropped()
    del lines[7]
    report = check(lines, written, heads=True)
    assert reasons(report) == ["GAP", "GAP"]
    assert [p.line for p in report.problems] == [4, 8]


def test_statement_without_hole() -> None:
    """Events that were delivered before they were dropped are there, and that is no contradiction."""
    written, _ = dropped()
    assert check(written.lines, written, heads=True).verified


def test_statement_of_another_chain_or_kind() -> None:
    """Only a drop statement of the same chain excuses a hole."""
    written, other = session(9, rotate_at=()), Session("other")
    other.state_drop(written.range(4, 6))
    written.add(own_event("notice", ranges=[written.range(4, 6)]))
    report = check([*written.without(4, 6), *other.lines], written, other)
    assert reasons(report) == ["GAP"]


def test_statement_about_other_chains() -> None:
    """What is said to be dropped of other chains excuses nothing: neither here, though it would fit, nor there."""
    written, other = session(9, rotate_at=()), session(9, rotate_at=(), chain_uid="other")
    ranges = [{"chain_uid": uid, **written.range(4, 6)} for uid in ("session-1", "other")]
    ranges.append({"chain_uid": "other", **other.range(4, 6)})
    written.add(own_event("dropped", ranges=[], other_chains=ranges))
    assert check([*written.lines, *other.lines], written, other).verified
    for lines in ([*written.without(4, 6), *other.lines], [*other.without(4, 6), *written.lines]):
        assert reasons(check(lines, written, other)) == ["GAP"]


@pytest.mark.parametrize("ranges", [None, "x", {}, [None], [[]], [{}], [{"first": {}}]], ids=str)
def test_malformed_statement(ranges: object) -> None:
    """A malformed statement is signed and stays an event like any other; it excuses nothing."""
    written = session(9, rotate_at=())
    written.add(own_event("dropped", ranges=ranges))
    report = check(written.without(4, 6), written)
    assert reasons(report) == ["GAP"]
    assert report.events == len(written.lines) - 3


def test_hole_over_a_rotation_is_never_excused() -> None:
    """Events behind a removed rotation are not believed, whatever they say: anybody could have signed them."""
    written = session(9, rotate_at=(3,))
    written.state_drop(written.range(4, 6, key=written.chain.key.jwk()))
    report = check(written.without(4, 6), written)
    assert reasons(report) == ["GAP"]
    assert report.events == 3


def test_step_by_step() -> None:
    """A verifier without the whole file refuses a hole, or crosses it and remembers it until it is excused."""
    _, lines = dropped()
    state = verify_genesis(lines[0]).state
    for line in lines[1:3]:
        state = verify_next(line, state).state
    with pytest.raises(IntegrityError) as caught:
        verify_next(lines[3], state)
    assert caught.value.reason is Reason.GAP
    accepted = verify_next(lines[3], state, across_gap=True)
    assert accepted.opened is not None
    assert (accepted.opened.first, accepted.opened.last) == (4, 6)
    assert accepted.state.gaps == (accepted.opened,)
    for line in lines[4:]:
        accepted = verify_next(line, accepted.state)
        if accepted.pruned:
            assert accepted.pruned == (Pruned(4, 6),)
    assert accepted.state.gaps == ()


def test_holes_are_bounded() -> None:
    """A writer that leaves hole after hole is refused before a verifier remembers too much."""
    written = Session()
    state = verify_genesis(written.lines[0]).state
    accepted = verify_next(session_line(written), state, across_gap=True)
    full = accepted.state.gaps * MAX_OPEN_GAPS
    state = type(state)(accepted.head, accepted.state.key, full)
    with pytest.raises(IntegrityError) as caught:
        verify_next(session_line(written), state, across_gap=True)
    assert caught.value.reason is Reason.GAP


def session_line(written: Session) -> bytes:
    """Return the line of the event after the next one."""
    written.add()
    return written.add().line
