"""A guard of its own for a test: the holder, and this process in the agent's place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nbsentinel_guard
from nbsentinel_guard import evidence, records, seccomp
from nbsentinel_guard.client import Client
from support.waiting import wait_until

PROGRAM = str(Path(nbsentinel_guard.__file__).with_name("__main__.py"))
Event = dict[str, Any]
LOOP = textwrap.dedent(
    """
    import errno, os, socket, sys, time
    sys.stdout.write("ready\\n"); sys.stdout.flush()
    end = time.monotonic() + float(sys.argv[1])
    worst = 0.0; done = bad = 0
    while time.monotonic() < end:
        started = time.monotonic()
        if done % 4 == 0:
            pid = os.posix_spawn("/bin/true", ["true"], {})
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0: bad += 1
        s = socket.socket()
        try:
            s.connect(("127.0.0.1", 1))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED: bad += 1
        else:
            bad += 1
        s.close()
        worst = max(worst, time.monotonic() - started); done += 1
    print(done, bad, worst)
    """
)
"""Connects and executes for some seconds; prints how often, how many went wrong, and the longest turn."""


def _who(who: records.Who) -> Event:
    return {"at": who.at, "tid": who.tid, "pid": who.pid, "start": who.start, "call": who.call}


def _exec(payload: bytes) -> Event:
    image = records.read_image(payload)
    texts = {name: os.fsdecode(getattr(image, name)) for name in ("name", "exe", "cwd", "preloads", "attempted")}
    texts.update((f"fd{number}", os.fsdecode(stream)) for number, stream in enumerate(image.streams))
    flags = {"held": bool(image.flags & records.HELD), "unreadable": bool(image.flags & records.UNREADABLE)}
    parent = {"ppid": image.parent, "pstart": image.parent_start}
    return {"kind": "exec", **_who(image.who), **texts, **flags, **parent, "argv": os.fsdecode(image.argv)}


def _connect(payload: bytes) -> Event:
    record = records.read_connect(payload)
    event = {"kind": "connect", **_who(record.who), "inode": record.inode, "way": record.way, "claim": record.claim}
    remote = evidence.endpoint(record.claim)
    return {**event, "ip": remote[0], "port": remote[1]} if remote else event


def _attempt(payload: bytes) -> Event:
    who, (path, *streams) = records.read_told(payload)
    return {"kind": "attempt", **_who(who), "path": os.fsdecode(path), "streams": [os.fsdecode(s) for s in streams]}


def _call(payload: bytes) -> Event:
    who, (name, refused, *pairs) = records.read_told(payload)
    told = {os.fsdecode(k): os.fsdecode(v) for k, v in zip(pairs[::2], pairs[1::2], strict=True)}
    kind = "refused" if refused == b"1" else "call"
    return {"kind": kind, **_who(who), "name": os.fsdecode(name), **told}


def _texts(kind: str, *names: str) -> Callable[[bytes], Event]:
    def read(payload: bytes) -> Event:
        who, texts = records.read_told(payload)
        return {"kind": kind, **_who(who), **dict(zip(names, map(os.fsdecode, texts), strict=False))}

    return read


READERS: dict[int, Callable[[bytes], Event]] = {
    records.IMAGE: _exec,
    records.CONNECT: _connect,
    records.ATTEMPT: _attempt,
    records.CALL: _call,
    records.NAME: _texts("name", "name"),
    records.HIDDEN: _texts("hidden", "exe", "fd0", "fd1", "fd2"),
    records.NOTICE: _texts("notice", "what", "why"),
    records.FORK: _texts("fork", "ppid", "pstart"),
}


class Guard:
    """A running guard and what it has told so far."""

    def __init__(self, run_dir: Path, *options: str, program: Sequence[str] = (PROGRAM, "hold")) -> None:
        run_dir.mkdir(mode=0o700, exist_ok=True)
        self.run_dir = run_dir
        self.events: list[Event] = []
        command = [sys.executable, "-I", "-S", *program, str(run_dir), *options]
        self.holder = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.holder.stdout is not None
        with self.holder.stdout:
            assert self.holder.stdout.readline() == b"ready\n"
        self.delay = 0.0
        self._end = threading.Event()
        self.join()

    def join(self, settings: str = "connect=auto terminals=1 server=0") -> None:
        """Take the agent's place."""
        self._end.clear()
        self.client = Client(str(self.run_dir), settings)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._end.is_set():
            self.client.wait(0.1)
            for _, kind, index, payload in self.client.read():
                self._understand(kind, index, payload)
            self.client.settle(self.client.cursors)

    def _understand(self, kind: int, index: int, payload: bytes) -> None:
        event = READERS[kind](payload)
        self.events.append(event)
        if event.get("held"):
            time.sleep(self.delay)
            listener = self.client.care.listeners.get(index)
            if listener is not None:
                seccomp.let_go(listener[0], event["call"])

    def command(self, *command: str) -> list[str]:
        """Return a command as it is run under this guard."""
        return [sys.executable, "-I", "-S", PROGRAM, "--run-dir", str(self.run_dir), "--", *command]

    def supervisor(self) -> int:
        """Return the supervisor's pid: the holder's only child."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children").read_text().split()
            if children:
                return int(children[0])
            time.sleep(0.005)
        raise AssertionError("no supervisor")

    def of_kind(self, kind: str) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in list(self.events) if event["kind"] == kind]

    def wait(self, condition: Callable[[], bool], seconds: float = 5.0) -> bool:
        """Wait until something holds; return whether it does."""
        return wait_until(condition, seconds)

    def settings(self, settings: str) -> None:
        """Join again with other settings."""
        self.leave()
        self.join(settings)

    def leave(self) -> None:
        """End the connection as an agent's death does."""
        if not self._end.is_set():
            self._end.set()
            self._thread.join(5)
            self.client.close()

    def abandon(self) -> None:
        """Leave a guard whose holder is dead, and end what is left of it."""
        supervisor = self.client.page.who(1)
        self.leave()
        self.holder.kill()
        self.holder.wait()
        with suppress(OSError):
            if supervisor and "hold" in Path(f"/proc/{supervisor}/cmdline").read_text():
                os.kill(supervisor, signal.SIGKILL)

    def close(self) -> int:
        """Leave, and return the holder's exit code: it ends when nothing guarded is left."""
        self.leave()
        try:
            code = self.holder.wait(15)
        except subprocess.TimeoutExpired:
            self.holder.kill()
            return self.holder.wait()
        assert self.wait(lambda: not self._left()), "the supervisor outlives its holder"
        return code

    def _left(self) -> list[str]:
        """Return who still runs for this folder."""
        found = []
        for name in os.listdir("/proc"):
            with suppress(OSError):
                command = Path("/proc", name, "cmdline").read_bytes() if name.isdigit() else b""
                if b"\0" + os.fsencode(self.run_dir) in command and b"\0--\0" not in command:
                    found.append(name)
        return found


@contextmanager
def guard(run_dir: Path, *options: str) -> Iterator[Guard]:
    """Run a guard for the time of a test; afterwards it must have ended by itself."""
    running = Guard(run_dir, *options)
    try:
        yield running
    finally:
        code = running.close()
    assert code == 0
