"""`nbsentinel guard [--run-dir DIR] -- CMD...`: puts the filter on itself, hands the listener over, becomes CMD.

Whatever goes wrong, CMD runs: unguarded and with one line on standard error that says so. CMD gets the environment,
descriptors, signals and working folder that we were given, and keeps our pid.
"""

from __future__ import annotations

import errno
import os
import signal
import sys

from nbsentinel_guard import abi

TYPE_CHECKING = False  # the name is what type checkers look for; importing it costs milliseconds
if TYPE_CHECKING:
    import socket

ACKNOWLEDGE_S = 0.2
EXIT_USAGE, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND = 2, 126, 127
USAGE = "Usage: nbsentinel guard [--run-dir DIR] -- COMMAND [ARGUMENT...]"


def default_run_dir() -> str:
    """Return where the agent's sockets are unless told otherwise; the same answer as the agent's configuration."""
    import tempfile

    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.path.isdir(base):
        return os.path.join(base, "nbsentinel")
    return os.path.join(tempfile.gettempdir(), "nbsentinel-%d" % os.getuid())


def parse(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Return (run_dir or None, command).

    Raises:
        ValueError: No command, or an option we do not have.
    """
    run_dir = None
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "--":
            break
        name, equals, value = option.partition("=")
        if name != "--run-dir":
            raise ValueError(f"no such option: {option}")
        if not equals:
            if not rest:
                raise ValueError("--run-dir needs a folder")
            value = rest.pop(0)
        run_dir = value
    if not rest:
        raise ValueError("no command")
    return run_dir, rest


def guard_this_process(run_dir: str, flags: int = 0) -> str:
    """Put the filter on this process and hand the listener to the holder; return what to tell, "" when all is well.

    Raises:
        OSError: No holder answers, or the kernel refuses; nothing has changed then.
    """
    from nbsentinel_guard import wire

    machine = abi.machine()
    if machine is None:
        raise OSError(errno.ENOSYS, "no table of system calls for this machine")
    connection = wire.connect(run_dir, ACKNOWLEDGE_S)
    spare = Spare()
    try:
        listener, killable = _install(machine, flags)
        try:
            wire.send(connection, b"guard killable" if killable else b"guard", [listener])
            answer = connection.recv(16)
        except OSError:
            answer = b""
        if answer != b"ok":
            spare.take(listener)
        os.close(listener)
        if answer != b"ok":
            return "nobody took the listener over; what runs here is not watched"
        return "" if killable else "this kernel lacks WAIT_KILLABLE_RECV: connections are left to /proc"
    finally:
        spare.dismiss()
        connection.close()


def _install(machine: str, flags: int) -> tuple[int, bool]:
    """Install with all that the kernel has; return the listener and whether waiting callers can only be killed."""
    from nbsentinel_guard import filter as rules
    from nbsentinel_guard import seccomp

    wanted = flags | abi.FLAG_NEW_LISTENER | abi.FLAG_SPEC_ALLOW
    try:
        return seccomp.install(rules.build(machine), wanted | abi.FLAG_WAIT_KILLABLE_RECV), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return seccomp.install(rules.build(machine, trap_connect=False), wanted), False


class Spare:
    """A child from before the filter that takes the listener if nobody else does, and lets everything proceed.

    Without any holder each trapped call would fail for ever. It must not be under the filter itself: a listener hangs
    up when the last process under its filter is gone. Where it is not needed it is gone before the command runs.
    """

    def __init__(self) -> None:
        import socket

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
        from nbsentinel_guard import seccomp, wire

        _, descriptors = wire.receive(connection)
        # The command must not find a child that it did not start: a grandchild stays, which is nobody's.
        if not descriptors or os.fork():
            return
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
        os.waitpid(self._child, 0)


def original_environment() -> dict[bytes, bytes]:
    """Return the environment as we were given it: the interpreter may have changed its own copy (PEP 538)."""
    try:
        with open("/proc/self/environ", "rb") as file:
            block = file.read()
    except OSError:
        return dict(os.environb)
    pairs = (item.partition(b"=") for item in block.split(b"\0"))
    return {name: value for name, equals, value in pairs if equals}


def become(command: list[str]) -> int:
    """Execute a command in place of this process; return an exit code if that fails."""
    environment = original_environment()
    # The interpreter ignores these two; every program expects them as they are by default.
    for number in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", None)):
        if number is not None:
            signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        print(f"nbsentinel guard: {command[0]}: {error.strerror}", file=sys.stderr)
        return EXIT_NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else EXIT_NOT_EXECUTABLE


def main(arguments: list[str]) -> int:
    """Run the command line of `nbsentinel guard`; returns only where the command could not be executed."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    try:
        run_dir, command = parse(arguments)
    except ValueError as error:
        print(f"nbsentinel guard: {error}. {USAGE}", file=sys.stderr)
        return EXIT_USAGE
    try:
        told = guard_this_process(run_dir or default_run_dir())
    except OSError as error:
        # EBUSY: a guard above us has a listener, and sees what happens here.
        told = "" if error.errno == errno.EBUSY else "runs unguarded: %s" % (error.strerror or error)
    if told:
        print(f"nbsentinel guard: {told}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    return become(command)
