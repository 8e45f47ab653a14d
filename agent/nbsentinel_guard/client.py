"""The agent's side of the guard: reads what was seen, and holds every listener too, should all others be gone."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

from nbsentinel_guard import proc, wire
from nbsentinel_guard.caretaker import TICK_S, Caretaker
from nbsentinel_guard.page import AGENT, ASLEEP, DOZING, HOLDER, Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Tuple

    Record = Tuple[int, int, int, bytes]

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
START_S = 5.0
END_S = 0.5
BUSY_S, DOZE_S = 0.02, 0.002
"""After a record, the reader looks every few milliseconds for some time, and is woken for what is urgent alone."""
BEAT_S, BEAT_IDLE_S = 0.4, 6.0
"""How long the holder may be silent while callers may come, and while it rests or has no listeners."""
_SUPERVISOR_ROLE = 1


class RefusedError(OSError):
    """The holder has another agent, or takes us for a guarded process."""


class Client:
    """A connection with the holder of a run folder.

    Args:
        run_dir: The folder.
        settings: What launchers are told: `connect=auto terminals=1 server=0`.
        keeper: The agent's parent, which is protected too; 0 for none.
        notice: Takes (what, why) where this side had to answer callers.

    Raises:
        RefusedError: The holder does not take us.
        OSError: Nobody answers there.
    """

    def __init__(
        self, run_dir: str, settings: str, *, keeper: int = 0, notice: Callable[[bytes, bytes], None] | None = None
    ) -> None:
        self.run_dir = run_dir
        self.control = wire.connect(run_dir, START_S)
        try:
            self.control.send(("agent %s keeper=%d" % (settings, keeper)).encode())
            message, descriptors = wire.receive(self.control)
            if not message.startswith(b"ok ") or len(descriptors) != 2:
                raise RefusedError("the guard has another agent" if message == b"no" else "the guard does not answer")
            self.page = Page(descriptors[0])
        except OSError:
            self.control.close()
            raise
        self.holder = int(message.split()[1])
        self._wake = descriptors[1]
        self.care = Caretaker(self.page, notice or (lambda _what, _why: None), ring=AGENT)
        self.cursors = [ring.tail for ring in self.page.rings]
        self._last_record = 0.0
        self.lost = False
        """Whether the holder is gone."""
        self.control.settimeout(0)

    @property
    def descriptions(self) -> dict[int, bytes]:
        """What is known of each listener: pid, start time, `name=value` words."""
        return {index: description for index, (_, description) in self.care.listeners.items()}

    @property
    def dropped(self) -> int:
        """Records that were seen and did not fit while nobody read them."""
        return sum(ring.dropped for ring in self.page.rings)

    def wait(self, seconds: float) -> None:
        """Sleep until something comes, at most some seconds."""
        busy = time.monotonic() - self._last_record < BUSY_S
        depth, seconds = (DOZING, min(seconds, DOZE_S)) if busy else (ASLEEP, seconds)
        if all(ring.sleep(cursor, depth) for ring, cursor in zip(self.page.rings, self.cursors)):
            watched = [self._wake] if self.lost else [self._wake, self.control.fileno()]
            ready, _, _ = select.select(watched, [], [], seconds)
            if self._wake in ready:
                os.read(self._wake, 4096)
        self._hear()

    def _hear(self) -> None:
        """Take in what the holder says of listeners."""
        while not self.lost:
            try:
                message, descriptors = wire.receive(self.control)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it ended without reading all of ours; what it had said comes next
            except OSError:
                message, descriptors = b"", []
            word, _, rest = message.partition(b" ")
            if word == b"listener" and descriptors:
                index, _, description = rest.partition(b" ")
                self._forget(int(index))
                self.care.add(int(index), descriptors[0], description)
            elif word == b"gone":
                self._forget(int(rest))
            elif not message:
                self.lost = True

    def _forget(self, index: int) -> None:
        listener = self.care.remove(index)
        if listener >= 0:
            os.close(listener)

    def read(self) -> List[Record]:
        """Return what came since the last time: (ring, kind, listener, payload)."""
        found: List[Record] = []
        for number, ring in enumerate(self.page.rings):
            records, self.cursors[number] = ring.read(self.cursors[number])
            found += [(number, kind, index, payload) for kind, index, payload in records]
        if found:
            self._last_record = time.monotonic()
        return found

    def settle(self, cursors: List[int]) -> None:
        """Give free what was read up to these places; see `cursors`."""
        for ring, cursor in zip(self.page.rings, cursors):
            ring.settle(cursor)

    def look_after_callers(self) -> None:
        """Answer who waits for too long; for when nobody else does."""
        for index in self.care.look():
            self._forget(index)

    def is_silent(self) -> bool:
        """Whether the holder lives but does not look after callers: stopped, or starved."""
        limit = BEAT_S if self.care.listeners and not self.page.is_resting else BEAT_IDLE_S
        return not self.lost and time.monotonic() - self.page.last_beat() > limit

    def close(self) -> None:
        """Leave; the guard itself stays for as long as anything guarded runs."""
        for index in list(self.care.listeners):
            self._forget(index)
        self.control.close()
        os.close(self._wake)
        os.close(self.page.descriptor)

    # When the holder is gone

    def end_supervisor(self) -> None:
        """End the supervisor of a holder that is gone; what it leaves can be finished once it does nothing more."""
        pid = self.page.who(_SUPERVISOR_ROLE)
        if pid:
            _end(pid, self._command)
        self.page.introduce(_SUPERVISOR_ROLE, 0)
        self.care.finish()
        self.care.finish_for(HOLDER)

    def inherit(self, other: Client) -> None:
        """Take over from a client whose holder did not get everything: what it was told, its callers and listeners.

        That holder is ended: it would go on for the listeners that it has, and nobody would hear of it.
        """
        _end(other.holder, self._command)
        other._hear()
        other.end_supervisor()
        places = {description: index for index, description in self.descriptions.items()}
        for listener, description in other.care.listeners.values():
            if description not in places:
                places[description] = max(self.care.listeners, default=-1) + 1
                self.care.add(places[description], os.dup(listener), description)
        found = other.read()
        while found:
            for _, kind, index, payload in found:
                place = places.get(other.descriptions.get(index, b""), 0)
                self.page.rings[AGENT].put(kind, place, payload)
            found = other.read()
        other.close()

    @property
    def _command(self) -> bytes:
        return b"hold\0" + os.fsencode(self.run_dir)


def _end(pid: int, command: bytes) -> None:
    """End a process with this command and wait until all of its threads are gone.

    A zombie is not enough: behind a leader that is one, a thread may still be in the kernel and take another call.
    """
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return
    try:
        found = proc.read_bytes("/proc/%d/cmdline" % pid) or b""
        if command in found:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        elif found:
            return  # somebody else has its number by now
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll(1000 * END_S)
    except ProcessLookupError:
        pass
    finally:
        os.close(process)


def start_holder(run_dir: str, meanwhile: Callable[[], None], *options: str) -> subprocess.Popen[bytes]:
    """Start a holder and return when it is ready.

    Args:
        run_dir: The folder of its socket.
        meanwhile: Called every few milliseconds while it starts.
        options: Further options of `hold`.

    Raises:
        OSError: It ended at once.
    """
    command = [sys.executable, "-I", "-S", PROGRAM, "hold", run_dir, *options]
    holder = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    assert holder.stdout is not None
    deadline = time.monotonic() + START_S
    with holder.stdout as stream:
        while not select.select([stream], [], [], TICK_S)[0]:
            meanwhile()
            if time.monotonic() > deadline:
                holder.kill()
                raise OSError("the guard's process does not become ready")
        if stream.readline() != b"ready\n":
            raise OSError("the guard's process ended at once")
    return holder


def replace_holder(lost: Client, start: Callable[[Callable[[], None]], object], again: Callable[[], Client]) -> Client:
    """Put a new holder in the place of one that is gone, and look after callers until it does.

    Args:
        lost: The client of the one that is gone; everything must have been read from it.
        start: Starts a holder; takes what it calls meanwhile.
        again: Returns a client of the new one.

    Raises:
        OSError: It cannot be started; the client still looks after callers.
    """
    lost.end_supervisor()
    start(lost.look_after_callers)
    lost.look_after_callers()
    fresh = again()
    if not wire.hand_over(lost.run_dir, START_S, lost.page.descriptor, lost.care.listeners):
        lost.inherit(fresh)
        raise OSError("the new holder does not take the listeners")
    return fresh
