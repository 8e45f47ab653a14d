"""What sensors observe."""

from __future__ import annotations

from enum import Enum

import msgspec

from nbsentinel.events.processes import Connection, Endpoint, Millis, Process, ProcessKey


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


class ConnectStage(str, Enum):
    """Which part of a connection's story an observation tells; each connection is matched and recorded once."""

    WHOLE = "whole"
    """All there is to tell: matched and recorded."""
    ATTEMPT = "attempt"
    """The call was seen, what came of it is not known yet: matched now, recorded with its result."""
    RESULT = "result"
    """What came of an attempt: recorded."""
    CONFIRMS = "confirms"
    """Seen again by another sensor: neither, but a reason to look at the dataflow."""


class ConnectOutcome(str, Enum):
    """What came of a connection, as far as could be seen."""

    ESTABLISHED = "established"
    REFUSED = "refused"
    """The socket is closed again without ever having had a peer: refused, reset or timed out."""
    PENDING = "pending"
    """Still trying when the observation was closed."""
    UNKNOWN = "unknown"
    """Gone before it could be looked at."""


class Connect(msgspec.Struct, frozen=True, kw_only=True, tag="connect"):
    """A process connects an internet socket, or holds one with a peer that it did not hold before."""

    at: Millis
    key: ProcessKey
    connection: Connection
    source: str
    stage: ConnectStage = ConnectStage.WHOLE
    outcome: ConnectOutcome = ConnectOutcome.ESTABLISHED
    claimed: Endpoint | None = None
    """The address that the call named, only where the socket's real peer is another one."""
    hostname: str | None = None
    """The name that the same thread asked for right before; inferred."""
    thread: int = 0
    """The thread that called, 0 where only the process is known."""


class TamperKind(str, Enum):
    """Ways of meddling with the agent, the guard or their files."""

    REFUSED_CALL = "refused-call"
    """A guarded process aimed a signal, limit or priority at one of ours; it was not allowed to."""
    STOPPED = "stopped"
    """One of ours was stopped by a signal, and resumed."""
    KILLED = "killed"
    """One of ours ended without being told to, and was replaced."""
    LIMITED = "limited"
    """Limits, scheduler, priority or affinity of one of ours are not what they were."""
    FILES_CHANGED = "files-changed"
    """Program files, rules or configuration of ours are not what they were."""
    UNGUARDED = "unguarded"
    """A kernel or a terminal runs outside the guard."""
    SELF_TEST = "self-test"
    """A sensor did not see what it must see."""
    HUNG = "hung"
    """One of ours did not answer in time; callers were let go without it."""
    OVERFLOW = "overflow"
    """The kernel dropped events of a sensor: more came than it keeps."""


class Tamper(msgspec.Struct, frozen=True, kw_only=True, tag="tamper"):
    """Somebody, or something, meddled with the agent or the guard."""

    at: Millis
    kind: TamperKind
    target: str
    """What it was done to: `agent`, `keeper`, `supervisor`, `holder`, a sensor, a path."""
    detail: str
    """What exactly, in words for the operator."""
    source: str
    key: ProcessKey | None = None
    """The process that did it; for `unguarded` the process that is not guarded. None where nobody knows."""
    thread: int = 0
    """The thread that called, for a call that was refused."""


class SystemCall(msgspec.Struct, frozen=True, kw_only=True, tag="call"):
    """A guarded process made a call that is worth telling: ptrace, memfd_create, mount, listen ..."""

    at: Millis
    key: ProcessKey
    name: str
    """The call's name in the manual, for example `process_vm_readv`."""
    arguments: dict[str, str]
    """What it was about, by names that rules can use, for example `{"TargetProcessId": "77"}`."""
    refused: bool
    """Whether the guard refused it."""
    thread: int = 0
    source: str


class CellPhase(str, Enum):
    """Which end of a cell's run is told."""

    START = "start"
    STOP = "stop"


class CellRun(msgspec.Struct, frozen=True, kw_only=True, tag="cell"):
    """A kernel starts or ends running a cell; told by code inside the kernel, so a hint and no proof."""

    at: Millis
    key: ProcessKey
    """The kernel's process, as the operating system named the sender."""
    phase: CellPhase
    thread: int
    """Native id of the thread that runs it; ipykernel 7 runs cells of subshells in threads of their own."""
    message_id: str
    """The execute_request that asked for it; empty where nothing asked (a script that runs IPython)."""
    cell_id: str | None = None
    """The notebook format's cell id; None where the front end sends none."""
    execution_count: int | None = None
    source_sha256: str | None = None
    """Hash of the cell's text; the text itself never leaves the kernel."""
    failed: bool = False
    """With a stop: whether the cell raised."""
    source: str


