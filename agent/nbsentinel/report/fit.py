"""Events that fit into a line: who fills arguments and paths must not make a finding too long to be signed. Pure."""

from __future__ import annotations

import msgspec

Object = dict[str, object]
EVENT_LIMIT = 200_000
"""Bytes of an event before it is sealed; a line may have 262,144 (`nbsentinel.attest.canonical.LINE_LIMIT`)."""
_TEXTS = (2_048, 512, 96)
"""What long texts are cut to, one after the other, until the event fits. Ids and hashes are shorter than that."""
_ITEMS = 12
"""What lists are cut to in the end: the first item and the last ones."""


def fit(event: Object) -> Object:
    """Return an event that is short enough: as it is, or with its longest texts cut and `metadata.is_truncated`."""
    size = _size(event)
    if size <= EVENT_LIMIT:
        return event
    found = event
    for most, items in (*((most, 0) for most in _TEXTS), (_TEXTS[-1], _ITEMS)):
        found = {name: _cut(value, most, items) for name, value in event.items()}
        if _size(found) <= EVENT_LIMIT:
            break
    metadata = found["metadata"]
    assert isinstance(metadata, dict)
    return {**found, "metadata": {**metadata, "is_truncated": True, "untruncated_size": size}}


def _size(event: Object) -> int:
    return len(msgspec.json.encode(event))


def _cut(value: object, most: int, items: int) -> object:
    if isinstance(value, str):
        return value if len(value) <= most else value[: most - 1] + "…"
    if isinstance(value, dict):
        return {name: _cut(member, most, items) for name, member in value.items()}
    if isinstance(value, list):
        kept = value if not items or len(value) <= items else [value[0], *value[1 - items :]]
        return [_cut(member, most, items) for member in kept]
    return value
