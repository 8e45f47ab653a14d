"""Runs a program with and without the guard, so that the two can be compared."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec

from guard.harness import Guard
from guard.programs.case import Case


class Outcome(msgspec.Struct, frozen=True):
    """What a program leaves behind for whoever started it."""

    code: int
    output: str
    errors: str


class Workshop:
    """Where cases run: each in a fresh folder that has the same name both times.

    Args:
        folder: A folder of this test alone.
        cache: A folder of the session, for what compilers keep.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self._made, self._work, self._home = folder / "made", folder / "work", folder / "home"
        self._made.mkdir()
        self._home.mkdir()
        self.environment = {
            **os.environ,
            "HOME": str(self._home),
            "TMPDIR": str(self._home),
            "GOCACHE": str(cache / "go"),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "PIP_CONFIG_FILE": os.devnull,
            "MADE": str(self._made),
        }

    def prepare(self, case: Case) -> None:
        """Write and build what the case runs."""
        if case.source:
            name, text = case.source
            (self._made / name).write_text(text)
        if case.build:
            built = subprocess.run(
                case.build, cwd=self._made, env=self.environment, capture_output=True, text=True, timeout=120
            )
            assert built.returncode == 0, f"{case.name} does not build: {built.stderr}"

    def run(self, case: Case, running: Guard | None) -> Outcome:
        """Run it, under a guard or without."""
        for folder in (self._work, self._home):
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir()
        command = running.command(*case.command) if running else case.command
        return outcome([*case.before, *command], self._work, self.environment, case.seconds).without(case.varies)


def outcome(command: list[str], folder: Path, environment: dict[str, str], seconds: float) -> _Raw:
    """Run a command in a session of its own until it ends."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        errors += f"\nended after {seconds:.0f} s".encode()
    return _Raw(process.returncode, output, errors)


class _Raw(msgspec.Struct, frozen=True):
    code: int
    output: bytes
    errors: bytes

    def without(self, varies: tuple[tuple[str, str], ...] = ()) -> Outcome:
        """Return it as text, without what varies."""
        texts = []
        for data in (self.output, self.errors):
            text = data.decode(errors="backslashreplace")
            for pattern, instead in varies:
                text = re.sub(pattern, instead, text)
            texts.append(text)
        return Outcome(self.code, *texts)


def missing(case: Case) -> list[str]:
    """Return the programs that a case needs and this machine lacks."""
    return [name for name in case.needs if not shutil.which(name)]
