"""The file sensor's thread: which files to watch, what was done to them, and by whom as far as that can be known."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Container, Iterable
from pathlib import Path

from nbsentinel.events import Coverage, FileOperation, Millis, Process, ProcessKey, SensorState, Tamper, TamperKind
from nbsentinel.sensors.base import Lane
from nbsentinel.sensors.files.catalogue import BUILT_IN, Pattern, Use
from nbsentinel.sensors.files.lessees import Lessees, Opener
from nbsentinel.sensors.files.opens import WAIT_S, Opens
from nbsentinel.sensors.files.places import Plan, Target, find_homes, make_plan
from nbsentinel.sensors.files.telling import Telling
from nbsentinel.sensors.files.watches import Happening, Watches
from nbsentinel.sensors.procfs.sensor import now_ms
from nbsentinel.sensors.procfs.wake import Pace
from nbsentinel_guard import inotify

NAME = "files"
PLAN_AGAIN_S = 0.05
"""Least time between two looks at what exists."""
PLAN_ALWAYS_S = 600.0
"""A look without any reason: a home that was mounted later, a folder that became readable."""
SELF_TEST_S = 3.0
WRITING_S = 1.0
"""How long a named writer is taken for the one who writes."""
ASK_S = 0.25
"""Least time between two questions to the decoy."""
GONE_S = 0.3
"""How long the kernel's word is waited for when a look finds that a file is gone: it says how."""
_TEST_KIND = "self-test"
_CHANGED = inotify.MODIFY | inotify.ATTRIB
_GONE = inotify.DELETE | inotify.MOVED_FROM
_CAME = inotify.CREATE | inotify.MOVED_TO


