"""From the guard's records to observations. Texts in records are still the attacker's bytes; here they become text."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nbsentinel.events import (
    Connect,
    Connection,
    ConnectOutcome,
    ConnectStage,
    Endpoint,
    Inode,
    Millis,
    Process,
    ProcessKey,
    SystemCall,
    Tamper,
    TamperKind,
)
from nbsentinel.sensors.procfs import reader
from nbsentinel.text import NAME_LIMIT, PATH_LIMIT, arguments, visible
from nbsentinel_guard import evidence, records

NAME = "guard"
ROLES = ("holder", "supervisor", "agent", "keeper", "lessor", "decoy")
_NOTICES = {
    b"stopped": TamperKind.STOPPED,
    b"killed": TamperKind.KILLED,
    b"hung": TamperKind.HUNG,
}
_PROTOCOLS = {records.BY_CALL: "", records.BY_DATAGRAM: "udp", records.BY_FAST_OPEN: "tcp"}


def root_of(description: bytes) -> ProcessKey | None:
    """Return the guarded command that a listener belongs to."""
    words = description.split(b" ", 2)
    if len(words) < 2 or not words[0].isdigit() or not words[1].isdigit():
        return None
    return ProcessKey(int(words[0]), int(words[1]))


def features_of(description: bytes) -> dict[str, str]:
    """Return the `name=value` words of a listener's description: kind, way, killable, spec, connect, wake."""
    words = description.decode("ascii", "replace").split(" ")
    return dict(word.split("=", 1) for word in words if "=" in word)


def _text(value: bytes, limit: int = PATH_LIMIT) -> str | None:
    return visible(value, limit) if value else None


def process(image: records.Image, root: ProcessKey | None) -> Process:
    """Return the image that the guard described."""
    key = ProcessKey(image.who.pid, image.who.start)
    argv, length, digest = arguments(image.argv)
    cwd = _text(image.cwd)
    return Process(
        key=key,
        parent=ProcessKey(image.parent, image.parent_start) if image.parent_start else None,
        name=visible(image.name, NAME_LIMIT),
        exe=_text(image.exe),
        argv=argv,
        argv_length=length,
        argv_sha256=digest,
        cwd=cwd,
        uid=image.uid,
        user=reader.user_name(image.uid),
        session=image.session,
        tty=reader.terminal_name(image.terminal),
        started=reader.start_time(key),
        stdio=(_text(image.streams[0]), _text(image.streams[1]), _text(image.streams[2])),
        kernel=reader.kernel_info(key.pid, argv, cwd),
        root=root,
        preloads=_text(image.preloads),
        unreadable=bool(image.flags & records.UNREADABLE),
    )


def fork(key: ProcessKey, parent: Process | None, root: ProcessKey | None) -> Process:
    """Return a process that has not executed anything, by what it is like or, where it ends, by its parent."""
    found = reader.process(key.pid)
    if found is None or found.key != key or (found.exe is None and parent is not None):
        if parent is None:
            return Process(key=key, parent=None, name="unknown", exe=None, argv=(), argv_length=0, root=root)
        found = msgspec.structs.replace(
            parent, key=key, parent=parent.key, started=reader.start_time(key), forked=True, preloads=None
        )
    return msgspec.structs.replace(found, root=root)


def claimed(record: records.Connect) -> Endpoint | None:
    """Return the internet address that a call named, None for any other family."""
    found = evidence.endpoint(record.claim)
    return Endpoint(*found) if found else None


def unix_path(record: records.Connect) -> str | None:
    """Return the path that a connection to a unix socket named; abstract names begin with @."""
    if record.claim[:2] != b"\1\0" or len(record.claim) < 3:
        return None
    raw = record.claim[2:]
    path = b"@" + raw[1:].rstrip(b"\0") if raw[:1] == b"\0" else raw.partition(b"\0")[0]
    return _text(path)


def connection(record: records.Connect, inode: Inode, remote: Endpoint) -> Connection:
    """Return what the call alone tells of a connection."""
    protocol = _PROTOCOLS.get(record.way, "")
    return Connection(protocol=protocol, local=None, remote=remote, inode=inode, initiated=True)


def attempt(record: records.Connect, key: ProcessKey, told: Connection, hostname: str | None) -> Connect:
    """Return the first sight of a connection."""
    return Connect(
        at=Millis(record.who.at),
        key=key,
        connection=told,
        source=NAME,
        stage=ConnectStage.ATTEMPT,
        outcome=ConnectOutcome.PENDING,
        hostname=hostname,
        thread=record.who.tid,
    )


def system_call(payload: bytes, key: ProcessKey, roles: Mapping[int, str]) -> SystemCall | Tamper:
    """Return what a CALL record tells: an attempt on one of ours, or a call that is worth telling.

    Args:
        payload: The record.
        key: Who called.
        roles: What each process of ours is.
    """
    who, (name, refused, *pairs) = records.read_told(payload)
    told = dict(zip(pairs[::2], pairs[1::2], strict=True))
    if b"Aimed" in told:
        target = int(told[b"Aimed"])
        what = roles.get(target, f"process {target}") if target > 0 else "all processes"
        return Tamper(
            at=Millis(who.at),
            kind=TamperKind.REFUSED_CALL,
            target=what,
            detail=f"{visible(name)} was refused" + (f" (process {target})" if target > 0 else ""),
            source=NAME,
            key=key,
            thread=who.tid,
        )
    return SystemCall(
        at=Millis(who.at),
        key=key,
        name=visible(name, NAME_LIMIT),
        arguments={visible(name, NAME_LIMIT): visible(value) for name, value in told.items()},
        refused=refused == b"1",
        thread=who.tid,
        source=NAME,
    )


def tamper(payload: bytes) -> Tamper | None:
    """Return what a NOTICE record tells of meddling, None for one that tells something else."""
    who, (what, why) = records.read_told(payload)
    kind = _NOTICES.get(what)
    if kind is None or (kind is TamperKind.HUNG and b"lessor" in why):
        return None  # a lessor is ended after a time that a busy machine can take: for the operator, no finding
    words = visible(why)
    target = next((role for role in ROLES if f"the {role}" in words), "guard")
    return Tamper(at=Millis(who.at), kind=kind, target=target, detail=words, source=NAME)
