"""Who runs a command, who reads what it prints, and on whose behalf a program connects."""

from __future__ import annotations

from nbsentinel.context.objects import ObjectView
from nbsentinel.context.processes import ProcessTable
from nbsentinel.context.programs import by_name
from nbsentinel.events import Process, ProcessKey

SHELLS = ("shell", "busybox")


def executor(process: Process, table: ProcessTable, view: ObjectView) -> ProcessKey | None:
    """Return who executes: the parent, or the shell that a parent unknown so far was forked from.

    `$(sh -c ...)` forks twice, and the fork between may be gone before anybody can ask for its parent: then it is the
    guarded command, or the youngest shell of the session.
    """
    parent = process.parent
    if parent is None or table.get(parent) is not None:
        return parent
    if view.lives(parent) and view.image(parent) not in SHELLS:
        return parent  # a fork that lives acts for itself
    above = view.parent(parent)
    if above is None or table.get(above) is None:
        root = process.root if process.root != process.key else None
        above = root or _shell_of(process, table)
    return above or parent


def _shell_of(process: Process, table: ProcessTable) -> ProcessKey | None:
    shells = [
        other.key
        for other in table.live()
        if other.session == process.session != 0 and other.key != process.key and by_name(other.exe) in SHELLS
    ]
    return max(shells, key=lambda key: key.start, default=None)


def is_captured(process: Process, table: ProcessTable, view: ObjectView) -> bool:
    """Return whether the output goes somewhere else than that of the one who started it."""
    parent = (table.get(process.parent) or view.process(process.parent)) if process.parent else None
    output = process.stdio[1]
    return bool(output and output != "/dev/null" and (parent is None or output not in parent.stdio[1:]))


def is_on_socket(process: Process) -> bool:
    """Return whether one socket is a program's input and output: then dataflow tells who works it."""
    source, sink = process.stdio[:2]
    return source is not None and source == sink and source.startswith("socket:")


def speaks_for(holder: ProcessKey, table: ProcessTable) -> list[ProcessKey]:
    """Return a process, and its parent where that is a shell, reads its output or feeds it (`$(curl ...)`)."""
    process = table.get(holder)
    parent = table.get(process.parent) if process and process.parent else None
    if process is None or parent is None:
        return [holder]
    piped = any(
        own is not None and own.startswith(("pipe:", "socket:")) and own not in parent.stdio
        for own in process.stdio[:2]
    )
    return [holder, parent.key] if piped or by_name(parent.exe) in SHELLS else [holder]
