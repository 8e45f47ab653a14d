"""Which cell runs in a kernel, and which cell something belongs to that runs now."""

from __future__ import annotations

import _thread
import contextvars
import hashlib
import inspect
import sys
import threading
import types
import weakref
from collections import OrderedDict

from nbsentinel_kernel.channel import quiet, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from nbsentinel_kernel.channel import Channel

FUNCTIONS_LIMIT = 256
NAME_LIMIT = 128
native_id = getattr(threading, "get_native_id", lambda: 0)
"""Python 3.7 cannot tell."""


class Cell:
    """One run of a cell."""

    __slots__ = ("depth", "message_id", "running", "thread")

    def __init__(self, message_id: str, thread: int) -> None:
        self.message_id, self.thread = message_id, thread
        self.running, self.depth = True, 0


_CELL: contextvars.ContextVar[Cell | None] = contextvars.ContextVar("nbsentinel_cell", default=None)


class Cells:
    """Which cell runs, and which cell something belongs to that runs now."""

    def __init__(self, shell: Any, channel: Channel) -> None:
        self._shell, self._channel = shell, channel
        self._ahead = int(_counts_first(shell))
        self._running: dict[int, Cell] = {}
        self._threads: dict[int, tuple[weakref.ref[threading.Thread], Cell]] = {}
        self._functions: OrderedDict[types.CodeType, Cell] = OrderedDict()
        self.started: Callable[[], None] = lambda: None
        self.stopped: Callable[[bool], None] = lambda _failed: None
        """Called when a cell has ended, with whether it failed."""

    def _parent(self) -> dict[str, Any]:
        kernel = self._shell.kernel
        get = getattr(kernel, "get_parent", None)
        found = get("shell") if get is not None else getattr(kernel, "_parent_header", None)
        return found if isinstance(found, dict) else {}

    def starts(self, info: Any = None) -> None:
        """IPython's `pre_run_cell`."""
        with quiet:
            parent, here = self._parent(), _thread.get_ident()
            message_id = text(parent.get("header", {}).get("msg_id", ""), NAME_LIMIT)
            outer = self._running.get(here)
            if outer is not None and outer.running and outer.message_id == message_id:
                outer.depth += 1  # a cell that runs code through the shell is still that cell
                return
            cell = self._running[here] = Cell(message_id, native_id())
            _CELL.set(cell)
            cell_id = (
                text(parent.get("metadata", {}).get("cellId") or getattr(info, "cell_id", None), NAME_LIMIT) or None
            )
            source = getattr(info, "raw_cell", None)
            digest = None
            if isinstance(source, str):
                digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
            count = self._shell.execution_count - self._ahead if getattr(info, "store_history", True) else None
            told = ["start", message_id, text(cell_id, NAME_LIMIT) or None, count, digest, False]
            self._channel.send("cell", cell.thread, *told, keep=True)
            self.started()

    def stops(self, result: Any = None) -> None:
        """IPython's `post_run_cell`; it may come in another context than the start, but in the same thread."""
        with quiet:
            cell = self._running.get(_thread.get_ident())
            if cell is None:
                return
            if cell.depth:
                cell.depth -= 1
                return
            cell.running = False
            del self._running[_thread.get_ident()]
            failed = not getattr(result, "success", True)
            self.stopped(failed)
            self._channel.send("cell", cell.thread, "stop", cell.message_id, None, None, None, failed, keep=True)

    def current(self) -> Cell | None:
        """Return the cell that this code belongs to.

        A task has the context of the cell that made it. A thread has an empty one and belongs to whoever started it.
        """
        cell = _CELL.get()
        if cell is not None:
            return cell
        thread = threading._active.get(_thread.get_ident())  # type: ignore[attr-defined]
        if thread is not None:  # current_thread() would leave a dummy behind where there is none
            known = self._threads.get(id(thread))
            return known[1] if known is not None and known[0]() is thread else None
        if self._functions:
            frame: types.FrameType | None = sys._getframe()
            while frame is not None:
                if frame.f_back is None:
                    return self._functions.get(frame.f_code)
                frame = frame.f_back
        return None

    def where(self) -> tuple[str | None, bool]:
        """Return the current cell's message id, and whether this very thread runs it now."""
        cell = self.current()
        if cell is None:
            return None, False
        return cell.message_id, cell.running and cell.thread == native_id()

    def thread_starts(self, function: Any) -> None:
        """Remember which cell starts a thread that begins with a function; called in the thread that starts it."""
        thread = function.__self__ if type(function) is types.MethodType else None
        if isinstance(thread, threading.Thread):
            self.starts_thread(thread)
        elif type(function) is types.FunctionType:
            cell = self.current()
            if cell is not None:
                self._functions[function.__code__] = cell
                if len(self._functions) > FUNCTIONS_LIMIT:
                    self._functions.popitem(last=False)

    def starts_thread(self, thread: threading.Thread) -> None:
        """Remember which cell starts a thread."""
        cell = self.current()
        if cell is not None:
            number, threads = id(thread), self._threads
            threads[number] = weakref.ref(thread, lambda _: threads.pop(number, None) and None), cell

    def watch_threads(self) -> None:
        """Learn of each thread where the interpreter has no audit event for it: before Python 3.12.

        `Thread.start` puts the thread into `threading._limbo`. Threads made by `_thread` alone stay unknown there.
        """
        limbo = getattr(threading, "_limbo", None)
        if type(limbo) is dict and sys.version_info < (3, 12):
            threading._limbo = Limbo(limbo, self.starts_thread)  # type: ignore[attr-defined]


def _counts_first(shell: Any) -> bool:
    """Return whether this IPython counts a cell before it tells of its start; versions differ (9.18 does)."""
    try:
        source = inspect.getsource(type(shell).run_cell_async)
    except (AttributeError, OSError, TypeError):
        return False
    counted, told = source.find("execution_count += 1"), source.find("pre_run_cell")
    return 0 <= counted < told


class Limbo(dict):  # type: ignore[type-arg]
    """The threads that are about to start, in the place of `threading._limbo`."""

    def __init__(self, before: dict[threading.Thread, threading.Thread], tell: Callable[[Any], None]) -> None:
        super().__init__(before)
        self._tell = tell

    def __setitem__(self, thread: threading.Thread, value: threading.Thread) -> None:
        with quiet:
            self._tell(thread)
        super().__setitem__(thread, value)
