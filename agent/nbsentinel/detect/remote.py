"""Judging processes for remote control: whom to look at, when to look again, and when a path is evidence enough.

A path through relays is a possibility. It counts once it was seen twice `CONFIRM_MS` apart (a cell that hands a script
to a shell closes the pipe within milliseconds), and once bytes moved on the remote socket since the process started (a
program with an idle connection may well drive a shell of its own). The kernel counts a new connection as movement.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

import msgspec

from nbsentinel.context.objects import End, Family, ObjectKind, ObjectView, Socket
from nbsentinel.context.processes import ProcessTable
from nbsentinel.detect import dataflow
from nbsentinel.detect.interpreters import Interpreter, InterpreterInput, InterpreterKind, classify
from nbsentinel.events import Confidence, Inode, Process, ProcessKey

CONFIRM_MS = 100
CLOCK_SLACK_MS = 20
"""Start times come in ticks of 10 ms, the age of the last byte in jiffies of up to 10 ms: an answer within the first
moments of a shell must not look older than the shell."""
_SCHEDULE_MS = (0, CONFIRM_MS, 250, 450, 800, 1300, 2000, 3000)
_ARGUMENT_SCHEDULE_MS = (300, 450, 800, 1300, 2000, 3000)
"""Shells with -c or a script come and go by the thousand in a build; only those that stay are looked at."""
_LATER_MS = 2_000
_MUCH_LATER_MS = 10_000
_LATER_UNTIL_MS = 60_000
SUBJECT_LIMIT = 2_000
"""Processes under judgement at once; beyond it the newest are not taken and `untaken` counts them."""
_QUIET_STREAMS = ("/dev/null", None)
_STREAM_KINDS = (ObjectKind.PIPE, ObjectKind.FIFO, ObjectKind.SOCKET)
ANSWERED_MS = 200
"""The same where the socket has carried bytes both ways already, and the last were the script's own."""
FIRST_SCRIPT_FD = 3
CONNECTED_MS = 30
"""A call to connect is told of while it waits; by then it has come to an end."""
ONE_WAY_MS = 1000
"""A script that waits this long for a line from a remote socket waits for orders, not for a reply."""


class Verdict(msgspec.Struct, frozen=True):
    """A process that a remote peer controls, as far as can be told."""

    process: Process
    interpreter: Interpreter
    flow: dataflow.Flow
    one_way: bool
    """The peer feeds it, but its standard output goes elsewhere: it answers through another descriptor, if at all."""
    active: bool | None
    """Whether bytes moved on the remote socket since the process started; None where the kernel does not tell."""
    confidence: Confidence


class _Subject(msgspec.Struct):
    key: ProcessKey
    since: int
    """When its present image was first seen, in milliseconds of the engine's clock."""
    interpreter: Interpreter
    schedule: tuple[int, ...]
    step: int = 0
    due: int = 0
    again: int = 0
    """When to look again because somebody was connecting at the last look."""
    first_path: int | None = None
    """When a path was first seen in an unbroken row of looks."""
    read_input: bool = False
    touched: frozenset[ProcessKey] = frozenset()
    done: bool = False


