"""What something belongs to: kernel, notebook and cell, or a terminal, and how that is known. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from nbsentinel.context.cells import Cells, Place
from nbsentinel.context.processes import ProcessTable
from nbsentinel.context.runs import is_editor, run_of
from nbsentinel.context.sessions import Sessions
from nbsentinel.events import (
    ApiCall,
    CellRun,
    Certainty,
    Connect,
    Exec,
    FileAccess,
    KernelAudit,
    KernelInfo,
    Millis,
    Observation,
    Origin,
    OriginKind,
    Process,
    ProcessKey,
    ServedSession,
    ServerSessions,
    SystemCall,
    Tamper,
)

_NO_START = "unknown: its start was not seen, or the kernel does not report its cells"


class Moment(msgspec.Struct, frozen=True):
    """Where and when something was done, as far as that is known."""

    at: Millis
    thread: int = 0
    message_id: str | None = None
    certain: bool = False
    """Whether the thread ran the cell of that message at that moment, by the kernel's own word."""


def moment_of(value: Observation, cells: Cells) -> Moment | None:
    """Return when and in which thread something was done, None for what is not the doing of a running image."""
    if isinstance(value, (KernelAudit, ApiCall)):
        return Moment(value.at, value.thread, value.message_id, certain=value.certain)
    if isinstance(value, CellRun):
        return Moment(value.at, value.thread, value.message_id, certain=True)
    if isinstance(value, FileAccess):
        told = cells.opened(value.key, value.path, value.at) if value.key else None
        if told is not None:
            return Moment(value.at, told.thread, told.message_id, certain=told.certain)
        return Moment(value.at, value.thread)
    if isinstance(value, (Connect, SystemCall)):
        return Moment(value.at, value.thread)
    if isinstance(value, Tamper) and value.thread:
        return Moment(value.at, value.thread)
    return None


class Origins:
    """Joins ancestry with what kernels and the Jupyter server tell.

    A server is believed only where the agent found it itself, and only about what is below it: another program that
    looks like one names nothing.

    Args:
        table: The process table.
        cells: What kernels told of their cells.
        servers: Returns the Jupyter servers that are known: a session leader on a terminal below one is its terminal.
    """

    def __init__(self, table: ProcessTable, cells: Cells, servers: Callable[[], Iterable[ProcessKey]]) -> None:
        self._table, self._cells, self._servers = table, cells, servers
        self._sessions = Sessions()

    def learn(self, told: ServerSessions) -> None:
        """Take in what a server tells of its kernels and terminals."""
        self._sessions.learn(told, set(self._servers()))

    def of_observation(self, value: Observation) -> Origin | None:
        """Return what an observation's process belonged to at that moment, None where there is no process."""
        key = value.process.key if isinstance(value, Exec) else getattr(value, "key", None)
        return self.of(key, moment_of(value, self._cells)) if key is not None else None

    def of(self, key: ProcessKey, moment: Moment | None = None) -> Origin:
        """Return what a process belongs to.

        Args:
            key: The process.
            moment: When and in which thread it did what this is about: a kernel runs one cell after the other.
        """
        own = self._table.get(key)
        line = ((own,) if own else ()) + self._table.lineage(key)
        servers = set(self._servers())
        for depth, process in enumerate(line):
            if process.kernel is not None:
                return self._in_kernel(process, process.kernel, line[depth + 1 :], key, moment, servers)
            if process.tty and process.session == process.key.pid:
                opener = self._opener(process, line[depth + 1 :], servers)
                if opener:
                    name = self._sessions.terminal(process.parent if process.parent in servers else None, process.key)
                    named = f', and is its terminal "{name}" by its own word' if name else ""
                    return Origin(
                        kind=OriginKind.TERMINAL,
                        source=f"ancestry: {process.tty} was opened by {opener}{named}",
                        process=process.key,
                        terminal=name,
                        cell_source="not a notebook cell: a terminal",
                    )
        return Origin(
            kind=OriginKind.OTHER,
            source="unknown: no kernel and no Jupyter terminal among the known ancestors",
            process=line[-1].key if line else None,
            cell_source="unknown: not below a kernel that was seen",
        )

    @staticmethod
    def _opener(process: Process, above: tuple[Process, ...], servers: set[ProcessKey]) -> str:
        if process.parent in servers:
            return "the Jupyter server"
        return "Code Editor" if above and is_editor(above[0]) else ""

    def _in_kernel(
        self,
        kernel: Process,
        info: KernelInfo,
        above: tuple[Process, ...],
        key: ProcessKey,
        moment: Moment | None,
        servers: set[ProcessKey],
    ) -> Origin:
        run = next((found for process in above[:2] if (found := run_of(process))), None)
        place = self._place(kernel.key, key, moment)
        source = "ancestry: nearest ancestor with a kernel connection file"
        notebook = (run.notebook if run else None) or info.notebook
        opened = () if run else self._opened((kernel, *above), servers)
        if run:
            source += f", started by {run.tool}"
        elif opened:
            source += "; what is open on it by the Jupyter server's word"
            notebook = next((one.path for one in opened if one.kind == "notebook"), None)
        return Origin(
            kind=OriginKind.KERNEL,
            source=source,
            process=kernel.key,
            kernel_id=info.kernel_id,
            notebook=notebook,
            sessions=tuple(str(one) for one in opened),
            cell=place.cell,
            cell_certainty=place.certainty,
            cell_source=place.reason,
        )

    def _opened(self, line: tuple[Process, ...], servers: set[ProcessKey]) -> tuple[ServedSession, ...]:
        """Return what the server above a kernel has open on it; a kernel that a cell started belongs to that cell's."""
        server = next((process.key for process in line if process.key in servers), None)
        if server is None:
            return ()
        return next((found for one in line if (found := self._sessions.of_kernel(server, one.key))), ())

    def _place(self, kernel: ProcessKey, key: ProcessKey, moment: Moment | None) -> Place:
        if key != kernel:
            return self._cells.of_process(key) or Place(None, Certainty.UNKNOWN, _NO_START)
        if moment is None:
            return Place(None, Certainty.UNKNOWN, "not a cell: the kernel itself")
        named = self._cells.of_message(kernel, moment.message_id, certain=moment.certain)
        return named or self._cells.of_thread(kernel, moment.thread, moment.at)