class FileSensor:
    """Watches credentials and the places that persistence uses.

    Args:
        lane: Takes each observation.
        run_dir: Folder of the guard's socket, and of the file that the self-test touches.
        processes: Returns the processes that lived at, or after, a moment.
        roots: Returns the guarded commands that run now.
        known: Returns a process that the pipeline knows.
        notice: Takes a line for the operator, which is signed as well.
        wake: Has another sensor look at once which programs run: somebody touched a file and is not known.
        leases: Whether readers are named by leases; only with the guard.
        patterns: What is watched.
        where: Returns the homes.
    """

    name = NAME

    def __init__(
        self,
        lane: Lane,
        run_dir: Path,
        processes: Callable[[Millis], Iterable[Process]],
        roots: Callable[[], Container[ProcessKey]],
        known: Callable[[ProcessKey], Process | None],
        notice: Callable[[str], None],
        wake: Callable[[], None] = lambda: None,
        *,
        leases: bool = True,
        patterns: Iterable[Pattern] = BUILT_IN,
        where: Callable[[], tuple[str, ...]] = find_homes,
    ) -> None:
        self._lane, self._notice, self._where, self._wake_others = lane, notice, where, wake
        self._test_file = str(run_dir / "self-test")
        self._patterns = (Pattern(_TEST_KIND, self._test_file, Use.READ), *patterns)
        self._opens = Opens()
        self._telling = Telling(lane.put, processes, roots, known)
        self._lessees = Lessees(str(run_dir), self._named, self._telling.swept, enabled=leases)
        self._telling.ours = self._lessees.ours
        self._watches: Watches | None = None
        self._plan = Plan()
        self._homes: tuple[str, ...] = ()
        self._plan_at = 0.0
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._wake_read, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._failure = ""
        self._first = True
        self._tested: dict[int, str] = {}
        self._writers: dict[str, float] = {}
        """When a process that opened a path for writing was named: what inotify tells of its writing is no news."""
        self._ended, self._ask_at = False, 0.0
        self._pace, self._next_wake = Pace(time.monotonic()), 0.0
        self._going: dict[str, tuple[float, Target]] = {}
        """Files that a look found gone, and until when to wait for the kernel's word."""
        self._told_gone: set[str] = set()
        """Files that the kernel said to be gone since the last look."""
        self.overflows = 0
        """How often the kernel had to drop events."""

    # The thread

    def start(self) -> None:
        """Look at what exists, then watch it in a thread."""
        with contextlib.suppress(OSError):
            Path(self._test_file).write_text("nothing of value: the agent's self-test opens this\n")
        try:
            self._watches = Watches()
        except OSError as error:
            self._failure = f"no inotify: {error.strerror}"
            return
        self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; leases end with it."""
        self._end.set()
        os.write(self._wake, b"x")
        if self._thread is not None:
            self._thread.join(2)

    def ended(self) -> None:
        """Hear that a process ended: if it read the environments of others, the decoy knows."""
        if not self._ended:
            self._ended = True
            with contextlib.suppress(OSError):
                os.write(self._wake, b"x")

    def _run(self) -> None:
        assert self._watches is not None
        while not self._end.is_set():
            try:
                self._turn(self._watches)
            except Exception as error:  # noqa: BLE001, PERF203 - one bad turn must not end the sensor; it is told
                self._notice(f"The file sensor failed: {type(error).__name__}: {error}")
                self._end.wait(1.0)
        self._lessees.close()
        self._watches.close()

    def _turn(self, watches: Watches) -> None:
        self._lessees.tend()
        now = time.monotonic()
        if now >= self._plan_at:
            self._look_around(watches, now)
        descriptors = [watches.credentials.descriptor, watches.places.descriptor, self._wake_read]
        descriptors += self._lessees.descriptors
        if self._ended and now >= self._ask_at:
            self._ended, self._ask_at = False, now + ASK_S
            self._lessees.look_at_decoy()
        ready, _, _ = select.select(descriptors, [], [], self._until_due())
        if self._wake_read in ready:
            os.read(self._wake_read, 64)
        # Names first: the lessor tells of them before it lets the opener go.
        self._lessees.hear()
        for instance in (watches.credentials, watches.places):
            if instance.descriptor in ready:
                for happening in watches.read(instance):
                    self._happened(watches, happening)
        self._lessees.hear()
        now = time.monotonic()
        for since, path in self._opens.unnamed(now, self._patience):
            self._nobody(path, time.time() - (now - since))
        self._tell_gone(now)
        self._telling.tell_late()

    @property
    def _patience(self) -> float:
        return WAIT_S if self._lessees.is_active else 0.0

    def _until_due(self) -> float:
        now = time.monotonic()
        dues = [self._plan_at, now + self._lessees.due_in(), self._opens.next_due(self._patience)]
        dues += [self._telling.next_due(), *(due for due, _ in self._going.values())]
        if self._ended:
            dues.append(self._ask_at)
        return max(0.0, min(due for due in dues if due is not None) - now)

    # What to watch

    def _look_around(self, watches: Watches, now: float) -> None:
        """Watch what exists now; a folder is watched before it is listed again, so nothing appears in between."""
        self._homes = self._where()
        for _ in range(4):
            self._plan = make_plan(self._patterns, self._homes)
            fresh, gone = watches.apply(self._plan)
            for target in gone:
                self._lessees.remove(target)
                if target.path not in self._told_gone:
                    self._going[target.path] = (now + GONE_S, target)
            for target in fresh:
                self._lessees.add(target)
                if not self._first:
                    self._tell(target, FileOperation.CREATE)
            if not fresh and not gone:
                break
        self._told_gone.clear()
        self._first = False
        self._plan_at = now + PLAN_ALWAYS_S

    def _look_again(self) -> None:
        self._plan_at = min(self._plan_at, time.monotonic() + PLAN_AGAIN_S)

    # What happened

    def _happened(self, watches: Watches, happening: Happening | None) -> None:
        if happening is None:
            self._overflowed()
        elif happening.in_folder:
            self._moved(watches, happening)
        elif happening.mask & inotify.IGNORED:
            self._look_again()
        else:
            self._touched(happening)

    def _overflowed(self) -> None:
        self.overflows += 1
        detail = "the kernel dropped file events: too many came at once; everything is looked at again"
        kind = TamperKind.OVERFLOW
        self._lane.put(Tamper(at=now_ms(), kind=kind, target=NAME, detail=detail, source=NAME))
        self._plan_at = 0.0

    def _moved(self, watches: Watches, happening: Happening) -> None:
        """A name in a watched folder came, went, or stands for another file now."""
        path, mask = happening.path, happening.mask
        targets = [(table is self._plan.changes, table.get(path)) for table in (self._plan.files, self._plan.changes)]
        for about_changes, target in targets:
            if target is None:
                continue
            if mask & _CAME:
                watches.renew(path, about_changes=about_changes)
                self._lessees.add(target)
        told = next((target for _, target in reversed(targets) if target is not None), None)
        _, before = self._going.pop(path, (0.0, None))
        if mask & _GONE:
            told = told or before
            self._told_gone.add(path)
        if told is not None:
            operation = FileOperation.WRITE
            if mask & _GONE:
                operation = FileOperation.DELETE if mask & inotify.DELETE else FileOperation.RENAME
            self._tell(told, operation)
        if mask & _GONE or told is None:
            # Nothing is missed by looking at once; under a flood of names, now and then is enough.
            self._look_again()

    def _tell_gone(self, now: float) -> None:
        """Tell of files that are gone although the kernel did not say so: with their folder, or in a flood."""
        for path, (due, target) in list(self._going.items()):
            if now >= due:
                del self._going[path]
                if not os.path.lexists(path):
                    self._tell(target, FileOperation.DELETE)

    def _touched(self, happening: Happening) -> None:
        table = self._plan.changes if happening.about_changes else self._plan.files
        target = table.get(happening.path)
        if target is None:
            return
        if happening.mask & inotify.OPEN:
            if os.path.lexists(happening.path):
                self._opens.opened(target.path, time.monotonic())
                if not self._lessees.is_active:
                    self._look_who()
        elif happening.mask & _CHANGED and (target.path not in self._plan.changes or happening.about_changes):
            operation = FileOperation.WRITE if happening.mask & inotify.MODIFY else FileOperation.ATTRIBUTES
            if operation is FileOperation.WRITE or os.path.lexists(target.path):
                self._tell(target, operation)

    # Who it was

    def _look_who(self) -> None:
        """Have the running programs looked at before whoever touched a file has ended."""
        now = time.monotonic()
        if now >= self._next_wake:
            self._next_wake = now + self._pace.pause(now)
            self._wake_others()

    def _target(self, path: str, *, writes: bool) -> Target | None:
        first, second = (self._plan.changes, self._plan.files) if writes else (self._plan.files, self._plan.changes)
        return first.get(path) or second.get(path)

    def _named(self, path: str, opener: Opener | None) -> None:
        """Hear from the lessor who opens a file; None for itself."""
        if path in self._plan.files:
            self._opens.named(path, time.monotonic())
        target = self._target(path, writes=opener is not None and opener.writes)
        if opener is None or target is None:
            return
        if target.kind == _TEST_KIND:
            self._tested[opener.key.pid] = opener.way
            return
        if opener.writes:
            self._writers[target.path] = time.monotonic()
        operation = FileOperation.WRITE if opener.writes else FileOperation.READ
        self._telling.tell_named(target, operation, opener)

    def _nobody(self, path: str, at: float) -> None:
        """An open that nobody was named for."""
        target = self._plan.files.get(path)
        if target is None:
            return
        if target.kind == _TEST_KIND:
            self._tested.setdefault(0, "inotify")
            return
        why = self._lessees.why_unnamed(path)
        self._telling.tell_unnamed(target, FileOperation.READ, at, why, self._lessees.non_blocking())

    def _tell(self, target: Target, operation: FileOperation) -> None:
        """Tell of a change: by whom, if it still has the file open."""
        named = operation is FileOperation.WRITE and time.monotonic() - self._writers.get(target.path, 0.0) < WRITING_S
        if target.kind != _TEST_KIND and not named:
            self._look_who()
            why = "changed without a lease" if self._lessees.is_active else self._lessees.failure
            self._telling.tell_unnamed(target, operation, time.time(), why, ())

    # Coverage

    def drops(self) -> dict[str, int]:
        """Return what was seen and not told."""
        untold = self._opens.forgotten + self._lessees.lost
        return {"files_overflow": self.overflows, "files_untold": untold, "files_repeated": self._telling.repeated}

    def coverage(self) -> Coverage:
        """Return how far this sensor can be relied on."""
        if self._failure or self._watches is None or self._thread is None or not self._thread.is_alive():
            why = self._failure or "its thread does not run"
            return Coverage(sensor=NAME, state=SensorState.UNAVAILABLE, why=why)
        lacking = self._lessees.lacking()
        if self.overflows:
            lacking.append(f"the kernel dropped events {self.overflows} times")
        if self._plan.left_out:
            lacking.append(f"{self._plan.left_out} places are left out: too many watches")
        if self._watches.refused:
            lacking.append(f"{self._watches.refused} places cannot be watched")
        detail = (
            f"watches {len(self._plan.files)} credentials and {len(self._plan.changes)} other files in "
            f"{len(self._plan.folders)} folders of {len(self._homes)} homes; {self._lessees.detail()}"
        )
        state = SensorState.DEGRADED if lacking else SensorState.ACTIVE
        return Coverage(sensor=NAME, state=state, why="; ".join(lacking), detail=detail)

    def self_test(self) -> Coverage:
        """Have a child open a file of ours, and return whether it was seen, and named where leases do that."""
        if self.coverage().state is SensorState.UNAVAILABLE:
            return self.coverage()
        deadline = time.monotonic() + SELF_TEST_S
        while not self._is_ready_for_test() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._tested.clear()
        child = subprocess.Popen(
            ["/bin/cat", self._test_file],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(SELF_TEST_S)
        deadline = time.monotonic() + SELF_TEST_S
        while not self._tested and time.monotonic() < deadline:
            time.sleep(0.01)
        if child.poll() is None:
            child.kill()
            child.wait()
        if not self._tested:
            why = "self-test: a file that was opened was not seen"
            return Coverage(sensor=NAME, state=SensorState.UNAVAILABLE, why=why)
        found = self.coverage()
        if self._lessees.is_active and child.pid not in self._tested:
            why = "; ".join(filter(None, (found.why, "self-test: the process that opened a file was not named")))
            return Coverage(sensor=NAME, state=SensorState.DEGRADED, why=why, detail=found.detail)
        return found

    def _is_ready_for_test(self) -> bool:
        """Return whether the file of the self-test is watched, and leased where there are leases."""
        watched = self._test_file in self._plan.files
        return watched and (self._lessees.is_leased(self._test_file) or bool(self._lessees.failure))
