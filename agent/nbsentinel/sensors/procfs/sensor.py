"""The procfs sensor: incremental looks at /proc that emit what is new.

A look costs what has changed. Between looks the load average's last pid tells whether any process or thread was created
at all; executable and standard streams of older processes are compared in a slower sweep; socket tables are compared by
inode and owners are searched only for new ones. What lives shorter than a look is missed: that is the guard's work.
"""

from __future__ import annotations

import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import msgspec

from nbsentinel.context.objects import Family, Socket
from nbsentinel.events import (
    Connect,
    Connection,
    ConnectStage,
    Coverage,
    Exec,
    Exit,
    Inode,
    Millis,
    Process,
    ProcessKey,
    SensorState,
    StdioChange,
)
from nbsentinel.sensors.base import Emit
from nbsentinel.sensors.procfs import reader, sockets
from nbsentinel.sensors.procfs.claims import Claims
from nbsentinel.sensors.procfs.images import ImageCache
from nbsentinel.sensors.procfs.view import ProcView
from nbsentinel.sensors.procfs.wake import ExecWake, watched_programs

NAME = "procfs"
PERIOD_MS = 200
SLOWEST_S = 2.0
SWEEP_MS, QUIET_SWEEP_MS = 2000, 4000
"""Longest time until a changed image or standard stream of an older process is seen without a wake-up: usually, and
while neither a process nor a socket was made or ended on the whole machine."""
SOCKETS_MS = 3000
"""Longest time between two looks at the sockets while their count does not change."""
CLOSED_SWEEPS = 5
"""Every so many sweeps those are compared as well that nothing could be read of: other users' processes."""
YOUNG_MS = 3000
"""A process is compared at every look for this long after it was first seen."""
WAKE_SWEEP_MS = 100
"""A wake-up compares all processes, at most once in this time."""
SELF_TEST_S = 3.0
DEFER_S = 0.4
"""How long a new image of a guarded process is left to the guard, which knows the order of images for certain."""


