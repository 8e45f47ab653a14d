"""The keeper: the small clean parent that starts the agent, resumes it, and starts it again.

It forks before anything large is imported and lives on what the interpreter itself brings. It opens nothing, reads
nothing but the kernel's own answers, and has no name to be reached by: what an attacker does to the agent ends with
that process, and the next one begins with the limits that the keeper began with.

    keeper ── fork ──▶ agent            killed with the keeper (PR_SET_PDEATHSIG)
      │  ── pipe, one packet a fact ──▶  "stopped 19 1", "ended ...", "stop 15 4711 1000"
      └─ shared memory ────────────────  what one agent leaves to the next; never looked into here
"""

from __future__ import annotations

import os
import signal
import sys
import time

from nbsentinel import harden
from nbsentinel.protect import standing
from nbsentinel.protect.estate import Estate

RESTART = 75
"""Exit code of an agent that wants to begin anew with clean limits (EX_TEMPFAIL of sysexits.h)."""
RESTART_EVERY_S = 60.0
"""An agent that wants that more often is started like one that crashed."""
LONGEST_PAUSE_S = 60.0
GOOD_LIFE_S = 300.0
"""An agent that lived for so long begins with the shortest pause again."""
RETRY_S = 1.0
FOR_EVER_S = 86_400.0
_STOPS = (signal.SIGTERM, signal.SIGINT)
_WATCHED = (*_STOPS, signal.SIGCHLD)
PACKET = 256


class Bond:
    """What connects an agent with its keeper: made in each new agent.

    Args:
        keeper: The keeper's pid.
        told: The reading end of its pipe.
        estate: Memory shared with the agents before and after this one.
        allowed: What the kernel allowed the keeper when it began.
    """

    def __init__(self, keeper: int, told: int, estate: Estate, allowed: standing.Standing) -> None:
        self.keeper, self.estate, self.allowed = keeper, estate, allowed
        self._told = told

    def facts(self) -> list[list[str]]:
        """Return what the keeper told since the last call, each fact as its words."""
        found: list[list[str]] = []
        while True:
            try:
                packet = os.read(self._told, PACKET)
            except BlockingIOError:
                return found
            if not packet:
                return found
            found.append(packet.decode("ascii", "replace").split())


def pause_after(failures: int) -> float:
    """Return how long to wait before the next start, after so many failures in a row; pure."""
    return min(LONGEST_PAUSE_S, float(1 << min(failures - 1, 10))) if failures else 0.0


def keep() -> Bond:
    """Start the agent and look after it: returns in every agent, and ends with SystemExit in the keeper."""
    return Keeper().run()


class Keeper:
    """The loop. Every signal it cares for is blocked and waited for, so nothing happens at a bad moment."""

    def __init__(self) -> None:
        harden.forbid_dumps()
        self._allowed = standing.read(os.getpid())
        self._estate = Estate()
        # One packet a message; both ends stay open here, so that what no agent read is there for the next.
        self._told, self._tell_end = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
        self._unsent: dict[str, int] = {}
        self._stopping = False
        self._failures = 0
        self._restarted = -RESTART_EVERY_S

    def run(self) -> Bond:
        """Keep an agent running until told to stop.

        Raises:
            SystemExit: In the keeper alone: it was told to stop, or the agent ended for good.
        """
        harden.ignore_signals(but=tuple(_WATCHED))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some launchers leave it, it would hide the end
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        own = os.getpid()
        while True:
            began = time.monotonic()
            try:
                pid = os.fork()
            except OSError:  # no process or memory to be had now
                self._wait_before_next("fork refused", began)
                if self._stopping:
                    sys.exit(1)
                continue
            if pid == 0:
                return self._become_agent(own)
            status = self._look_after(pid)
            if os.WIFSIGNALED(status):
                code, how = 128 + os.WTERMSIG(status), f"signal {os.WTERMSIG(status)}"
            else:
                code, how = os.WEXITSTATUS(status), f"exit {os.WEXITSTATUS(status)}"
            # Until it has begun once, an error is the operator's to mend: it is on standard error already.
            if self._stopping or code == 0 or (os.WIFEXITED(status) and not self._estate.used):
                sys.exit(code)
            self._tell(f"ended {how}")
            self._wait_before_next(how, began)
            if self._stopping:
                sys.exit(code)

    def _become_agent(self, keeper: int) -> Bond:
        harden.die_with(keeper)
        os.close(self._tell_end)
        os.setsid()  # a terminal's Ctrl-C is for the keeper, which passes it on
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        standing.mend(os.getpid(), self._allowed)
        return Bond(keeper, self._told, self._estate, self._allowed)

    def _look_after(self, pid: int) -> int:
        """Return the agent's wait status once it has ended; resume it whenever it is stopped."""
        while True:
            caught = signal.sigtimedwait(_WATCHED, RETRY_S if self._unsent else FOR_EVER_S)
            if caught is not None and caught.si_signo in _STOPS:
                self._stop(caught)
                os.kill(pid, signal.SIGTERM)
            while True:
                found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
                if found == 0:
                    break
                if not os.WIFSTOPPED(status):
                    return status
                os.kill(pid, signal.SIGCONT)
                self._tell(f"stopped {os.WSTOPSIG(status)}")
            self._send()

    def _stop(self, caught: signal.struct_siginfo) -> None:
        self._stopping = True
        self._tell(f"stop {caught.si_signo} {caught.si_pid} {caught.si_uid}")

    def _wait_before_next(self, how: str, began: float) -> None:
        """Wait as long as it takes before the next start; ends early when told to stop."""
        now = time.monotonic()
        if how == f"exit {RESTART}" and now - self._restarted >= RESTART_EVERY_S:
            self._restarted = now
            return
        self._failures = 1 if now - began >= GOOD_LIFE_S else self._failures + 1
        until = now + pause_after(self._failures)
        _log(f"the agent ended ({how}) and is started again", until - now)
        while not self._stopping and (left := until - time.monotonic()) > 0:
            caught = signal.sigtimedwait(_STOPS, left)
            if caught is not None:
                self._stop(caught)

    def _tell(self, fact: str) -> None:
        """Send a fact with the number of times it happened; keep it where the pipe is full."""
        self._unsent[fact] = self._unsent.get(fact, 0) + 1
        self._send()

    def _send(self) -> None:
        for fact, count in list(self._unsent.items()):
            try:
                os.write(self._tell_end, b"%s %d" % (fact.encode(), count))
            except OSError:
                return
            del self._unsent[fact]


def _log(event: str, pause: float) -> None:
    """Write a line like the agent's own; the words are ours alone, so they need no escaping."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = f'{{"event": "{event}", "level": "warning", "pause_s": {pause:.0f}, "timestamp": "{stamp}"}}\n'
    try:
        os.write(2, line.encode())
    except OSError:
        return
