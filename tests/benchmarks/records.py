"""What was told of executions and connections, from a report file or from strace's output."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_MARK = "turn-"
_CALL = re.compile(r"^(\d+) +(execve|connect)\((.*)$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (execve|connect) resumed>(.*)$")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_PEER = re.compile(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]+)"\)')


class Told(NamedTuple):
    """What was told, by what makes each thing unique."""

    execs: dict[str, list[tuple[int, str, str]]]
    """By argument: (pid, file, command line)."""
    connections: dict[str, list[tuple[int, str]]]
    """By target: (pid, file)."""
    unread: Counter[tuple[int, str]]
    """Connections of a process and file whose target could not be read."""

    def execution(self, pid: int, exe: str, argv: list[str]) -> None:
        """Add an execution if it is one of the workload."""
        if len(argv) == 2 and argv[1].startswith(_MARK):
            seen = self.execs.setdefault(argv[1], [])
            if (pid, exe, " ".join(argv)) not in seen:
                seen.append((pid, exe, " ".join(argv)))

    def connection(self, pid: int, exe: str, target: str) -> None:
        """Add a connection."""
        seen = self.connections.setdefault(target, [])
        if (pid, exe) not in seen:
            seen.append((pid, exe))


def _process(event: dict) -> tuple[int, str, str]:
    found = event.get("process") or event.get("actor", {}).get("process", {})
    return found.get("pid", 0), found.get("file", {}).get("path", ""), found.get("cmd_line", "")


def from_report(file: Path, port: int) -> Told:
    """Return what an agent reported: Process Activity, Launch, and Network Activity. Here nothing may come twice."""
    told = Told({}, {}, Counter())
    for line in file.read_bytes().splitlines():
        event = json.loads(line)
        if event["class_uid"] == 1007 and event["activity_id"] == 1:
            pid, exe, command = _process(event)
            argument = command.rpartition(" ")[2]
            if argument.startswith(_MARK):
                told.execs.setdefault(argument, []).append((pid, exe, command))
        elif event["class_uid"] == 4001 and event.get("dst_endpoint", {}).get("port") == port:
            pid, exe, _ = _process(event)
            told.connections.setdefault(f"{event['dst_endpoint'].get('ip')}:{port}", []).append((pid, exe))
        elif event.get("unmapped", {}).get("nbsentinel", {}).get("Destination") == "unreadable":
            pid, exe, _ = _process(event)
            told.unread[pid, exe] += 1
    return told


class Reader:
    """Reads what is new in a report file, whole lines only.

    Args:
        file: The file; it need not be there yet.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._at = file, file.stat().st_size if file.exists() else 0

    def lines(self) -> list[bytes]:
        """Return the lines that were written since the last call; costs one system call where there are none."""
        try:
            if os.stat(self._file).st_size == self._at:
                return []
        except FileNotFoundError:
            return []
        with self._file.open("rb") as opened:
            opened.seek(self._at)
            whole = opened.read().rpartition(b"\n")[0]
        self._at += len(whole) + 1 if whole else 0
        return whole.splitlines()


def is_counted(line: bytes) -> bool:
    """Return whether a line of a report is about an execution of the workload or about a connection."""
    return (
        b'"class_uid":4001' in line
        or b'"Destination":"unreadable"' in line
        or (b'"type_uid":100701' in line and _MARK.encode() in line)
    )


def explain(way: str, told: Told, execs: list[list[str]], targets: Iterable[str]) -> None:
    """Print what kinds of mistakes there were."""
    found = Counter[str]({"connections told without their target": told.unread.total()})
    for _, argument in execs:
        found["executions missing"] += argument not in told.execs
        found["executions told more than once"] += len(told.execs.get(argument, [])) > 1
        found["executions without a file"] += any(not exe for _, exe, _ in told.execs.get(argument, []))
    for target in targets:
        found["connections missing"] += target not in told.connections
        found["connections told more than once"] += len(told.connections.get(target, [])) > 1
        found["connections without a file"] += any(not exe for _, exe in told.connections.get(target, []))
    mistakes = ", ".join(f"{count} {what}" for what, count in found.items() if count)
    print(f"  {way}: {mistakes or 'nothing missing, nothing twice'}", flush=True)


def from_strace(file: Path, port: int) -> Told:
    """Return what `strace -f -o FILE` wrote: calls that succeeded; a process runs what it last executed."""
    told = Told({}, {}, Counter())
    begun: dict[int, str] = {}
    running: dict[int, str] = {}
    for line in file.read_text(errors="replace").splitlines():
        if found := _CALL.match(line):
            pid, name, rest = int(found[1]), found[2], found[3]
            if rest.endswith("<unfinished ...>"):
                begun[pid] = rest
                continue
        elif found := _RESUMED.match(line):
            pid, name = int(found[1]), found[2]
            rest = begun.pop(pid, "") + found[3]
        else:
            continue
        if not rest.endswith("= 0"):
            continue
        if name == "execve":
            words = _STRING.findall(rest.partition("/* ")[0])
            running[pid] = os.path.realpath(words[0]) if words else ""
            told.execution(pid, running[pid], words[1:])
        elif (peer := _PEER.search(rest)) and int(peer[1]) == port:
            told.connection(pid, running.get(pid, ""), f"{peer[2]}:{port}")
    return told
