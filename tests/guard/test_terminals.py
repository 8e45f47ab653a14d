"""Programs that a person uses in a terminal whose shell runs under the guard: keys, job control, sizes, full screens.

The same keys are typed with and without the guard, each after the program has said that it waits for it.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from guard.harness import Guard, guard
from nbsentinel_guard import abi

pytestmark = pytest.mark.skipif(abi.machine() is None, reason="no table of system calls for this machine")

PATIENCE_S = 45.0
SHELL = ("bash", "--norc", "--noprofile", "-i")
PROMPT = "ready> "
SLEEPS = "sh -c 'echo asl''eep; exec sleep 100'"
"""Says that it runs in a word that its own echo does not contain."""


class Session(msgspec.Struct, frozen=True):
    """What is typed into a terminal, and what must have come before each."""

    name: str
    steps: tuple[tuple[str, str], ...]
    """(what to wait for, what to type then)"""
    command: tuple[str, ...] = SHELL
    needs: str = ""


def in_shell(name: str, *steps: tuple[str, str] | str, needs: str = "") -> Session:
    """Return a session in bash: a text alone is typed at the prompt and ends with Enter."""
    full = [(PROMPT, step + "\r") if isinstance(step, str) else step for step in steps]
    return Session(name, (*full, (PROMPT, "exit 7\r")), needs=needs)


ASLEEP = "asleep"
HANG_UP = "hang up"
STOPPED = 'bash -c \'trap "echo con""tinued" CONT; echo asl""eep; while :; do sleep 0.05; done\''
"""Says as well when it goes on."""
CASES = (
    in_shell("commands", "echo $((6 * 7))", "no-such", "false || echo $?"),
    in_shell("interrupt", SLEEPS, (ASLEEP, "\x03"), "echo $?"),
    in_shell("quit", "ulimit -c 0; " + SLEEPS, (ASLEEP, "\x1c"), "echo $?"),
    in_shell("interrupt of a pipeline", f"{SLEEPS} | cat", (ASLEEP, "\x03"), "echo ${PIPESTATUS[*]}"),
    in_shell("interrupt of a builtin", "echo wa''its; read x", ("waits", "\x03"), "echo $?"),
    in_shell("interrupt at the prompt", (PROMPT, "half a line"), ("half a line", "\x03"), "echo $?"),
    in_shell(
        "interrupt of Python",
        f"{sys.executable} -c \"import time; print('asl' + 'eep', flush=True); time.sleep(100)\"",
        (ASLEEP, "\x03"),
        "echo $?",
    ),
    in_shell(
        "interrupt of a child of Python",
        f'{sys.executable} -Ic "import os; os.system(\'echo asl\\"\\"eep; exec sleep 100\')" 2>/dev/null',
        (ASLEEP, "\x03"),
        "echo $?",
    ),
    in_shell("stop and foreground", SLEEPS, (ASLEEP, "\x1a"), "jobs", "echo $?", "disown -a"),
    in_shell("stop and foreground again", STOPPED, (ASLEEP, "\x1a"), "fg", ("continued", "\x03"), "echo $?"),
    in_shell("stop and background", SLEEPS, (ASLEEP, "\x1a"), "bg", "jobs", "kill %1; wait %1", "echo $?"),
    in_shell("disown and end", "sleep 100 & disown", "kill $!", "jobs"),
    in_shell("end of input", "echo be''gins; cat", ("begins", "line\r"), ("line\r\nline\r\n", "\x04"), "echo $?"),
    in_shell("shell in a shell", "PS1='inn''er> ' bash --norc -i", ("inner> ", "exit 5\r"), "echo $?"),
    in_shell("size", "stty size", "stty rows 30 cols 90; stty size"),
    in_shell("terminal", "test -t 0 -a -t 1 -a -t 2; echo $?", "[ $(ps -o tty= -p $$) != '?' ]; echo $?"),
    in_shell(
        "leader of its session", "[ $(ps -o sid= -p $$) = $$ ]; echo $?", "[ $(ps -o tpgid= -p $$) != -1 ]; echo $?"
    ),
    in_shell("no echo", "read -s -p 'na''me? ' x", ("name? ", "hidden\r"), "echo got $x"),
    in_shell(
        "history and editing",
        "echo one",
        (PROMPT, "\x1b[A\x01\x05 two\r"),
        ("\r\none two\r\n" + PROMPT, "history | wc -l\r"),
    ),
    in_shell("broken pipe", "yes | head -1", "echo ${PIPESTATUS[*]}", "grep SigIgn /proc/self/status"),
    in_shell("time limit", "timeout 0.5 sleep 100", "echo $?", "timeout --foreground 0.5 cat", "echo $?"),
    in_shell("setsid", "setsid -w sh -c 'tty <&1 >/dev/null; exit 3'", "echo $?", needs="setsid"),
    in_shell("pager", "seq 500 | TERM=vt100 less -X", ("\n23", "q"), "echo $?", needs="less"),
    Session(
        "Python",
        (
            (">>> ", "1 + 1\r"),
            (">>> ", "import time; print('asl' 'eep'); time.sleep(100)\r"),
            (ASLEEP, "\x03"),
            (">>> ", "import os; os.system('exit 4') >> 8\r"),
            (">>> ", "exit(3)\r"),
        ),
        (sys.executable, "-I", "-q"),
    ),
    Session(
        "dash",
        ((PROMPT, "echo $((6*7))\r"), (PROMPT, SLEEPS + "\r"), (ASLEEP, "\x03"), (PROMPT, "exit 4\r")),
        ("dash", "-i"),
    ),
    Session(
        "zsh",
        ((PROMPT, SLEEPS + "\r"), (ASLEEP, "\x03"), (PROMPT, "echo $?\r"), (PROMPT, "exit 4\r")),
        ("zsh", "-f", "-i", "+Z"),
        "zsh",
    ),
    Session("node", (("> ", "6 * 7\r"), ("42\r\n> ", ".exit\r")), ("node", "-i"), "node"),
    Session(
        "interrupt of node",
        ((ASLEEP, "\x03"),),
        ("node", "-e", "console.log('asleep'); setInterval(() => {}, 1000)"),
        "node",
    ),
    Session(
        "interrupt of R", ((ASLEEP, "\x03"),), ("R", "--vanilla", "-s", "-e", "cat('asleep\n'); Sys.sleep(100)"), "R"
    ),
    Session("hang-up", ((PROMPT, SLEEPS + "\r"), (ASLEEP, HANG_UP)), SHELL),
    Session(
        "password", (("? ", "secret\r"),), ("sh", "-c", "stty -echo; printf '? '; read x; stty echo; echo $x; exit 3")
    ),
)


class Terminal:
    """A pseudo-terminal with a program in it."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(folder)
                # As terminals are: Python ignores these two.
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "LC_ALL": "C.UTF-8"}
                os.execvpe(
                    command[0],
                    command,
                    {**environment, "PS1": PROMPT, "HISTFILE": "/dev/null", "NODE_NO_READLINE": "1"},
                )
            finally:
                os._exit(127)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self.said = ""
        self._taken = 0

    def wait_for(self, text: str) -> None:
        """Wait until the program has said something that was not waited for before."""
        deadline = time.monotonic() + PATIENCE_S
        while (at := self.said.find(text, self._taken)) < 0:
            assert time.monotonic() < deadline, f"no {text!r} after {self.said!r}"
            assert self._read(0.2) is not None, f"it ended without {text!r}: {self.said!r}"
        self._taken = at + len(text)

    def _read(self, seconds: float) -> str | None:
        if not select.select([self._master], [], [], seconds)[0]:
            return ""
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return None
        self.said += data.decode(errors="backslashreplace")
        return self.said

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self._master)
        self._master = -1

    def end(self) -> int:
        """Wait until the program has ended; return its status."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self._master >= 0:
                self._read(0.05)
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.pid = 0
                while self._master >= 0 and self._read(0.2):
                    continue
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        raise AssertionError(f"it does not end: {self.said!r}")

    def close(self) -> None:
        """End what is left."""
        if self.pid:
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self._master >= 0:
            self.hang_up()


@contextmanager
def terminal(command: list[str], folder: Path) -> Iterator[Terminal]:
    found = Terminal(command, folder)
    try:
        yield found
    finally:
        found.close()


def play(session: Session, command: list[str], folder: Path) -> tuple[int, str]:
    """Type a session; return the exit code and what was said, without pids."""
    with terminal(command, folder) as found:
        for text, keys in session.steps:
            found.wait_for(text)
            if keys is HANG_UP:
                found.hang_up()
            else:
                if keys < " ":
                    # Between its last words and the call in which it waits a program may miss a signal (CPython does).
                    time.sleep(0.3)
                found.type(keys)
        code = found.end()
        return code, re.sub(r"(\[\d+\]|process group) \d+", r"\1 PID", found.said)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory):
    with guard(tmp_path_factory.mktemp("g") / "run") as found:
        yield found


@pytest.mark.parametrize("session", CASES, ids=lambda session: session.name)
def test_same_as_without(running: Guard, tmp_path: Path, session: Session) -> None:
    """What a terminal shows and how its program ends are the same, key for key."""
    if session.needs and not shutil.which(session.needs):
        pytest.skip(f"not installed: {session.needs}")
    plain = play(session, list(session.command), tmp_path)
    assert play(session, running.command(*session.command), tmp_path) == plain
