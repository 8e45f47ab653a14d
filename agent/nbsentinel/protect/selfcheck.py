"""The checks that the agent makes of itself, and what its keeper tells it.

Each thing that is not as it was becomes a `Tamper` observation in a lane of its own; rules make findings of them. What
can be put back is put back at once; where something stays, the agent asks to be started again by its keeper, which
still has the limits that it began with.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from nbsentinel.config import Config
from nbsentinel.events import Coverage, Millis, SensorState, Tamper, TamperKind
from nbsentinel.protect import standing, testament
from nbsentinel.protect.files import Files, program_files
from nbsentinel.protect.keeper import RESTART, Bond
from nbsentinel.protect.testament import Testament
from nbsentinel.report.spool import Entry

NAME = "self"
JUMP_S = 5.0
"""A wait that took so much longer than asked for: the process did not run."""
_STOPPED = ("T", "t")


class SelfCheck:
    """The agent's eye on itself. Everything but `asked` and `take_files` runs in the thread of the pipeline.

    Args:
        config: The configuration in force.
        sources: The files that it was read from: configuration and rule pack.
        bond: The connection with the keeper, None for an agent that runs without.
        emit: Takes observations.
        clock: Milliseconds since the epoch.
        stop: Called when the keeper was told to stop.
    """

    def __init__(
        self,
        config: Config,
        sources: list[str],
        bond: Bond | None,
        *,
        emit: Callable[[Tamper], bool],
        clock: Callable[[], Millis],
        stop: Callable[[], None],
    ) -> None:
        self._config, self._bond, self._emit, self._clock, self._stop = config, bond, emit, clock, stop
        before = testament.left(bond.estate) if bond else None
        self.inherited = before.unsaved if before else ()
        """Sealed events that the agent before could not write."""
        self._files = Files([*sources, *program_files()], before.contents if before else {})
        self._allowed = bond.allowed if bond else standing.read(os.getpid())
        self._keeper_allowed = self._allowed
        self._asked: deque[int] = deque(maxlen=64)
        self._blind = self._left = False
        self._unsaved: tuple[Entry, ...] = ()
        self._spool_seen: dict[str, os.stat_result | None] = {}
        self.restart = False
        """Whether the agent should end and be started again by its keeper."""
        self.stopped_by: dict[str, int] = {}
        """Who told the keeper to stop: pid, uid and signal."""

    # Hearing

    def asked(self, number: int) -> None:
        """Take note of a signal that asks to end; safe in a signal handler, because it takes no lock."""
        self._asked.append(number)

    def rest(self, ready: threading.Event, seconds: float) -> None:
        """Wait until something is ready, then hear what the keeper has to tell."""
        before = time.monotonic()
        ready.wait(seconds)
        late = time.monotonic() - before - seconds
        resumed = self._hear()
        if late > JUMP_S and not resumed:
            self._tell(TamperKind.HUNG, "agent", f"did not run for {late:.0f} s")

    def _hear(self) -> bool:
        """Take in facts and signals; return whether the keeper had to resume us."""
        resumed, numbers = False, set()
        while self._asked:
            numbers.add(self._asked.popleft())
        for words in self._bond.facts() if self._bond else ():
            match words:
                case ["stop", number, pid, uid, _]:
                    self.stopped_by = {"signal": int(number), "pid": int(pid), "uid": int(uid)}
                case ["stopped", number, _]:
                    resumed = True
                    self._tell(TamperKind.STOPPED, "agent", f"stopped by signal {number}, resumed")
                case ["ended", "signal", number, _]:
                    self._tell(TamperKind.KILLED, "agent", f"ended by signal {number}, started again")
                case ["ended", "exit", code, _] if int(code) != RESTART:
                    self._tell(TamperKind.KILLED, "agent", f"ended with exit code {code}, started again")
        if self.stopped_by or (numbers and self._bond is None):
            self._stop()
        else:
            for asked in numbers:
                detail = f"{signal.Signals(asked).name} did not come from the keeper and was not obeyed"
                self._tell(TamperKind.REFUSED_CALL, "agent", detail)
        return resumed

    def _tell(self, kind: TamperKind, target: str, detail: str) -> None:
        self._emit(Tamper(at=self._clock(), kind=kind, target=target, detail=detail, source=NAME))

    # Looking

    def check(self, spool: Path, unsaved: tuple[Entry, ...]) -> None:
        """Look at ourselves once; well under a millisecond.

        Args:
            spool: The file that waiting events are in.
            unsaved: Sealed events that the disk refused so far.
        """
        self._check_own_standing()
        if self._bond is not None:
            self._check_keeper(self._bond.keeper)
        for change in self._files.look():
            self._tell(TamperKind.FILES_CHANGED, change.path, change.detail)
        self._check_spool(spool)
        if self._bond is not None and self._files.taken and (not self._left or unsaved != self._unsaved):
            self._left, self._unsaved = True, unsaved
            self.leave(unsaved)

    def take_files(self) -> None:
        """Read all of our own files once; takes tens of milliseconds, so it belongs into another thread."""
        for change in self._files.take():
            self._tell(TamperKind.FILES_CHANGED, change.path, f"{change.detail}; changed while the agent was replaced")

    def file_meddled(self, path: Path, detail: str) -> None:
        """Take note of what a sink found out about a file that it writes; safe in any thread."""
        self._tell(TamperKind.FILES_CHANGED, str(path), detail)

    def leave(self, unsaved: tuple[Entry, ...]) -> None:
        """Leave what the next agent needs."""
        if self._bond is not None:
            will = Testament(config=self._config, contents=self._files.known, unsaved=unsaved)
            testament.leave(self._bond.estate, will)

    def _check_own_standing(self) -> None:
        own, threads = os.getpid(), _threads()
        now = standing.read(own, threads)
        words = standing.differences(self._allowed, now)
        blind = not _can_open()
        if not words and (not blind or self._blind):
            self._blind = blind
            return
        standing.mend(own, self._allowed, threads)
        after = standing.read(own, threads)
        stays = standing.changed(self._allowed, after)
        blind = not _can_open()
        if blind and not words:
            words = ["no file can be opened"]
        self._tell(TamperKind.LIMITED, "agent", "; ".join([*words, "put back" if not stays else "not all put back"]))
        # A new agent helps only where the keeper still has what we lost.
        keeper = standing.read(self._bond.keeper) if self._bond else {}
        self.restart = self._bond is not None and (
            blind or any(keeper.get(name) == self._allowed[name] for name in stays)
        )
        self._blind = blind
        self._allowed = {**self._allowed, **{name: after[name] for name in stays}}

    def _check_keeper(self, keeper: int) -> None:
        if _state(keeper) in _STOPPED:
            os.kill(keeper, signal.SIGCONT)
            self._tell(TamperKind.STOPPED, "keeper", "stopped by a signal, resumed")
        now = standing.read(keeper)
        words = standing.differences(self._keeper_allowed, now)
        if words:
            standing.mend(keeper, self._keeper_allowed)
            self._tell(TamperKind.LIMITED, "keeper", "; ".join(words))
            self._keeper_allowed = {**self._keeper_allowed, **standing.read(keeper)}

    def _check_spool(self, spool: Path) -> None:
        for path in (spool, spool.with_name(spool.name + "-wal")):
            try:
                now: os.stat_result | None = path.stat()
            except OSError:
                now = None
            before = self._spool_seen.get(str(path))
            self._spool_seen[str(path)] = now
            if before is not None and (how := _harm(before, now)):
                self._tell(TamperKind.FILES_CHANGED, str(path), f"{how} while it is in use")

    # Telling of it

    @property
    def keeper_pid(self) -> int:
        """The keeper's pid, for whoever protects it from guarded processes; 0 without one."""
        return self._bond.keeper if self._bond else 0

    def coverage(self) -> Coverage:
        """Return whether somebody looks after the agent."""
        if self._bond is None:
            why = "no keeper: an agent that is stopped or killed stays so"
            return Coverage(sensor=NAME, state=SensorState.DEGRADED, why=why)
        if self._blind:
            return Coverage(sensor=NAME, state=SensorState.DEGRADED, why="no file can be opened")
        return Coverage(sensor=NAME, state=SensorState.ACTIVE)


def _can_open() -> bool:
    try:
        os.close(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _threads() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return []


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0].decode("ascii", "replace")
    except (OSError, IndexError):
        return ""


def _harm(before: os.stat_result, now: os.stat_result | None) -> str:
    """Return what was done to a file of the spool: SQLite shortens it, but never replaces or empties it."""
    if now is None:
        return "removed"
    if (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino):
        return "replaced"
    return "emptied" if before.st_size and not now.st_size else ""
