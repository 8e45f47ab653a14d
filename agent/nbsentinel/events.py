"""What sensors observe and what detection concludes: values only, no I/O, no imports from the rest of the agent.

Text in these values has passed `nbsentinel.text.visible`: it is printable, bounded and safe to sign, whatever bytes a
process put into its arguments. Times are milliseconds since the epoch, as OCSF wants them, unless told otherwise.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NewType

import msgspec

Millis = NewType("Millis", int)
Inode = NewType("Inode", int)


class ProcessKey(msgspec.Struct, frozen=True, order=True):
    """A process for all time: pids are reused, (pid, start time) is not."""

    pid: int
    start: int
    """Start time in clock ticks since boot: field 22 of /proc/PID/stat, see proc(5)."""


class KernelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a kernel's own arguments, connection file and environment say of it; its owner can write all three."""

    kernel_id: str
    connection_file: str
    transport: str = "tcp"
    ip: str = ""
    ports: tuple[int, ...] = ()
    """The ports of its ZeroMQ channels."""
    notebook: str | None = None


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One image that a process runs; a successful execve makes a new value with the same key."""

    key: ProcessKey
    parent: ProcessKey | None
    """The parent when the process was first seen; kept after reparenting to init."""
    name: str
    exe: str | None
    """Path of the running file, None where it may not be read (another user, not dumpable)."""
    argv: tuple[str, ...]
    argv_length: int
    """Length in bytes before cutting."""
    argv_sha256: str | None = None
    """SHA-256 of the whole argument block, only where it was cut."""
    cwd: str | None = None
    uid: int = -1
    user: str | None = None
    session: int = 0
    """Session id (the pid of the session leader)."""
    tty: str | None = None
    """Controlling terminal, for example `pts/3`."""
    started: Millis = Millis(0)
    stdio: tuple[str | None, str | None, str | None] = (None, None, None)
    """Targets of file descriptors 0 to 2 as the kernel names them (`socket:[123]`, `/dev/pts/3`)."""
    kernel: KernelInfo | None = None
    """Present where the process looks like a Jupyter kernel."""

    @property
    def command_line(self) -> str:
        """The arguments joined by blanks, as Sigma's CommandLine has them."""
        return " ".join(self.argv) if self.argv else f"[{self.name}]"


class Endpoint(msgspec.Struct, frozen=True, order=True):
    """One side of a connection."""

    ip: str
    """Numeric address; IPv4 mapped into IPv6 is given as IPv4."""
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """An internet socket with a peer."""

    protocol: str
    """`tcp` or `udp`, empty where it is not known (a socket that was gone before it could be looked at)."""
    local: Endpoint | None
    """None where only the call was seen: the kernel had not chosen our side yet."""
    remote: Endpoint
    inode: Inode
    initiated: bool | None
    """True: this side connected; False: this side accepted; None: not known (a bound UDP socket)."""


class Exec(msgspec.Struct, frozen=True, kw_only=True, tag="exec"):
    """A process runs an image that was not seen before: new pid, or the same one after execve."""

    at: Millis
    process: Process
    source: str
    """The sensor that saw it."""


class StdioChange(msgspec.Struct, frozen=True, kw_only=True, tag="stdio"):
    """A process has other file descriptors 0 to 2 than before, without a new image (dup2)."""

    at: Millis
    key: ProcessKey
    stdio: tuple[str | None, str | None, str | None]
    source: str


class Exit(msgspec.Struct, frozen=True, kw_only=True, tag="exit"):
    """A process that was known is gone."""

    at: Millis
    key: ProcessKey
    source: str


class Connect(msgspec.Struct, frozen=True, kw_only=True, tag="connect"):
    """A process holds an internet socket with a peer that it did not hold before."""

    at: Millis
    key: ProcessKey
    connection: Connection
    source: str
    confirms: bool = False
    """An earlier event told of the attempt; this one only says that the connection stands."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """A guarded process tried to stop or to starve the agent or the guard, and was not allowed to."""

    at: Millis
    key: ProcessKey
    call: int
    """Number of the system call."""
    target: int
    """The process that it was meant for."""
    source: str


Observation = Exec | StdioChange | Exit | Connect | Refused


class SensorState(str, Enum):
    """How far a sensor can be relied on."""

    ACTIVE = "active"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """What one sensor says of itself; signed in every heartbeat."""

    sensor: str
    state: SensorState
    why: str = ""
    """Empty when active."""


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


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Which kernel, notebook, cell or terminal a process belongs to, and from which source that is known."""

    kind: OriginKind
    source: str
    """How it was found out, or why it is not known: `ancestry: ...`, `unknown: ...`."""
    process: ProcessKey | None = None
    """The kernel or the terminal's first process."""
    kernel_id: str | None = None
    notebook: str | None = None
    cell_id: str | None = None
    cell_source: str = "unknown: no kernel sensor"
    """How the cell is known, or why it is not."""


class Technique(msgspec.Struct, frozen=True):
    """A MITRE ATT&CK technique or sub-technique, for example T1059.004."""

    uid: str
    name: str
    tactic_uid: str
    tactic: str


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


class Lifecycle(str, Enum):
    """Moments in the agent's own life that are signed into the chain."""

    ENROL = "enrol"
    """The first event of a chain: presents the first key."""
    HEARTBEAT = "heartbeat"
    KEY_ROTATION = "key_rotation"
    DROPPED = "dropped"
    """States which events were pruned or never recorded."""
    GOODBYE = "goodbye"
    NOTICE = "notice"
    """Anything else the operator should know, for example a failed sensor."""


class AgentEvent(msgspec.Struct, frozen=True, kw_only=True, tag="agent"):
    """An event about the agent itself."""

    at: Millis
    what: Lifecycle
    message: str
    details: dict[str, object] = {}
    """JSON values: strings, booleans, integers, lists and objects of these; no floats."""
    severity: Severity = Severity.INFORMATIONAL


Event = Exec | Exit | Connect | AgentEvent
"""What `report` writes beside findings."""
