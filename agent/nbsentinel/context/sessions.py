"""What Jupyter servers tell of their kernels and terminals. Bounded, no I/O; whom to believe is for `origins`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container
from typing import TypeVar

from nbsentinel.events import ProcessKey, ServedSession, ServerSessions

SERVERS_LIMIT = 8
ROWS_LIMIT = 512
"""Kernels, and as many terminals, remembered for each server."""


class _Server:
    """What one server told. What it stops to tell stays: people ask about closed terminals too."""

    def __init__(self) -> None:
        self.kernels: OrderedDict[ProcessKey, tuple[ServedSession, ...]] = OrderedDict()
        self.terminals: OrderedDict[ProcessKey, str] = OrderedDict()


class Sessions:
    """The last word of each server about what it started."""

    def __init__(self) -> None:
        self._servers: OrderedDict[ProcessKey, _Server] = OrderedDict()

    def learn(self, told: ServerSessions, known: Container[ProcessKey]) -> None:
        """Take in what a server tells.

        Args:
            told: All that it has open.
            known: Servers that the agent found itself: a crowd of others does not push them out.
        """
        server = self._servers.setdefault(told.key, _Server())
        self._servers.move_to_end(told.key)
        while len(self._servers) > SERVERS_LIMIT:
            del self._servers[next((key for key in self._servers if key not in known), next(iter(self._servers)))]
        for kernel, opened in told.kernels:
            if opened or kernel not in server.kernels:
                server.kernels[kernel] = opened
                _trim(server.kernels, kernel)
        for terminal, name in told.terminals:
            server.terminals[terminal] = name
            _trim(server.terminals, terminal)

    def of_kernel(self, server: ProcessKey, kernel: ProcessKey) -> tuple[ServedSession, ...]:
        """Return what is open on a kernel by a server's word, or was last; nothing where it said nothing."""
        found = self._servers.get(server)
        return found.kernels.get(kernel, ()) if found else ()

    def terminal(self, server: ProcessKey | None, first: ProcessKey) -> str | None:
        """Return the name of the terminal whose first process this is by a server's word."""
        found = self._servers.get(server) if server else None
        return found.terminals.get(first) if found else None


_Row = TypeVar("_Row")


def _trim(rows: OrderedDict[ProcessKey, _Row], newest: ProcessKey) -> None:
    rows.move_to_end(newest)
    while len(rows) > ROWS_LIMIT:
        rows.popitem(last=False)
