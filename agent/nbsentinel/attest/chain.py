"""The writing side: gives every event its place, its link to the one before and its signature.

Keys live at most an hour. The old key signs the public half of the new one and is forgotten, so whoever takes over the
process at noon cannot rewrite the morning (forward security).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Mapping

from msgspec import Struct

from nbsentinel.attest import attestation, canonical
from nbsentinel.attest.attestation import Head
from nbsentinel.attest.keys import PublicKey, SigningKey

__all__ = ["KEY_LIFETIME_MS", "Chain", "Head", "Sealed"]

KEY_LIFETIME_MS = 3_600_000


class Sealed(Struct, frozen=True):
    """A signed event, ready to be stored."""

    line: bytes
    """Its canonical form, without a newline."""
    event: dict[str, object]
    head: Head


class Chain:
    """Writes one chain: one agent session. Not safe to use from several threads.

    Args:
        chain_uid: 1 to 128 letters, digits and `._:-`, for example a UUID.
        key: The key that the first event presents.
        key_lifetime_ms: Age in milliseconds at which `rotation_due` says so.
        now: Milliseconds since the epoch.

    Raises:
        ValueError: The chain_uid is not of that form.
    """

    def __init__(
        self, chain_uid: str, key: SigningKey, *, key_lifetime_ms: int = KEY_LIFETIME_MS, now: Callable[[], int]
    ) -> None:
        if not re.match(attestation.CHAIN_UID_PATTERN, chain_uid):
            raise ValueError(f"not a chain_uid: {chain_uid!r}")
        self.chain_uid = chain_uid
        self.key = key
        """The key in force."""
        self.genesis_key: PublicKey = key.public
        """What a verifier has to trust."""
        self.head: Head | None = None
        """The newest sealed event, None before the first."""
        self._now, self._lifetime, self._key_since = now, key_lifetime_ms, now()
        self._previous: tuple[str, object] = ("", None)

    def seal(self, event: dict[str, object]) -> Sealed:
        """Return the event with its place, link and signature; the argument stays as it is.

        Sets metadata.sequence (1, 2, ... without gaps), metadata.logged_time, metadata.uid where absent, the profile
        and attestation_list.

        Raises:
            CanonicalError: The event has no canonical form or is longer than LINE_LIMIT. The chain stays as it was.
            ValueError: The event claims to be a key rotation; only `rotate` makes these.
        """
        if attestation.lifecycle(event).get("what") == "key_rotation":
            raise ValueError("a key rotation is announced by rotate()")
        return self._seal(event)

    def _seal(self, event: dict[str, object]) -> Sealed:
        sequence, created = self.head.sequence + 1 if self.head else 1, self._now()
        metadata = _metadata(event.get("metadata"), sequence, created)
        covered: dict[str, object] = {
            "uid": str(uuid.uuid4()),
            "authority_uid": self.key.thumbprint,
            "chain_uid": self.chain_uid,
        }
        if self.head is not None:
            covered["prev_event"] = attestation.link(self.head, *self._previous)
        sealed = {**event, "metadata": metadata, "attestation_list": [covered]}
        digest = hashlib.sha256(canonical.encode(sealed)).digest()
        signature = self.key.sign(digest)
        sealed["attestation_list"] = [{**covered, **attestation.proof(digest, signature, created)}]
        line = canonical.encode_checked(sealed)
        if len(line) > canonical.LINE_LIMIT:
            raise canonical.CanonicalError(f"the signed event is longer than {canonical.LINE_LIMIT} bytes")
        self.head = Head(self.chain_uid, sequence, digest.hex(), attestation.signature_sha256(signature))
        self._previous = (str(metadata["uid"]), event.get("type_uid"))
        return Sealed(line, sealed, self.head)

    def rotation_due(self) -> bool:
        """Return whether the key is older than its lifetime, or the clock was set back behind its birth."""
        return not 0 <= self._now() - self._key_since < self._lifetime

    def rotate(self, announce: dict[str, object]) -> Sealed:
        """Hand over to a new key: the old one signs its public half as its last event and is forgotten.

        Args:
            announce: An event about the agent; the new key is put at unmapped.nbsentinel.key of a copy, and
                unmapped.nbsentinel.what is set.

        Raises:
            CanonicalError: As for `seal`; the old key stays in force.
        """
        key = SigningKey.generate()
        own = {**attestation.lifecycle(announce), "what": "key_rotation", "key": key.jwk()}
        unmapped = announce.get("unmapped")
        others = unmapped if isinstance(unmapped, dict) else {}
        sealed = self._seal({**announce, "unmapped": {**others, "nbsentinel": own}})
        self.key, self._key_since = key, self._now()
        return sealed


def _metadata(given: object, sequence: int, created: int) -> dict[str, object]:
    metadata: dict[str, object] = dict(given) if isinstance(given, Mapping) else {}
    profiles = metadata.get("profiles")
    listed = list(profiles) if isinstance(profiles, (list, tuple)) else []
    metadata["profiles"] = listed if attestation.PROFILE in listed else [*listed, attestation.PROFILE]
    metadata["sequence"], metadata["logged_time"] = sequence, created
    uid = metadata.get("uid")
    if not isinstance(uid, str) or not 0 < len(uid) <= 256:
        metadata["uid"] = str(uuid.uuid4())
    return metadata
