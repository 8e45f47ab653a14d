"""Whole exports: whatever is done to one without the keys is seen, named and found at its line."""

from __future__ import annotations

import io
import itertools

from hypothesis import given
from hypothesis import strategies as st

from attest.writing import (
    Session,
    check,
    edited,
    interleaved,
    own_event,
    plain_event,
    property_test,
    reasons,
    resigned,
    session,
    sessions,
    trust,
)
from nbsentinel.attest.chain import Head
from nbsentinel.attest.keys import SigningKey
from nbsentinel.attest.verify import MAX_PROBLEMS, Ending, Reason, TrustedKeys, verify_export

two_chains = st.tuples(sessions(chain_uid="a"), sessions(chain_uid="b"))


@property_test
@given(two_chains, st.data())
def test_what_the_agents_wrote_verifies(written: tuple[Session, Session], data: st.DataObject) -> None:
    """Chains of generated events and rotations, interleaved in any way, verify with all that was counted."""
    report = check(interleaved(data, *written), *written, heads=True)
    assert report.verified
    assert report.problems == ()
    assert sum(len(one.lines) for one in written) == report.events == report.lines
    assert all(chain.end_checked for chain in report.chains)
    assert {one.head() for one in written} == {chain.head for chain in report.chains}


@property_test
@given(two_chains, st.data())
def test_changed_byte(written: tuple[Session, Session], data: st.DataObject) -> None:
    """Any byte of the file, changed to any other, is seen."""
    content = bytearray(b"".join(line + b"\n" for line in interleaved(data, *written)))
    # The newline of the last line may be missing, so it is the one byte that carries nothing.
    place = data.draw(st.integers(0, len(content) - 2))
    content[place] ^= data.draw(st.integers(1, 255))
    assert not check(io.BytesIO(bytes(content)), *written).verified


def test_every_byte_of_a_line() -> None:
    """In a whole line there is no byte whose lowest bit can be flipped unseen, in the unsigned members neither."""
    written = session(3)
    for place in range(len(written.lines[1])):
        line = bytearray(written.lines[1])
        line[place] ^= 1
        assert not check([written.lines[0], bytes(line), *written.lines[2:]], written).verified


@property_test
@given(two_chains, st.data())
def test_inserted_and_removed_bytes(written: tuple[Session, Session], data: st.DataObject) -> None:
    """A byte put in or taken out anywhere is seen, blanks and newlines among them."""
    content = b"".join(line + b"\n" for line in interleaved(data, *written))
    place = data.draw(st.integers(0, len(content) - 2))
    byte = data.draw(st.sampled_from([b"", b" ", b"\n", b"\r", b"\t", b"0", b"\\"]))
    altered = content[:place] + byte + content[place + (not byte) :]
    assert not check(io.BytesIO(altered), *written).verified


@property_test
@given(two_chains, st.data())
def test_removed_event(written: tuple[Session, Session], data: st.DataObject) -> None:
    """A missing event is a gap before the next one of its chain; a missing last one is seen by the collector's head."""
    lines = interleaved(data, *written)
    removed = lines.pop(data.draw(st.integers(0, len(lines) - 1)))
    report = check(lines, *written, heads=True)
    last = removed in (written[0].lines[-1], written[1].lines[-1])
    assert reasons(report) == (["TRUNCATED"] if last else ["GAP"])


@property_test
@given(two_chains, st.data())
def test_truncated_tail(written: tuple[Session, Session], data: st.DataObject) -> None:
    """A file cut at any line is seen with the heads; without them the report says that this cannot be told."""
    lines = interleaved(data, *written)
    kept = lines[: data.draw(st.integers(0, len(lines) - 1))]
    report = check(kept, *written, heads=True)
    assert set(reasons(report)) == {"TRUNCATED"}
    blind = check(kept, *written)
    assert blind.verified
    assert not blind.heads_given


@property_test
@given(two_chains, st.data())
def test_reordered_events(written: tuple[Session, Session], data: st.DataObject) -> None:
    """Two events of a chain that changed places are seen, as reordered or, over a rotation, as missing."""
    lines = list(written[0].lines)
    first, second = sorted(data.draw(st.sets(st.integers(0, len(lines) - 1), min_size=2, max_size=2)))
    lines[first], lines[second] = lines[second], lines[first]
    found = set(reasons(check(lines, written[0], heads=True)))
    assert found
    assert found <= {"REORDERED", "GAP", "WRONG_KEY", "TRUNCATED"}


