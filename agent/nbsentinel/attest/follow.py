"""One step of verification: an event, the state before it, the state after it. No I/O, nothing is remembered here."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from nbsentinel.attest import attestation, canonical
from nbsentinel.attest.attestation import Head, Parts
from nbsentinel.attest.gaps import MAX_OPEN_GAPS, Gap, Pruned, excuse, stated
from nbsentinel.attest.integrity import IntegrityError, Reason
from nbsentinel.attest.keys import KeyFormatError, PublicKey


class ChainState(Struct, frozen=True):
    """All that a verifier remembers of a chain between two events; JSON through msgspec."""

    head: Head
    key: dict[str, str]
    """The key in force as a JSON Web Key."""
    gaps: tuple[Gap, ...] = ()
    """Holes that no statement has excused yet, in order; only with `across_gap`."""


class Accepted(Struct, frozen=True):
    """An event that verifies."""

    event: dict[str, object]
    head: Head
    state: ChainState
    opened: Gap | None = None
    """The hole in front of this event."""
    pruned: tuple[Pruned, ...] = ()
    """What this event excuses of the holes before it."""


class Signed(Struct, frozen=True):
    """An event whose fingerprint fits its content; whose signature it carries is still to be verified."""

    event: dict[str, object]
    parts: Parts
    digest: bytes

    def refuse(self, reason: Reason, message: str) -> IntegrityError:
        """Return the error that refuses this event."""
        return IntegrityError(reason, message, chain_uid=self.parts.chain_uid, sequence=self.parts.sequence)

    def check(self, key: PublicKey) -> None:
        """Do nothing if the event is signed by this key.

        Raises:
            IntegrityError: WRONG_KEY or BAD_SIGNATURE.
        """
        if self.parts.authority_uid != key.thumbprint:
            raise self.refuse(Reason.WRONG_KEY, f"signed by key {_short(self)}, but {key.thumbprint} is in force")
        if not key.verify(self.digest, self.parts.signature):
            raise self.refuse(Reason.BAD_SIGNATURE, f"the signature is not one of key {key.thumbprint} over this event")

    def head(self) -> Head:
        """Return the event's place in the chain.

        Raises:
            IntegrityError: BAD_SIGNATURE, when the signature is not in its one spelling.
        """
        part = self.parts
        try:
            return Head(part.chain_uid, part.sequence, part.fingerprint, attestation.signature_sha256(part.signature))
        except IntegrityError as error:
            raise self.refuse(error.reason, error.message) from None


def _short(signed: Signed) -> str:
    return ascii(signed.parts.authority_uid)[1:65]


def read(line: bytes) -> Signed:
    """Return the event of a line after every check that needs neither a key nor the event before.

    Raises:
        IntegrityError: NOT_CANONICAL, NOT_ATTESTED or CHANGED.
    """
    try:
        event = canonical.decode(line)
    except canonical.CanonicalError as error:
        raise IntegrityError(Reason.NOT_CANONICAL, error.message) from None
    signed = Signed(event, attestation.parts(event), attestation.fingerprint(event))
    if signed.digest.hex() != signed.parts.fingerprint:
        raise signed.refuse(Reason.CHANGED, "the content does not have the fingerprint that the line states")
    return signed


def begin(signed: Signed, key: PublicKey | None) -> Accepted:
    """Accept the first event of a chain; see `verify_genesis`."""
    own = attestation.lifecycle(signed.event)
    if signed.parts.sequence != 1 or own.get("what") != "enrol":
        raise signed.refuse(Reason.NOT_ATTESTED, "a chain begins with the enrolment of its key at sequence 1")
    presented = _announced(signed, own)
    if key is not None and presented.thumbprint != key.thumbprint:
        raise signed.refuse(Reason.WRONG_KEY, f"presents key {presented.thumbprint}, but {key.thumbprint} is trusted")
    signed.check(presented)
    head = signed.head()
    return Accepted(signed.event, head, ChainState(head, presented.jwk()))


def _announced(signed: Signed, own: Mapping[str, object]) -> PublicKey:
    key = own.get("key")
    try:
        return PublicKey.from_jwk(key if isinstance(key, dict) else {})
    except KeyFormatError as error:
        raise signed.refuse(Reason.NOT_ATTESTED, f"announces no valid key: {error.message}") from None


def advance(signed: Signed, state: ChainState, *, across_gap: bool) -> Accepted:
    """Accept an event behind the state's head; see `verify_next`."""
    part, before = signed.parts, state.head
    if part.chain_uid != before.chain_uid:
        raise signed.refuse(Reason.UNKNOWN_CHAIN, f"belongs to another chain than {before.chain_uid}")
    key = PublicKey.from_jwk(state.key)
    if part.sequence <= before.sequence:
        raise _passed(signed, state, key)
    gap = _gap(signed, state, key, across_gap) if part.sequence > before.sequence + 1 else None
    signed.check(key)
    head = signed.head()
    named = (part.prev_fingerprint, part.prev_signature_sha256)
    if gap is None and named != (before.fingerprint, before.signature_sha256):
        raise signed.refuse(Reason.BROKEN_LINK, f"does not follow from event {before.sequence} as it is known here")
    own = attestation.lifecycle(signed.event)
    gaps = state.gaps if gap is None else (*state.gaps, gap)
    pruned: tuple[Pruned, ...] = ()
    if gaps and own.get("what") == "dropped":
        gaps, pruned = excuse(gaps, stated(signed.event))
    jwk = _announced(signed, own).jwk() if own.get("what") == "key_rotation" else state.key
    return Accepted(signed.event, head, ChainState(head, jwk, gaps), gap, pruned)


