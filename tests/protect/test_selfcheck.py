"""The agent's checks of itself, without a process of their own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsentinel.config import Config
from nbsentinel.events import Millis, SensorState, Tamper, TamperKind
from nbsentinel.protect import standing, testament
from nbsentinel.protect.estate import ROOM, Estate
from nbsentinel.protect.keeper import Bond
from nbsentinel.protect.selfcheck import SelfCheck
from nbsentinel.report.spool import Entry

Told = list[tuple[TamperKind, str, str]]


class Bench:
    """A check with a keeper that only says what the test wants."""

    def __init__(self, estate: Estate | None = None) -> None:
        reading, self.writing = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
        self.estate = estate or Estate()
        self.told: list[Tamper] = []
        self.stopped = 0
        bond = Bond(os.getppid(), reading, self.estate, standing.read(os.getpid()))
        self.check = self._make(bond)
        self._reading = reading

    def _make(self, bond: Bond | None) -> SelfCheck:
        return SelfCheck(
            Config(), [], bond, emit=lambda t: self.told.append(t) is None, clock=lambda: Millis(0), stop=self._stop
        )

    def _stop(self) -> None:
        self.stopped += 1

    def hear(self, *facts: bytes) -> Told:
        for fact in facts:
            os.write(self.writing, fact)
        ready = threading.Event()
        ready.set()
        self.check.rest(ready, 0.1)
        return [(tamper.kind, tamper.target, tamper.detail) for tamper in self.told]

    def close(self) -> None:
        os.close(self.writing)
        os.close(self._reading)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_the_keeper_tells(bench: Bench) -> None:
    """Stopped and ended are told with their signal or code; a restart that the agent asked for is not."""
    told = bench.hear(b"stopped 19 1", b"ended signal 9 1", b"ended exit 1 1", b"ended exit 75 1", b"nonsense")
    assert told == [
        (TamperKind.STOPPED, "agent", "stopped by signal 19, resumed"),
        (TamperKind.KILLED, "agent", "ended by signal 9, started again"),
        (TamperKind.KILLED, "agent", "ended with exit code 1, started again"),
    ]
    assert not bench.stopped
    bench.close()


def test_signal_alone_does_not_stop(bench: Bench) -> None:
    """A signal without the keeper's word is not obeyed; with it, it is."""
    bench.check.asked(int(signal.SIGTERM))
    ((kind, target, detail),) = bench.hear()
    assert (kind, target) == (TamperKind.REFUSED_CALL, "agent")
    assert "SIGTERM" in detail
    assert not bench.stopped
    bench.hear(b"stop 15 4711 1000 1")
    assert bench.stopped
    assert bench.check.stopped_by == {"signal": 15, "pid": 4711, "uid": 1000}
    assert len(bench.told) == 1
    bench.close()


def test_without_a_keeper_signals_count(bench: Bench) -> None:
    """An agent that nobody keeps ends when told to, and says that nobody keeps it."""
    bench.check = bench._make(None)
    assert bench.check.coverage().state is SensorState.DEGRADED
    bench.check.asked(int(signal.SIGINT))
    assert bench.hear() == []
    assert bench.stopped
    bench.close()


def entry(number: int, class_uid: int = 1007, size: int = 100) -> Entry:
    return Entry(chain="c", sequence=number, class_uid=class_uid, severity=1, line=bytes(size))


def test_next_agent_gets_what_the_one_before_left(bench: Bench) -> None:
    """Configuration, contents and unsaved events pass on, also through an agent that had no time to look."""
    bench.check.take_files()
    bench.check.leave((entry(1),))
    first = testament.left(bench.estate)
    assert first is not None
    assert first.config == Config()
    second = Bench(bench.estate)
    assert second.check.inherited == (entry(1),)
    second.check.leave(())
    passed = testament.left(bench.estate)
    assert passed is not None
    assert passed.contents == first.contents
    assert passed.unsaved == ()
    bench.close()
    second.close()


def test_too_many_unsaved_events_leave_the_findings() -> None:
    """Room is for findings first."""
    estate = Estate()
    events = tuple(entry(n, 2004 if n % 100 == 0 else 1007, size=4000) for n in range(ROOM // 2000))
    testament.leave(estate, testament.Testament(config=Config(), unsaved=events))
    found = testament.left(estate)
    assert found is not None
    assert found.unsaved == tuple(e for e in events if e.class_uid == 2004)


def test_unreadable_testament_is_none() -> None:
    """What cannot be understood is like nothing."""
    estate = Estate()
    estate.leave(b"nonsense")
    assert testament.left(estate) is None


@pytest.mark.parametrize("name", ["spool.db", "spool.db-wal"])
@pytest.mark.parametrize(
    ("harm", "how"),
    [
        (lambda path: path.unlink(), "removed"),
        (lambda path: (path.rename(path.with_suffix(".old")), path.write_bytes(b"x" * 10)), "replaced"),
        (lambda path: os.truncate(path, 0), "emptied"),
        (lambda path: os.truncate(path, 5), None),
        (lambda path: path.write_bytes(b"x" * 20), None),
    ],
)
def test_the_spool_is_watched(
    bench: Bench, tmp_path: Path, name: str, harm: Callable[[Path], object], how: str | None
) -> None:
    """A file of the spool that is removed, replaced or emptied is told of; growing and shrinking are SQLite's own."""
    for each in ("spool.db", "spool.db-wal"):
        (tmp_path / each).write_bytes(b"x" * 10)
    bench.check.check(tmp_path / "spool.db", ())
    bench.told.clear()
    harm(tmp_path / name)
    bench.check.check(tmp_path / "spool.db", ())
    about = [(tamper.target, tamper.detail) for tamper in bench.told if str(tmp_path) in tamper.target]
    assert about == ([(str(tmp_path / name), f"{how} while it is in use")] if how else [])
    bench.close()
