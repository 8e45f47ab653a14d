"""Holds leases on files, so that whoever opens one waits for a moment inside open(), and is named before it reads.

A process of its own below the holder, for one agent. Whatever becomes of it, nobody waits for long: the signal that
tells of an opener goes to the holder too, which ends a lessor that has not looked within `PATIENCE_S`; a lessor that is
stopped is resumed; one that ends takes its leases with it, and it ends with the holder and with the agent's connection.

A write lease, for credentials, makes every opener wait; a read lease, for places that are read all day, only writers.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import time
from typing import NoReturn

from nbsentinel_guard import inotify, openers, proc, records, seccomp, sleepers, wire
from nbsentinel_guard.lease import Lease, is_remote
from nbsentinel_guard.standdown import ONLY_LOOK

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Dict, Iterable, List, Set, Tuple

    from nbsentinel_guard.page import Page
    from nbsentinel_guard.sleepers import Reader

LIMIT = 256
"""Leases at once."""
ALONE_S, SEEK_S = 0.004, 0.012
"""How long an opener's thread is looked for: before the kernel's list is asked for, and where there is no such list."""
CROWD_S = 0.03
"""After somebody was let go: whoever opens something within this time is probably not alone."""
WARM_S, WARM_EVERY_S = 0.25, 0.005
"""For how long after that the kernel's list is read again and again: it answers at once when asked all the time."""
ONCE_S = 0.005
"""How long whoever has a file open is looked for."""
STRANGER_S = 1.0
"""For how long a process is passed over that waits for another one's lease."""
LIFE_S = 60.0
"""For how long there are no leases because of one program that opens without blocking."""
WITHOUT_NAME_S = 1.0
"""For how long there are none after somebody unknown has done so, and was told EAGAIN."""
_PR_SET_PDEATHSIG = 1


