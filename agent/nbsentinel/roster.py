"""Who is who on this machine: kernels and terminals with what watches each, and what a process belongs to."""

from __future__ import annotations

from collections.abc import Mapping

from nbsentinel.context.origins import Origins
from nbsentinel.context.processes import ProcessTable
from nbsentinel.events import OriginKind, Process, ProcessKey
from nbsentinel.report import ocsf_objects as objects
from nbsentinel.watch import Watch

SESSIONS_LIMIT = 200


class Roster:
    """Answers from what the agent knows already; changes nothing.

    Args:
        table: The process table.
        origins: What a process belongs to.
        watch: The sensors.
    """

    def __init__(self, table: ProcessTable, origins: Origins, watch: Watch) -> None:
        self._table, self._origins, self._watch = table, origins, watch

    def sessions(self) -> list[dict[str, object]]:
        """Return the kernels and terminals that run, oldest first, each with the sensors that watch it."""
        guarded = self._watch.guard.sessions() if self._watch.guard is not None else {}
        reporting = self._watch.kernels.reporting() if self._watch.kernels is not None else set()
        found = []
        for process in sorted(self._table.live(), key=lambda process: process.started):
            kind = self._kind(process, guarded)
            if kind:
                found.append(self._session(process, kind, guarded, reporting))
        return found[:SESSIONS_LIMIT]

    def _kind(self, process: Process, guarded: Mapping[ProcessKey, Mapping[str, str]]) -> str:
        if process.kernel is not None:
            return "kernel"
        if process.key in guarded:
            return guarded[process.key].get("kind", "command")
        if process.tty and process.session == process.key.pid:
            origin = self._origins.of(process.key)
            return "terminal" if origin.kind is OriginKind.TERMINAL and origin.process == process.key else ""
        return ""

    def _session(
        self,
        process: Process,
        kind: str,
        guarded: Mapping[ProcessKey, Mapping[str, str]],
        reporting: set[ProcessKey],
    ) -> dict[str, object]:
        origin = self._origins.of(process.key)
        by = ["procfs"]
        by += ["guard"] if process.key in guarded or process.root in guarded else []
        by += ["kernel"] if process.key in reporting else []
        return objects.present(
            kind=kind,
            pid=process.key.pid,
            command=objects.command_line(process),
            terminal=process.tty,
            kernel_id=origin.kernel_id,
            notebook=origin.notebook,
            sessions=list(origin.sessions),
            terminal_name=origin.terminal,
            source=origin.source,
            started=int(process.started),
            watched_by=by,
        )

    def who(self, pid: int) -> dict[str, object] | None:
        """Return a process, its ancestors and what it belongs to, None for one that was never seen.

        Args:
            pid: The pid; of several processes that had it, the newest is meant.
        """
        process = self._table.latest(pid)
        if process is None:
            return None
        origin = self._origins.of(process.key)
        return {
            "process": objects.process(process, self._table.lineage(process.key)),
            "live": self._table.is_live(process.key),
            "origin": objects.origin(origin),
        }
