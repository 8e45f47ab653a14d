"""Makes observations of what was seen, when their process is known to the pipeline."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Container, Iterable
from functools import partial

from nbsentinel.events import EnvironSweep, Exec, FileAccess, FileOperation, Millis, Process, ProcessKey
from nbsentinel.sensors.base import Emit
from nbsentinel.sensors.files import readers, suspects
from nbsentinel.sensors.files.lessees import Opener
from nbsentinel.sensors.files.opens import Repeats
from nbsentinel.sensors.files.places import Target
from nbsentinel.sensors.procfs import reader
from nbsentinel.sensors.procfs.sensor import now_ms
from nbsentinel.text import arguments, visible
from nbsentinel_guard import sleepers

NAME = "files"
LATE_S = 0.15
"""How long a process may be unknown: its execution is told by another sensor, perhaps a moment later."""
HEARD_MS = 250
"""How long after a change it may be heard of on a busy machine: whoever did it may have ended by then."""
LOOK_S = 0.01
REPEAT_S = 1.0
"""The same process doing the same to the same file is told once in this time."""
CANDIDATES, SWEEP_CANDIDATES = 8, 48
"""How many who could have done something are told; a sweep's time is longer, so that more lived in it."""
SEEK_S = 0.006
SWEEP_SLACK_MS = 200
"""How much earlier than the decoy says somebody may have read it: its word and the end of a process take their time."""


