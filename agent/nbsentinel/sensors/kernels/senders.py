"""Who reports: kernels and Jupyter servers; what each may still send, and which kernels do not report."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

import msgspec

from nbsentinel.events import Process, ProcessKey
from nbsentinel.sensors.kernels.decode import MESSAGE_LIMIT, Hello, RefusedError, Sessions
from nbsentinel.sensors.procfs import reader

RATE = 300.0
"""Messages a second that are taken from one kernel in the long run; more wait in its socket, and then in the kernel."""
BURST = 2000.0
SERVER_RATE, SERVER_BURST = 1.0, 20.0
"""The same for a Jupyter server, which tells all that it has in one message, and that only when it changes."""
GRACE_S = 10.0
"""How long a kernel may be silent after its start."""
SHOWN = 5
_CREDENTIALS = socket.CMSG_SPACE(12)
"""Room for the sender's credentials and for nothing else: descriptors that somebody sends are closed by the system."""


class Role(Enum):
    """What a sender is, decided once when it connects: each may send only what is its own to tell."""

    KERNEL = "kernel"
    SERVER = "server"
    TRIAL = "trial"
    """The self-test's child."""


class Sender:
    """One connection of one process.

    Args:
        connection: Its socket.
        process: The process, as the operating system named it when it connected.
        now: The monotonic clock.
        role: What the process is.
    """

    def __init__(self, connection: socket.socket, process: Process, now: float, role: Role) -> None:
        self.connection, self.process, self.role = connection, process, role
        self.trial = role is Role.TRIAL
        self.hello: Hello | None = None
        self.sessions: Sessions | None = None
        """The last word of a server."""
        self.dropped = 0
        """Messages that the kernel says it dropped."""
        self._rate, self._burst = (SERVER_RATE, SERVER_BURST) if role is Role.SERVER else (RATE, BURST)
        self._tokens, self._filled = self._burst, now

    def may_send(self, now: float) -> int:
        """Return how many messages are taken now."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        return int(self._tokens)

    def receive(self) -> bytes | None:
        """Return the next message, None while there is none.

        Raises:
            EOFError: The kernel has closed it, or is gone.
            RefusedError: The message is too long, or another process sent it.
        """
        try:
            raw, ancillary, flags, _ = self.connection.recvmsg(MESSAGE_LIMIT + 1, _CREDENTIALS, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError from error
        if not raw:
            raise EOFError
        self._tokens -= 1
        sender = next(
            (struct.unpack("3i", data)[0] for _, kind, data in ancillary if kind == socket.SCM_CREDENTIALS), 0
        )
        if sender != self.process.key.pid:
            raise RefusedError("sent by another process over a kernel's connection")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise RefusedError("too long")
        return raw

    def count(self, dropped: int) -> int:
        """Take the kernel's count of dropped messages; return how many are new."""
        more, self.dropped = max(0, dropped - self.dropped), max(dropped, self.dropped)
        return more

    def owns_thread(self, thread: int) -> bool:
        """Return whether a thread lives in this process.

        Raises:
            RefusedError: It lives in another one.
        """
        if Path(f"/proc/{self.process.key.pid}/task/{thread}").exists():
            return True
        if thread and Path(f"/proc/{thread}").exists():
            raise RefusedError("a thread of another process")
        return False


class Silent(msgspec.Struct, frozen=True):
    """A kernel that does not report."""

    process: Process
    why: str


def identify(connection: socket.socket) -> Process | None:
    """Return the process at the other end of a new connection, None where it is gone."""
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return reader.process(pid) if pid > 0 and uid == os.getuid() else None


def is_python(process: Process) -> bool:
    """Return whether a kernel runs Python code, by its name and arguments."""
    return process.name.startswith("python") or any("ipykernel" in argument for argument in process.argv)


def silent(kernels: Iterable[Process], reporting: set[ProcessKey], past: set[ProcessKey], now: float) -> list[Silent]:
    """Return the kernels that do not report, with what is known of the reason.

    Args:
        kernels: All kernels that live.
        reporting: Those with a connection.
        past: Those that had one.
        now: Seconds since the epoch.
    """
    found = []
    for process in kernels:
        if process.key in reporting or now - process.started / 1000 < GRACE_S:
            continue
        if process.key in past:
            why = "has stopped to report"
        elif is_python(process):
            why = "Python without the startup file, or started by something that leaves startup files out"
        else:
            why = "another language than Python"
        found.append(Silent(process, why))
    return found


def describe(found: list[Silent], reporting: int) -> str:
    """Return the kernels that do not report in words for the operator; empty for none."""
    if not found:
        return ""
    shown = [f"{item.process.name}[{item.process.key.pid}]: {item.why}" for item in found[:SHOWN]]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return f"{len(found)} of {len(found) + reporting} kernels do not report: " + "; ".join([*shown, *more])
