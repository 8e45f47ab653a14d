"""From a kernel's or a Jupyter server's message to an observation. Pure; all is checked, because any code can send it.

A message is one JSON array: kind, messages dropped so far, milliseconds since the epoch, native thread id, and then
what the class of that kind lists here, in this order.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from nbsentinel.events import (
    ApiCall,
    CellPhase,
    CellRun,
    KernelAudit,
    Millis,
    ProcessKey,
    ServedSession,
    ServerSessions,
)
from nbsentinel.text import visible

NAME = "kernels"
MESSAGE_LIMIT = 32_768
"""Longest message in bytes; ours stay below a third of it."""
OLDEST_MS = 600_000
"""How long the start or end of a cell may have waited in the kernel; an older time is not believed."""
EVENTS: dict[str, tuple[str, ...]] = {
    "socket.connect": ("Address", "UnixPath", "By"),
    "socket.getaddrinfo": ("Host", "Port"),
    "subprocess.Popen": ("Path", "CommandLine"),
    "os.system": ("CommandLine",),
    "os.exec": ("Path", "CommandLine"),
    "os.posix_spawn": ("Path", "CommandLine"),
    "os.fork": (),
    "os.forkpty": (),
    "pty.spawn": ("CommandLine",),
    "open": ("Path", "Access", "By"),
    "ctypes.dlopen": ("Library",),
}
"""The audit events that a kernel may tell, with the arguments of each."""

Number = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Thread = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Word = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=4096)]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
KeyHash = Annotated[str, Meta(pattern="^([0-9a-f]{32})?$")]


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    dropped: Number
    at: Number
    thread: Thread


class Hello(_Message, frozen=True, array_like=True, tag="hello", forbid_unknown_fields=True):
    """The first message of a connection."""

    version: Annotated[int, Meta(ge=1, le=1)]
    python: Word
    ipython: Word
    ipykernel: Word
    audits: bool
    """Whether the interpreter has audit events: Python 3.8."""


class Cell(_Message, frozen=True, array_like=True, tag="cell", forbid_unknown_fields=True):
    """A cell starts or stops; a stop leaves all but its result empty."""

    phase: CellPhase
    message_id: Word
    cell_id: Word | None
    execution_count: Number | None
    source_sha256: Hash | None
    failed: bool


class Audit(_Message, frozen=True, array_like=True, tag="audit", forbid_unknown_fields=True):
    """An audit event of the interpreter."""

    name: Word
    arguments: dict[Word, Text]
    message_id: Word | None
    certain: bool


class Api(_Message, frozen=True, array_like=True, tag="api", forbid_unknown_fields=True):
    """A call of an AWS API."""

    service: Word
    operation: Word
    region: Word
    host: Word
    resources: Annotated[dict[Word, Word], Meta(max_length=16)]
    access_key: KeyHash
    request_id: Word
    via: Literal["http.client", "botocore"]
    message_id: Word | None
    certain: bool


class Opened(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Something that is open on a kernel."""

    kind: Word
    path: Text
    name: Word


class Sessions(_Message, frozen=True, array_like=True, tag="sessions", forbid_unknown_fields=True):
    """Everything that is open in a Jupyter server; the only message that a server sends, and no kernel."""

    version: Annotated[int, Meta(ge=1, le=1)]
    kernels: list[tuple[Thread, list[Opened]]]
    """Each kernel's pid with what is open on it."""
    terminals: list[tuple[Thread, Word]]
    """The pid of each terminal's first process, with its name."""
    left_out: Number
    """Kernels and terminals that did not fit into the message."""


Message = Hello | Cell | Audit | Api | Sessions


class RefusedError(ValueError):
    """A message is not what a kernel of ours sends; says why."""


def read(raw: bytes) -> Message:
    """Return the message in a datagram.

    Raises:
        RefusedError: It is too long, not JSON, or not of the expected form.
    """
    if len(raw) > MESSAGE_LIMIT:
        raise RefusedError("too long")
    try:
        found: Message = msgspec.convert(json.loads(raw), Message)
    except msgspec.ValidationError as error:
        raise RefusedError(f"not of the expected form: {visible(str(error).encode(), 200)}") from error
    except (ValueError, RecursionError) as error:
        raise RefusedError("not JSON") from error
    if isinstance(found, Audit) and not (found.name in EVENTS and found.arguments.keys() <= set(EVENTS[found.name])):
        raise RefusedError("not an event that kernels tell")
    if isinstance(found, Api) and not all(name.isascii() and name.isalnum() for name in found.resources):
        raise RefusedError("not names of resources")
    return found


def _text(value: str) -> str:
    try:
        return visible(value.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return visible(value.encode("utf-8", "surrogatepass"))


def _texts(values: dict[str, str]) -> dict[str, str]:
    return {name: _text(value) for name, value in values.items()}


def _moment(at: int, now: Millis) -> Millis:
    return Millis(at) if now - OLDEST_MS <= at <= now else now


def observation(message: Cell | Audit | Api, key: ProcessKey, now: Millis, *, exists: bool) -> Any:
    """Return what a message tells as an observation.

    Args:
        message: The message.
        key: The kernel, as the operating system names the sender.
        now: The time in milliseconds since the epoch.
        exists: Whether the thread that it names lives in that process; the cell of one that ended is not certain.
    """
    at = _moment(message.at, now)
    message_id = _text(message.message_id) if message.message_id else None
    if isinstance(message, Cell):
        return CellRun(
            at=at,
            key=key,
            phase=message.phase,
            thread=message.thread,
            message_id=message_id or "",
            cell_id=_text(message.cell_id) if message.cell_id else None,
            execution_count=message.execution_count,
            source_sha256=message.source_sha256,
            failed=message.failed,
            source=NAME,
        )
    certain = message.certain and exists and message_id is not None
    if isinstance(message, Audit):
        return KernelAudit(
            at=at,
            key=key,
            thread=message.thread,
            name=message.name,
            arguments=_texts(message.arguments),
            message_id=message_id,
            certain=certain,
            source=NAME,
        )
    return ApiCall(
        at=at,
        key=key,
        thread=message.thread,
        service=_text(message.service),
        operation=_text(message.operation),
        region=_text(message.region),
        host=_text(message.host),
        resources=_texts(message.resources),
        access_key=message.access_key,
        request_id=_text(message.request_id),
        via=message.via,
        message_id=message_id,
        certain=certain,
        source=NAME,
    )


def served(message: Sessions, key: ProcessKey, now: Millis, find: Callable[[int], ProcessKey | None]) -> ServerSessions:
    """Return what a server tells as an observation.

    Args:
        message: The message.
        key: The server, as the operating system names the sender.
        now: The time in milliseconds since the epoch.
        find: Returns the process that has a pid now, None where there is none: what is said of it is left out.
    """
    kernels = [(find(pid), opened) for pid, opened in message.kernels]
    terminals = [(find(pid), name) for pid, name in message.terminals]
    return ServerSessions(
        at=now,
        key=key,
        kernels=tuple(
            (kernel, tuple(ServedSession(_text(one.kind), _text(one.path), _text(one.name)) for one in opened))
            for kernel, opened in kernels
            if kernel is not None
        ),
        terminals=tuple((first, _text(name)) for first, name in terminals if first is not None),
        source=NAME,
    )
