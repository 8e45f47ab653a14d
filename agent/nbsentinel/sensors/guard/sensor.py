"""The guard sensor's thread: joins or starts the holder, turns records into observations, tells its coverage.

Executions and connections arrive while, or right after, the caller waits, so even what lives for a millisecond is seen.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from pathlib import Path

from nbsentinel.events import (
    Coverage,
    Inode,
    Millis,
    Observation,
    Origin,
    Process,
    ProcessKey,
    SensorState,
    SystemCall,
)
from nbsentinel.sensors.base import Lane
from nbsentinel.sensors.guard import translate
from nbsentinel.sensors.guard.features import describe
from nbsentinel.sensors.guard.link import Link
from nbsentinel.sensors.guard.outside import Outside
from nbsentinel.sensors.guard.pending import Attempts, Names
from nbsentinel.sensors.guard.results import Results
from nbsentinel.sensors.procfs import reader, sockets
from nbsentinel.sensors.procfs.sensor import ProcfsSensor, now_ms
from nbsentinel.sensors.procfs.view import remote_mounts
from nbsentinel.text import visible
from nbsentinel_guard import client, records, seccomp
from nbsentinel_guard.caretaker import TICK_S

NAME = translate.NAME
RETRY_S = 1.0
IDLE_S = 1.0
SELF_TEST_S = 3.0
ROOTS_LIMIT = 1024
SEEN_LIMIT = 8192
"""Calls remembered, so that one that is told twice (by the supervisor and after its death) counts once."""
UNIX_LIMIT = 4096
_MARK = "nbsentinel-self-test-"


class Settings:
    """What launchers and the Jupyter server are told to guard."""

    def __init__(self, *, connect: str = "auto", terminals: bool = True, server: bool = False) -> None:
        self.connect, self.terminals, self.server = connect, terminals, server

    def __str__(self) -> str:
        return f"connect={self.connect} terminals={int(self.terminals)} server={int(self.server)}"


class GuardSensor:
    """Receives what the guard saw, in a thread of its own.

    Args:
        lane: Takes each observation.
        procfs: Shares what is known of processes and sockets, so that nothing is told twice.
        run_dir: Folder of the guard's socket.
        notice: Takes a line for the operator, which is signed as well.
        settings: What is to be guarded.
        keeper: The agent's parent, which guarded processes may not touch either; 0 for none.
    """

    name = NAME

    def __init__(
        self,
        lane: Lane,
        procfs: ProcfsSensor,
        run_dir: Path,
        notice: Callable[[str], None],
        settings: Settings,
        keeper: int = 0,
    ) -> None:
        self._lane, self._procfs, self._run_dir, self._notice = lane, procfs, str(run_dir), notice
        self._settings = settings
        self._link = Link(str(run_dir), str(settings), keeper, notice, lane.put)
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._held: dict[ProcessKey, tuple[int, int]] = {}
        self._seen: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._unix: OrderedDict[tuple[ProcessKey, str], None] = OrderedDict()
        self._roots: OrderedDict[ProcessKey, None] = OrderedDict()
        self._unsettled: deque[tuple[int, client.Client, list[int]]] = deque()
        self._attempts, self._names, self._results = Attempts(), Names(), Results()
        self._marks: set[str] = set()
        own = reader.filters("self")
        self._outside = Outside(lambda key: reader.filters(key.pid) > own, terminals=settings.terminals)
        self._handlers: dict[int, Callable[[int, bytes], None]] = {
            records.IMAGE: self._image,
            records.CONNECT: self._connect,
            records.ATTEMPT: self._attempt,
            records.NAME: self._asked,
            records.CALL: self._called,
            records.HIDDEN: self._hidden,
            records.FORK: self._forked,
            records.NOTICE: self._noticed,
        }

    # The thread

    def start(self) -> None:
        """Join the guard that runs, or start one; then listen in a thread."""
        self._join()
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; the guard itself stays for as long as anything guarded runs."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(2)
        self._procfs.guard_tells = False

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001, PERF203 - one bad turn must not end the sensor; it is told
                self._notice(f"The guard sensor failed: {type(error).__name__}: {error}")
                self._end.wait(RETRY_S)
        self._link.leave()

    def _turn(self) -> None:
        guard = self._link.client
        if guard is None:
            self._end.wait(RETRY_S)
            if not self._end.is_set():
                self._join()
            return
        silent = guard.is_silent()
        guard.wait(TICK_S if silent or guard.lost else self._until_due())
        while found := guard.read():
            for _, kind, index, payload in found:
                self._understand(kind, index, payload)
            self._unsettled.append((self._lane.accepted, guard, list(guard.cursors)))
            self._settle()
            self._wait_for_room()
        self._settle()
        self._look_again()
        self._link.tend(silent=silent)

    def _join(self) -> None:
        self._procfs.guard_tells = self._link.join()

    def _until_due(self) -> float:
        now = time.monotonic()
        dues = [due for due in (self._attempts.next_due(), self._results.next_due()) if due is not None]
        longest = TICK_S if self._unsettled else IDLE_S
        return max(0.0, min([longest, *(due - now for due in dues)]))

    def _wait_for_room(self) -> None:
        """Leave records in the shared memory while the pipeline is behind: there they slow their callers, not us."""
        while self._lane.is_crowded and not self._end.wait(0.005):
            continue

    def _settle(self) -> None:
        """Give free what has gone through the whole pipeline."""
        while self._unsettled and self._unsettled[0][0] <= self._lane.settled:
            _, guard, cursors = self._unsettled.popleft()
            if guard is self._link.client:
                guard.settle(cursors)

    # Records

    def _understand(self, kind: int, index: int, payload: bytes) -> None:
        who = records.read_who(payload)
        if who.call:
            # Ids begin anywhere in 64 bits for each filter; places change when a holder takes over.
            call = who.call, who.tid
            if call in self._seen:
                return
            self._seen[call] = None
            if len(self._seen) > SEEN_LIMIT:
                self._seen.popitem(last=False)
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(index, payload)

    def _key(self, who: records.Who) -> ProcessKey:
        known = self._procfs.key_of(who.pid)
        return known if known is not None and who.start in (0, known.start) else ProcessKey(who.pid, who.start)

    def _image(self, index: int, payload: bytes) -> None:
        image = records.read_image(payload)
        listener, description = self._link.listener(index)
        root = translate.root_of(description)
        process = translate.process(image, root)
        if root is not None:
            self._roots[root] = None
            self._roots.move_to_end(root)
            if len(self._roots) > ROOTS_LIMIT:
                self._roots.popitem(last=False)
        self._attempts.succeeded(process.key.pid)
        mark = next((argument for argument in process.argv if argument.startswith(_MARK)), None)
        if mark is not None:
            self._marks.discard(mark)
        if image.flags & records.HELD:
            self._held[process.key] = listener, image.who.call
        if not self._procfs.adopt(process, self._lane.put, NAME, Millis(image.who.at)):
            self._release(process.key)

    def _forked(self, index: int, payload: bytes) -> None:
        """A process called that has not executed anything: without this it is known when procfs happens to see it."""
        who, parent = records.read_told(payload)
        key = ProcessKey(who.pid, who.start)
        if self._procfs.key_of(key.pid) != key:
            root = translate.root_of(self._link.listener(index)[1])
            before = self._procfs.known(ProcessKey(*map(int, parent)))
            self._procfs.adopt(translate.fork(key, before, root), self._lane.put, NAME, Millis(who.at))

    def _connect(self, _index: int, payload: bytes) -> None:
        record = records.read_connect(payload)
        key, now = self._key(record.who), time.monotonic()
        remote = translate.claimed(record)
        if remote is None and (path := translate.unix_path(record)) is not None:
            self._connect_unix(record, key, path)
            return
        inode = Inode(record.inode)
        if remote is None and inode and not record.claim:
            found = sockets.inet_sockets(only=None).get(inode)
            remote = found.remote if found else None
        if remote is None:
            if not record.claim:
                self._tell(record.who, key, "connect", {"Destination": "unreadable"})
            return
        self._procfs.claims.add(key, inode, remote)
        told = translate.connection(record, inode, remote)
        attempt = translate.attempt(record, key, told, self._names.of(record.who.tid, now))
        self._lane.put(attempt)
        self._results.expect(attempt, now)

    def _connect_unix(self, record: records.Connect, key: ProcessKey, path: str) -> None:
        """Tell of a path that a process connects to once."""
        if (key, path) in self._unix:
            return
        self._unix[key, path] = None
        if len(self._unix) > UNIX_LIMIT:
            self._unix.popitem(last=False)
        self._tell(record.who, key, "connect", {"UnixPath": path})

    def _tell(self, who: records.Who, key: ProcessKey, name: str, told: dict[str, str]) -> None:
        at = Millis(who.at) if who.at else now_ms()
        call = SystemCall(
            at=at, key=key, name=name, arguments=told, refused=False, thread=who.tid if who.call else 0, source=NAME
        )
        self._lane.put(call)

    def _attempt(self, _index: int, payload: bytes) -> None:
        who, (path, *_) = records.read_told(payload)
        self._attempts.tried(who.pid, path, time.monotonic())

    def _asked(self, _index: int, payload: bytes) -> None:
        who, (name,) = records.read_told(payload)
        self._names.asked(who.tid, visible(name), time.monotonic())

    def _called(self, _index: int, payload: bytes) -> None:
        told = translate.system_call(payload, self._key(records.read_who(payload)), self._link.roles())
        if isinstance(told, SystemCall) and told.name == "listen":
            found = sockets.inet_sockets(only=None).get(Inode(int(told.arguments["Socket"])))
            if found is not None and found.local is not None:
                told.arguments.update(LocalIp=found.local.ip, LocalPort=str(found.local.port))
        self._lane.put(told)

    def _hidden(self, _index: int, payload: bytes) -> None:
        who, (exe, *streams) = records.read_told(payload)
        told = {"Option": "PR_SET_DUMPABLE", "Image": visible(exe)}
        told.update((f"Stream{number}", visible(stream)) for number, stream in enumerate(streams))
        self._tell(who, self._key(who), "prctl", told)

    def _noticed(self, _index: int, payload: bytes) -> None:
        found = translate.tamper(payload)
        if found is not None:
            self._lane.put(found)
            return
        _, (what, why) = records.read_told(payload)
        self._notice(f"The guard: {visible(what)}: {visible(why)}")

    def _look_again(self) -> None:
        """See what came of executions and connections whose time has come."""
        now = time.monotonic()
        due = self._results.next_due()
        if due is not None and due <= now:
            for result in self._results.look(now, sockets.inet_sockets(only=None)):
                self._lane.put(result)
        overdue = self._attempts.overdue(now)
        mounts = remote_mounts() if overdue else ()
        for pid, path in overdue:
            if not _may_exist(path, mounts):
                continue  # a step of a search along PATH, or a mistake
            self._procfs.wake()
            who = records.Who(0, pid, pid, 0, 0)
            self._tell(who, self._key(who), "execve", {"FileName": visible(path)})

    def find_unguarded(self, processes: Iterable[Process], origin: Callable[[ProcessKey], Origin]) -> None:
        """Tell of kernels and terminals outside the guard; called now and then by whoever knows all processes."""
        if not self._link.failure:
            for found in self._outside.look(processes, origin, now_ms()):
                self._lane.put(found)

    # Shells that wait for a verdict

    def judged(self, observations: list[Observation]) -> None:
        """Let the shells go on that wait for a verdict on these observations."""
        if self._held:
            for observation in observations:
                process = getattr(observation, "process", None)
                if isinstance(process, Process):
                    self._release(process.key)

    def _release(self, key: ProcessKey) -> None:
        listener, call = self._held.pop(key, (-1, 0))
        if listener >= 0:
            seccomp.let_go(listener, call)

    # Coverage

    @property
    def lost(self) -> int:
        """What was seen and not told, because nobody listened for too long."""
        return self._link.client.dropped if self._link.client is not None else 0

    def sessions(self) -> dict[ProcessKey, dict[str, str]]:
        """Return the guarded commands that run now, with what is known of each: kind, way, features."""
        guard = self._link.client
        found = guard.descriptions.values() if guard is not None else ()
        return {key: translate.features_of(text) for text in found if (key := translate.root_of(text))}

    def roots(self) -> frozenset[ProcessKey]:
        """Return the guarded commands that run now or ran lately; any thread may ask."""
        return frozenset((*self.sessions(), *list(self._roots)))

    def coverage(self) -> Coverage:
        """Return how far this sensor can be relied on, and which features of the kernel are in use."""
        if self._link.failure:
            return Coverage(sensor=NAME, state=SensorState.UNAVAILABLE, why=self._link.failure)
        lacking, detail = describe(list(self.sessions().values()))
        if not self._settings.terminals:
            lacking.append("terminals are left out ([guard] terminals = false)")
        state = SensorState.DEGRADED if lacking else SensorState.ACTIVE
        return Coverage(sensor=NAME, state=state, why="; ".join(lacking), detail=detail)

    def self_test(self) -> Coverage:
        """Run a harmless guarded child and return whether it was seen."""
        if self._link.failure:
            return self.coverage()
        mark = _MARK + secrets.token_hex(8)
        self._marks.add(mark)
        command = [sys.executable, "-I", "-S", client.PROGRAM, "--run-dir", self._run_dir, "--", "/bin/true", mark]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SELF_TEST_S, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            return Coverage(sensor=NAME, state=SensorState.UNAVAILABLE, why=f"self-test: {error}")
        deadline = time.monotonic() + SELF_TEST_S
        while mark in self._marks and time.monotonic() < deadline:
            time.sleep(0.01)
        told = done.stderr.strip().rpartition("\n")[2].removeprefix("nbsentinel guard: ")
        if mark in self._marks:
            self._marks.discard(mark)
            why = told or "an executed program was not seen"
            return Coverage(sensor=NAME, state=SensorState.UNAVAILABLE, why=f"self-test: {why}")
        if told:
            return Coverage(sensor=NAME, state=SensorState.DEGRADED, why=told)
        return self.coverage()


def _may_exist(path: bytes, remote: tuple[str, ...]) -> bool:
    """Return whether a caller's path names a file, as far as that can be asked without waiting for somebody else."""
    if not path.startswith(b"/") or os.fsdecode(path).startswith(remote):
        return True
    try:
        os.stat(path)
    except (OSError, ValueError):
        return False
    return True
