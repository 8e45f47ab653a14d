"""The writing side: places, links, keys."""

from __future__ import annotations

import copy
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.writing import (
    NOON,
    Session,
    free_events,
    own_event,
    plain_event,
    proof,
    property_test,
    session,
)
from nbsentinel.attest import base64url, canonical
from nbsentinel.attest.canonical import LINE_LIMIT, CanonicalError
from nbsentinel.attest.chain import Chain
from nbsentinel.attest.keys import SigningKey
from nbsentinel.attest.verify import verify_genesis, verify_next

# The attributes of objects/attestation.json, fingerprint.json, digital_signature.json and prev_event.json of OCSF 1.9.
OCSF = {
    "attestation": {"uid", "authority_uid", "signatures", "fingerprint", "prev_event", "chain_uid"},
    "fingerprint": {
        "algorithm",
        "algorithm_id",
        "encoding",
        "encoding_id",
        "serialization",
        "serialization_id",
        "value",
    },
    "signature": {
        "algorithm",
        "algorithm_id",
        "created_time",
        "serialization",
        "serialization_id",
        "state",
        "state_id",
    },
    "prev_event": {"uid", "type_uid", "fingerprint"},
}


@property_test
@given(st.lists(st.one_of(st.none(), free_events), max_size=6))
def test_what_is_sealed_verifies(plan: list[dict[str, object] | None]) -> None:
    """Any events with any rotations between them verify one after the other, with sequences 1, 2, ... without gaps."""
    written = Session().run(plan)
    accepted = verify_genesis(written.lines[0], key=written.chain.genesis_key)
    for place, line in enumerate(written.lines[1:], 1):
        accepted = verify_next(line, accepted.state)
        assert written.heads[place] == accepted.head == accepted.state.head
    assert len(plan) + 1 == accepted.head.sequence
    assert written.chain.key.jwk() == accepted.state.key


@property_test
@given(free_events)
def test_content_stays(event: dict[str, object]) -> None:
    """Sealing changes nothing in its argument, and of the event only metadata and attestation_list."""
    before = copy.deepcopy(event)
    sealed = Session().add(event)
    assert before == event
    own = ("metadata", "attestation_list")
    assert {k: v for k, v in event.items() if k not in own} == {k: v for k, v in sealed.event.items() if k not in own}
    assert sealed.event == canonical.decode(sealed.line)


def test_metadata() -> None:
    """The given metadata stays; sequence, time of sealing, the profile and a uid where there is none are added."""
    written = Session()
    kept = written.add(
        plain_event(metadata={"uid": "mine", "profiles": ["host", "record_integrity"], "version": "1.6.0"})
    )
    assert kept.event["metadata"] == {
        "uid": "mine",
        "profiles": ["host", "record_integrity"],
        "version": "1.6.0",
        "sequence": 2,
        "logged_time": NOON + 1,
    }
    given_uid = written.add(plain_event(metadata={"uid": 7, "profiles": "none", "sequence": 99})).event["metadata"]
    assert {"sequence": 3, "profiles": ["record_integrity"]}.items() <= given_uid.items()
    assert len(given_uid["uid"]) == 36


def test_uids_are_unique() -> None:
    """Every event and every attestation gets an identifier of its own."""
    lines = session(20).lines
    assert (
        len({canonical.decode(line)["metadata"]["uid"] for line in lines} | {proof(line)["uid"] for line in lines})
        == 42
    )


def test_shape_is_the_profile_of_ocsf() -> None:
    """The attestation has the members of OCSF's record_integrity profile and two of our own, nothing else."""
    written = session(2, rotate_at=())
    first, second = proof(written.lines[0]), proof(written.lines[1])
    assert OCSF["attestation"] - {"prev_event"} == set(first)
    assert OCSF["attestation"] == set(second)
    assert OCSF["fingerprint"] == set(second["fingerprint"])
    assert set(second["signatures"][0]) - OCSF["signature"] == {"value"}
    assert set(second["prev_event"]) - OCSF["prev_event"] == {"signature_sha256"}
    assert set(second["prev_event"]["fingerprint"]) < OCSF["fingerprint"]


def test_link_names_the_event_before() -> None:
    """prev_event carries uid, type, fingerprint and the hash of the signature of the event before."""
    written = session(1, rotate_at=())
    before, previous = canonical.decode(written.lines[0]), proof(written.lines[1])["prev_event"]
    assert before["metadata"]["uid"] == previous["uid"]
    assert before["type_uid"] == previous["type_uid"]
    signature = base64url.decode(proof(written.lines[0])["signatures"][0]["value"], 64)
    assert hashlib.sha256(signature).hexdigest() == previous["signature_sha256"]
    assert proof(written.lines[0])["fingerprint"]["value"] == previous["fingerprint"]["value"]


@pytest.mark.parametrize(
    "bad",
    [{"a": 1.5}, {"a": "\ud800"}, {"a": "x" * LINE_LIMIT}, {"\N{SNOWMAN}": 1}],
    ids=["float", "surrogate", "long", "key"],
)
def test_what_cannot_be_sealed_leaves_no_trace(bad: dict[str, object]) -> None:
    """An event without canonical form, or too long once signed, raises and the chain goes on as if it had not been."""
    written = session(1)
    with pytest.raises(CanonicalError):
        written.chain.seal(bad)
    key = written.chain.key
    with pytest.raises(CanonicalError):
        written.chain.rotate(bad)
    assert key is written.chain.key
    written.add()
    assert verify_next(written.lines[-1], verify_next(written.lines[1], verify_genesis(written.lines[0]).state).state)


def test_rotation() -> None:
    """The old key signs the new one as its last event; what was announced beside the key stays."""
    written = Session()
    old = written.chain.key
    sealed = written.chain.rotate({**own_event("key_rotation", note="hourly"), "message": "new key"})
    new = written.chain.key
    assert new is not old
    assert old.thumbprint == proof(sealed.line)["authority_uid"]
    assert {"what": "key_rotation", "note": "hourly", "key": new.jwk()} == sealed.event["unmapped"]["nbsentinel"]
    assert new.thumbprint == proof(written.chain.seal(plain_event()).line)["authority_uid"]
    assert old.thumbprint == written.chain.genesis_key.thumbprint


def test_rotation_is_due_by_the_clock() -> None:
    """A key is due at the end of its life, and at once when the clock was set back behind its birth."""
    time = [1000]
    chain = Chain("c", SigningKey.generate(), key_lifetime_ms=100, now=lambda: time[0])
    due = []
    for time[0] in (1000, 1099, 1100, 999):
        due.append(chain.rotation_due())
    time[0] = 1100
    chain.rotate(own_event("key_rotation"))
    due.append(chain.rotation_due())
    assert due == [False, False, True, True, False]


def test_only_rotate_announces_a_key() -> None:
    """An event that merely claims to be a rotation would break the chain and is not sealed."""
    with pytest.raises(ValueError, match="rotate"):
        Session().chain.seal(own_event("key_rotation", key=SigningKey.generate().jwk()))


@pytest.mark.parametrize("uid", ["", " ", "a b", "a\n", "\x1b[2J", "x" * 129, "\N{SNOWMAN}", "-a"])
def test_chain_uid_is_plain(uid: str) -> None:
    """A chain's name can be printed anywhere."""
    with pytest.raises(ValueError, match="chain_uid"):
        Chain(uid, SigningKey.generate(), now=lambda: 0)
