"""Event by event, as the collector verifies: each broken promise has its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from attest.writing import Session, edited, own_event, plain_event, proof, resigned, session
from nbsentinel.attest import base64url, canonical
from nbsentinel.attest.keys import ORDER, SigningKey
from nbsentinel.attest.verify import ChainState, IntegrityError, Reason, verify_genesis, verify_next

Change = Callable[[dict[str, Any]], object]


def state_before(written: Session, sequence: int) -> ChainState:
    """Return the state of a verifier that expects this sequence."""
    state = verify_genesis(written.lines[0], key=written.chain.genesis_key).state
    for line in written.lines[1 : sequence - 1]:
        state = verify_next(line, state).state
    return state


def refusal(line: bytes, state: ChainState | None, **options: Any) -> IntegrityError:
    """Return the error that a line is refused with; without a state it is taken for a first line."""
    with pytest.raises(IntegrityError) as caught:
        verify_next(line, state, **options) if state else verify_genesis(line, **options)
    return caught.value


def attested(change: Change) -> Change:
    """Return a change of an event that changes its attestation."""
    return lambda event: change(event["attestation_list"][0])


def test_state_survives_json() -> None:
    """What a verifier remembers can be stored as JSON between two batches, open holes included."""
    written = session(8)
    accepted = verify_next(written.lines[2], state_before(written, 2), across_gap=True)
    again = msgspec.json.decode(msgspec.json.encode(accepted.state), type=ChainState)
    assert accepted.state == again
    assert accepted.opened is not None
    assert verify_next(written.lines[3], again).head == written.heads[3]


def test_error_says_where() -> None:
    """An error names reason, chain and sequence, says what is wrong in one line and what that means."""
    written = session()
    error = refusal(written.lines[3], state_before(written, 2))
    assert (error.reason, error.chain_uid, error.sequence, error.line) == (Reason.GAP, "session-1", 4, None)
    assert error.message == "event 2 to 3 are missing"
    assert error.hint == Reason.GAP.meaning


SHAPE: list[tuple[str, Change]] = [
    ("no list", lambda e: e.pop("attestation_list")),
    ("empty list", lambda e: e["attestation_list"].clear()),
    ("two attestations", lambda e: e["attestation_list"].append(e["attestation_list"][0])),
    ("list is an object", lambda e: e.update(attestation_list=e["attestation_list"][0])),
    ("attestation is text", lambda e: e.update(attestation_list=["x"])),
    ("no metadata", lambda e: e.pop("metadata")),
    ("no sequence", lambda e: e["metadata"].pop("sequence")),
    ("sequence 0", lambda e: e["metadata"].update(sequence=0)),
    ("sequence true", lambda e: e["metadata"].update(sequence=True)),
    ("sequence text", lambda e: e["metadata"].update(sequence="2")),
    ("no uid of the event", lambda e: e["metadata"].pop("uid")),
    ("no logged_time", lambda e: e["metadata"].pop("logged_time")),
    ("other time of signing", attested(lambda a: a["signatures"][0].update(created_time=1))),
    ("chain_uid with control", attested(lambda a: a.update(chain_uid="a\x1b"))),
    ("empty uid", attested(lambda a: a.update(uid=""))),
    ("further member", attested(lambda a: a.update(note="x"))),
    ("further member of fingerprint", attested(lambda a: a["fingerprint"].update(note="x"))),
    ("other algorithm", attested(lambda a: a["fingerprint"].update(algorithm_id=4))),
    ("true instead of 1", attested(lambda a: a["fingerprint"].update(encoding_id=True))),
    ("upper-case fingerprint", attested(lambda a: a["fingerprint"].update(value="A" * 64))),
    ("short fingerprint", attested(lambda a: a["fingerprint"].update(value="a" * 63))),
    ("fingerprint and newline", attested(lambda a: a["fingerprint"].update(value="a" * 64 + "\n"))),
    ("no signature", attested(lambda a: a["signatures"].clear())),
    ("two signatures", attested(lambda a: a["signatures"].append(a["signatures"][0]))),
    ("further member of signature", attested(lambda a: a["signatures"][0].update(note="x"))),
    ("signature is null", attested(lambda a: a["signatures"][0].update(value=None))),
    ("no prev_event", attested(lambda a: a.pop("prev_event"))),
    ("prev_event null", attested(lambda a: a.update(prev_event=None))),
    ("further member of prev_event", attested(lambda a: a["prev_event"].update(note="x"))),
    ("type_uid text", attested(lambda a: a["prev_event"].update(type_uid="x"))),
]
SHAPE += [
    (f"no {name}", attested(lambda a, name=name: a.pop(name)))
    for name in ("uid", "authority_uid", "chain_uid", "fingerprint", "signatures")
]
SHAPE += [
    (f"no fingerprint.{name}", attested(lambda a, name=name: a["fingerprint"].pop(name)))
    for name in ("algorithm", "algorithm_id", "encoding", "encoding_id", "serialization", "serialization_id", "value")
]
SHAPE += [
    (f"no signatures.{name}", attested(lambda a, name=name: a["signatures"][0].pop(name)))
    for name in ("algorithm", "algorithm_id", "created_time", "value")
]
SHAPE += [
    (f"no prev_event.{name}", attested(lambda a, name=name: a["prev_event"].pop(name)))
    for name in ("uid", "fingerprint", "signature_sha256")
]


@pytest.mark.parametrize("change", [change for _, change in SHAPE], ids=[name for name, _ in SHAPE])
def test_attestation_of_another_shape(change: Change) -> None:
    """A missing, doubled, extra or malformed member is NOT_ATTESTED, whoever signed it."""
    written = session(2, rotate_at=())
    assert refusal(edited(written.lines[1], change), state_before(written, 2)).reason is Reason.NOT_ATTESTED


@pytest.mark.parametrize(
    ("written_as", "respelled"),
    [
        (b'"message"', b'"messag\\u0065"'),
        (b'"event ', b'"\\u0065vent '),
        (b'"event ', b'"event\\u0020'),
        (b'"message":', b'"message": '),
        (b'"message":', b'"message":"x","message":'),
        (b'"sequence":2', b'"sequence":1,"sequence":2'),
        (b'"sequence":2', b'"sequence":2.0'),
        (b'"sequence":2', b'"sequence":2e0'),
        (b'"chain_uid":', b'"chain_uid":"other","chain_uid":'),
    ],
)
def test_same_event_in_another_spelling(written_as: bytes, respelled: bytes) -> None:
    """A signed line with an escape, a blank, a key twice or another number is NOT_CANONICAL, if it means the same."""
    written = session(2, rotate_at=())
    line = written.lines[1].replace(written_as, respelled, 1)
    assert line != written.lines[1]
    assert refusal(line, state_before(written, 2)).reason is Reason.NOT_CANONICAL


def test_altered_content() -> None:
    """Content that does not have the stated fingerprint is CHANGED; with a new fingerprint it is BAD_SIGNATURE."""
    written, thief = session(3, rotate_at=()), SigningKey.generate()
    state, line, owner = state_before(written, 3), written.lines[2], written.chain.key.thumbprint
    alter: Change = lambda event: event.update(message="nothing happened")  # noqa: E731
    assert refusal(edited(line, alter), state).reason is Reason.CHANGED
    assert refusal(resigned(line, thief, alter, thumbprint=owner), state).reason is Reason.BAD_SIGNATURE
    assert refusal(resigned(line, thief, alter), state).reason is Reason.WRONG_KEY
    assert refusal(resigned(line, thief, lambda event: None), state).reason is Reason.WRONG_KEY


@pytest.mark.parametrize("spelling", ["padded", "trailing bits", "high s", "cut", "other"])
def test_other_spelling_of_the_signature(spelling: str) -> None:
    """The event's own signature in any other spelling, or that of another event, is BAD_SIGNATURE."""
    written = session(3, rotate_at=())
    value = proof(written.lines[2])["signatures"][0]["value"]
    raw = base64url.decode(value, 64)
    s = (ORDER - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(value[-1])
    others = {
        "padded": value + "==",
        "trailing bits": value[:-1] + "BRhx"[last // 16],
        "high s": base64url.encode(raw[:32] + s),
        "cut": value[:-1],
        "other": proof(written.lines[1])["signatures"][0]["value"],
    }
    line = edited(written.lines[2], attested(lambda a: a["signatures"][0].update(value=others[spelling])))
    assert others[spelling] != value
    assert refusal(line, state_before(written, 3)).reason is Reason.BAD_SIGNATURE


def test_places_in_the_chain() -> None:
    """Ahead is GAP, the head again is DUPLICATED, an earlier one is REORDERED, another chain's is UNKNOWN_CHAIN."""
    written, other = session(6, rotate_at=()), session(6, rotate_at=(), chain_uid="session-2")
    state = state_before(written, 5)
    assert refusal(written.lines[5], state).reason is Reason.GAP
    assert refusal(written.lines[3], state).reason is Reason.DUPLICATED
    assert refusal(written.lines[1], state).reason is Reason.REORDERED
    assert refusal(other.lines[4], state).reason is Reason.UNKNOWN_CHAIN


def test_fork_by_the_holder_of_the_key() -> None:
    """Another event for the head's place is FORK, and what follows that other event is BROKEN_LINK."""
    written = session(3, rotate_at=())
    thief = written.fork()
    written.add(plain_event(1))
    thief.add(plain_event(2))
    thief.add(plain_event(3))
    state = state_before(written, 6)
    assert refusal(thief.lines[4], state).reason is Reason.FORK
    assert refusal(thief.lines[5], state).reason is Reason.BROKEN_LINK


def test_no_fork_without_the_key() -> None:
    """Nobody without the key can make an event that looks like a fork."""
    written, thief = session(3, rotate_at=()), SigningKey.generate()
    state = state_before(written, 5)
    owner = written.chain.key.thumbprint
    assert refusal(resigned(written.lines[3], thief, lambda e: None), state).reason is Reason.WRONG_KEY
    forged = resigned(written.lines[3], thief, lambda e: None, thumbprint=owner)
    assert refusal(forged, state).reason is Reason.BAD_SIGNATURE
    value = proof(written.lines[3])["signatures"][0]["value"]
    padded = edited(written.lines[3], attested(lambda a: a["signatures"][0].update(value=value + "==")))
    assert refusal(padded, state).reason is Reason.BAD_SIGNATURE


def test_other_signature_before() -> None:
    """The chain links signatures too: the same content signed a second time does not fit what follows."""
    written = session(2, rotate_at=())
    again = resigned(written.lines[1], written.chain.key, lambda event: None)
    assert again != written.lines[1]
    state = verify_next(again, state_before(written, 2)).state
    assert refusal(written.lines[2], state).reason is Reason.BROKEN_LINK


def test_forgotten_key() -> None:
    """After a rotation the old key is worth nothing, and a removed rotation is a hole that cannot be crossed."""
    written = session(2, rotate_at=())
    old = written.chain.key
    written.run([None, plain_event(5), plain_event(6)])
    state = state_before(written, 5)
    stale = resigned(written.lines[4], old, lambda event: event.update(message="rewritten"))
    assert refusal(stale, state).reason is Reason.WRONG_KEY
    for across in (False, True):
        error = refusal(written.lines[4], state_before(written, 4), across_gap=across)
        assert error.reason is Reason.GAP
        assert "key was replaced" in error.message


def test_rotation_to_no_key() -> None:
    """A rotation that announces no valid key is refused, for no later event could be checked."""
    written = session(1)
    line = resigned(
        written.lines[1],
        written.chain.key,
        lambda e: e.update(own_event("key_rotation", key={"kty": "EC"}), metadata=e["metadata"]),
    )
    assert refusal(line, state_before(written, 2)).reason is Reason.NOT_ATTESTED


def enrolment(key: SigningKey, change: Change) -> bytes:
    """Return an enrolment of a key, changed before it was signed by that key."""
    return resigned(Session().lines[0], key, lambda e: (e["unmapped"]["nbsentinel"].update(key=key.jwk()), change(e)))


def test_genesis() -> None:
    """A first event is accepted with any key that it presents and signs with, or only with the trusted one."""
    key, other = SigningKey.generate(), SigningKey.generate()
    line = enrolment(key, lambda e: None)
    assert verify_genesis(line).state.key == key.jwk()
    assert verify_genesis(line, key=key.public).head.sequence == 1
    assert refusal(line, None, key=other.public).reason is Reason.WRONG_KEY


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda e: e["unmapped"]["nbsentinel"].update(what="heartbeat"), Reason.NOT_ATTESTED),
        (lambda e: e["unmapped"]["nbsentinel"].pop("key"), Reason.NOT_ATTESTED),
        (lambda e: e["unmapped"]["nbsentinel"].update(key="x"), Reason.NOT_ATTESTED),
        (lambda e: e.update(unmapped="x"), Reason.NOT_ATTESTED),
        (lambda e: e["metadata"].update(sequence=2), Reason.NOT_ATTESTED),
        (lambda e: e["unmapped"]["nbsentinel"].update(key=SigningKey.generate().jwk()), Reason.WRONG_KEY),
    ],
)
def test_genesis_of_another_kind(change: Change, reason: Reason) -> None:
    """A first event that enrols no key, is not the first, or is signed by another key than it presents, is refused."""
    assert refusal(enrolment(SigningKey.generate(), change), None).reason is reason


def test_genesis_has_no_predecessor() -> None:
    """A later event is no first event, and a first event that names one before it is refused."""
    written = session(2)
    assert refusal(written.lines[1], None).reason is Reason.NOT_ATTESTED
    link = proof(written.lines[1])["prev_event"]
    line = enrolment(SigningKey.generate(), attested(lambda a: a.update(prev_event=link)))
    assert refusal(line, None).reason is Reason.NOT_ATTESTED


def test_decoded_event_is_the_signed_one() -> None:
    """What is accepted is exactly the content of the line."""
    written = session(1, rotate_at=())
    assert canonical.decode(written.lines[1]) == verify_next(written.lines[1], state_before(written, 2)).event