class Telling:
    """Puts observations into the lane.

    Args:
        emit: The lane.
        processes: Returns the processes that lived at, or after, a moment.
        roots: Returns the guarded commands that run now or ran lately.
        known: Returns a process that the pipeline knows.
    """

    def __init__(
        self,
        emit: Emit,
        processes: Callable[[Millis], Iterable[Process]],
        roots: Callable[[], Container[ProcessKey]],
        known: Callable[[ProcessKey], Process | None],
    ) -> None:
        self._emit, self._processes, self._roots, self._known = emit, processes, roots, known
        self._late: deque[tuple[float, Target, FileOperation, Opener, Process | None]] = deque()
        self._nobodys: deque[tuple[float, Callable[[], None]]] = deque()
        self._repeats = Repeats(REPEAT_S)
        self.ours: Callable[[], frozenset[int]] = frozenset
        """Returns the processes of ours, which are nobody's candidates."""

    @property
    def repeated(self) -> int:
        """Accesses that were told once already."""
        return self._repeats.count

    # Somebody

    def tell_named(self, target: Target, operation: FileOperation, opener: Opener) -> None:
        """Tell of an access by a process, as soon as the pipeline knows it."""
        if not self._repeats.is_new((target.path, operation, opener.key), time.monotonic()):
            return
        if not self._is_known(opener):
            seen = reader.process(opener.key.pid)  # it may be gone when its time has come, and its parent with it
            self._late.append((time.monotonic() + LATE_S, target, operation, opener, seen))
        else:
            self._tell(target, operation, opener)

    def tell_late(self) -> None:
        """Tell of those whose process is known now, and introduce the others when their time has come."""
        now = time.monotonic()
        for _ in range(len(self._late)):
            due, target, operation, opener, seen = self._late.popleft()
            if self._is_known(opener):
                self._tell(target, operation, opener)
            elif now >= due:
                if self._known(opener.key) is None:
                    self._introduce(opener, seen)
                self._tell(target, operation, opener)
            else:
                self._late.append((due, target, operation, opener, seen))
        while self._nobodys and self._nobodys[0][0] <= now:
            self._nobodys.popleft()[1]()

    def next_due(self) -> float | None:
        """Return when `tell_late` wants to be called, or None."""
        return time.monotonic() + LOOK_S if self._late or self._nobodys else None

    def _is_known(self, opener: Opener) -> bool:
        """Return whether the pipeline knows a process, and knows it as what it was when it opened the file."""
        process = self._known(opener.key)
        if process is None or (opener.exe and process.exe != visible(opener.exe)):
            return False
        return not opener.argv or process.argv == arguments(opener.argv).argv

    def _introduce(self, opener: Opener, seen: Process | None) -> None:
        """Tell of a process that no other sensor has told of: it lived too short, outside the guard."""
        found = reader.process(opener.key.pid) or seen
        if found is None or found.key != opener.key:
            argv, length, digest = arguments(opener.argv)
            exe = visible(opener.exe) if opener.exe else None
            name = os.path.basename(exe) if exe else "unknown"
            found = Process(
                key=opener.key, parent=None, name=name, exe=exe, argv=argv, argv_length=length, argv_sha256=digest
            )
        self._emit(Exec(at=Millis(opener.at), process=found, source=NAME))

    def _tell(self, target: Target, operation: FileOperation, opener: Opener) -> None:
        process = self._known(opener.key)
        argv = arguments(opener.argv).argv if opener.argv else (process.argv if process else ())
        exe = visible(opener.exe) if opener.exe else ((process.exe or "") if process else "")
        self._emit(
            FileAccess(
                at=Millis(opener.at),
                path=visible(os.fsencode(target.path)),
                operation=operation,
                kind=target.kind,
                key=opener.key,
                certainty=opener.way,
                own_tool=_is_own(target.kind, exe, argv, process),
                thread=opener.tid,
                link=_link(target.path, operation),
                source=NAME,
            )
        )

    # Nobody

    def tell_unnamed(
        self,
        target: Target,
        operation: FileOperation,
        at: float,
        why: str,
        non_blocking: Iterable[ProcessKey],
    ) -> None:
        """Tell of an access that nobody was named for: by who still has the file open, or by who could have done it."""
        now, moment = time.monotonic(), Millis(int(at * 1000))
        deadline = now + SEEK_S
        holders = sleepers.holding(os.fsencode(os.path.realpath(target.path)), set(self.ours()), deadline)
        if len(holders) == 1 and (described := sleepers.describe(holders[0])) is not None:
            key = ProcessKey(described.pid, described.start)
            self._tell_by("descriptor", key, target, operation, moment, described.exe, described.argv)
        else:
            # Whoever did it may have been executed a moment ago, and is told of by another sensor a moment later.
            running = tuple(key for key in non_blocking if key.pid)
            self._nobodys.append((now + LATE_S, partial(self._anonymous, target, operation, moment, why, running)))

    def _tell_by(
        self,
        way: str,
        key: ProcessKey,
        target: Target,
        operation: FileOperation,
        at: Millis,
        exe: bytes = b"",
        argv: bytes = b"",
    ) -> None:
        writes = operation is not FileOperation.READ
        self.tell_named(target, operation, Opener(key, 0, way, writes, exe, argv, at))

    def _anonymous(
        self,
        target: Target,
        operation: FileOperation,
        at: Millis,
        why: str,
        non_blocking: tuple[ProcessKey, ...],
    ) -> None:
        running = [(key, self._known(key)) for key in non_blocking]
        first = [key for key, one in running if one is None or suspects.may_mean(one, target.path)]
        if len(first) == 1 and self._known(first[0]) is not None:
            self._tell_by("exec", first[0], target, operation, at)
            return
        guarded, others = self._lived(at, HEARD_MS)
        alone = None
        if operation is FileOperation.READ and not guarded and not first:
            alone = suspects.by_timing(others, target.path, at)
        if alone is not None:
            self._tell_by("timing", alone, target, operation, at)
            return
        candidates = (*first, *(one.key for one in guarded or others if one.key not in first))[:CANDIDATES]
        if self._repeats.is_new((target.path, operation, candidates), time.monotonic()):
            self._emit(
                FileAccess(
                    at=at,
                    path=visible(os.fsencode(target.path)),
                    operation=operation,
                    kind=target.kind,
                    key=None,
                    certainty=f"unknown: {why}",
                    candidates=candidates,
                    link=_link(target.path, operation),
                    source=NAME,
                )
            )

    def _lived(self, at: Millis, since: int) -> tuple[list[Process], list[Process]]:
        """Return the processes that lived at a moment, or had ended so many milliseconds before, the newest first.

        Returns:
            Those of guarded commands, and the others of this user.
        """
        ours, roots, own = self.ours(), self._roots(), os.getuid()
        then = sorted(self._processes(Millis(at - since)), key=lambda process: -process.key.start)
        guarded: list[Process] = []
        others: list[Process] = []
        for process in then:
            if process.started <= at + suspects.CLOCK_MS and process.key.pid not in ours:
                if process.root is not None or process.key in roots:
                    guarded.append(process)
                elif process.uid == own:
                    others.append(process)
        return guarded, others

    def swept(self, since: int) -> None:
        """Tell that somebody has read the decoy's environment, in the last so many milliseconds."""
        now = time.monotonic()
        if self._repeats.is_new("sweep", now):
            self._nobodys.append((now + LATE_S, partial(self._tell_sweep, now_ms(), since + SWEEP_SLACK_MS)))

    def _tell_sweep(self, at: Millis, since: int) -> None:
        guarded, others = self._lived(at, since)
        candidates = tuple(one.key for one in (guarded or others)[:SWEEP_CANDIDATES])
        self._emit(EnvironSweep(at=at, decoys=1, candidates=candidates, source=NAME))


def _link(path: str, operation: FileOperation) -> str:
    """Return what a path that was written or made is a link to now, empty where it is none."""
    if operation in (FileOperation.WRITE, FileOperation.CREATE):
        with contextlib.suppress(OSError):
            return visible(os.fsencode(os.readlink(path)))
    return ""


def _is_own(kind: str, exe: str, argv: tuple[str, ...], process: Process | None) -> bool | None:
    """Return whether a reader is the kind's own tool; one that other code was loaded into is not known."""
    if process is not None and process.preloads:
        return None
    return readers.judge(kind, readers.look(kind, exe, argv, process.cwd if process else None))
