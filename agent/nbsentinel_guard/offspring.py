"""The holder's small processes that talk with the agent themselves: the lessor and the decoy."""

from __future__ import annotations

import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Callable, Dict

    from nbsentinel_guard.page import Page

PATIENCE_S = 0.12
"""How long a lessor may leave an opener unanswered; it needs a few milliseconds, and some more on a crowded machine."""
LEAVE_S = 0.01
"""How long one may take to end by itself before the next takes its place."""
ROLES = {b"lessor": 4, b"decoy": 5}
"""Their places among the protected processes, see `nbsentinel_guard.page.PROTECTED`."""


class Offspring:
    """Starts them, resumes what is stopped, ends what hangs.

    Args:
        page: The shared memory.
        notice: Takes (what, why) for the operator.
        close: Closes, in a child, what is the holder's alone.
    """

    def __init__(self, page: Page, notice: Callable[[bytes, bytes], None], close: Callable[[], None]) -> None:
        self._page, self._notice, self._close = page, notice, close
        self._children: Dict[bytes, int] = {}
        self._broken_at = 0.0

    def start(self, kind: bytes, connection: socket.socket) -> None:
        """Start one for the agent at the other end of a connection, in place of an older one."""
        deadline = time.monotonic() + LEAVE_S
        while kind in self._children and time.monotonic() < deadline:
            time.sleep(0.001)  # its agent has left, or somebody has killed it: which, is worth knowing
            self.look_after()
        self.end(kind)
        parent = os.getpid()
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        child = os.fork()
        if child == 0:
            try:
                self._become(kind, connection, reading, writing, parent)
            finally:
                os._exit(1)  # whatever went wrong: a second holder would be worse
        os.close(reading)
        os.close(writing)
        self._children[kind] = child
        self._page.introduce(ROLES[kind], child)

    def _become(self, kind: bytes, connection: socket.socket, reading: int, writing: int, parent: int) -> None:
        """Turn a fresh child into one of them."""
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGUSR2, lambda *_: None)
        connection = connection.dup()  # the holder's own is among what is closed
        self._close()
        if kind == b"lessor":
            from nbsentinel_guard import lessor

            lessor.main(self._page, connection, reading, parent)
        from nbsentinel_guard import decoy

        decoy.main(connection, parent)

    def end(self, kind: bytes) -> None:
        """End one; nothing is told of it."""
        child = self._children.pop(kind, 0)
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            self._forget(kind)

    def _forget(self, kind: bytes) -> None:
        self._page.introduce(ROLES[kind], 0)
        if kind == b"lessor":
            self._page.stand_down.open(0)
            self._broken_at = 0.0

    def look_after(self) -> None:
        """Resume and bury; for when the kernel said that something became of a child."""
        for kind, child in list(self._children.items()):
            pid, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                continue
            if os.WIFSTOPPED(status):
                os.kill(child, signal.SIGCONT)
                self._notice(b"stopped", b"the %s was stopped by signal %d and resumed" % (kind, os.WSTOPSIG(status)))
                continue
            del self._children[kind]
            self._forget(kind)
            if os.WIFSIGNALED(status):
                self._notice(b"killed", b"the %s ended by signal %d" % (kind, os.WTERMSIG(status)))

    def broken(self) -> None:
        """Somebody opens a leased file: the lessor was told too, and has to look at it soon."""
        if b"lessor" in self._children and self._broken_at <= self._page.stand_down.last_beat():
            self._broken_at = time.monotonic()

    def due_in(self) -> float:
        """Return in how many seconds `check` wants to be called, 3600 where nobody waits for the lessor."""
        return max(0.0, self._broken_at + PATIENCE_S - time.monotonic()) if self._broken_at else 3600.0

    def check(self) -> None:
        """End a lessor that leaves openers waiting: its leases go with it."""
        if not self._broken_at or time.monotonic() < self._broken_at + PATIENCE_S:
            return
        if self._page.stand_down.last_beat() > self._broken_at:
            self._broken_at = 0.0
            return
        child = self._children.get(b"lessor", 0)
        self._broken_at = 0.0
        if child:
            self._notice(b"hung", b"the lessor did not answer and was ended")
            self.end(b"lessor")
