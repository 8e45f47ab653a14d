"""`nbsentinel guard [--run-dir DIR] -- CMD...`: puts the filter on itself, hands the listener over, becomes CMD.

Whatever goes wrong, CMD runs: unguarded and with one line on standard error that says so. CMD gets the environment,
descriptors, signals and working folder that we were given, and keeps our pid. A Python kernel finds one variable more,
and one that it puts back, at its start: see kernels.py.
"""

from __future__ import annotations

import errno
import os
import sys

from nbsentinel_guard import abi

TYPE_CHECKING = False  # the name is what type checkers look for; importing it costs milliseconds
if TYPE_CHECKING:
    import signal
    import socket
else:
    import _signal as signal  # all that is needed of these, without the milliseconds of the rest
    import _socket as socket

ACKNOWLEDGE_S = 0.5
EXIT_USAGE, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND = 2, 126, 127
KINDS = ("command", "kernel", "terminal", "server")
USAGE = """Usage: nbsentinel guard [--run-dir DIR] [--kind KIND] -- COMMAND [ARGUMENT...]
       nbsentinel guard [--run-dir DIR] --startup-file > /etc/ipython/startup/00-nbsentinel.py"""


class NotWantedError(Exception):
    """The settings in force leave this kind of command out."""


def default_run_dir() -> str:
    """Return where the agent's sockets are unless told otherwise: XDG_RUNTIME_DIR, or this user's folder under /tmp."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.path.isdir(base):
        return os.path.join(base, "nbsentinel")
    # As `tempfile.gettempdir` does, whose import costs as many milliseconds as all the rest of the launcher.
    named = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    for folder in (*named, "/tmp", "/var/tmp", "/usr/tmp"):  # noqa: S108 - a folder of ours, which is private, goes into it
        if folder and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            return os.path.join(os.path.abspath(folder), "nbsentinel-%d" % os.getuid())
    return os.path.join(os.getcwd(), "nbsentinel-%d" % os.getuid())


def parse(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return (options, command); options are `run-dir` and `kind`.

    Raises:
        ValueError: No command, or an option we do not have.
    """
    options = {"kind": "command"}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "--":
            break
        name, equals, value = option[2:].partition("=")
        if not option.startswith("--") or name not in ("run-dir", "kind"):
            raise ValueError(f"no such option: {option}")
        if not equals:
            if not rest:
                raise ValueError(f"--{name} needs a value")
            value = rest.pop(0)
        options[name] = value
    if options["kind"] not in KINDS:
        raise ValueError(f"--kind is one of {', '.join(KINDS)}")
    if not rest:
        raise ValueError("no command")
    return options, rest


def settings(connection: socket.socket) -> dict[str, str]:
    """Ask the holder what is wanted: `connect` (auto, on, off), `terminals`, `server` (0, 1).

    Raises:
        OSError: No answer in time, or one that we do not understand.
    """
    connection.send(b"hello")
    words = connection.recv(256).decode("ascii", "replace").split(" ")
    if words[0] != "settings":
        raise OSError(errno.EPROTO, "the guard speaks another version")
    return {name: value for name, _, value in (word.partition("=") for word in words[1:])}


def guard_this_process(run_dir: str, kind: str = "command", *, flags: int = 0) -> str:
    """Put the filter on this process and hand the listener to the holder; return what to tell, "" when all is well.

    Args:
        run_dir: Folder of the holder's socket.
        kind: What this process is, for whoever reads of it.
        flags: 0 for a process of one thread that will execute its command; `abi.FLAG_TSYNC | abi.FLAG_TSYNC_ESRCH`
            for one that goes on as it is, with all its threads.

    Raises:
        OSError: No holder answers, or the kernel refuses; nothing has changed then.
        NotWantedError: This kind is not to be guarded.
    """
    from nbsentinel_guard import wire

    machine = abi.machine()
    if machine is None:
        raise OSError(errno.ENOSYS, "no table of system calls for this machine")
    connection = wire.connect(run_dir, ACKNOWLEDGE_S)
    try:
        wanted = settings(connection)
        stays = flags & abi.FLAG_TSYNC
        if kind == "terminal" and wanted.get("terminals") == "0":
            raise NotWantedError
        if kind == "server" and stays and wanted.get("server") == "0":
            raise NotWantedError  # the launcher is told by whoever calls it; the extension is always there
        spare = None if stays else Spare()
        try:
            listener, features = _install(machine, flags, wanted.get("connect", "auto"))
            taken, features = _enter(connection, listener, kind, "self" if stays else "launcher", features)
            if not taken:
                _leave_to(spare, listener)
                return "nobody took the listener over; what runs here is not watched"
            os.close(listener)
            _let_read(connection)
        finally:
            if spare is not None:
                spare.dismiss()
    finally:
        connection.close()
    return "" if "connect=1" in features or wanted.get("connect") == "off" else NO_CONNECT