def _gap(signed: Signed, state: ChainState, key: PublicKey, across_gap: bool) -> Gap:
    """Return the hole in front of an event, or raise GAP where it may not or cannot be crossed.

    Removed events come before a wrong key: the removed ones may have announced the key, and whoever sends events again
    from there on mends both.
    """
    part, before = signed.parts, state.head
    missing = f"event {before.sequence + 1}" + (
        f" to {part.sequence - 1} are missing" if part.sequence > before.sequence + 2 else " is missing"
    )
    if part.authority_uid != key.thumbprint:
        raise signed.refuse(Reason.GAP, f"{missing}, and the key was replaced among them")
    if not across_gap or len(state.gaps) >= MAX_OPEN_GAPS:
        raise signed.refuse(Reason.GAP, missing)
    assert part.prev_fingerprint is not None
    return Gap(
        before.sequence + 1, part.sequence - 1, before.fingerprint, part.prev_fingerprint, part.prev_signature_sha256
    )


def _passed(signed: Signed, state: ChainState, key: PublicKey) -> IntegrityError:
    """Return why an event at or before the head is refused; a fork needs a valid signature, a mere copy does not."""
    part, head = signed.parts, state.head
    try:
        if signed.head() == head:
            return signed.refuse(Reason.DUPLICATED, f"event {part.sequence} again")
        signed.check(key)
    except IntegrityError as error:
        return error
    if part.sequence == head.sequence:
        return signed.refuse(Reason.FORK, f"another event {part.sequence} than the one that is known")
    return signed.refuse(Reason.REORDERED, f"event {part.sequence} comes after event {head.sequence}")


def verify_genesis(line: bytes, *, key: PublicKey | None = None) -> Accepted:
    """Verify the first event of a chain, which presents the chain's first key and is signed by it.

    This proves that whoever wrote it holds the key. Whose key that is comes from outside: from `key`, or from what the
    caller does next (an enrolment token, an AWS identity).

    Args:
        line: The stored line without the newline.
        key: The trusted first key of the chain, where it is known.

    Raises:
        IntegrityError: With any reason but GAP, UNKNOWN_CHAIN and TRUNCATED.
    """
    return begin(read(line), key)


def verify_next(line: bytes, state: ChainState, *, across_gap: bool = False) -> Accepted:
    """Verify the event behind the state's head.

    Args:
        line: The stored line without the newline.
        state: From the event before.
        across_gap: Accept an event although others are missing before it, and remember the hole in `state.gaps` until
            a signed drop statement excuses it. The caller decides what a hole that stays open means.

    Raises:
        IntegrityError: UNKNOWN_CHAIN for an event of another chain; GAP when events are missing (and `across_gap` is
            off, or the key changed in the hole); DUPLICATED and FORK for the head's own number, REORDERED for any
            earlier one (a caller that stores events can tell copies and forks apart there); else what is wrong with it.
    """
    return advance(read(line), state, across_gap=across_gap)
