"""What an agent leaves to the one that its keeper starts after it.

The configuration, so that a change of the file does nothing until somebody restarts the keeper; the contents of our own
files, so that a change made together with a kill is seen; and signed events that the disk had no room for.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nbsentinel.config import Config
from nbsentinel.protect.estate import ROOM, Estate
from nbsentinel.report.spool import Entry

_FINDING_CLASS = 2004


class Testament(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's last words, written while it is well."""

    config: Config
    contents: Mapping[str, str] = {}
    """Contents of our own files by path."""
    unsaved: tuple[Entry, ...] = ()
    """Sealed events that are not on disk yet, in their order."""


def leave(estate: Estate, testament: Testament) -> None:
    """Leave a testament; where the unsaved events are too many, findings stay and the newest go."""
    for events in _choices(testament.unsaved):
        content = msgspec.msgpack.encode(msgspec.structs.replace(testament, unsaved=events))
        if len(content) <= ROOM and estate.leave(content):
            return


def _choices(unsaved: tuple[Entry, ...]) -> list[tuple[Entry, ...]]:
    findings = tuple(entry for entry in unsaved if entry.class_uid == _FINDING_CLASS)
    return [unsaved, findings, findings[:100], ()]


def left(estate: Estate) -> Testament | None:
    """Return what the agent before left, None where there was none or it cannot be read."""
    content = estate.left()
    if content is None:
        return None
    try:
        return msgspec.msgpack.decode(content, type=Testament)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