NO_CONNECT = "this kernel lacks WAIT_KILLABLE_RECV: connections are left to /proc"


def _enter(connection: socket.socket, listener: int, kind: str, way: str, features: str) -> tuple[bool, str]:
    """Hand the listener over; return whether somebody has it, and the features in use.

    The filter is in force already: what fails here must not reach our caller, whose calls would wait for nobody.
    """
    try:
        if kind == "server":
            from nbsentinel_guard import landlock

            features += " landlock=%d" % landlock.scope_signals()
        return _hand_over(connection, listener, "kind=%s way=%s %s" % (kind, way, features)), features
    except Exception:  # noqa: BLE001 - see above
        return False, features


def _let_read(connection: socket.socket) -> None:
    """Let whoever holds the listener, and the supervisor below it, read the addresses that we connect to."""
    from nbsentinel_guard import seccomp, wire

    try:
        seccomp.let_read(wire.peer(connection)[0])
    except OSError:
        pass  # then they are looked up


def _leave_to(spare: Spare | None, listener: int) -> None:
    """Let somebody answer who only lets calls proceed: the spare from before the filter, else a child of ours."""
    if spare is not None:
        try:
            spare.take(listener)
        except OSError:
            pass
        else:
            os.close(listener)
            return
    _answer_beside(listener)


def _hand_over(connection: socket.socket, listener: int, told: str) -> bool:
    from nbsentinel_guard import wire

    try:
        wire.send(connection, b"guard " + told.encode(), [listener])
        return connection.recv(16) == b"ok"
    except OSError:
        return False


def _install(machine: str, flags: int, connect: str) -> tuple[int, str]:
    """Install with all that the kernel has; return the listener and which features it uses.

    Without WAIT_KILLABLE_RECV (before 5.19) any signal can interrupt a caller that waits for us, and callers of connect
    take that for success: there connections are trapped only where the settings insist.
    """
    from nbsentinel_guard import filter as rules
    from nbsentinel_guard import seccomp

    base = flags | abi.FLAG_NEW_LISTENER
    tried = (
        (abi.FLAG_SPEC_ALLOW | abi.FLAG_WAIT_KILLABLE_RECV, connect != "off"),
        (abi.FLAG_SPEC_ALLOW, connect == "on"),
    )
    for wanted, traps in tried:
        try:
            listener = seccomp.install(rules.build(machine, trap_connect=traps), base | wanted)
        except OSError as error:
            if error.errno != errno.EINVAL or wanted == tried[-1][0]:
                raise
        else:
            killable = bool(wanted & abi.FLAG_WAIT_KILLABLE_RECV)
            return listener, "killable=%d spec=1 connect=%d" % (killable, traps)
    raise AssertionError("the last try returns or raises")


def _answer_beside(listener: int) -> None:
    """Answer from a child of this process, which stays: without any holder each trapped call would fail for ever.

    A thread of ours could not: while we start a program the interpreter's lock is held until its execve is answered.
    """
    import warnings

    from nbsentinel_guard import seccomp

    parent = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads: the child uses none of them
        if os.fork():
            os.close(listener)
            return
    try:
        seccomp.answer_forever(listener, parent)
    finally:
        os._exit(0)


class Spare:
    """A child from before the filter that takes the listener if nobody else does, and lets everything proceed.

    Without any holder each trapped call would fail for ever. It must not be under the filter itself: a listener hangs
    up when the last process under its filter is gone. Where it is not needed it is gone before the command runs.
    """

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = os.fork()
        if self._child == 0:
            try:
                self._ours.close()
                self._wait(theirs)
            finally:
                os._exit(0)
        theirs.close()

    @staticmethod
    def _wait(connection: socket.socket) -> None:
        from nbsentinel_guard import wire

        _, descriptors = wire.receive(connection)
        # The command must not find a child that it did not start: a grandchild stays, which is nobody's.
        if not descriptors or os.fork():
            return
        from nbsentinel_guard import seccomp

        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        connection.close()
        seccomp.answer_forever(descriptors[0])

    def take(self, listener: int) -> None:
        """Hand the listener to the child."""
        from nbsentinel_guard import wire

        wire.send(self._ours, b"take", [listener])

    def dismiss(self) -> None:
        """Close the way to the child and wait for it."""
        self._ours.close()
        try:
            os.waitpid(self._child, 0)
        except ChildProcessError:
            pass  # whoever started us ignores SIGCHLD, so the kernel has waited for it


