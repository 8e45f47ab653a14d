"""Signing keys: ECDSA over P-256 with SHA-256, born in memory and never written.

Signatures are 64 bytes, r and s of 32 bytes each, big endian (RFC 7518, section 3.4), in base64url without padding. Of
the two values of s that both verify only the lower is made and accepted, so nobody can make a second signature out of
a first one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature

from nbsentinel.attest import base64url
from nbsentinel.errors import VerificationError

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order n of the group of P-256 (NIST SP 800-186, section 3.2.1.3)."""
SIGNATURE_BYTES = 64
DIGEST_BYTES = 32
_HALF_ORDER = ORDER // 2
_MEMBERS = {"crv", "kty", "x", "y"}
_ALGORITHM = ec.ECDSA(Prehashed(hashes.SHA256()))


class KeyFormatError(VerificationError):
    """A key is not a P-256 public key as a JSON Web Key."""


class PublicKey:
    """The half of a key that verifies."""

    __slots__ = ("_jwk", "_key", "thumbprint")

    thumbprint: str
    """RFC 7638 over SHA-256, base64url without padding: the key's name in every event."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        numbers = key.public_numbers()
        x, y = (base64url.encode(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        self._key = key
        self._jwk = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
        required = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'
        self.thumbprint = base64url.encode(hashlib.sha256(required.encode("ascii")).digest())

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, object]) -> PublicKey:
        """Return the key of a JSON Web Key with exactly the members crv, kty, x and y.

        Raises:
            KeyFormatError: Other members (a private `d` among them), another curve, or not a point of the curve.
        """
        if set(jwk) != _MEMBERS:
            raise KeyFormatError("a key has exactly the members crv, kty, x and y")
        if jwk["kty"] != "EC" or jwk["crv"] != "P-256":
            raise KeyFormatError("a key is of type EC on the curve P-256")
        x, y = jwk["x"], jwk["y"]
        if not isinstance(x, str) or not isinstance(y, str):
            raise KeyFormatError("x and y are base64url texts")
        return _from_coordinates(x, y)

    def jwk(self) -> dict[str, str]:
        """Return the key as a JSON Web Key."""
        return dict(self._jwk)

    def verify(self, fingerprint: bytes, signature: str) -> bool:
        """Return whether a signature over a 32-byte SHA-256 is this key's, in its one valid spelling."""
        try:
            raw = base64url.decode(signature, SIGNATURE_BYTES)
        except ValueError:
            return False
        r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        if len(fingerprint) != DIGEST_BYTES or not 0 < r < ORDER or not 0 < s <= _HALF_ORDER:
            return False
        try:
            self._key.verify(encode_dss_signature(r, s), fingerprint, _ALGORITHM)
        except InvalidSignature:
            return False
        return True

    def __repr__(self) -> str:
        return f"PublicKey({self.thumbprint})"


@lru_cache(maxsize=1024)
def _from_coordinates(x: str, y: str) -> PublicKey:
    """Return the key at a point; remembered, because a verifier meets the same few keys at every event."""
    try:
        point = [int.from_bytes(base64url.decode(text, 32), "big") for text in (x, y)]
        return PublicKey(ec.EllipticCurvePublicNumbers(point[0], point[1], ec.SECP256R1()).public_key())
    except ValueError as error:
        raise KeyFormatError(f"not a point of P-256: {error}") from None


class SigningKey:
    """A key that signs. It exists in memory only: nothing here exports, copies or prints the private half."""

    __slots__ = ("_key", "public", "thumbprint")

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())
        self.thumbprint = self.public.thumbprint

    @classmethod
    def generate(cls) -> SigningKey:
        """Return a new key from the system's random source."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    def jwk(self) -> dict[str, str]:
        """Return the public half as a JSON Web Key."""
        return self.public.jwk()

    def sign(self, fingerprint: bytes) -> str:
        """Return the signature over a 32-byte SHA-256 in base64url.

        Raises:
            ValueError: The fingerprint has another length.
        """
        if len(fingerprint) != DIGEST_BYTES:
            raise ValueError("a fingerprint has 32 bytes")
        r, s = decode_dss_signature(self._key.sign(fingerprint, _ALGORITHM))
        if s > _HALF_ORDER:
            s = ORDER - s
        return base64url.encode(r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    def __repr__(self) -> str:
        return f"SigningKey({self.thumbprint})"
