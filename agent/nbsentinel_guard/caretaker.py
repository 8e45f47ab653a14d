"""Lets no caller wait: finishes what whoever answers at a listener has left, because it was stopped, hangs or is dead.

Any holder of a listener may answer a call that it never received, if it knows the call's id; the shared page has them.
"""

from __future__ import annotations

import select
import time

from nbsentinel_guard import seccomp
from nbsentinel_guard.page import HOLDER
from nbsentinel_guard.table import Table
from nbsentinel_guard.witness import Witness, take_over

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, List, Tuple

    from nbsentinel_guard.page import Page, Slot

TICK_S, IDLE_TICK_S = 0.016, 0.03
"""Time between two looks while anything is being answered, and while nothing is. A call that is there in two looks has
waited for 16 to 46 ms; whom it waits for needs less than a millisecond, unless something is wrong."""
PATIENCE = 1
NOTICE_S = 1.0
"""Least time between two notices about callers that were let go; all are counted."""
HELD_S = 0.04
"""When an image that waits for a verdict is let go from here; its own time is over after 20 ms."""
HANG_S = 0.6
"""For how long somebody must not answer at all to be called hung."""


class Caretaker:
    """Looks after the callers of all listeners of a page.

    Args:
        page: The shared memory.
        notice: Takes (what, why) for the operator.
        ring: Whose records these are: HOLDER or AGENT.
        may_read_memory: False in tests of a kernel that refuses it.
    """

    def __init__(
        self, page: Page, notice: Callable[[bytes, bytes], None], *, ring: int = HOLDER, may_read_memory: bool = True
    ) -> None:
        self.page, self._notice, self._may_read_memory = page, notice, may_read_memory
        self._ring = page.rings[ring]
        self.listeners: Dict[int, Tuple[int, bytes]] = {}
        """Descriptor and description by place."""
        self._witnesses: Dict[int, Witness] = {}
        self._table = Table()
        self._slot = page.care_slots[ring]
        self._poll = select.poll()
        self._index_of: Dict[int, int] = {}
        self._seen: Dict[int, Tuple[int, int]] = {}
        self._unread: Dict[int, Tuple[int, int]] = {}
        self._stuck_since = 0.0
        self.let_go = 0
        """Calls answered in somebody's place."""
        self._noticed_at, self._noticed = 0.0, 0
        self.is_quiet = True
        """Whether the last look found nothing that is being answered."""

    def add(self, index: int, listener: int, description: bytes) -> None:
        """Look after one more listener."""
        from nbsentinel_guard.wire import kernel_of

        self.listeners[index] = listener, description
        self._index_of[listener] = index
        self._poll.register(listener, select.POLLIN)
        self._witnesses[index] = Witness(
            self.page,
            self._ring,
            self._table,
            index,
            listener,
            may_read_memory=self._may_read_memory,
            kernel=kernel_of(description),
        )

    def remove(self, index: int) -> int:
        """Forget a listener and return its descriptor, which is still open; -1 where there is none."""
        listener, _ = self.listeners.pop(index, (-1, b""))
        if listener >= 0:
            self._poll.unregister(listener)
            del self._index_of[listener], self._witnesses[index]
            self._unread.pop(index, None)
        return listener

    def hung_for(self) -> float:
        """Return for how many seconds callers have not been answered by whom they wait for."""
        return time.monotonic() - self._stuck_since if self._stuck_since else 0.0

    def progress(self) -> int:
        """Return how many calls have been taken so far."""
        return sum(slot.words[10] for index in self.listeners for slot in self.page.slots_of(index))

    def is_busy(self) -> bool:
        """Return whether a call is being answered right now."""
        return any(slot.words[0] for index in self.listeners for slot in self.page.slots_of(index))

    def look(self) -> List[int]:
        """Look once; return the listeners whose last process is gone."""
        stuck = False
        for index, (listener, _) in self.listeners.items():
            for slot in self.page.slots_of(index):
                if slot.words[0] or self._seen.get(slot.address):
                    stuck = self._is_stuck(index, listener, slot) or stuck
        held = self.page.holds_any()
        if held:
            self._expire_holds()
        gone, unread = self._look_at_unread()
        self.is_quiet = not (held or self._unread or any(call for call, _ in self._seen.values()))
        if not (stuck or unread):
            self._stuck_since = 0.0
        elif not self._stuck_since:
            self._stuck_since = time.monotonic()
        return gone

    def _expire_holds(self) -> None:
        for place, index, identity, since in list(self.page.holds()):
            if time.monotonic() - since > HELD_S:
                if index in self.listeners:
                    seccomp.let_go(self.listeners[index][0], identity)
                self.page.release(place)

    def _is_stuck(self, index: int, listener: int, slot: Slot) -> bool:
        """Return whether a call stays with its thread for too long; its caller is let go then."""
        identity, looks = self._seen.get(slot.address, (0, 0))
        call = slot.words[0]
        looks = looks + 1 if call and call == identity else 0
        if call:
            self._seen[slot.address] = call, looks
        else:
            self._seen.pop(slot.address, None)
        if looks == PATIENCE and seccomp.is_waiting(listener, call):
            self._serve_for(index, slot)
        return looks >= PATIENCE

    def _serve_for(self, index: int, slot: Slot) -> None:
        """Serve a call in its thread's place, from a copy: the thread may come back, and then tells of it again."""
        self.let_go += 1
        if time.monotonic() - self._noticed_at > NOTICE_S:
            self._notice(b"let go", b"%d calls were not answered in time" % (self.let_go - self._noticed))
            self._noticed_at, self._noticed = time.monotonic(), self.let_go
        own = self._slot
        own.clear()
        own.listener = index
        own.words[:10] = slot.words[:10]
        self._witnesses[index].serve(own)

    def _look_at_unread(self) -> Tuple[List[int], bool]:
        gone, waiting, overdue = [], {}, False
        for listener, events in self._poll.poll(0):
            index = self._index_of[listener]
            if seccomp.is_over(events):
                gone.append(index)
            if not events & select.POLLIN:
                continue
            progress, looks = self._unread.get(index, (-1, 0))
            now = sum(slot.words[10] for slot in self.page.slots_of(index))
            looks = looks + 1 if now == progress else 0
            waiting[index] = now, looks
            if looks >= PATIENCE:
                overdue = True
                self._slot.listener = index
                self.let_go += take_over(self._witnesses[index], self._slot, listener)
        self._unread = waiting
        return gone, overdue

    def finish(self) -> None:
        """Answer and tell whatever somebody who is dead has left in the slots; their callers still wait."""
        for index in list(self.listeners):
            listener = self.listeners[index][0]
            for slot in self.page.slots_of(index):
                if slot.words[0]:
                    self._finish(index, listener, slot)
                slot.clear()
        for place, index, identity, _ in list(self.page.holds()):
            if index in self.listeners:
                seccomp.let_go(self.listeners[index][0], identity)
            self.page.release(place)

    def finish_for(self, ring: int) -> None:
        """Do the same with what holder or agent, of that ring, took in somebody's place and left."""
        slot = self.page.care_slots[ring]
        if slot.words[0] and slot.listener in self.listeners:
            self._finish(slot.listener, self.listeners[slot.listener][0], slot)
        slot.clear()

    def _finish(self, index: int, listener: int, slot: Slot) -> None:
        answered, told = slot.words[11] & slot.ANSWERED, slot.words[11] & slot.TOLD
        if not answered and seccomp.is_waiting(listener, slot.words[0]):
            # Its claim may be half written: look at the call anew.
            slot.words[11] = slot.words[12] = 0
            self._witnesses[index].serve(slot)
        elif not told:
            self._witnesses[index].recall(slot)