def test_swapped_neighbours_are_one_problem() -> None:
    """Of two swapped lines the one that comes late is reported, and nothing counts as removed."""
    written = session(8, rotate_at=())
    lines = list(written.lines)
    lines[3], lines[4] = lines[4], lines[3]
    report = check(lines, written, heads=True)
    assert [(p.reason, p.line, p.sequence) for p in report.problems] == [(Reason.REORDERED, 5, 4)]
    moved = [*written.lines[:2], *written.lines[5:], *reversed(written.lines[2:5])]
    assert reasons(check(moved, written, heads=True)) == ["REORDERED"] * 3


@property_test
@given(two_chains, st.data())
def test_duplicated_event(written: tuple[Session, Session], data: st.DataObject) -> None:
    """A copy of a line anywhere behind it is one problem, at the line of the copy."""
    lines = interleaved(data, *written)
    copied = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.integers(copied + 1, len(lines)))
    lines.insert(place, lines[copied])
    report = check(lines, *written, heads=True)
    assert [(p.reason, p.line) for p in report.problems] == [(Reason.DUPLICATED, place + 1)]


@property_test
@given(two_chains, st.data())
def test_inserted_event_of_a_foreign_key(written: tuple[Session, Session], data: st.DataObject) -> None:
    """An event put in with right place and link is one problem, whether it names its own key or claims the chain's."""
    chosen = data.draw(st.sampled_from(written))
    place = data.draw(st.integers(1, len(chosen.lines) - 1))
    thief = SigningKey.generate()
    lie = {"message": "all is well"}
    honest = resigned(chosen.lines[place], thief, lambda event: event.update(lie))
    owner = edited_authority(chosen.lines[place])
    claimed = resigned(chosen.lines[place], thief, lambda event: event.update(lie), thumbprint=owner)
    for line, reason in ((honest, Reason.WRONG_KEY), (claimed, Reason.BAD_SIGNATURE)):
        for at in (place, place + 1):
            lines = [*chosen.lines[:at], line, *chosen.lines[at:]]
            report = check(lines, chosen, heads=True)
            assert [(p.reason, p.line) for p in report.problems] == [(reason, at + 1)]


def edited_authority(line: bytes) -> str:
    """Return the thumbprint that a line names."""
    named = []
    edited(line, lambda event: named.append(event["attestation_list"][0]["authority_uid"]))
    return str(named[0])


@property_test
@given(sessions(), st.data())
def test_fork(written: Session, data: st.DataObject) -> None:
    """Two validly signed events for one place, made by two writers with the same keys, are a fork."""
    thief = written.fork()
    theirs, mine = thief.add(plain_event(1)), written.add(plain_event(2))
    pair = data.draw(st.permutations([theirs.line, mine.line]))
    report = check([*written.lines[:-1], *pair], written)
    assert [(p.reason, p.line) for p in report.problems] == [(Reason.FORK, len(written.lines) + 1)]
    written.add(plain_event(3))
    mixed = [*written.lines[:-2], theirs.line, written.lines[-1]]
    assert reasons(check(mixed, written)) == ["BROKEN_LINK"]


def test_rewritten_end_against_the_head() -> None:
    """A thief of the key who rewrites the end makes a file that verifies; the collector's head shows the fork."""
    written = session(4)
    thief = written.fork()
    written.add()
    thief.add(plain_event(99))
    thief.add(plain_event(100))
    assert check(thief.lines, thief).verified
    report = verify_export(thief.lines, thief.trust, {"session-1": written.head()})
    assert reasons(report) == ["FORK"]
    assert not report.chains[0].end_checked


@property_test
@given(two_chains, st.data())
def test_splice_across_chains(written: tuple[Session, Session], data: st.DataObject) -> None:
    """An event of another chain in place of one's own is seen, renamed or not, with its fingerprint made new or not."""
    target, source = written
    place = data.draw(st.integers(1, min(len(one.lines) for one in written) - 1))
    line = source.lines[place]

    def rename(event: dict[str, object]) -> None:
        event["attestation_list"][0]["chain_uid"] = "a"  # type: ignore[index]

    def spliced(replacement: bytes) -> list[str]:
        return reasons(check([*target.lines[:place], replacement, *target.lines[place + 1 :]], target, heads=True))

    assert "UNKNOWN_CHAIN" in spliced(line)
    assert spliced(edited(line, rename))[0] == "CHANGED"
    assert spliced(resigned(line, source.chain.key, rename))[0] in ("WRONG_KEY", "GAP")


