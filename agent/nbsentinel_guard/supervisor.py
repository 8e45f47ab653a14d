"""Answers the guarded callers: two threads for each listener, in a process of its own below the holder.

Neither the agent's interpreter nor its end can make a caller wait. What it saw stands in the shared page, so when it
is killed the holder goes on from there.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import threading
import time
from typing import NoReturn

from nbsentinel_guard import seccomp, wire
from nbsentinel_guard.page import LANES, SUPERVISOR
from nbsentinel_guard.table import Table
from nbsentinel_guard.witness import Witness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nbsentinel_guard.page import Page, Slot

HOLD_S = 0.02
"""Longest time that a possible remote shell waits for the agent."""
SEEK_S = 0.2
"""How often a supervisor without a holder looks for the next one."""
_LOOK_S = 0.004


class Watch(threading.Thread):
    """One of the threads that answer a listener, until its last process is gone."""

    def __init__(self, supervisor: Supervisor, page: Page, witness: Witness, listener: int, slot: Slot) -> None:
        super().__init__(name="listener %d" % listener, daemon=True)
        self._supervisor, self._page, self._witness = supervisor, page, witness
        self._listener, self._slot = listener, slot

    def run(self) -> None:
        """Receive, answer, tell; every step leaves the slot in a state from which the holder can finish."""
        slot, listener, receive, serve = self._slot, self._listener, seccomp.receive, self._witness.serve
        page = self._page
        poll = select.poll()
        poll.register(listener, 0)
        slot.clear()
        words, where = slot.words, slot.address
        while True:
            number = receive(listener, where)
            if number:
                if number not in (errno.EINTR, errno.ENOENT) or any(seccomp.is_over(e) for _, e in poll.poll(0)):
                    break
                slot.clear()
                continue
            if page.is_resting:
                page.rouse()  # before anything that could go wrong
            words[10] += 1
            serve(slot)
        self._supervisor.ended(listener)


class Supervisor:
    """All listeners of one holder.

    Args:
        page: The shared memory.
        control: The socket from the holder: new listeners.
        run_dir: Where the next holder is looked for when ours has died.
        may_read_memory: False in tests of a kernel that refuses it.
    """

    def __init__(self, page: Page, control: socket.socket, run_dir: str, *, may_read_memory: bool = True) -> None:
        self._page, self._control, self._run_dir = page, control, run_dir
        self._may_read_memory = may_read_memory
        self._lock = threading.Lock()
        self._watched: dict[int, int] = {}
        """Threads that still answer a listener."""
        self._listeners: dict[int, tuple[int, bytes]] = {}
        """Descriptor and description by index."""
        self._table = Table()
        threading.Thread(target=self._time_out_holds, name="holds", daemon=True).start()

    def run(self) -> None:
        """Take listeners until the holder is gone, then go on for those that are left."""
        while True:
            message, descriptors = wire.receive(self._control)
            if not message:
                break
            index, _, description = message.partition(b" ")
            self._watch(int(index), descriptors[0], description)
        while self._watched:
            if self._hand_over():
                return
            time.sleep(SEEK_S)

    def _watch(self, index: int, listener: int, description: bytes) -> None:
        with self._lock:
            self._watched[listener] = LANES
            self._listeners[index] = listener, description
        kernel = wire.kernel_of(description)
        for slot in self._page.slots_of(index):
            witness = Witness(
                self._page,
                self._page.rings[SUPERVISOR],
                self._table,
                index,
                listener,
                may_read_memory=self._may_read_memory,
                kernel=kernel,
            )
            Watch(self, self._page, witness, listener, slot).start()

    def ended(self, listener: int) -> None:
        """Close a listener with the last of its threads."""
        with self._lock:
            self._watched[listener] -= 1
            if self._watched[listener] == 0:
                del self._watched[listener]
                for index in [i for i, (descriptor, _) in self._listeners.items() if descriptor == listener]:
                    del self._listeners[index]
                os.close(listener)

    def _time_out_holds(self) -> None:
        """Let images go on that the agent did not judge in time."""
        while True:
            self._page.held.wait()
            self._page.held.clear()
            while self.expire_holds():
                time.sleep(_LOOK_S)

    def expire_holds(self) -> bool:
        """Release what waits for too long; return whether anything waits."""
        waiting = False
        now = time.monotonic()
        for place, index, identity, since in list(self._page.holds()):
            waiting = True
            if now - since >= HOLD_S:
                known = self._listeners.get(index)
                if known is not None:
                    seccomp.let_go(known[0], identity)
                self._page.release(place)
        return waiting

    def _hand_over(self) -> bool:
        """Hand everything to the holder that has taken the place of ours; return whether one has."""
        with self._lock:
            listeners = dict(self._listeners)
        return wire.hand_over(self._run_dir, SEEK_S, self._page.descriptor, listeners)


def main(page: Page, control: socket.socket, run_dir: str, *, may_read_memory: bool) -> NoReturn:
    """Run as the holder's child; never returns."""
    seccomp.be_hard_to_meddle_with()
    # A thread that fails leaves its callers to the holder, slowly: better to be replaced as a whole.
    threading.excepthook = lambda _: os._exit(1)
    try:
        Supervisor(page, control, run_dir, may_read_memory=may_read_memory).run()
    except Exception as error:  # noqa: BLE001 - the holder replaces us; this line says why
        sys.stderr.write(f"nbsentinel guard supervisor: {type(error).__name__}: {error}\n")
    finally:
        os._exit(0)
