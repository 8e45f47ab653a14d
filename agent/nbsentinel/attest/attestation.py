"""The shape of an attestation in an event: what the writer puts there and all that a verifier lets pass.

It is OCSF's `record_integrity` profile (objects attestation, fingerprint, prev_event, digital_signature) with two
members of our own: `signatures[].value`, because the schema has no place for the bytes of a signature, and
`prev_event.signature_sha256`. Everything is inside the fingerprint except the attestation's `fingerprint` and
`signatures`. These two are outside, so they are held to one spelling: no further members, constants as given here, and
the time of signing repeats the signed `metadata.logged_time`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from nbsentinel.attest import base64url, canonical
from nbsentinel.attest.integrity import IntegrityError, Reason
from nbsentinel.attest.keys import SIGNATURE_BYTES

PROFILE = "record_integrity"
CHAIN_UID_PATTERN = r"\A[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z"

_Hash = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Uid = Annotated[str, Meta(min_length=1, max_length=256)]
_Millis = Annotated[int, Meta(ge=0, le=canonical.MAX_SAFE_INTEGER)]
Sequence = Annotated[int, Meta(ge=1, le=canonical.MAX_SAFE_INTEGER)]


class Head(Struct, frozen=True):
    """A place in a chain, named by what stands there."""

    chain_uid: str
    sequence: int
    fingerprint: str
    """SHA-256 of the event in hex."""
    signature_sha256: str
    """SHA-256 of the event's raw signature in hex."""


class Parts(Struct, frozen=True, kw_only=True):
    """What an event says of itself for verification."""

    chain_uid: str
    sequence: int
    authority_uid: str
    """Thumbprint of the key that signed."""
    fingerprint: str
    signature: str
    """64 bytes in base64url, not yet decoded."""
    prev_fingerprint: str | None
    """Fingerprint of the event before; None only for the first event."""
    prev_signature_sha256: str | None


class _Fingerprint(Struct, forbid_unknown_fields=True):
    algorithm: Literal["SHA-256"]
    algorithm_id: Literal[3]
    encoding: Literal["Hex"]
    encoding_id: Literal[1]
    serialization: Literal["JCS"]
    serialization_id: Literal[2]
    value: _Hash


class _PrevFingerprint(Struct, forbid_unknown_fields=True):
    algorithm_id: Literal[3]
    encoding_id: Literal[1]
    serialization_id: Literal[2]
    value: _Hash


class _PrevEvent(Struct, forbid_unknown_fields=True):
    uid: _Uid
    fingerprint: _PrevFingerprint
    signature_sha256: _Hash
    type_uid: int | UnsetType = UNSET


class _Signature(Struct, forbid_unknown_fields=True):
    algorithm: Literal["ECDSA"]
    algorithm_id: Literal[3]
    created_time: _Millis
    value: str


class _Attestation(Struct, forbid_unknown_fields=True):
    uid: _Uid
    authority_uid: _Uid
    chain_uid: Annotated[str, Meta(pattern=CHAIN_UID_PATTERN)]
    fingerprint: _Fingerprint
    signatures: Annotated[list[_Signature], Meta(min_length=1, max_length=1)]
    prev_event: _PrevEvent | UnsetType = UNSET


class _Metadata(Struct):
    sequence: Sequence
    uid: _Uid
    logged_time: _Millis


class _Envelope(Struct):
    metadata: _Metadata
    attestation_list: Annotated[list[_Attestation], Meta(min_length=1, max_length=1)]


def decode_signature(signature: str) -> bytes:
    """Return the 64 raw bytes of a signature.

    Raises:
        IntegrityError: BAD_SIGNATURE, when it is not in its one spelling.
    """
    try:
        return base64url.decode(signature, SIGNATURE_BYTES)
    except ValueError as error:
        raise IntegrityError(Reason.BAD_SIGNATURE, f"the signature is {error}") from None


def signature_sha256(signature: str) -> str:
    """Return the SHA-256 of the raw bytes of a signature in hex.

    Raises:
        IntegrityError: BAD_SIGNATURE, when it is not in its one spelling.
    """
    return hashlib.sha256(decode_signature(signature)).hexdigest()


def parts(event: Mapping[str, object]) -> Parts:
    """Return what an event says of itself for verification; nothing of it is verified yet.

    Raises:
        IntegrityError: NOT_ATTESTED, when the attestation is missing or not exactly of the expected shape.
    """
    try:
        envelope = msgspec.convert(event, _Envelope)
    except msgspec.ValidationError as error:
        raise IntegrityError(Reason.NOT_ATTESTED, f"no valid attestation: {error}") from None
    attestation, sequence = envelope.attestation_list[0], envelope.metadata.sequence
    signature, previous = attestation.signatures[0], attestation.prev_event
    problem = None
    if signature.created_time != envelope.metadata.logged_time:
        problem = "the time of signing is not metadata.logged_time"
    elif (previous is UNSET) != (sequence == 1):
        problem = "prev_event is absent on the first event of a chain and present on every other"
    if problem is not None:
        raise IntegrityError(Reason.NOT_ATTESTED, problem, chain_uid=attestation.chain_uid, sequence=sequence)
    return Parts(
        chain_uid=attestation.chain_uid,
        sequence=sequence,
        authority_uid=attestation.authority_uid,
        fingerprint=attestation.fingerprint.value,
        signature=signature.value,
        prev_fingerprint=None if previous is UNSET else previous.fingerprint.value,
        prev_signature_sha256=None if previous is UNSET else previous.signature_sha256,
    )


def fingerprint(event: Mapping[str, object]) -> bytes:
    """Return the SHA-256 over an attested event without its `fingerprint` and `signatures`.

    The event has passed `parts`, or is about to be signed.

    Raises:
        CanonicalError: The event has no canonical form.
    """
    attestations = event["attestation_list"]
    assert isinstance(attestations, list)
    covered = {name: value for name, value in attestations[0].items() if name not in ("fingerprint", "signatures")}
    content = canonical.encode_checked({**event, "attestation_list": [covered]})
    return hashlib.sha256(content).digest()


def link(head: Head, uid: str, type_uid: object) -> dict[str, object]:
    """Return the `prev_event` that names an event.

    Args:
        head: The event's place in the chain.
        uid: Its metadata.uid.
        type_uid: Its type_uid; left out unless an integer.
    """
    previous: dict[str, object] = {
        "uid": uid,
        "fingerprint": {"algorithm_id": 3, "encoding_id": 1, "serialization_id": 2, "value": head.fingerprint},
        "signature_sha256": head.signature_sha256,
    }
    if type(type_uid) is int:
        previous["type_uid"] = type_uid
    return previous


def proof(digest: bytes, signature: str, created: int) -> dict[str, object]:
    """Return the two members of an attestation that its fingerprint does not cover."""
    return {
        "fingerprint": {
            "algorithm": "SHA-256",
            "algorithm_id": 3,
            "encoding": "Hex",
            "encoding_id": 1,
            "serialization": "JCS",
            "serialization_id": 2,
            "value": digest.hex(),
        },
        "signatures": [{"algorithm": "ECDSA", "algorithm_id": 3, "created_time": created, "value": signature}],
    }


def lifecycle(event: Mapping[str, object]) -> Mapping[str, object]:
    """Return the member `unmapped.nbsentinel` of an event about the agent itself; empty for any other event."""
    unmapped = event.get("unmapped")
    own = unmapped.get("nbsentinel") if isinstance(unmapped, dict) else None
    return own if isinstance(own, dict) else {}
