"""All configured sinks together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from nbsentinel.config import Config
from nbsentinel.events import Coverage
from nbsentinel.report.sinks.base import Sink
from nbsentinel.report.sinks.collector import CollectorSink
from nbsentinel.report.sinks.file import FileSink
from nbsentinel.report.sinks.transport import Transport
from nbsentinel.report.spool import Row, Spool


class Fate(NamedTuple):
    """What became of one event in one sink."""

    delivered: bool
    """The sink's other end has confirmed it."""
    why: str = ""
    """Why not, as far as that is known."""
    final: bool = False
    """It never will."""


class Outlets:
    """Starts, notifies and stops the sinks that a configuration asks for.

    Args:
        config: The configuration.
        spool: Where sinks read.
        chain_uid: The chain of this session.
        log: Takes a line for the operator.
        meddled: Told of a report file that was cut or removed.
    """

    def __init__(
        self,
        config: Config,
        spool: Spool,
        chain_uid: str,
        log: Callable[[str], None],
        meddled: Callable[[Path, str], None],
    ) -> None:
        self._spool = spool
        self._sinks: list[Sink] = []
        if config.report.file.path:
            self._sinks.append(FileSink(spool, Path(config.report.file.path), meddled))
        wanted = config.report.collector
        if wanted.url:
            transport = Transport(
                wanted.url,
                ca_bundle=wanted.ca_bundle or None,
                connect_timeout=wanted.connect_timeout_seconds,
                read_timeout=wanted.read_timeout_seconds,
            )
            token_file = Path(wanted.token_file) if wanted.token_file else None
            sink = CollectorSink(
                spool, transport, token_file=token_file, batch=wanted.batch_events, current_chain=chain_uid, log=log
            )
            self._sinks.append(sink)

    @property
    def names(self) -> list[str]:
        """Names of the sinks, as the spool's cursors have them."""
        return [sink.name for sink in self._sinks]

    def start(self) -> None:
        """Start all."""
        for sink in self._sinks:
            sink.start()

    def notify(self) -> None:
        """Tell all that new events are recorded."""
        for sink in self._sinks:
            sink.notify()

    def look(self) -> None:
        """Have each notice what somebody did to what it delivered."""
        for sink in self._sinks:
            sink.look()

    def stop(self, timeout: float) -> None:
        """Let all deliver what they can within `timeout` seconds each, then stop them."""
        for sink in self._sinks:
            sink.stop(timeout)

    def coverage(self) -> list[Coverage]:
        """Return whether delivery works, for each sink."""
        return [sink.coverage() for sink in self._sinks]

    def status(self) -> list[dict[str, object]]:
        """Return what `nbsentinel status` shows of the sinks."""
        return [
            {"sink": sink.name, "waiting": self._spool.waiting(sink.name), "why": sink.coverage().why}
            for sink in self._sinks
        ]

    def fate(self, name: str, row: Row) -> Fate:
        """Return what became of an event that was in the spool."""
        if self._spool.cursor(name) < row.id:
            if self._spool.find(row.chain, row.sequence) is None:
                return Fate(False, "it was dropped before: the spool is full", final=True)
            ahead = self._spool.waiting(name)
            why = next((sink.coverage().why for sink in self._sinks if sink.name == name), "")
            return Fate(False, f"{why or 'it is busy'}; {ahead} events wait for it")
        refused = any(chain == row.chain and state == "refused" for chain, state, _ in self._spool.chains())
        if name == CollectorSink.name and refused:
            return Fate(False, "the collector refuses this agent's chain, which is set aside", final=True)
        return Fate(True)