def test_altered_event_is_one_problem() -> None:
    """After an altered line the check goes on with the next one that verifies, and nothing else is reported."""
    written = session(8, rotate_at=(4,))
    for place, line in enumerate(written.lines):
        reason = Reason.WRONG_KEY if place == 5 else Reason.CHANGED
        changed = edited(line, lambda event: event.update(severity_id=5))
        report = check([*written.lines[:place], changed, *written.lines[place + 1 :]], written)
        assert report.problems[0].reason is Reason.CHANGED
        assert [(p.line, p.sequence) for p in report.problems][:1] == [(place + 1, place + 1)]
        assert len(report.problems) == (2 if reason is Reason.WRONG_KEY else 1)


def test_everything_behind_a_lost_rotation_is_one_problem() -> None:
    """Without the event that announced the key nothing behind it can be checked: one problem over a run of lines."""
    written = session(9, rotate_at=(3,))
    report = check(written.without(5, 5), written)
    (problem,) = report.problems
    assert (problem.reason, problem.line, problem.last_line, problem.count) == (Reason.GAP, 5, 9, 5)
    assert report.events == 4


def test_lines_of_no_chain() -> None:
    """Blank lines, text, JSON without attestation and chains without a trusted key are each reported."""
    written, stranger = session(2), session(2, chain_uid="stranger")
    lines = [b"\n", b"hello\n", b"{}\n", *stranger.lines, *written.lines]
    report = check(lines, written)
    assert reasons(report) == ["NOT_CANONICAL", "NOT_CANONICAL", "NOT_ATTESTED", "UNKNOWN_CHAIN"]
    assert report.problems[-1].count == 3
    assert report.events == 3


def test_missing_start() -> None:
    """A file that begins in the middle of a chain lacks events, and what the first key signed still verifies."""
    written = session(5, rotate_at=())
    report = check(written.lines[2:], written, heads=True)
    assert [(p.reason, p.line, p.sequence) for p in report.problems] == [(Reason.GAP, 1, 1)]
    assert "events 1 to 2 are missing" in report.problems[0].message
    assert report.events == 4


def test_another_first_key() -> None:
    """A chain of the same name from another key is refused from its first line on."""
    written, imposter = session(3), session(3)
    report = check(imposter.lines, written)
    assert reasons(report) == ["WRONG_KEY", "GAP"]
    assert report.events == 0
    assert report.chains[0].head is None


def test_absent_chain() -> None:
    """A chain that the collector has seen and that is not in the file at all counts as cut off."""
    written, absent = session(2), session(2, chain_uid="absent")
    heads = {"absent": absent.head(), "session-1": written.head()}
    report = verify_export(written.lines, trust(written, absent), heads)
    assert [(p.reason, p.chain_uid, p.line) for p in report.problems] == [(Reason.TRUNCATED, "absent", None)]


def test_newer_than_the_head() -> None:
    """A file that goes on behind the collector's head verifies when it holds the head itself."""
    written = session(6)
    assert verify_export(written.lines, written.trust, {"session-1": written.heads[3]}).verified
    other = Head("session-1", 4, "0" * 64, "0" * 64)
    assert reasons(verify_export(written.lines, written.trust, {"session-1": other})) == ["FORK"]


def test_outcome_of_a_chain() -> None:
    """The report tells of each chain its events, times, keys in order and how it ended."""
    written = session(6, rotate_at=(2, 4))
    assert check(written.lines, written).chains[0].ending is Ending.OPEN
    written.add(own_event("goodbye"))
    (chain,) = check(written.lines, written).chains
    assert (chain.events, chain.refused, chain.ending) == (8, 0, Ending.GOODBYE)
    assert written.chain.genesis_key.thumbprint == chain.keys[0]
    assert written.chain.key.thumbprint == chain.keys[2]
    assert chain.first_time is not None
    assert not chain.end_checked


def test_problems_are_bounded() -> None:
    """Endless rubbish is counted and not kept."""
    report = verify_export(itertools.repeat(b"rubbish", 3 * MAX_PROBLEMS), TrustedKeys({}))
    assert len(report.problems) == MAX_PROBLEMS
    assert report.problem_count == 3 * MAX_PROBLEMS == report.lines


def test_nothing_piles_up() -> None:
    """Lines are taken one at a time from any iterable, and an old event that comes again is still refused."""
    written = session(400, rotate_at=())
    report = check(iter([*written.lines, written.lines[5], written.lines[395]]), written)
    assert reasons(report) == ["REORDERED", "DUPLICATED"]
