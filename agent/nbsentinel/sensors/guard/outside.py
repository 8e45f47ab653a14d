"""Kernels and terminals that nobody guards: what lives there for a moment is not seen. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nbsentinel.events import Millis, Origin, OriginKind, Process, ProcessKey, Tamper, TamperKind
from nbsentinel.sensors.guard.translate import NAME

GRACE_MS = 10_000
"""A kernel guards itself when its IPython starts; until then it is not called unguarded."""


class Outside:
    """Finds each such kernel and terminal once.

    Args:
        is_guarded: Whether a process is under a filter of ours.
        terminals: Whether terminals are to be guarded at all.
    """

    def __init__(self, is_guarded: Callable[[ProcessKey], bool], *, terminals: bool) -> None:
        self._is_guarded, self._terminals = is_guarded, terminals
        self._told: set[ProcessKey] = set()

    def look(self, processes: Iterable[Process], origin: Callable[[ProcessKey], Origin], now: Millis) -> list[Tamper]:
        """Return what is new among the processes that run now.

        Args:
            processes: All that is known to run.
            origin: Returns what started a process.
            now: Milliseconds since the epoch.
        """
        alive, found = set(), []
        for process in processes:
            kind = "kernel" if process.kernel is not None else self._terminal(process, origin)
            if not kind or now - process.started < GRACE_MS:
                continue
            alive.add(process.key)
            if process.key in self._told or self._is_guarded(process.key):
                continue
            self._told.add(process.key)
            detail = f"{kind} {process.key.pid} was started without the guard"
            found.append(
                Tamper(at=now, kind=TamperKind.UNGUARDED, target=kind, detail=detail, source=NAME, key=process.key)
            )
        self._told &= alive
        return found

    def _terminal(self, process: Process, origin: Callable[[ProcessKey], Origin]) -> str:
        if not self._terminals or process.session != process.key.pid or not process.tty:
            return ""
        found = origin(process.key)
        return "terminal" if found.kind is OriginKind.TERMINAL and found.process == process.key else ""
