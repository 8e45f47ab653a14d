"""Start a command in a cage, look at its tree, and end it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from live.account import Account

_CAGE = Path(__file__).with_name("cage.py")
_POLL_S = 0.05


class Caged:
    """A running command with everything that it starts; a context manager that leaves nothing behind.

    Args:
        account: Whom it runs as.
        folder: Its working folder and HOME; made here.
        command: Program and arguments.
        environment: Variables beside those of the account.
        seconds: The longest life of the tree.
    """

    def __init__(
        self, account: Account, folder: Path, command: Sequence[str], environment: Mapping[str, str], seconds: float
    ) -> None:
        self.folder = folder
        self.started = time.time()
        caged = [*account.prefix, account.python, "-I", str(_CAGE), str(folder), str(seconds), *command]
        self._process = subprocess.Popen(
            caged,
            env=account.environment(folder, **environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(log := (folder / "cage-log").open("wb")),
        )
        log.close()

    def __enter__(self) -> Caged:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether anything of the tree is left."""
        return self._process.poll() is None

    def wait(self, seconds: float) -> int | None:
        """Wait for the command itself and return its exit code, None where it did not end in time."""
        deadline = time.monotonic() + seconds
        while (code := self.exit_code()) is None and self.running and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return self.exit_code() if code is None else code

    def exit_code(self) -> int | None:
        """Return the command's exit code (negative: the signal), None where it has not ended."""
        text = self._read("status")
        return int(text) if text else None

    def output(self) -> str:
        """Return what the command wrote, for messages."""
        return self._read("output") + self._read("cage-log")

    def pids(self) -> frozenset[int]:
        """Return all pids that were seen in the tree."""
        return frozenset(map(int, self._read("pids").split())) | {self._process.pid}

    def stop(self) -> None:
        """End the tree and wait until it is gone."""
        if self.running:
            self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(errors="replace")
        except FileNotFoundError:
            return ""
