"""Keys and signatures: one name a key, one spelling a signature."""

from __future__ import annotations

import base64
import hashlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.writing import property_test, public
from nbsentinel.attest import base64url
from nbsentinel.attest.keys import ORDER, KeyFormatError, PublicKey, SigningKey

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
# RFC 7515, appendix A.3: the key of the ES256 example.
RFC_X, RFC_Y = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
RFC_SIGNATURE = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
RFC_INPUT = (
    b"eyJhbGciOiJFUzI1NiJ9."
    b"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
)
digests = st.binary(min_size=32, max_size=32)


def flipped(signature: str) -> str:
    """Return the other signature that plain ECDSA accepts: n - s instead of s."""
    raw = base64url.decode(signature, 64)
    s = ORDER - int.from_bytes(raw[32:], "big")
    return base64url.encode(raw[:32] + s.to_bytes(32, "big"))


@property_test
@given(digests, digests)
def test_signature_verifies_only_for_its_digest_and_key(digest: bytes, another: bytes) -> None:
    """A signature is 64 bytes and verifies with the key's public half, over that digest, and with nothing else."""
    signature = KEY.sign(digest)
    assert len(base64url.decode(signature, 64)) == 64
    assert public(KEY).verify(digest, signature)
    assert not public(OTHER).verify(digest, signature)
    assert (another == digest) == public(KEY).verify(another, signature)


@property_test
@given(digests)
def test_only_low_s_is_made_and_accepted(digest: bytes) -> None:
    """The second signature that can be computed from a first one without the key is refused."""
    signature = KEY.sign(digest)
    assert int.from_bytes(base64url.decode(signature, 64)[32:], "big") <= ORDER // 2
    assert not public(KEY).verify(digest, flipped(signature))


@property_test
@given(digests, st.data())
def test_other_spellings_of_a_signature_are_refused(digest: bytes, data: st.DataObject) -> None:
    """Padding, other trailing bits, the other alphabet, blanks and cuts all make it no signature."""
    signature = KEY.sign(digest)
    raw = base64url.decode(signature, 64)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    trailing = alphabet[alphabet.index(signature[-1]) ^ data.draw(st.integers(1, 15))]
    others = [signature + "==", signature + "=", signature[:-1] + trailing, signature[:-1], signature + "A"]
    others += [signature + "\n", " " + signature, "", signature[:-1] + "\N{SNOWMAN}", signature[:-1] + "\ud800"]
    standard = base64.b64encode(raw).decode().rstrip("=")
    others += [standard] if standard != signature else []
    assert not any(public(KEY).verify(digest, other) for other in others)


@pytest.mark.parametrize(("r", "s"), [(0, 1), (1, 0), (0, 0), (ORDER, 1), (ORDER + 1, 1), (1, ORDER), (2**256 - 1, 1)])
def test_signature_out_of_range_is_refused(r: int, s: int) -> None:
    """Numbers that are no scalars of the group are refused without an error."""
    signature = base64url.encode(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    assert not public(KEY).verify(bytes(32), signature)


def test_digest_of_another_length() -> None:
    """Only 32 bytes are signed, and nothing verifies over anything else."""
    with pytest.raises(ValueError, match="32 bytes"):
        KEY.sign(b"short")
    assert not public(KEY).verify(b"short", KEY.sign(bytes(32)))


def test_published_signature_verifies() -> None:
    """The ES256 example of RFC 7515 has a high s: it verifies in its low form and not as printed."""
    key = PublicKey.from_jwk({"kty": "EC", "crv": "P-256", "x": RFC_X, "y": RFC_Y})
    digest = hashlib.sha256(RFC_INPUT).digest()
    assert key.verify(digest, flipped(RFC_SIGNATURE))
    assert not key.verify(digest, RFC_SIGNATURE)


def test_thumbprint_is_rfc_7638() -> None:
    """The name of a key is the SHA-256 over its required members in order, in base64url."""
    key = PublicKey.from_jwk({"kty": "EC", "crv": "P-256", "x": RFC_X, "y": RFC_Y})
    assert key.thumbprint == "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"
    assert KEY.thumbprint == public(KEY).thumbprint != OTHER.thumbprint


def test_jwk_round_trip() -> None:
    """A key travels as its four members, and what is handed out can be changed without changing the key."""
    jwk = KEY.jwk()
    assert PublicKey.from_jwk(jwk).jwk() == jwk
    assert {"crv": "P-256", "kty": "EC"}.items() < jwk.items()
    public(KEY).jwk()["x"] = "changed"
    assert public(KEY).jwk() == jwk


@pytest.mark.parametrize(
    "change",
    [
        {"crv": "P-384"},
        {"kty": "RSA"},
        {"x": RFC_X},
        {"x": 1},
        {"y": None},
        {"x": KEY.jwk()["x"] + "="},
        {"x": ""},
        {"x": "A" * 43, "y": "A" * 43},
        {"x": "_" * 42 + "8"},
        {"d": "AAAA"},
        {"kid": "1"},
    ],
    ids=str,
)
def test_what_is_no_key_is_refused(change: dict[str, object]) -> None:
    """Another curve or type, a point off the curve, another spelling, a private or a further member: KeyFormatError."""
    with pytest.raises(KeyFormatError):
        PublicKey.from_jwk({**KEY.jwk(), **change})
    with pytest.raises(KeyFormatError):
        PublicKey.from_jwk({})


def test_private_half_stays_inside() -> None:
    """A signing key can be printed without telling its secret, and cannot be written out."""
    assert repr(KEY) == f"SigningKey({KEY.thumbprint})"
    assert repr(public(KEY)) == f"PublicKey({KEY.thumbprint})"
    with pytest.raises(TypeError):
        pickle.dumps(KEY)