class KernelAudit(msgspec.Struct, frozen=True, kw_only=True, tag="audit"):
    """Python code in a kernel did something worth telling: one audit event of the interpreter."""

    at: Millis
    key: ProcessKey
    thread: int
    """Native id of the thread that did it."""
    name: str
    """As in Python's audit events table, for example `subprocess.Popen`."""
    arguments: dict[str, str]
    """What it was about, by names that rules can use, for example `{"Address": "127.0.0.1:80"}`."""
    message_id: str | None = None
    """The request of the cell that it belongs to by what the kernel knows; None where the kernel cannot tell."""
    certain: bool = False
    """Whether the thread runs that cell right now, and not something that an earlier cell left behind."""
    source: str


class ApiCall(msgspec.Struct, frozen=True, kw_only=True, tag="api"):
    """Code in a kernel called an AWS API; never with secrets, bodies or values of queries."""

    at: Millis
    key: ProcessKey
    thread: int
    service: str
    operation: str
    """The API's own name, for example `ListSecrets`; empty where it cannot be told from the request."""
    region: str = ""
    host: str = ""
    resources: dict[str, str] = {}
    """Names of what it was about, for example `{"Bucket": "b"}`."""
    access_key: str = ""
    """A keyed hash of the access key id: equal ids can be told, no id can be read."""
    request_id: str = ""
    via: str
    """How it was seen: `http.client`, `botocore`."""
    message_id: str | None = None
    certain: bool = False
    source: str


class ServedSession(msgspec.Struct, frozen=True):
    """Something that is open on a kernel, as the Jupyter server has it."""

    kind: str
    """The server's word: `notebook`, `console`, `file`."""
    path: str
    """The notebook's present path; of a console an id."""
    name: str

    def __str__(self) -> str:
        return f"{self.kind or 'session'} {self.path if self.kind in ('notebook', 'file') else self.name or self.path}"


class ServerSessions(msgspec.Struct, frozen=True, kw_only=True, tag="sessions"):
    """A Jupyter server tells everything that is open in it; how far it is believed is for `context/origins`."""

    at: Millis
    key: ProcessKey
    """The server's process, as the operating system named the sender."""
    kernels: tuple[tuple[ProcessKey, tuple[ServedSession, ...]], ...]
    """The first process of each kernel, with what is open on it."""
    terminals: tuple[tuple[ProcessKey, str], ...]
    """The first process of each terminal, with the name that the user sees."""
    source: str


class FileOperation(str, Enum):
    """What was done to a watched file."""

    READ = "read"
    """Opened, and perhaps read."""
    WRITE = "write"
    CREATE = "create"
    DELETE = "delete"
    RENAME = "rename"
    ATTRIBUTES = "attributes"


class FileAccess(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """A watched file (a credential, or a place that persistence uses) was touched."""

    at: Millis
    path: str
    operation: FileOperation
    kind: str
    """What the file is: the kinds of `sensors/files/catalogue`, for example `aws`, `ssh`, `persistence`."""
    key: ProcessKey | None
    """Who did it; None where nobody knows."""
    certainty: str
    """How the process is known (`lease`, `descriptor`, `exec`, `timing`), or `unknown: ...` with the reason."""
    candidates: tuple[ProcessKey, ...] = ()
    """Where nobody is known for sure: guarded processes that lived at that moment."""
    own_tool: bool | None = None
    """Whether the reader is this kind's own tool by its file and the code that it runs; None where not known."""
    thread: int = 0
    """The thread that opened it, 0 where not known."""
    target: str = ""
    """With a rename: the new path."""
    link: str = ""
    """Where the path was made or written: what it is a symbolic link to now."""
    source: str


class EnvironSweep(msgspec.Struct, frozen=True, kw_only=True, tag="sweep"):
    """Somebody read the environment of a process that exists only to notice that."""

    at: Millis
    decoys: int
    """How many decoys were read since the last look."""
    candidates: tuple[ProcessKey, ...]
    """Processes that lived at that moment, the likeliest first; the kernel does not tell who it was."""
    source: str


Observation = (
    Exec
    | StdioChange
    | Exit
    | Connect
    | Tamper
    | SystemCall
    | CellRun
    | KernelAudit
    | ApiCall
    | FileAccess
    | EnvironSweep
    | ServerSessions
)