def now_ms() -> Millis:
    """Return the time in milliseconds since the epoch."""
    return Millis(time.time_ns() // 1_000_000)


class _Known(msgspec.Struct):
    process: Process
    first: float
    """When it was first seen, by the monotonic clock in seconds."""
    exe: str | None
    stdio: tuple[str | None, str | None, str | None]
    guarded: bool = False
    """Whether the guard has told of an image of this process, or of an ancestor: then it will tell of the next."""
    told: bool = False
    """Whether the guard has told of this very image."""


class ProcfsSensor:
    """Watches /proc from a thread of its own.

    Args:
        emit: Takes each observation; returns False when it had to be dropped.
        period_ms: Time between two looks.
        wake_on: Programs whose execution triggers a look at once; None for the usual shells and download tools.
    """

    name = NAME

    def __init__(self, emit: Emit, *, period_ms: int = PERIOD_MS, wake_on: Iterable[str] | None = None) -> None:
        self._emit = emit
        self._period = self._usual_period = period_ms / 1000
        self._slowed = ""
        self._known: dict[int, _Known] = {}
        self._young: set[int] = set()
        self._inodes: dict[Inode, ProcessKey | None] = {}
        self.claims = Claims()
        self._deferred: dict[int, float] = {}
        self._own_filters = reader.filters(os.getpid())
        self.guard_tells = False
        """Whether the guard sensor listens: then processes under a filter are its own to tell of."""
        self._lock = threading.Lock()
        self._listened: set[tuple[str, int]] = set()
        self._last_pid = self._socket_counts = b""
        self._swept_at = -math.inf
        self._stirred = True
        self._next_sockets = self._next_wake_sweep = 0.0
        self._end = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._notice: Callable[[], None] = lambda: None
        self._images = ImageCache()
        self._exec_wake = ExecWake(self._woken, watched_programs() if wake_on is None else wake_on)
        self._failure = ""
        self._woken_at = 0.0
        self.looks = self._sweeps = 0

    # The thread

    def start(self) -> None:
        """Look once, so that everything that runs now is known, then go on in a thread."""
        self._exec_wake.start()
        self.look()
        self._thread = threading.Thread(target=self._run, name="procfs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; at most two seconds."""
        self._end.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2)
        self._exec_wake.stop()

    def slow_down(self, factor: int, share: float) -> None:
        """Wait longer by this factor between two looks, two seconds at most; `share` of a core, in percent, is why."""
        self._period = max(self._usual_period, min(SLOWEST_S, self._usual_period * factor))
        why = f"slowed to a look every {self._period * 1000:.0f} ms: the agent used {share:.1f}% of a core for a minute"
        self._slowed = why if factor > 1 else ""

    def wake(self) -> None:
        """Look at once: another sensor saw something."""
        self._wake.set()

    def _woken(self) -> None:
        self._wake.set()

    def _run(self) -> None:
        while not self._end.is_set():
            woken = self._wake.wait(self._period)
            self._wake.clear()
            if self._end.is_set():
                return
            try:
                self.look(woken=woken)
                self._failure = ""
            except Exception as error:  # noqa: BLE001 - one look may fail, the sensor goes on and says so
                self._failure = f"{type(error).__name__}: {error}"

    # One look

    def look(self, *, woken: bool = False) -> None:
        """Compare /proc with what is known and emit the differences."""
        now = time.monotonic()
        self.looks += 1
        token, counts = reader.last_pid(), sockets.socket_counts()
        moved = counts != self._socket_counts
        self._stirred = self._stirred or woken or moved or token != self._last_pid
        pause = (SWEEP_MS if self._stirred else QUIET_SWEEP_MS) / 1000
        sweep = now - self._swept_at >= pause or (woken and now >= self._next_wake_sweep)
        if token != self._last_pid or woken or sweep or self._young:
            self._last_pid = token
            self._look_at_processes(now, sweep=sweep)
        if sweep:
            self._swept_at, self._stirred = now, False
            self._next_wake_sweep = now + WAKE_SWEEP_MS / 1000
        if self._young or woken or moved or now >= self._next_sockets:
            self._socket_counts = counts
            self._next_sockets = now + SOCKETS_MS / 1000
            self._look_at_sockets()

    def _look_at_processes(self, now: float, *, sweep: bool) -> None:
        before = set(self._known)
        current = reader.pids()
        for pid in before - current:
            with self._lock:
                self._gone(pid)
        for pid in self._deferred.keys() - current:
            self._deferred.pop(pid, None)
        fresh = sorted(current - self._known.keys())
        for pid in fresh:
            with self._lock:
                if pid not in self._known and not self._waits_for_guard(pid, now):
                    self._new(pid, now)
        for pid in self._to_compare(fresh, sweep=sweep):
            with self._lock:
                self._compare(pid, now)
        self._young = {
            pid for pid in list(self._young) if pid in self._known and now - self._known[pid].first < YOUNG_MS / 1000
        }

    def _to_compare(self, fresh: list[int], *, sweep: bool) -> list[int]:
        if not sweep:
            return [pid for pid in list(self._young) if pid not in fresh]
        self._sweeps += 1
        everyone = self._sweeps % CLOSED_SWEEPS == 0
        older = [pid for pid, known in list(self._known.items()) if everyone or known.exe or pid in self._young]
        return [pid for pid in older if pid not in fresh]

    def _gone(self, pid: int) -> None:
        known = self._known.pop(pid)
        self._young.discard(pid)
        self._emit(Exit(at=now_ms(), key=known.process.key, source=NAME))

    def _waits_for_guard(self, pid: int, now: float) -> bool:
        """Return whether the guard should be the one to tell of a new image; it is given a moment for that."""
        if not self.guard_tells:
            return False
        place = reader.stat(pid)
        known = self._known.get(pid) or (self._known.get(place.ppid) if place else None)
        if not (known is not None and known.guarded) and reader.filters(pid) <= self._own_filters:
            return False
        return now - self._deferred.setdefault(pid, now) < DEFER_S

    def _new(self, pid: int, now: float) -> None:
        parents = {p: known.process.key for p, known in self._known.items()}
        before = reader.link(f"/proc/{pid}/exe")
        process = reader.process(pid, parents)
        exe = reader.link(f"/proc/{pid}/exe")
        if before != exe:  # an execve came in between: half of one image, half of the next
            process = reader.process(pid, parents)
        if process is None:
            return
        above = self._known.get(process.parent.pid) if process.parent else None
        guarded = pid in self._deferred or (above is not None and above.guarded)
        self._deferred.pop(pid, None)
        self._known[pid] = _Known(process, now, exe, process.stdio, guarded=guarded)
        self._young.add(pid)
        self._emit(Exec(at=now_ms(), process=process, source=NAME))

    def _compare(self, pid: int, now: float) -> None:
        known = self._known.get(pid)
        if known is None:
            return
        exe, stdio = reader.link(f"/proc/{pid}/exe"), reader.stdio(pid)
        young = now - known.first < YOUNG_MS / 1000
        same = exe == known.exe and stdio == known.stdio
        if same and not (young and reader.has_executed(known.process)):
            return
        place = reader.stat(pid)
        if place is None:
            return
        if place.key != known.process.key:
            self._gone(pid)
            self._new(pid, now)
        elif exe is None:
            return  # it ends, or is no longer readable: the last known state is worth more
        elif exe == known.exe and not reader.has_executed(known.process):
            known.stdio = stdio
            known.process = msgspec.structs.replace(known.process, stdio=stdio)
            self._emit(StdioChange(at=now_ms(), key=place.key, stdio=stdio, source=NAME))
        elif not self._waits_for_guard(pid, now):
            first = known.first
            self._new(pid, now)
            if pid in self._known and now - first >= YOUNG_MS / 1000:
                self._young.add(pid)

    # Sockets

    def _look_at_sockets(self) -> None:
        table = sockets.inet_sockets()
        self._listened |= {(s.protocol, s.local.port) for s in table.values() if s.listening and s.local}
        fresh = {inode: item for inode, item in table.items() if item.remote and inode not in self._inodes}
        for inode in [inode for inode in self._inodes if inode not in table]:
            del self._inodes[inode]
        if not fresh:
            return
        owners = self._owners(set(fresh))
        for inode, item in fresh.items():
            self._inodes[inode] = owners.get(inode)
            if inode in owners:
                told = self.claims.settle(inode, owners[inode], item.remote)
                found = self.connection(item)
                stage = ConnectStage.CONFIRMS if told else ConnectStage.WHOLE
                self._emit(Connect(at=now_ms(), key=owners[inode], connection=found, source=NAME, stage=stage))

    def _owners(self, wanted: set[Inode]) -> dict[Inode, ProcessKey]:
        """Return which process holds each wanted socket; young processes are asked first."""
        found: dict[Inode, ProcessKey] = {}
        view = self.view()
        order = [*self._young, *(pid for pid in reversed(list(self._known)) if pid not in self._young)]
        for pid in order:
            known = self._known.get(pid)
            if known is None:
                continue
            for end in view.ends(known.process.key) or ():
                if end.object.number in wanted and end.object.kind.value == "socket":
                    found.setdefault(Inode(end.object.number), known.process.key)
            if len(found) == len(wanted):
                break
        return found

    def connection(self, item: Socket) -> Connection:
        """Return a socket with a peer as a connection; its direction from the ports listened on so far."""
        assert item.local is not None
        assert item.remote is not None
        accepted = (item.protocol, item.local.port) in self._listened
        return Connection(
            protocol=item.protocol,
            local=item.local,
            remote=item.remote,
            inode=item.inode,
            initiated=not accepted if item.protocol == "tcp" else None,
        )

    # For detection

    def view(self) -> ProcView:
        """Return a look at the moment for dataflow."""
        return ProcView(self.known, self._images, self._keys, self.claims.peer)

    def known(self, key: ProcessKey) -> Process | None:
        """Return a live process."""
        known = self._known.get(key.pid)
        return known.process if known is not None and known.process.key == key else None

    def _keys(self) -> list[ProcessKey]:
        known = [item.process.key for item in list(self._known.values())]
        return [*known, *_unknown({key.pid for key in known})]

    def adopt(self, process: Process, emit: Emit, source: str, at: Millis) -> bool:
        """Take over an image that another sensor saw and emit it for that sensor, unless it was told of already.

        Returns:
            Whether it was emitted. Images and their order are consistent because both sensors emit under one lock.
        """
        pid, now = process.key.pid, time.monotonic()
        with self._lock:
            known = self._known.get(pid)
            same = known is not None and known.process.key == process.key
            if known is not None and not same:
                self._gone(pid)
            if known is not None and same:
                if known.process.parent is not None:
                    process = msgspec.structs.replace(process, parent=known.process.parent)
                image = (known.process.exe, known.process.argv)
                if image == (process.exe, process.argv) and not known.told:
                    known.guarded = known.told = True
                    return False
            self._deferred.pop(pid, None)
            self._known[pid] = _Known(process, now, process.exe, process.stdio, guarded=True, told=True)
            self._young.add(pid)
            return emit(Exec(at=at, process=process, source=source))

    def key_of(self, pid: int) -> ProcessKey | None:
        """Return the process that has a pid, as far as it is known here."""
        known = self._known.get(pid)
        return known.process.key if known else None

    def describe(self, item: Socket) -> Connection | None:
        """Return a remote socket of a path as a connection, or None where it has no peer."""
        return self.connection(item) if item.family is Family.INET and item.local and item.remote else None

    def coverage(self) -> Coverage:
        """Return how far this sensor can be relied on."""
        if self._failure:
            return Coverage(sensor=NAME, state=SensorState.DEGRADED, why=f"the last look failed: {self._failure}")
        if self._thread is None or not self._thread.is_alive():
            return Coverage(sensor=NAME, state=SensorState.UNAVAILABLE, why="its thread does not run")
        lacking = [self._slowed] if self._slowed else []
        if not self._exec_wake.watches:
            lacking.append(f"no inotify: a look every {self._period * 1000:.0f} ms only")
        if sockets.unix_peers() is None:
            lacking.append("unix_diag is refused: relays through unix sockets are not seen")
        if lacking:
            return Coverage(sensor=NAME, state=SensorState.DEGRADED, why="; ".join(lacking))
        return Coverage(sensor=NAME, state=SensorState.ACTIVE)

    def self_test(self) -> Coverage:
        """Start a harmless child that lives until it is seen, and return whether it was."""
        child = subprocess.Popen(["/bin/sleep", "5"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + SELF_TEST_S
            while time.monotonic() < deadline:
                known = self._known.get(child.pid)
                if known is not None and known.exe and "sleep" in " ".join(known.process.argv):
                    return self.coverage()
                time.sleep(0.02)
        finally:
            child.kill()
            child.wait()
        return Coverage(sensor=NAME, state=SensorState.UNAVAILABLE, why="self-test: a new process was not seen")


def _unknown(known: set[int]) -> Iterator[ProcessKey]:
    """Yield the processes that nothing was told of yet: a fork without a new image waits for the next look."""
    for pid in reader.pids() - known:
        if (place := reader.stat(pid)) is not None:
            yield place.key
