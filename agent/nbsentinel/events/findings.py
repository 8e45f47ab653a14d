"""What detection concludes."""

from __future__ import annotations

from enum import Enum, IntEnum

import msgspec

from nbsentinel.events.processes import Connection, Millis, Process, ProcessKey


class Severity(IntEnum):
    """OCSF `severity_id`."""

    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5


class Confidence(IntEnum):
    """OCSF `confidence_id`."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


class OriginKind(str, Enum):
    """What started a process, as far as its ancestry tells."""

    KERNEL = "kernel"
    TERMINAL = "terminal"
    OTHER = "other"


class Certainty(str, Enum):
    """How sure it is that something belongs to a cell."""

    CERTAIN = "certain"
    """The kernel told of it in the very thread that ran the cell; code in the kernel could still have lied."""
    LIKELY = "likely"
    UNKNOWN = "unknown"


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a notebook's cell, as its kernel told of it."""

    message_id: str
    """The execute_request that ran it; empty where nothing asked for it."""
    cell_id: str | None = None
    execution_count: int | None = None
    source_sha256: str | None = None


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Which kernel, notebook, cell or terminal a process belongs to, and from which source that is known."""

    kind: OriginKind
    source: str
    """How it was found out, or why it is not known: `ancestry: ...`, `unknown: ...`."""
    process: ProcessKey | None = None
    """The kernel or the terminal's first process."""
    kernel_id: str | None = None
    notebook: str | None = None
    sessions: tuple[str, ...] = ()
    """Everything that the Jupyter server has open on the kernel: `notebook /home/a.ipynb`, `console Console 1`."""
    terminal: str | None = None
    """The name of the terminal that the user sees, by the Jupyter server."""
    cell: Cell | None = None
    cell_certainty: Certainty = Certainty.UNKNOWN
    cell_source: str = "unknown: no kernel sensor"
    """How the cell is known, or why it is not."""

    @property
    def cell_id(self) -> str | None:
        """The notebook format's id of the cell; None where there is no cell, or the front end gave it none."""
        return self.cell.cell_id if self.cell else None


class Technique(msgspec.Struct, frozen=True):
    """A MITRE ATT&CK technique or sub-technique, for example T1059.004."""

    uid: str
    name: str
    tactic_uid: str
    tactic: str


class Phase(IntEnum):
    """Where an incident is in its life: OCSF `activity_id`."""

    OPENED = 1
    UPDATED = 2
    CLOSED = 3


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened in an incident: what a rule found, of whom, and about what."""

    uid: str
    """The first finding that told of it."""
    opened: bool
    """Whether that finding opened the incident."""
    rule_id: str
    rule_name: str
    title: str
    severity: Severity
    confidence: Confidence
    attacks: tuple[Technique, ...]
    at: Millis
    last_at: Millis
    count: int
    """Hits so far, those that were not told by themselves included."""
    process: Process
    origin: Origin
    evidence: str
    """What tells it apart from other steps of the same rule: the peer, the kind of credential, the file ..."""


class Risk(msgspec.Struct, frozen=True):
    """How much an incident is worth looking at first."""

    score: int
    """0 to 100."""
    level: int
    """OCSF `risk_level_id`: 0 (Info) to 4 (Critical)."""
    why: str
    """How the score came about, as a sum that a person can follow."""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """An incident as it was when one of its findings was told."""

    uid: str
    phase: Phase
    why: str
    """Why it is told now: the first finding, new evidence, quiet ..."""
    opened_at: Millis
    last_at: Millis
    severity: Severity
    """The highest of its steps."""
    count: int
    """Hits so far."""
    steps: tuple[Step, ...]
    """In the order in which they began."""
    left_out: int
    """Steps that are not among them because the list is bounded; each of them was told."""
    risk: Risk


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict of a rule over an event, with everything a person needs to judge it."""

    uid: str
    rule_id: str
    rule_name: str
    title: str
    why: str
    """Why it matters, in a sentence or two."""
    severity: Severity
    confidence: Confidence
    at: Millis
    process: Process
    lineage: tuple[Process, ...]
    """Ancestors from the parent upwards."""
    origin: Origin
    attacks: tuple[Technique, ...] = ()
    connection: Connection | None = None
    relay_path: str | None = None
    """The way of the bytes from the remote peer to the process and back, in kernel objects."""
    relays: tuple[Process, ...] = ()
    """Processes that pass the bytes on."""
    false_positives: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    fields: dict[str, str] = {}
    """The behaviour fields that the rule was matched on."""
    severity_why: str = ""
    """Where the surface decided about the severity: how."""
    incident: Incident | None = None
    """What it is part of; None before that is known."""
