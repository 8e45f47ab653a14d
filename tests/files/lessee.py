"""This process in the agent's place towards a lessor: orders leases and keeps what it is told."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from guard.harness import Guard
from nbsentinel_guard import records, wire


class Named(NamedTuple):
    """One opener as the lessor told of it."""

    number: int
    pid: int
    tid: int
    way: str
    operation: str
    exe: str
    argv: tuple[str, ...]


class Lessee:
    """A connection with a lessor, or with a decoy."""

    def __init__(self, guard: Guard, kind: str = "lessor") -> None:
        self.named: list[Named] = []
        self.said: list[str] = []
        self._connection = wire.connect(str(guard.run_dir), 5)
        self._connection.send(kind.encode())
        message, _ = wire.receive(self._connection)
        word, pid = message.split()[:2]
        assert word == b"ok", message
        self.pid = int(pid)
        self._numbers = 0
        self._connection.settimeout(None)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                message, _ = wire.receive(self._connection)
            except OSError:
                return
            if not message:
                return
            word, _, rest = message.partition(b" ")
            if word in (b"named", b"down"):
                who, texts = records.read_told(rest)
                way, operation, exe = map(os.fsdecode, texts[:3])
                argv = tuple(map(os.fsdecode, texts[3].split(b"\0")[:-1]))
                self.named.append(Named(who.call, who.pid, who.tid, way, operation, exe, argv))
            else:
                self.said.append(os.fsdecode(message))

    def lease(self, path: Path, *, for_writers: bool = False) -> int:
        """Have a file leased, and wait until it is."""
        self._numbers += 1
        mode = b"w" if for_writers else b"r"
        self._connection.send(b"add %d %s %s" % (self._numbers, mode, os.fsencode(path)))
        state = f"state {self._numbers} "
        failed = f"failed {self._numbers} "
        assert self.wait(lambda: any(said.startswith((state, failed)) for said in list(self.said)))
        return self._numbers

    def ask(self, message: bytes) -> None:
        """Send a message."""
        self._connection.send(message)

    def by(self, *ways: str) -> list[Named]:
        """Return what was told in some ways."""
        return [one for one in list(self.named) if one.way in ways]

    def wait(self, condition: Callable[[], bool], seconds: float = 5.0) -> bool:
        """Wait until something holds; return whether it does."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def close(self) -> None:
        """Leave; the lessor ends."""
        self._connection.shutdown(2)
        self._connection.close()
        self._thread.join(5)


@contextmanager
def lessee(guard: Guard, kind: str = "lessor") -> Iterator[Lessee]:
    """Yield a connection and end it afterwards."""
    made = Lessee(guard, kind)
    try:
        yield made
    finally:
        made.close()
