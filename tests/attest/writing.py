"""Writes chains as an agent does, and bends them as an attacker would."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from nbsentinel.attest import attestation, canonical
from nbsentinel.attest.chain import Chain, Head, Sealed
from nbsentinel.attest.keys import PublicKey, SigningKey
from nbsentinel.attest.verify import Report, TrustedKeys, verify_export

Event = dict[str, Any]
NOON = 1_700_000_000_000
property_test = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text(st.characters(max_codepoint=127), max_size=8)
integers = st.integers(-(2**53) + 1, 2**53 - 1)
values = st.recursive(
    st.none() | st.booleans() | integers | text,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(names, children, max_size=4),
    max_leaves=12,
)
free_events = st.dictionaries(names, values, max_size=5)


def own_event(what: str, **details: object) -> Event:
    """Return an event about the agent itself."""
    return {
        "class_uid": 6002,
        "type_uid": 600299,
        "time": NOON,
        "metadata": {"version": "1.6.0", "profiles": ["host"]},
        "severity_id": 1,
        "unmapped": {"nbsentinel": {"what": what, **details}},
    }


def plain_event(number: int = 0, **members: object) -> Event:
    """Return an event about what was observed."""
    return {
        "class_uid": 1007,
        "type_uid": 100701,
        "time": NOON + number,
        "metadata": {"version": "1.6.0"},
        "severity_id": 1,
        "message": f"event {number} \N{SNOWMAN} \x7f \u2028",
        **members,
    }


class Session:
    """One chain and the lines that it has written, the enrolment first."""

    def __init__(self, chain_uid: str = "session-1") -> None:
        self.time = NOON
        key = SigningKey.generate()
        self.chain = Chain(chain_uid, key, now=lambda: self.time)
        self.lines: list[bytes] = []
        self.heads: list[Head] = []
        self._keep(self.chain.seal(own_event("enrol", key=key.jwk(), agent_uid="agent-1", version="1")))

    def _keep(self, sealed: Sealed) -> Sealed:
        self.lines.append(sealed.line)
        self.heads.append(sealed.head)
        self.time += 1
        return sealed

    def add(self, event: Event | None = None) -> Sealed:
        """Seal one more event."""
        return self._keep(self.chain.seal(plain_event(len(self.lines)) if event is None else event))

    def rotate(self) -> Sealed:
        """Hand over to a new key."""
        return self._keep(self.chain.rotate(own_event("key_rotation")))

    def run(self, plan: Iterable[Event | None]) -> Session:
        """Seal events; None stands for a rotation."""
        for event in plan:
            if event is None:
                self.rotate()
            else:
                self.add(event)
        return self

    def range(self, first: int, last: int, **changed: object) -> Event:
        """Return the truthful statement about a range of dropped events, with some members changed."""
        before, end = self.heads[first - 2], self.heads[last - 1]
        return {
            "first": first,
            "last": last,
            "prev_fingerprint": before.fingerprint,
            "last_fingerprint": end.fingerprint,
            "last_signature_sha256": end.signature_sha256,
            "counts": {"1": last - first + 1},
            **changed,
        }

    def state_drop(self, *ranges: Event) -> Sealed:
        """Seal a drop statement."""
        return self.add(own_event("dropped", ranges=list(ranges)))

    def without(self, first: int, last: int) -> list[bytes]:
        """Return the lines as if a range of sequences had never been delivered."""
        return self.lines[: first - 1] + self.lines[last:]

    def fork(self) -> Session:
        """Return a second writer with the same keys, as a thief of the process's memory has it."""
        other = copy.copy(self)
        other.chain = copy.copy(self.chain)
        other.lines, other.heads = list(self.lines), list(self.heads)
        return other

    @property
    def trust(self) -> TrustedKeys:
        """Return what a verifier is given."""
        return trust(self)

    def head(self) -> Head:
        """Return the newest head."""
        return self.heads[-1]


def trust(*sessions: Session) -> TrustedKeys:
    """Return the first keys of several chains."""
    return TrustedKeys({session.chain.chain_uid: session.chain.genesis_key for session in sessions})


def session(events: int = 6, *, rotate_at: Iterable[int] = (3,), chain_uid: str = "session-1") -> Session:
    """Return a chain of an enrolment and so many events; those at the given places are rotations."""
    rotations = set(rotate_at)
    return Session(chain_uid).run(None if place in rotations else plain_event(place) for place in range(events))


@st.composite
def sessions(draw: st.DrawFn, *, chain_uid: str = "session-1", least: int = 3) -> Session:
    """Return a chain of generated events, a third of them rotations."""
    plan = draw(st.lists(st.one_of(st.none(), free_events, free_events), min_size=least, max_size=7))
    return Session(chain_uid).run(plan)


def interleaved(data: st.DataObject, *written: Session) -> list[bytes]:
    """Return the lines of several chains in one file, each chain in its order."""
    order = data.draw(st.permutations([place for place, one in enumerate(written) for _ in one.lines]))
    queues = [iter(one.lines) for one in written]
    return [next(queues[place]) for place in order]


def edited(line: bytes, change: Callable[[Event], object]) -> bytes:
    """Return the canonical line of an event that was changed and not signed again."""
    event = canonical.decode(line)
    change(event)
    return canonical.encode(event)


def proof(line: bytes) -> Event:
    """Return the attestation of a line."""
    return msgspec.json.decode(line)["attestation_list"][0]


def resigned(
    line: bytes, key: SigningKey, change: Callable[[Event], object], *, thumbprint: str | None = None
) -> bytes:
    """Return a changed event with a new, valid proof by a key, which may claim another key's thumbprint."""
    event = canonical.decode(line)
    own: Any = event["attestation_list"]
    del own[0]["fingerprint"], own[0]["signatures"]
    own[0]["authority_uid"] = thumbprint or key.thumbprint
    change(event)
    metadata: Any = event["metadata"]
    digest = hashlib.sha256(canonical.encode(event)).digest()
    own[0].update(attestation.proof(digest, key.sign(digest), metadata["logged_time"]))
    return canonical.encode(event)


def reasons(report: Report) -> list[str]:
    """Return the names of the problems of a report in order."""
    return [problem.reason.name for problem in report.problems]


def check(lines: Iterable[bytes], *written: Session, heads: bool = False) -> Report:
    """Verify a file of chains, on request with the newest head of each."""
    known = {one.chain.chain_uid: one.head() for one in written} if heads else None
    return verify_export(lines, trust(*written), known)


def public(key: SigningKey) -> PublicKey:
    """Return the half that verifies, by the way it travels."""
    return PublicKey.from_jwk(key.jwk())