def _say(line: str) -> None:
    """Write a line to standard error, if there is one."""
    try:
        os.write(2, f"nbsentinel guard: {line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def original_environment() -> list[bytes] | None:
    """Return the environment as we were given it, entry by entry, or None where it cannot be read.

    The interpreter may have changed its own copy (PEP 538), and cannot hold entries without a name, without a value or
    with the same name.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            block = file.read()
    except OSError:
        return None
    return block.split(b"\0")[:-1]


def _of_kernel(command: list[str], environment: list[bytes], run_dir: str) -> list[bytes]:
    """Return what a kernel needs to report; whatever is broken here, it starts as ever."""
    try:
        from nbsentinel_guard import kernels

        return kernels.environment(environment, run_dir) if kernels.starts_kernel(command) else environment
    except Exception:  # noqa: BLE001 - see above
        return environment


def become(command: list[str], run_dir: str) -> int:
    """Execute a command in place of this process; return an exit code if that fails.

    Args:
        command: Program and arguments.
        run_dir: Where a kernel is to report.
    """
    # The interpreter ignores these two; every program expects them as they are by default.
    for number in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", None)):
        if number is not None:
            signal.signal(number, signal.SIG_DFL)
    environment = original_environment()
    if environment is not None and "ipykernel" in " ".join(command):
        environment = _of_kernel(command, environment, run_dir)
    try:
        if environment is None:
            os.execvp(command[0], command)
        elif _is_plain(environment):
            os.execvpe(
                command[0], command, {name: value for name, _, value in (e.partition(b"=") for e in environment)}
            )
        else:
            _execute(command, environment)
    except OSError as error:
        _say(f"{command[0]}: {error.strerror}")
        return EXIT_NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else EXIT_NOT_EXECUTABLE
    return EXIT_NOT_EXECUTABLE


def _is_plain(environment: list[bytes]) -> bool:
    """Return whether a dictionary holds the environment as it is."""
    names = [entry.partition(b"=")[0] for entry in environment]
    return all(names) and all(b"=" in entry for entry in environment) and len(set(names)) == len(names)


def _execute(command: list[str], environment: list[bytes]) -> None:
    """Execute with an environment that the interpreter cannot express, through the C library.

    Raises:
        OSError: As execvp does.
    """
    import ctypes

    from nbsentinel_guard.seccomp import _libc

    arguments = [os.fsencode(argument) for argument in command]
    argv = (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None)
    envp = (ctypes.c_char_p * (len(environment) + 1))(*environment, None)
    _libc.execvpe(arguments[0], argv, envp)
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def print_startup_file(arguments: list[str]) -> int:
    """Print the IPython startup file with which kernels guard themselves."""
    from nbsentinel_kernel.startup import startup_file

    options, _ = parse([*arguments, "--", "true"])
    print(startup_file(options.get("run-dir") or default_run_dir()), end="")
    return 0


def main(arguments: list[str]) -> int:
    """Run the command line of `nbsentinel guard`; returns only where the command could not be executed."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if "--startup-file" in arguments[:3]:
        return print_startup_file([argument for argument in arguments if argument != "--startup-file"])
    try:
        options, command = parse(arguments)
    except ValueError as error:
        print(f"nbsentinel guard: {error}\n{USAGE}", file=sys.stderr)
        return EXIT_USAGE
    told, run_dir = "", options.get("run-dir") or default_run_dir()
    try:
        told = guard_this_process(run_dir, options["kind"])
    except NotWantedError:
        pass
    except OSError as error:
        # EBUSY: a guard above us has a listener, and sees what happens here.
        told = "" if error.errno == errno.EBUSY else "runs unguarded: %s" % (error.strerror or error)
    except Exception as error:  # noqa: BLE001 - whatever is broken here, the command runs
        told = f"runs unguarded: {type(error).__name__}: {error}"
    if told:
        _say(told)
    return become(command, run_dir)
