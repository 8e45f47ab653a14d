"""Base64url without padding (RFC 4648, section 5), decoded so that every value has one spelling."""

from __future__ import annotations

import base64
import binascii


def encode(raw: bytes) -> str:
    """Return the text of bytes, without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode(text: str, length: int) -> bytes:
    """Return exactly `length` bytes.

    Raises:
        ValueError: Another length, padding, a character outside the alphabet, or trailing bits that are not zero
            (these make a second text for the same bytes).
    """
    if len(text) != (length * 8 + 5) // 6:
        raise ValueError(f"not {length} bytes in base64url")
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise ValueError("not base64url") from None
    if encode(raw) != text:
        raise ValueError("not base64url in its one spelling")
    return raw
