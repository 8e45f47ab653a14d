"""Tells the agent what a Python kernel does: cells, a few audit events of the interpreter, calls of AWS APIs.

Standard library only, Python 3.7 syntax, run by path in environments that have none of our packages. It leaves no name
in the user's namespace, prints nothing, never raises and never waits. Whatever runs in the same process can lie here or
stop this, so the agent takes it for a hint.
"""

from __future__ import annotations

import os
import sys
import types

from nbsentinel_kernel.callers import caller
from nbsentinel_kernel.calls import Call, Calls
from nbsentinel_kernel.cells import Cells, native_id
from nbsentinel_kernel.channel import VERSION, Channel, quiet, text
from nbsentinel_kernel.watch import WATCHED, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Handler = Callable[[tuple[Any, ...]], None]

LOADED = "nbsentinel_kernel_reports"
"""In `sys.modules` once this runs: a second startup file changes nothing."""
ARGUMENTS_LIMIT = 64
_LINE_LIMIT = 1024


def command_line(arguments: Any) -> str:
    """Return the arguments of a program, or the line that a shell gets, as one line."""
    if isinstance(arguments, (list, tuple)):
        return " ".join([text(argument) for argument in arguments[:ARGUMENTS_LIMIT]])[:_LINE_LIMIT]
    return text(arguments)


class Reports:
    """Everything that one kernel tells.

    Args:
        run_dir: The agent's folder.
        shell: IPython's shell in this kernel.
    """

    def __init__(self, run_dir: str, shell: Any) -> None:
        self._channel = Channel(run_dir, self._hello)
        self._shell = shell
        self._watch = Watch(WATCHED)
        self._cells = Cells(shell, self._channel)
        self._calls = Calls(self._call, lambda: self._channel.key)
        self._cells.started, self._cells.stopped = self._cell_starts, self._calls.cell_ended
        self._handlers: dict[str, Handler] = {
            "socket.connect": self._connect,
            "socket.getaddrinfo": lambda a: self._tell("socket.getaddrinfo", Host=text(a[0]), Port=text(a[1])),
            "subprocess.Popen": lambda a: self._run("subprocess.Popen", a[0], a[1]),
            "os.system": lambda a: self._tell("os.system", CommandLine=command_line(a[0])),
            "os.exec": lambda a: self._run("os.exec", a[0], a[1]),
            "os.posix_spawn": lambda a: self._run("os.posix_spawn", a[0], a[1]),
            "os.fork": lambda _: self._tell("os.fork"),
            "os.forkpty": lambda _: self._tell("os.forkpty"),
            "pty.spawn": lambda a: self._tell("pty.spawn", CommandLine=command_line(a[0])),
            "open": self._open,
            "os.chdir": lambda _: self._watch.moved(),
            "os.fchdir": lambda _: self._watch.moved(),
            "ctypes.dlopen": lambda a: self._tell("ctypes.dlopen", Library=text(a[0])) if a[0] is not None else None,
            "http.client.send": lambda a: self._calls.request(a[0], a[1]),
            "_thread.start_new_thread": lambda a: self._cells.thread_starts(a[0]),
            "_thread.start_joinable_thread": lambda a: self._cells.thread_starts(a[0]),
            "import": self._import,
        }

    def start(self) -> None:
        """Begin to tell; an audit hook cannot be taken away again."""
        events = self._shell.events
        events.register("pre_run_cell", self._cells.starts)
        events.register("post_run_cell", self._cells.stops)
        if hasattr(sys, "addaudithook"):
            sys.addaudithook(self._hook())
        self._attach_botocore()
        self._cells.watch_threads()
        self._channel.reach()

    def _hook(self) -> Callable[[str, tuple[Any, ...]], None]:
        find, watch = self._handlers.get, self._watch

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open":  # by far the most frequent: nothing is called for a file that cannot be watched
                path = arguments[0]
                if type(path) is str:
                    folder, _, name = path.rpartition("/")
                    if folder and name not in watch.names and not folder.endswith(watch.ends):
                        return
            handle = find(event)
            if handle is not None:
                with quiet:
                    handle(arguments)

        return hook

    def _hello(self) -> list[Any]:
        versions = [text(getattr(sys.modules.get(name), "__version__", ""), 32) for name in ("IPython", "ipykernel")]
        python = "%d.%d.%d" % sys.version_info[:3]
        return [native_id(), VERSION, python, *versions, hasattr(sys, "addaudithook")]

    def _cell_starts(self) -> None:
        self._calls.forget()
        if self._channel.listen() and self._channel.watched:
            self._watch.choose(self._channel.watched)

    def _tell(self, name: str, **arguments: str) -> None:
        message_id, certain = self._cells.where()
        self._channel.send("audit", native_id(), name, arguments, message_id, certain)

    def _run(self, name: str, path: Any, arguments: Any) -> None:
        self._tell(name, Path=text(path), CommandLine=command_line(arguments))

    def _connect(self, arguments: tuple[Any, ...]) -> None:
        address = arguments[1]
        if isinstance(address, tuple) and len(address) > 1:
            host = text(address[0], 256)
            name = "%s:%s" % ("[%s]" % host if ":" in host else host, text(address[1], 8))
            self._tell("socket.connect", Address=name, By=text(caller(carried=True), 64))
        elif isinstance(address, (str, bytes)) and not self._channel.is_own(text(address)):
            self._tell("socket.connect", UnixPath=text(address))

    def _open(self, arguments: tuple[Any, ...]) -> None:
        path = arguments[0]
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        whole = self._watch.resolve(path) if isinstance(path, str) else ""
        if whole:
            writes = arguments[2] & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC) if isinstance(arguments[2], int) else 0
            by = text(caller(carried=False), 64)
            self._tell("open", Path=text(whole, 4096), Access="write" if writes else "read", By=by)

    def _import(self, arguments: tuple[Any, ...]) -> None:
        if arguments[0].startswith("botocore."):
            self._attach_botocore()

    def _attach_botocore(self) -> None:
        """Ask botocore for its sessions as soon as its package is there, which is before it can make one."""
        if self._calls.attach(sys.modules.get("botocore")):
            self._handlers.pop("import", None)

    def _call(self, call: Call, request_id: str, via: str) -> None:
        message_id, certain = self._cells.where()
        self._channel.listen()
        told = [call.service, call.operation, call.region, call.host, call.resources, call.access_key, request_id, via]
        self._channel.send("api", native_id(), *told, message_id, certain)


def start(run_dir: str) -> str:
    """Report from this kernel to a folder's agent, now or when there is one; return what is wrong, "" for nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return "not a kernel"
    if LOADED in sys.modules:
        return "reports already"
    sys.modules[LOADED] = types.ModuleType(LOADED)
    Reports(run_dir, shell).start()
    return ""
