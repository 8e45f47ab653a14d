"""The agent's connection with the guard's holder: joins or starts it, replaces and resumes it, and fills in for it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable

from nbsentinel.events import Observation, Tamper, TamperKind
from nbsentinel.sensors.guard.translate import NAME, ROLES
from nbsentinel.sensors.procfs.sensor import now_ms
from nbsentinel.text import visible
from nbsentinel_guard import client, proc

RESUME_S = 1.0
NO_MEMORY = "NBSENTINEL_TEST_NO_MEMORY"
"""Set in tests: behave as on a machine that lets nobody read callers' memory (Yama)."""


class Link:
    """One connection after another; used by the sensor's thread alone.

    Args:
        run_dir: Folder of the guard's socket.
        settings: What launchers are told.
        keeper: The agent's parent, which is protected too; 0 for none.
        notice: Takes a line for the operator.
        emit: Takes what is found of meddling.
    """

    def __init__(
        self,
        run_dir: str,
        settings: str,
        keeper: int,
        notice: Callable[[str], None],
        emit: Callable[[Observation], bool],
    ) -> None:
        self._run_dir, self._settings, self._keeper = run_dir, settings, keeper
        self._notice, self._emit = notice, emit
        self._resumed_at = 0.0
        self.client: client.Client | None = None
        self.failure = "not started"
        """Why there is no connection; empty while there is one."""

    def join(self) -> bool:
        """Join the guard that runs, or start one; return whether there is a connection now."""
        try:
            try:
                self.client = self._attach()
            except client.RefusedError:
                raise
            except OSError:
                self._launch(lambda: None)
                self.client = self._attach()
        except (OSError, subprocess.SubprocessError) as error:
            self.failure = f"the guard cannot be reached: {error}"
            return False
        self.failure = ""
        return True

    def _attach(self) -> client.Client:
        return client.Client(self._run_dir, self._settings, keeper=self._keeper, notice=self._answered_here)

    def _answered_here(self, what: bytes, why: bytes) -> None:
        self._notice(f"The guard: {visible(what)}: {visible(why)} (answered by the agent)")

    def _launch(self, meanwhile: Callable[[], None]) -> None:
        options = ("--no-memory",) if os.environ.get(NO_MEMORY) else ()
        holder = client.start_holder(self._run_dir, meanwhile, *options)
        threading.Thread(target=holder.wait, name="guard holder", daemon=True).start()

    def listener(self, index: int) -> tuple[int, bytes]:
        """Return descriptor and description of a listener, (-1, b"") where it is gone."""
        return self.client.care.listeners.get(index, (-1, b"")) if self.client is not None else (-1, b"")

    def roles(self) -> dict[int, str]:
        """Return what each of our processes is that nothing guarded may touch."""
        page = self.client.page if self.client is not None else None
        return {page.who(role): name for role, name in enumerate(ROLES)} if page is not None else {}

    def tend(self, *, silent: bool) -> None:
        """Replace a holder that is gone; resume one that is stopped, and look after its callers meanwhile.

        Args:
            silent: Whether the holder has not looked after callers for a while.
        """
        guard = self.client
        if guard is None:
            return
        if guard.lost:
            self._replace(guard)
        elif silent:
            guard.look_after_callers()
            self._resume(guard)

    def _replace(self, lost: client.Client) -> None:
        """Start the next holder and give it everything; its own notice makes the finding."""
        self.failure = "its process ended and is being replaced"
        # What was read is with the pipeline: the next holder need not tell of it again.
        lost.settle(lost.cursors)
        try:
            self.client = client.replace_holder(lost, self._launch, self._attach)
        except (OSError, subprocess.SubprocessError) as error:
            self.failure = f"its process ended and cannot be replaced: {error}"
            lost.look_after_callers()
            return
        self.failure = ""
        lost.close()

    def _resume(self, guard: client.Client) -> None:
        place = proc.stat_fields(guard.holder)
        if place is None or place[1][0] not in (b"T", b"t") or time.monotonic() - self._resumed_at < RESUME_S:
            return
        self._resumed_at = time.monotonic()
        os.kill(guard.holder, signal.SIGCONT)
        detail = "the holder was stopped by a signal and resumed"
        self._emit(Tamper(at=now_ms(), kind=TamperKind.STOPPED, target="holder", detail=detail, source=NAME))

    def leave(self) -> None:
        """Close the connection; the guard itself stays for as long as anything guarded runs."""
        if self.client is not None:
            self.client.close()
            self.client = None
