"""What an offline verifier is given: the first key of every chain, and how far the collector has seen each."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from nbsentinel.attest.attestation import Head
from nbsentinel.attest.keys import KeyFormatError, PublicKey


class TrustedKeys(Struct, frozen=True):
    """The key that each chain began with; every later key is vouched for inside the chain."""

    chains: Mapping[str, PublicKey]

    @classmethod
    def from_json(cls, data: bytes) -> TrustedKeys:
        """Return the keys of `{"chains": {chain_uid: {"jwk": {...}}}}`; further members are left alone.

        Raises:
            KeyFormatError: Not of this form, or a key is not a P-256 public key.
        """
        try:
            given = msgspec.json.decode(data, type=_Keys)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise KeyFormatError(f"not a file of trusted keys: {error}") from None
        return cls({chain_uid: _key(chain_uid, entry.jwk) for chain_uid, entry in given.chains.items()})


def _key(chain_uid: str, jwk: dict[str, object]) -> PublicKey:
    try:
        return PublicKey.from_jwk(jwk)
    except KeyFormatError as error:
        raise KeyFormatError(f"chain {ascii(chain_uid)[1:-1]}: {error.message}") from None


def heads_from_json(data: bytes) -> dict[str, Head]:
    """Return the heads of `{"chains": {chain_uid: {"chain_uid", "sequence", "fingerprint", "signature_sha256"}}}`.

    Raises:
        KeyFormatError: Not of this form.
    """
    try:
        given = msgspec.json.decode(data, type=_Heads)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise KeyFormatError(f"not a file of chain heads: {error}") from None
    for chain_uid, head in given.chains.items():
        if head.chain_uid != chain_uid:
            raise KeyFormatError(f"chain {ascii(chain_uid)[1:-1]}: its head names another chain")
    return given.chains


class _Key(Struct):
    jwk: dict[str, object]


class _Keys(Struct):
    chains: dict[str, _Key]


class _Heads(Struct):
    chains: dict[str, Head]
