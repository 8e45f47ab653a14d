"""What a finding shows beside its process: connection, way of the bytes, fields, the moment. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from nbsentinel.context.origins import Moment
from nbsentinel.detect.dataflow import Flow, Path
from nbsentinel.detect.incidents import Kin
from nbsentinel.events import Confidence, Connection, Process, ProcessKey

CANDIDATES, LINE_LIMIT = 3, 4_096
"""Command lines of candidates that a finding has, and characters of each: far more than is shown, because secrets are
taken out before that is cut."""


class Evidence(msgspec.Struct, frozen=True):
    """What belongs to a finding beside its process."""

    connection: Connection | None = None
    relay_path: str | None = None
    relays: tuple[Process, ...] = ()
    confidence: Confidence | None = None
    fields: dict[str, str] = {}
    moment: Moment | None = None
    """When and in which thread, where that tells which cell it was."""
    kin: Kin | None = None
    """Its lineage, where that is not its process's: nobody is known to have done it."""


def shown(behaviour: Mapping[str, object]) -> dict[str, str]:
    """Return fields as a finding shows them."""
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in behaviour.items()}


def shown_candidates(candidates: Mapping[str, object]) -> dict[str, object]:
    """Return what a finding has of those who could have done what nobody is known to have done, the newest first.

    Their command lines are a line each: a process's arguments hold no line end (`nbsentinel.text`).
    """
    lines = candidates.get("CandidateCommandLine")
    if not isinstance(lines, list):
        return {}
    told = [line if len(line) <= LINE_LIMIT else line[: LINE_LIMIT - 1] + "…" for line in lines[:CANDIDATES]]
    return {"CandidateRoot": candidates["CandidateRoot"], "CandidateCommandLine": "\n".join(told)}


def stranger(key: ProcessKey) -> Process:
    """Return what is shown of a process that was never seen."""
    return Process(key=key, parent=None, name="unknown", exe=None, argv=(), argv_length=0)


def render_path(flow: Flow, subject: ProcessKey, get: Callable[[ProcessKey], Process | None]) -> str:
    """Return the way of the bytes as one line: peer, objects and processes to the subject, and back to the peer."""

    def name(key: ProcessKey) -> str:
        process = get(key)
        return f"{process.name if process else '?'}[{key.pid}]"

    def parts(path: Path) -> list[str]:
        peer = str(path.socket.remote) if path.socket.remote else "any peer"
        relays = [name(step.relay) for step in reversed(path.steps) if step.relay is not None]
        return [peer, *relays, str(path.start)] if path.steps else [peer]

    return " → ".join([*parts(flow.source), name(subject), *reversed(parts(flow.sink))])
