"""The offline check of a whole export: any number of interleaved chains, one pass, memory per chain only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from nbsentinel.attest import attestation, canonical
from nbsentinel.attest.attestation import Head
from nbsentinel.attest.follow import read
from nbsentinel.attest.integrity import IntegrityError, Reason
from nbsentinel.attest.outcome import Problem, Report
from nbsentinel.attest.track import Track
from nbsentinel.attest.trust import TrustedKeys

MAX_PROBLEMS = 1000
"""Problems that are listed; more are counted."""
_FOLLOW_ON = (Reason.GAP, Reason.WRONG_KEY, Reason.UNKNOWN_CHAIN)
"""One cause makes every later event of the chain fail with these, so a run of them is one problem."""


class _ClaimedMetadata(Struct):
    sequence: attestation.Sequence


class _ClaimedAttestation(Struct):
    chain_uid: Annotated[str, Meta(pattern=attestation.CHAIN_UID_PATTERN)]


class _Claim(Struct):
    metadata: _ClaimedMetadata
    attestation_list: list[_ClaimedAttestation]


class _Problems:
    """Collects problems, joins runs with one cause, and keeps no more than MAX_PROBLEMS."""

    def __init__(self) -> None:
        self.count = 0
        self._listed: list[Problem] = []
        self._running: dict[str | None, int] = {}

    def add(self, error: IntegrityError, line: int | None) -> None:
        """Add one problem."""
        place = self._running.get(error.chain_uid)
        if place is not None and line is not None and self._listed[place].reason is error.reason:
            run = self._listed[place]
            self._listed[place] = replace(run, last_line=line, count=run.count + 1)
            return
        self.count += 1
        if len(self._listed) >= MAX_PROBLEMS:
            return
        self._running.pop(error.chain_uid, None)
        if error.reason in _FOLLOW_ON and line is not None:
            self._running[error.chain_uid] = len(self._listed)
        self._listed.append(
            Problem(
                reason=error.reason,
                message=error.message,
                meaning=error.reason.meaning,
                line=line,
                chain_uid=error.chain_uid,
                sequence=error.sequence,
            )
        )

    def end_run(self, chain_uid: str) -> None:
        """Hear that an event of the chain verifies: the next problem has another cause."""
        self._running.pop(chain_uid, None)

    def ordered(self) -> tuple[Problem, ...]:
        """Return the listed problems in the order of lines, those without a line last."""
        return tuple(sorted(self._listed, key=lambda problem: (problem.line is None, problem.line or 0)))


class _Check:
    """Reads a file line by line."""

    def __init__(self, keys: TrustedKeys, heads: Mapping[str, Head]) -> None:
        self._keys, self._heads = keys, heads
        self.tracks: dict[str, Track] = {}
        self.problems = _Problems()

    def take(self, line: bytes, number: int) -> None:
        """Check one line, without its newline."""
        try:
            signed = read(line)
            contradiction = self._track(signed.parts.chain_uid, signed.parts.sequence).take(signed, number)
        except IntegrityError as error:
            self._refuse(error, line, number)
            return
        self.problems.end_run(signed.parts.chain_uid)
        if contradiction is not None:
            self.problems.add(contradiction, number)

    def _track(self, chain_uid: str, sequence: int | None) -> Track:
        track = self.tracks.get(chain_uid)
        if track is None:
            key = self._keys.chains.get(chain_uid)
            if key is None:
                message = "no trusted key is given for the chain"
                raise IntegrityError(Reason.UNKNOWN_CHAIN, message, chain_uid=chain_uid, sequence=sequence)
            track = self.tracks[chain_uid] = Track(chain_uid, key, self._heads.get(chain_uid))
        return track

    def _refuse(self, error: IntegrityError, line: bytes, number: int) -> None:
        """Note a refused line under the chain and place that it claims: nothing is decided by that claim."""
        chain_uid, sequence = error.chain_uid, error.sequence
        if chain_uid is None:
            chain_uid, sequence = _claim(line)
        if chain_uid is not None and chain_uid in self._keys.chains:
            self._track(chain_uid, sequence).refuse(sequence, error.reason)
        named = IntegrityError(error.reason, error.message, chain_uid=chain_uid, sequence=sequence)
        self.problems.add(named, number)

    def close(self) -> None:
        """Note what only the end of the file tells."""
        for chain_uid, track in self.tracks.items():
            for gap, line in track.holes():
                missing = f"event {gap.first} is" if gap.first == gap.last else f"events {gap.first} to {gap.last} are"
                self._add_at_end(Reason.GAP, f"{missing} missing before this line", chain_uid, gap.first, line)
            if (cut := track.cut()) is not None:
                self._add_at_end(Reason.TRUNCATED, cut, chain_uid, None, None)
        for chain_uid, head in self._heads.items():
            if chain_uid not in self.tracks:
                absent = f"the file holds no event of the chain; the collector has seen event {head.sequence}"
                self._add_at_end(Reason.TRUNCATED, absent, chain_uid, None, None)

    def _add_at_end(self, reason: Reason, message: str, chain_uid: str, sequence: int | None, line: int | None) -> None:
        self.problems.end_run(chain_uid)
        self.problems.add(IntegrityError(reason, message, chain_uid=chain_uid, sequence=sequence), line)


def _claim(line: bytes) -> tuple[str | None, int | None]:
    """Return chain and place that a line claims, as far as it can be read at all."""
    if len(line) > canonical.LINE_LIMIT:
        return None, None
    try:
        claim = msgspec.json.decode(line, type=_Claim)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None, None
    attestations = claim.attestation_list
    return (attestations[0].chain_uid if attestations else None), claim.metadata.sequence


def verify_export(lines: Iterable[bytes], keys: TrustedKeys, heads: Mapping[str, Head] | None = None) -> Report:
    """Verify an export and say everything that is wrong with it.

    A hole is accepted only where later, verified drop statements of the same chain cover it and agree with the events
    around it. After a problem the check goes on, so that one altered line is one problem.

    Args:
        lines: Stored lines in the order of the file, each with or without its newline.
        keys: The key that each chain began with.
        heads: How far the collector has seen each chain; None when that is not known, and then a cut end cannot be
            told. A chain with a head and without events in the file counts as cut off.
    """
    check = _Check(keys, heads or {})
    number = 0
    for number, line in enumerate(lines, 1):
        check.take(line[:-1] if line.endswith(b"\n") else line, number)
    check.close()
    chains = tuple(track.outcome() for track in check.tracks.values())
    return Report(
        lines=number,
        events=sum(chain.events for chain in chains),
        chains=chains,
        problems=check.problems.ordered(),
        problem_count=check.problems.count,
        heads_given=heads is not None,
    )