class RemoteControl:
    """Keeps the processes that might be remotely controlled and judges them when they are due. No clock of its own.

    Args:
        table: The process table.
        policy: What is remote, what is trusted.
        initiated: Tells whether this machine opened a connection; None where that is not known.
    """

    def __init__(
        self, table: ProcessTable, policy: dataflow.Policy, initiated: Callable[[Socket], bool | None] = lambda _: None
    ) -> None:
        self._table, self._policy, self._initiated = table, policy, initiated
        self._subjects: dict[ProcessKey, _Subject] = {}
        self._due: list[tuple[int, ProcessKey]] = []
        self.untaken = 0
        """Processes not taken because too many were under judgement."""
        self.truncated = 0
        """Searches that hit their bound."""

    def consider(self, process: Process, view: ObjectView, now: int) -> None:
        """Take up a process with a new image or new standard streams, if it could be controlled through them."""
        self.forget(process.key)
        streams = process.stdio
        if all(stream in _QUIET_STREAMS for stream in streams):
            return
        interpreter = classify(view.image(process.key), process.argv)
        if streams[0] in _QUIET_STREAMS and not _may_read_elsewhere(interpreter):
            return
        sockets = all(stream is not None and stream.startswith("socket:") for stream in streams[:2])
        if interpreter.kind is InterpreterKind.NONE and not sockets:
            return
        if len(self._subjects) >= SUBJECT_LIMIT:
            self.untaken += 1
            return
        patient = interpreter.input is not InterpreterInput.COMMANDS and not sockets
        subject = _Subject(process.key, now, interpreter, _ARGUMENT_SCHEDULE_MS if patient else _SCHEDULE_MS)
        self._subjects[process.key] = subject
        self._plan(subject, now + subject.schedule[0])

    def watches(self, key: ProcessKey) -> bool:
        """Return whether a process is under judgement."""
        return key in self._subjects

    def forget(self, key: ProcessKey) -> None:
        """Drop a process that ended or changed."""
        self._subjects.pop(key, None)

    def connected(self, key: ProcessKey, now: int) -> None:
        """Look again at every process whose ways lead through one that has a new connection."""
        line = {process.key for process in self._table.lineage(key)}
        for subject in self._subjects.values():
            if key in subject.touched or subject.key in line or key == subject.key or now - subject.since < _LATER_MS:
                self._plan(subject, now)
                subject.again = now + CONNECTED_MS

    def _plan(self, subject: _Subject, due: int) -> None:
        if not subject.done and (not subject.due or due != subject.due):
            subject.due = due
            heapq.heappush(self._due, (due, subject.key))

    def next_due(self) -> int | None:
        """Return when something is due, in milliseconds of the engine's clock, or None."""
        while self._due:
            due, key = self._due[0]
            subject = self._subjects.get(key)
            if subject is not None and subject.due == due and not subject.done:
                return due
            heapq.heappop(self._due)
        return None

    def judge(self, view: ObjectView, now: int) -> Iterator[Verdict]:
        """Yield a verdict for each due process that is found controlled; each process once an image."""
        while (due := self.next_due()) is not None and due <= now:
            _, key = heapq.heappop(self._due)
            subject = self._subjects[key]
            subject.due = 0
            verdict = self._look(subject, view, now)
            if verdict is not None:
                subject.done = True
                yield verdict
            else:
                self._plan(subject, self._next(subject, now))

    def _next(self, subject: _Subject, now: int) -> int:
        if subject.first_path is not None and now - subject.first_path < CONFIRM_MS:
            return subject.first_path + CONFIRM_MS
        if subject.first_path is not None and now - subject.first_path < ANSWERED_MS:
            return subject.first_path + ANSWERED_MS
        if subject.again > now:
            return subject.again
        while subject.step + 1 < len(subject.schedule):
            subject.step += 1
            if subject.since + subject.schedule[subject.step] > now:
                return subject.since + subject.schedule[subject.step]
        later = _LATER_MS if now - subject.since < _LATER_UNTIL_MS else _MUCH_LATER_MS
        # On a common beat, so that one look at the system serves all who wait for one.
        return (now // later + 1) * later

    def _look(self, subject: _Subject, view: ObjectView, now: int) -> Verdict | None:
        process = self._table.get(subject.key)
        if process is None:
            return None
        found = dataflow.trace(view, subject.key, self._policy, _inputs(subject, view))
        subject.touched = found.touched
        self.truncated += found.truncated
        flow, source = found.flow, found.source
        if flow is None and source and not source.steps and subject.interpreter.kind is InterpreterKind.SHELL:
            if subject.first_path is None:
                subject.first_path = now
            return self._weigh_one_way(subject, process, dataflow.Flow(source, source), view, now)
        if flow is None:
            subject.first_path = None
            return None
        if subject.first_path is None:
            subject.first_path = now
        active = _is_active(flow, view, process.started)
        if flow.direct:
            if self._serves(subject, flow) and not _awaits(subject, flow, view):
                return None
            return self._weigh_direct(subject, process, flow, active)
        return self._weigh_relayed(subject, process, flow, view, now, active)

    def _weigh_one_way(
        self, subject: _Subject, process: Process, flow: dataflow.Flow, view: ObjectView, now: int
    ) -> Verdict | None:
        """Judge a shell whose standard input is the peer's socket and whose output is not."""
        assert subject.first_path is not None
        enough = ANSWERED_MS if _has_answered(flow, view) else ONE_WAY_MS
        waits = now - subject.first_path >= enough and _awaits(subject, flow, view)
        if subject.interpreter.input is InterpreterInput.ARGUMENT and not waits:
            return None
        active = _is_active(flow, view, process.started)
        return Verdict(process, subject.interpreter, flow, True, active, Confidence.MEDIUM)

    def _weigh_direct(
        self, subject: _Subject, process: Process, flow: dataflow.Flow, active: bool | None
    ) -> Verdict | None:
        """Judge a process whose standard input and output are the peer's sockets.

        A shell always counts. A language's interpreter counts if it asks for commands, runs programs, or connected
        out by itself: a service has accepted its connection. Any other program counts once it runs programs.
        """
        kind = subject.interpreter.kind
        if kind is not InterpreterKind.SHELL and not self._runs_programs(subject):
            asks = subject.interpreter.input is InterpreterInput.COMMANDS
            if kind is InterpreterKind.NONE or not (asks or self._initiated(flow.source.socket) is True):
                return None
        level = Confidence.MEDIUM if _is_uncertain(flow) else Confidence.HIGH
        return Verdict(process, subject.interpreter, flow, False, active, level)

    def _weigh_relayed(
        self,
        subject: _Subject,
        process: Process,
        flow: dataflow.Flow,
        view: ObjectView,
        now: int,
        active: bool | None,
    ) -> Verdict | None:
        """Judge a path through relays, which is a possibility: see the module's docstring."""
        assert subject.first_path is not None
        if now - subject.first_path < CONFIRM_MS or active is False:
            return None
        dedicated = all(self._is_dedicated(relay, flow, view) for relay in flow.relays)
        if subject.interpreter.input is InterpreterInput.ARGUMENT:
            if subject.interpreter.kind is InterpreterKind.CODE and not self._runs_shells(subject, view):
                return None
            subject.read_input = subject.read_input or _awaits(subject, flow, view)
            if not subject.read_input:
                return None
        sure = dedicated and not _is_uncertain(flow)
        return Verdict(
            process, subject.interpreter, flow, False, active, Confidence.HIGH if sure else Confidence.MEDIUM
        )

    def _serves(self, subject: _Subject, flow: dataflow.Flow) -> bool:
        """Return whether a shell's script was started for a guest: a CGI script answers and ends, a loop waits."""
        script = subject.interpreter.has_script and subject.interpreter.input is InterpreterInput.ARGUMENT
        return script and self._initiated(flow.source.socket) is False

    def _runs_programs(self, subject: _Subject) -> bool:
        return any(True for _ in self._table.children(subject.key))

    def _runs_shells(self, subject: _Subject, view: ObjectView) -> bool:
        """Return whether a program has started a shell: a language server on pipes does not."""
        return any(
            classify(view.image(child.key), child.argv).kind is InterpreterKind.SHELL
            for child in self._table.children(subject.key)
        )

    def _is_dedicated(self, relay: ProcessKey, flow: dataflow.Flow, view: ObjectView) -> bool:
        """Return whether a relay holds no other internet socket than those of the path."""
        for end in view.ends(relay) or ():
            if end.object.kind is not ObjectKind.SOCKET or end.object.number in flow.sockets:
                continue
            other = view.socket(Inode(end.object.number), relay)
            if other is not None and other.family is Family.INET:
                return False
        return True


def _may_read_elsewhere(interpreter: Interpreter) -> bool:
    """Return whether a shell with a script, or with commands in its arguments, could read from other descriptors."""
    argument = interpreter.kind is InterpreterKind.SHELL and interpreter.input is InterpreterInput.ARGUMENT
    return interpreter.has_script or argument


def _inputs(subject: _Subject, view: ObjectView) -> tuple[int, ...]:
    """Return the descriptors that commands may come from: standard input, and the streams that a script may read."""
    if not _may_read_elsewhere(subject.interpreter):
        return (0,)
    ends = [end for end in view.ends(subject.key) or () if end.fd >= FIRST_SCRIPT_FD and end.reads]
    if not subject.interpreter.has_script:  # what a shell with -c inherited as pipes is nothing that it reads
        return (0, *(end.fd for end in ends if _is_connection(view, subject.key, end)))
    return (0, *(end.fd for end in ends if end.object.kind in _STREAM_KINDS))


def _is_connection(view: ObjectView, key: ProcessKey, end: End) -> bool:
    if end.object.kind is not ObjectKind.SOCKET:
        return False
    found = view.socket(Inode(end.object.number), key)
    return found is not None and found.family is Family.INET


def _awaits(subject: _Subject, flow: dataflow.Flow, view: ObjectView) -> bool:
    """Return whether a process sleeps in a read of the descriptor that the flow comes in by."""
    sources = [end.fd for end in view.ends(subject.key) or () if end.object == flow.source.start and end.reads]
    return any(view.awaits_input(subject.key, fd) is True for fd in sources)


def _has_answered(flow: dataflow.Flow, view: ObjectView) -> bool:
    moved = view.activity(flow.source.socket.inode)
    return moved is not None and moved.segments_in > 0 < moved.segments_out and moved.sent >= moved.received


def _is_active(flow: dataflow.Flow, view: ObjectView, since: int) -> bool | None:
    """Return whether bytes moved on the remote sockets since a moment; None where the kernel does not tell."""
    known = [answer for inode in flow.sockets if (answer := view.activity(inode)) is not None]
    if not known:
        return None
    return any(max(answer.received, answer.sent) >= since - CLOCK_SLACK_MS for answer in known)


def _is_uncertain(flow: dataflow.Flow) -> bool:
    return any(path.socket.remote is None for path in (flow.source, flow.sink))
