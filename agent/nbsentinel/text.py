r"""From bytes to text, once: names and arguments are the attacker's bytes until they have passed here.

Linux paths, arguments and names are byte strings without an encoding. A signed line must be valid, printable UTF-8 that
a terminal cannot be steered by, so invalid bytes, control characters and bidirectional controls become `\xNN`. A
backslash stays as it is (Sigma rules look for it), so the mapping is readable rather than reversible.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

PATH_LIMIT = 4096
ARGUMENT_LIMIT = 4096
COMMAND_LIMIT = 16384
NAME_LIMIT = 256
MAX_SAFE_INTEGER = 2**53 - 1
"""Largest integer that every JSON reader keeps exact (RFC 8785, I-JSON)."""

# C0, DEL and C1, line and paragraph separators, bidirectional controls, zero-width and byte-order marks, surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def visible(raw: bytes, limit: int = PATH_LIMIT) -> str:
    """Return the text of raw bytes, escaped and cut to at most `limit` characters.

    The result is printable and encodes as UTF-8. A cut is shown by a trailing ellipsis inside the limit.
    """
    # Every escape makes text longer, so `limit` bytes of each 4-byte sequence are all that can matter.
    text = raw[: 4 * limit].decode("utf-8", "surrogateescape")
    text = _UNSAFE.sub(_escape, text)
    if len(text) > limit or len(raw) > 4 * limit:
        text = text[: limit - 1] + "…"
    return text


class Arguments(NamedTuple):
    """A process's arguments as text, with what was cut."""

    argv: tuple[str, ...]
    length: int
    sha256: str | None


def arguments(block: bytes) -> Arguments:
    """Split the NUL-separated block of /proc/PID/cmdline into text arguments.

    At most COMMAND_LIMIT bytes and ARGUMENT_LIMIT characters an argument are kept; the whole length in bytes, and where
    something was cut the SHA-256 of the whole block, stay known.
    """
    whole = block
    cut = len(block) > COMMAND_LIMIT
    if cut:
        block = block[:COMMAND_LIMIT]
    parts = block.removesuffix(b"\0").split(b"\0") if block else []
    cut = cut or any(len(part) > ARGUMENT_LIMIT for part in parts)
    argv = tuple(visible(part, ARGUMENT_LIMIT) for part in parts)
    return Arguments(argv, len(whole), hashlib.sha256(whole).hexdigest() if cut else None)


def json_safe(value: object) -> object:
    """Return a JSON value whose integers every reader keeps exact: larger ones become strings."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) > MAX_SAFE_INTEGER:
        return str(value)
    if isinstance(value, dict):
        return {key: json_safe(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(child) for child in value]
    return value
