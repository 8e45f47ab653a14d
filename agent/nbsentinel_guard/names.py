"""The question in a DNS query (RFC 1035), as a resolver sends it. Pure."""

from __future__ import annotations

from typing import List

PORT = 53
SIZE = 512
_HEADER = 12


def question(packet: bytes) -> bytes:
    """Return the name that a query asks for, b"" where the packet is no plain query."""
    if len(packet) < _HEADER + 5 or packet[2] & 0xF8 or int.from_bytes(packet[4:6], "big") != 1:
        return b""
    labels: List[bytes] = []
    at = _HEADER
    while at < len(packet):
        length = packet[at]
        if length == 0:
            return b".".join(labels)
        if length > 63 or at + 1 + length > len(packet):
            return b""
        labels.append(packet[at + 1 : at + 1 + length])
        at += 1 + length
    return b""
