"""One chain while an export is read: a verifier's state, and enough memory to say plainly what is wrong."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from nbsentinel.attest import attestation
from nbsentinel.attest.attestation import Head
from nbsentinel.attest.follow import Accepted, ChainState, Signed, advance, begin
from nbsentinel.attest.gaps import Gap, Pruned
from nbsentinel.attest.integrity import IntegrityError, Reason
from nbsentinel.attest.keys import PublicKey
from nbsentinel.attest.outcome import ChainOutcome, Ending

WINDOW = 256
"""Events that are remembered to tell a copy from a fork; one that is further back is called reordered."""
_MAX_RUNS = 1024
"""Runs of refused lines behind the head that are remembered."""


class Track:
    """Follows one chain through a file. After a problem it goes on with the next event that verifies.

    Args:
        chain_uid: The chain.
        key: The trusted key that it began with.
        seen: The head that the collector has seen.
    """

    def __init__(self, chain_uid: str, key: PublicKey, seen: Head | None) -> None:
        self._genesis, self._seen = key, seen
        # A head before the first event, so that a file without the first event is a gap like any other.
        self._state = ChainState(Head(chain_uid, 0, "", ""), key.jwk())
        self._keys: dict[str, PublicKey] = {}
        self._recent: dict[int, Head] = {}
        self._refused_runs: list[tuple[int, int]] = []
        self._opened: list[tuple[int, int, bool]] = []
        self._pruned: list[Pruned] = []
        self._events = self.refused = 0
        self._first_time: int | None = None
        self._last_time: int | None = None
        self._ending = Ending.OPEN
        self._end_checked = False

    def take(self, signed: Signed, line: int) -> IntegrityError | None:
        """Follow the chain to the next event of the file; return an error if the collector has seen another there.

        Raises:
            IntegrityError: It does not verify.
        """
        sequence = signed.parts.sequence
        if sequence <= self._state.head.sequence:
            raise self._late(signed)
        key = PublicKey.from_jwk(self._state.key)
        first = sequence == 1
        accepted = begin(signed, self._genesis) if first else advance(signed, self._state, across_gap=True)
        self._keys[key.thumbprint] = key
        self._accept(accepted, line)
        if self._seen is not None and self._seen.sequence == sequence:
            if accepted.head != self._seen:
                return signed.refuse(Reason.FORK, f"the collector has seen another event {sequence}")
            self._end_checked = True
        return None

    def _accept(self, accepted: Accepted, line: int) -> None:
        if (gap := accepted.opened) is not None:
            self._opened.append((gap.first, line, self._reported(gap.first, gap.last)))
        self._pruned.extend(accepted.pruned)
        self._state = accepted.state
        sequence = accepted.head.sequence
        self._recent[sequence] = accepted.head
        if len(self._recent) > WINDOW:
            del self._recent[next(iter(self._recent))]
        self._refused_runs = [run for run in self._refused_runs if run[1] > sequence]
        self._events += 1
        time = accepted.event.get("time")
        if type(time) is int:
            self._first_time = time if self._first_time is None else self._first_time
            self._last_time = time
        goodbye = attestation.lifecycle(accepted.event).get("what") == "goodbye"
        self._ending = Ending.GOODBYE if goodbye else Ending.OPEN

    def refuse(self, sequence: int | None, reason: Reason) -> None:
        """Remember that a line that claims this place in the chain was refused."""
        self.refused += 1
        last = self._state.head.sequence
        if sequence is None or sequence <= last:
            return
        runs = self._refused_runs
        if runs and runs[-1][1] + 1 == sequence:
            runs[-1] = (runs[-1][0], sequence)
        elif len(runs) < _MAX_RUNS:
            # A refusal for a gap has reported the missing ones too.
            runs.append((last + 1 if reason is Reason.GAP else sequence, sequence))

    def _reported(self, first: int, last: int) -> bool:
        """Return whether all of these places have been reported, line by line, so that they are not reported again."""
        return any(run[0] <= first and last <= run[1] for run in self._refused_runs)

    def _late(self, signed: Signed) -> IntegrityError:
        """Return what is wrong with an event at or before the head."""
        part = signed.parts
        known = self._recent.get(part.sequence)
        try:
            head = signed.head()
            if head == known:
                return signed.refuse(Reason.DUPLICATED, f"event {part.sequence} is in the file before")
            key = self._keys.get(part.authority_uid)
            if key is None:
                return signed.refuse(Reason.WRONG_KEY, "signed by a key that was never in force in this chain")
            signed.check(key)
        except IntegrityError as error:
            return error
        place = bisect_right(self._state.gaps, part.sequence, key=lambda gap: gap.first) - 1
        gap = self._state.gaps[place] if place >= 0 and part.sequence <= self._state.gaps[place].last else None
        if known is not None or (gap is not None and not _fits(signed, head, gap)):
            return signed.refuse(Reason.FORK, f"another event {part.sequence} than the one this chain continues from")
        if gap is not None:
            self._fill(place, signed, head)
        return signed.refuse(Reason.REORDERED, f"event {part.sequence} stands behind a later one")

    def _fill(self, place: int, signed: Signed, head: Head) -> None:
        """Take a late event out of the hole that it left."""
        gap, part = self._state.gaps[place], signed.parts
        rest = []
        if part.sequence > gap.first:
            before = (part.prev_fingerprint or "", part.prev_signature_sha256)
            rest.append(Gap(gap.first, part.sequence - 1, gap.prev_fingerprint, *before))
        if part.sequence < gap.last:
            end = (gap.last_fingerprint, gap.last_signature_sha256)
            rest.append(Gap(part.sequence + 1, gap.last, head.fingerprint, *end))
        gaps = (*self._state.gaps[:place], *rest, *self._state.gaps[place + 1 :])
        self._state = ChainState(self._state.head, self._state.key, gaps)

    def holes(self) -> Iterator[tuple[Gap, int]]:
        """Yield the missing events that nothing excuses, with the line that they are missing before."""
        for gap in self._state.gaps:
            _, line, reported = self._opened[bisect_right(self._opened, gap.first, key=lambda opened: opened[0]) - 1]
            if not reported:
                yield gap, line

    def cut(self) -> str | None:
        """Return how the file falls short of what the collector has seen, or None."""
        last = self._state.head.sequence
        if self._seen is None or self._seen.sequence <= last or self._reported(last + 1, self._seen.sequence):
            return None
        return f"the file ends at event {last}; the collector has seen event {self._seen.sequence}"

    def outcome(self) -> ChainOutcome:
        """Return what is known of the chain now."""
        head = self._state.head
        return ChainOutcome(
            chain_uid=head.chain_uid,
            events=self._events,
            refused=self.refused,
            first_time=self._first_time,
            last_time=self._last_time,
            keys=tuple(self._keys),
            pruned=_joined(self._pruned),
            head=head if head.sequence else None,
            ending=self._ending,
            end_checked=self._end_checked,
        )


def _fits(signed: Signed, head: Head, gap: Gap) -> bool:
    """Return whether a late event is the one that its neighbours name, as far as it stands beside one."""
    part = signed.parts
    if part.sequence == gap.first and (part.prev_fingerprint or "") != gap.prev_fingerprint:
        return False
    if part.sequence < gap.last:
        return True
    return head.fingerprint == gap.last_fingerprint and gap.last_signature_sha256 in (None, head.signature_sha256)


def _joined(pruned: list[Pruned]) -> tuple[Pruned, ...]:
    joined: list[Pruned] = []
    for entry in sorted(pruned):
        if joined and joined[-1].last + 1 == entry.first:
            joined[-1] = Pruned(joined[-1].first, entry.last)
        else:
            joined.append(entry)
    return tuple(joined)
