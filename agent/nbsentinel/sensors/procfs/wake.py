"""Waking early: inotify on shells and download tools tells that somebody has just executed one.

The kernel reports the open of a file that is being executed within 1 to 3 ms. It names no process, so it only wakes the
procfs sensor up. A few wake-ups may follow each other closely: the parts of a pipeline end within milliseconds. What
comes in larger numbers is joined, so that a build with thousands of shells costs no more than a few looks a second.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from nbsentinel_guard import inotify

JOIN_S = 0.03
"""Least time between two wake-ups when many come."""
CLOSE_S, CLOSE_COUNT, CLOSE_EACH_S = 0.003, 8, 0.1
"""Least time between the first few, how many these are, and after how long one more is allowed."""
_PROGRAMS = (
    "sh", "bash", "dash", "zsh", "ksh93", "fish", "busybox", "tcsh", "mksh",
    "nc", "nc.openbsd", "nc.traditional", "ncat", "netcat", "socat", "telnet", "openssl",
    "curl", "wget", "script", "perl", "ruby", "php", "lua", "lua5.4", "tclsh", "node", "base64", "xxd",
    "ps", "top", "pgrep", "pkill",  # these read all environments, so they should be known when somebody has done so
)  # fmt: skip
_FOLDERS = ("/bin", "/usr/bin", "/usr/local/bin", "/opt/conda/bin")


def watched_programs(folders: Iterable[str] = _FOLDERS) -> tuple[str, ...]:
    """Return the real paths of the programs that are looked for at once and exist here, each once."""
    paths = (Path(folder, name) for folder in folders for name in _PROGRAMS)
    return tuple(sorted({os.path.realpath(path) for path in paths if path.is_file()}))


class Pace:
    """How long to wait after each wake-up. Pure.

    Args:
        now: The monotonic clock in seconds.
    """

    def __init__(self, now: float) -> None:
        self._left, self._at = float(CLOSE_COUNT), now

    def pause(self, now: float) -> float:
        """Take note of a wake-up and return the least time until the next, in seconds."""
        self._left = min(float(CLOSE_COUNT), self._left + (now - self._at) / CLOSE_EACH_S)
        self._at = now
        if self._left < 1:
            return JOIN_S
        self._left -= 1
        return CLOSE_S


class ExecWake:
    """Calls back shortly after one of some files was opened.

    Args:
        callback: Called from a thread of our own.
        paths: Files to watch.
    """

    def __init__(self, callback: Callable[[], None], paths: Iterable[str]) -> None:
        self._callback = callback
        self._paths = tuple(paths)
        self._inotify: inotify.Inotify | None = None
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self.watches = 0
        """Files that are watched; 0 where inotify is not to be had."""

    def start(self) -> None:
        """Begin to watch; without inotify nothing happens and `watches` stays 0."""
        try:
            self._inotify = inotify.Inotify()
        except OSError:
            return
        for path in self._paths:
            with contextlib.suppress(OSError):
                self._inotify.add(os.fsencode(path), inotify.OPEN)
                self.watches += 1
        self._thread = threading.Thread(target=self._run, name="exec-wake", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        assert self._inotify is not None
        poller = select.poll()
        poller.register(self._inotify.descriptor, select.POLLIN)
        pace = Pace(time.monotonic())
        while not self._end.is_set():
            if not poller.poll(500):
                continue
            while self._inotify.read():
                pass
            self._callback()
            time.sleep(pace.pause(time.monotonic()))

    def stop(self) -> None:
        """Stop watching."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(2)
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