class Lessor:
    """The loop.

    Args:
        page: The memory shared with the guard.
        connection: The agent's; what waits in it when it is full is counted.
        wakeup: The reading end of the pipe that signals are written to.
    """

    def __init__(self, page: Page, connection: socket.socket, wakeup: int) -> None:
        self._page, self._connection, self._wakeup = page, connection, wakeup
        self._down = page.stand_down
        self._leases: Dict[int, Lease] = {}
        self._of_watch: Dict[int, Lease] = {}
        self._inotify = inotify.Inotify()
        self._opening: Dict[int, float] = {}
        """Processes that open without blocking, until when."""
        self._ours = {os.getpid()}
        self._strangers: Dict[int, float] = {}
        self._untold = 0
        self._answered_at = self._warm_until = 0.0
        self._certain = False
        self._learned = openers.inodes()
        self._down.list_openers(sorted(self._learned))
        self._poll = select.poll()
        for descriptor in (connection.fileno(), wakeup, self._inotify.descriptor):
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> None:
        """Serve until the agent is gone."""
        connection = self._connection.fileno()
        while True:
            ready = dict(self._poll.poll(self._pause()))
            if self._wakeup in ready:
                os.read(self._wakeup, 512)
            self._look()
            if self._inotify.descriptor in ready:
                self._moved()
            if ready.get(connection, 0) and not self._serve():
                return
            self._keep_time()

    def _pause(self) -> int:
        dues = [lease.due for lease in self._leases.values() if self._waits(lease)]
        dues += list(self._opening.values())
        if self._warm_until:
            dues.append(time.monotonic() + WARM_EVERY_S)
        if not dues:
            return 60_000
        most = 50 if self._opening else 60_000  # whether those processes are still there
        return max(0, min(most, int(1000 * (min(dues) - time.monotonic())) + 1))

    def _look(self) -> None:
        """Let openers go, the guard's questions first: their programs wait before they open anything."""
        began = time.monotonic_ns()
        asking, asked = self._down.asking()
        if asking:
            for one in asking:
                self._asked(one)
            self._down.settle(asked)
        broken = self._broken()
        if broken:
            self._answer(broken)
        self._down.beat(began)

    # Openers that wait

    def _answer(self, broken: List[Lease]) -> None:
        """Find out who waits for which file, and let all of them go on."""
        started = time.monotonic()
        broken, openers_of = self._openers(broken, started)
        for lease in broken:
            readers = openers_of.get(lease.inode, [])
            writes = lease.is_for_writing
            lease.release()
            if not self._certain:
                readers = self._gone_on(readers)
            for reader in readers:
                self._tell(lease, b"lease", reader, writes=writes)
            lease.expected += len(readers)
            if not readers and self._certain:
                self._unseen(lease, writes=writes)
            self._retry(lease, started)
        self._answered_at = started

    def _openers(self, broken: List[Lease], started: float) -> Tuple[List[Lease], Dict[int, List[Reader]]]:
        """Return the leases that are broken, and by inode who waits for each.

        `_certain` tells afterwards whether somebody who was not found does not wait.
        """
        self._certain = False
        crowded = len(broken) > 1 or started - self._answered_at < CROWD_S or started < self._warm_until
        if not crowded:
            threads = sleepers.look(self._skipped(started), started + ALONE_S)
            now = self._broken()
            if len(threads) == 1 and len(now) == 1:
                return broken, {broken[0].inode: self._describe(threads)}
        listed = sleepers.waiting(os.getpid())
        if listed is None:
            # Nobody tells which file each waits for: with several, nobody is named rather than somebody wrong.
            threads = sleepers.look(self._skipped(started), started + SEEK_S)
            return broken, {broken[0].inode: self._describe(threads)} if len(broken) == 1 else {}
        self._certain = True
        if crowded:
            self._warm_until = time.monotonic() + WARM_S
        found = {inode: self._describe(map(sleepers.thread_of, pids)) for inode, pids in listed.items()}
        return [lease for lease in self._broken() if lease.inode in listed or lease in broken], found

    def _gone_on(self, readers: List[Reader]) -> List[Reader]:
        """Return those who do not wait any more; others wait for another one's lease, and are left out for a while."""
        deadline = time.monotonic() + 0.002
        while True:
            gone = [one for one in readers if not sleepers.is_waiting(b"/proc/%d/task/%d" % (one.pid, one.tid))]
            if len(gone) == len(readers):
                return gone
            if time.monotonic() > deadline:
                self._strangers.update((one.pid, deadline + STRANGER_S) for one in readers if one not in gone)
                return gone
            time.sleep(0.0002)

    def _skipped(self, now: float) -> Set[int]:
        """Return the processes that are no openers of ours."""
        self._strangers = {pid: until for pid, until in self._strangers.items() if until > now}
        return self._ours.union(self._strangers)

    def _broken(self) -> List[Lease]:
        return [lease for lease in self._leases.values() if lease.is_broken]

    @staticmethod
    def _describe(threads: Iterable[int]) -> List[Reader]:
        described = [sleepers.describe(tid) for tid in threads]
        return [reader for reader in described if reader is not None]

    def _unseen(self, lease: Lease, *, writes: bool) -> None:
        """Nobody waits: it was opened without blocking and was refused, or its opener was interrupted."""
        self._tell(lease, b"refused", None, writes=writes)
        self._stand_down(0, time.monotonic() + WITHOUT_NAME_S)

    # Leases again

    def _retry(self, lease: Lease, now: float) -> None:
        if lease.broken(now):
            self._state(lease, b"opened too often")

    def _arm(self, lease: Lease) -> None:
        """Take the lease, unless somebody has the file open, or a program runs that it would make fail."""
        if lease.armed or self._is_left_alone(lease):
            return
        try:
            lease.arm()
        except OSError as error:
            if lease.postpone(time.monotonic()):
                busy = error.errno == errno.EAGAIN
                self._state(lease, b"open elsewhere" if busy else os.strerror(error.errno or 0).encode())
            return
        self._state(lease, b"armed")

    def _is_left_alone(self, lease: Lease) -> bool:
        """Return whether somebody runs now who would be refused because of this lease."""
        return bool(self._opening) and (lease.for_every_opener or 0 in self._opening)

    def _waits(self, lease: Lease) -> bool:
        """Return whether a lease is to be taken again at its time."""
        return bool(lease.due) and not lease.armed and not self._is_left_alone(lease)

    def _state(self, lease: Lease, state: bytes) -> None:
        if lease.told != state:
            lease.told = state
            self._send(b"state %d %s" % (lease.number, state))

    def _moved(self) -> None:
        """Hear of opens and closes of leased files."""
        for watch, mask, _ in self._inotify.read():
            lease = self._of_watch.get(watch)
            if lease is None or lease.armed:
                continue
            if mask & inotify.OPEN:
                if lease.for_every_opener:
                    self._opened(lease)
            elif lease.may_try:
                self._arm(lease)

    def _opened(self, lease: Lease) -> None:
        """A file was opened while there was no lease on it: who has it open now?"""
        if lease.expected:
            lease.expected -= 1
            return
        deadline = time.monotonic() + ONCE_S
        for pid in sleepers.holding(lease.path, self._ours, deadline):
            reader = sleepers.describe(pid)
            if reader is not None:
                self._tell(lease, b"descriptor", reader, writes=False)

    def _keep_time(self) -> None:
        now = time.monotonic()
        if self._warm_until:
            sleepers.keep_warm()
            if now > self._warm_until:
                self._warm_until = 0.0
        if self._opening:
            gone = [
                p for p, until in self._opening.items() if now > until or (p and not os.path.exists("/proc/%d" % p))
            ]
            for pid in gone:
                del self._opening[pid]
            if gone and not self._opening:
                self._send(b"up")
            if gone:
                for lease in self._leases.values():
                    lease.due = lease.due or now
        for lease in self._leases.values():
            if now >= lease.due and self._waits(lease):
                self._arm(lease)

    # Programs that open without blocking

    def _asked(self, process: int) -> None:
        pid = process & ~ONLY_LOOK
        if process != pid:
            argv = proc.read_bytes("/proc/%d/cmdline" % pid, sleepers.ARGV_LIMIT) or b""
            if not openers.script_names_flag(pid, argv):
                return
        self._stand_down(pid, time.monotonic() + LIFE_S)

    def _stand_down(self, pid: int, until: float) -> None:
        """Let go of every lease that it could run into, and say for whose sake; 0 stands for somebody unknown."""
        for lease in self._leases.values():
            if lease.for_every_opener or not pid:
                lease.release()
        if pid not in self._opening:
            reader = sleepers.describe(pid) if pid else None
            self._send(b"down " + self._told(b"exec", 0, reader))
        self._opening[pid] = until

    # The agent

    def _serve(self) -> bool:
        """Take one message of the agent; return False when it is gone."""
        try:
            message, descriptors = wire.receive(self._connection)
        except BlockingIOError:
            return True
        except OSError:
            return False
        for descriptor in descriptors:
            os.close(descriptor)
        word, _, rest = message.partition(b" ")
        if word == b"add":
            number, mode, path = rest.split(b" ", 2)
            self._add(int(number), fcntl.F_WRLCK if mode == b"r" else fcntl.F_RDLCK, path)
        elif word == b"drop":
            self._drop(int(rest))
        elif word == b"ours":
            self._ours = {os.getpid(), *map(int, rest.split())}
        return bool(message)

    def _add(self, number: int, wanted: int, path: bytes) -> None:
        why = b""
        self._drop(number)
        if len(self._leases) >= LIMIT:
            why = b"there are %d leases already" % LIMIT
        elif is_remote(path):
            why = b"on another machine or in a user's file system"
        if not why:
            try:
                lease = Lease(number, path, wanted, self._inotify)
                self._leases[number] = self._of_watch[lease.watch] = lease
            except OSError as error:
                why = (error.strerror or str(error)).encode()
        self._send(b"opened %d" % number if not why else b"failed %d %s" % (number, why))
        if not why:
            self._arm(self._leases[number])

    def _drop(self, number: int) -> None:
        lease = self._leases.pop(number, None)
        if lease is not None:
            lease.release()
            os.close(lease.descriptor)
            if self._of_watch.get(lease.watch) is lease:
                del self._of_watch[lease.watch]
                self._inotify.remove(lease.watch)

    @staticmethod
    def _told(way: bytes, number: int, reader: Reader | None, operation: bytes = b"") -> bytes:
        tid, pid, start, exe, argv = reader or (0, 0, 0, b"", b"")
        who = records.Who(time.time_ns() // 1000000, tid, pid, start, number)
        return records.told(who, way, operation, exe, argv)

    def _tell(self, lease: Lease, way: bytes, reader: Reader | None, *, writes: bool) -> None:
        self._send(b"named " + self._told(way, lease.number, reader, b"write" if writes else b"read"))

    def _send(self, message: bytes) -> None:
        """Tell the agent; what it does not take is counted and said with the next message."""
        try:
            if self._untold:
                self._connection.send(b"lost %d" % self._untold)
                self._untold = 0
            self._connection.send(message)
        except BlockingIOError:
            self._untold += 1
        except OSError:
            pass  # it is gone, as the next turn finds


def main(page: Page, connection: socket.socket, wakeup: int, parent: int) -> NoReturn:
    """Run as the holder's child; never returns.

    Args:
        page: The shared memory.
        connection: The agent's.
        wakeup: The pipe that SIGIO and SIGUSR2 are written to; their handlers are set already.
        parent: The holder, with which we end.
    """
    try:
        seccomp.forbid_dumps()
        seccomp.ignore_signals(but=(signal.SIGIO, signal.SIGUSR2))
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() == parent:
            connection.settimeout(0)
            lessor = Lessor(page, connection, wakeup)
            page.stand_down.open(os.getpid())
            connection.send(b"ok %d" % os.getpid() + b"".join(b" %d" % pid for pid in page.protected()))
            lessor.run()
    finally:
        if page.stand_down.is_open:
            page.stand_down.open(0)
        os._exit(0)
