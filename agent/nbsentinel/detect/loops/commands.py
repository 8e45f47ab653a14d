"""Programs that receive commands and execute each by itself: no shell stays on a stream for dataflow to find.

What remains is an order of events. Bytes come in on a remote connection, within a moment a program is executed, it
ends, and bytes go out on the same connection; or a connection is made before and after it. The kernel tells when bytes
last moved on each TCP connection and how many segments with data there were in each direction, so it is also known
whether the peer spoke without having been asked. `evidence` says what that is worth.

A process that executes a command is looked at when it does, and again shortly after, until the command is over and
answered. Nothing here keeps time: the clock comes in with each call.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

import msgspec

from nbsentinel.context.objects import Activity, Family, KernelObject, ObjectKind, ObjectView, Socket
from nbsentinel.context.processes import ProcessTable
from nbsentinel.context.programs import by_name
from nbsentinel.detect import dataflow
from nbsentinel.detect.interpreters import InterpreterInput, InterpreterKind, classify
from nbsentinel.detect.loops.channels import Channel, Channels
from nbsentinel.detect.loops.evidence import (
    BRIEF_ORDER,
    GREETING_PORTS,
    LoopVerdict,
    Orders,
    Owner,
    Pattern,
    Weight,
    command_of,
    confidence,
    owner_kind,
    variety,
    weigh,
)
from nbsentinel.detect.loops.lineage import SHELLS, executor, is_captured, is_on_socket, speaks_for
from nbsentinel.detect.loops.orders import ORDER_MS, Conversations, Order
from nbsentinel.detect.loops.polls import METADATA, QUIET_PORTS, Polls, Talk
from nbsentinel.events import Connect, ConnectStage, Endpoint, Exec, ProcessKey

AFTER_END_MS = 1_000
"""How long an answer is waited for once the command is over."""
ORDERLY_SHARE = 0.8
"""Share of a process's commands that the connection must frame where it asks for them: the rest is chance."""
SETTLE_MS = 60
"""An answer may come in pieces; what was sent by then belongs to it."""
_LOOKS_MS = (10, 25, 50, 90, 150, 250, 400, 700, 1_200, 2_000)
_LATER_MS, _LONGEST_MS = 2_000, 60_000
ROUND_LIMIT = 1_000
MEMORY_LIMIT = 2_000
FORKS = 8
"""Generations of forks that are followed to the program that they run."""
START_MS = 2_000
"""A start time further from the observation than this is not the start of this command."""
_ORDERED = (Weight.WEAK, Weight.FAIR, Weight.STRONG)


class _Round(msgspec.Struct):
    """One command."""

    child: ProcessKey
    owner: ProcessKey
    started: int
    command: str
    runs_shell: bool
    captured: bool
    orders: list[Order]
    polled: bool
    reads_on: bool = False
    """Whether it may take more from its input: a shell without a command, a program in another language."""
    searches: bool = False
    """Whether a connection of another process could have brought it, which is still to be searched for."""
    step: int = 0
    due: int = 0
    over: int | None = None
    """When its process was first seen to be gone."""
    settled: bool = False


class CommandLoops:
    """Keeps the commands under way and what was learnt of those who run them.

    Args:
        table: The process table.
        policy: What is remote, what is trusted.
        initiated: Tells whether this machine opened a connection; None where that is not known.
    """

    def __init__(
        self, table: ProcessTable, policy: dataflow.Policy, initiated: Callable[[Socket], bool | None] = lambda _: None
    ) -> None:
        self._table, self._policy, self._initiated = table, policy, initiated
        self._channels, self._polls = Channels(table, policy), Polls()
        self._rounds: dict[ProcessKey, _Round] = {}
        self._due: list[tuple[int, ProcessKey]] = []
        self._conversations = Conversations()
        self._strays: dict[ProcessKey, int] = {}
        self._told: dict[tuple[ProcessKey, Endpoint], Weight] = {}
        self.untaken = 0
        """Commands not looked at because too many were under way."""

    # What is observed

    def executed(self, observation: Exec, view: ObjectView, now: int) -> None:
        """Take in an execution: it may be a command that somebody sent."""
        process = observation.process
        owner = executor(process, self._table, view)
        if owner is None or all(stream is None for stream in process.stdio) or is_on_socket(process):
            return
        interpreter = classify(view.image(process.key) or by_name(process.exe), process.argv)
        shell, command = command_of(interpreter, process.argv)
        code = interpreter.kind is InterpreterKind.CODE
        reads_on = shell and (code or interpreter.input is InterpreterInput.COMMANDS)
        if self._continues(process.key, owner, shell, command, view, now):
            return
        captured = is_captured(process, self._table, view)
        if not (shell or captured) or self._policy.trusts(owner, KernelObject(ObjectKind.PIPE, 0), None):
            return
        started = process.started if 0 <= observation.at - process.started <= START_MS else observation.at
        self._open(_Round(process.key, owner, started, command, shell, captured, [], False, reads_on), view, now)

    def _continues(
        self, key: ProcessKey, owner: ProcessKey, shell: bool, command: str, view: ObjectView, now: int
    ) -> bool:
        """Return whether an image belongs to a command under way: `timeout 9 sh -c ...`, or what a shell runs.

        A program that was itself started as a command, and has a connection of its own, may be the loop.
        """
        found = self._rounds.get(key)
        if found is None:
            found = self._rounds.get(owner)
            program = self._table.get(owner)
            is_shell = program is not None and by_name(program.exe) in SHELLS
            if found is None or (not is_shell and self._channels.own(view, owner, now)):
                return False
        if shell and not found.runs_shell:
            found.runs_shell, found.command = True, command
        return True

    def _open(self, started: _Round, view: ObjectView, now: int) -> None:
        """Take up a command that something may have brought; what costs much waits for the first look."""
        owner = started.owner
        started.orders = self._orders(started, self._channels.own(view, owner, now), view)
        if started.runs_shell and started.captured:
            started.polled = self._polls.executed(owner, started.child, started.command, started.started)
            started.searches = not started.orders and self._channels.may_be_joined(view, started.started - ORDER_MS)
        if not (started.orders or started.polled or started.searches):
            self._stray(started)
            return
        if len(self._rounds) >= ROUND_LIMIT:
            self.untaken += 1
            return
        self._rounds[started.child] = started
        self._plan(started, now + _LOOKS_MS[0])

    def _stray(self, item: _Round) -> None:
        """Count a command that no connection frames."""
        if item.runs_shell and item.captured:
            self._strays[item.owner] = self._strays.get(item.owner, 0) + 1
            while len(self._strays) > MEMORY_LIMIT:
                del self._strays[next(iter(self._strays))]

    def _orders(self, started: _Round, channels: list[Channel], view: ObjectView) -> list[Order]:
        found = []
        for channel in channels:
            moved = view.activity(channel.socket.inode)
            if moved is not None and not self._is_stream(channel, started):
                found.append(self._conversations.order(started.owner, started.started, channel, moved))
        return [
            order
            for order in found
            if order is not None and not self._channels.is_own_peer(view, started.owner, order.channel.socket)
        ]

    def _is_stream(self, channel: Channel, started: _Round) -> bool:
        """Return whether the connection is the input of the command, or of who runs it: dataflow tells of those."""
        name = f"socket:[{channel.socket.inode}]"
        return any(
            process is not None and process.stdio[0] == name
            for process in (self._table.get(started.child), self._table.get(started.owner))
        )

    def connected(self, observation: Connect, now: int) -> None:
        """Take in a connection: it may bring a command, or report one."""
        connection = observation.connection
        if observation.stage not in (ConnectStage.WHOLE, ConnectStage.ATTEMPT) or connection.initiated is False:
            return
        peer, holder = connection.remote, observation.key
        socket = Socket(
            inode=connection.inode,
            family=Family.INET,
            protocol=connection.protocol,
            local=connection.local or Endpoint(peer.ip, 0),
            remote=peer,
        )
        if peer.port == 0 or peer.port in QUIET_PORTS or peer.ip in METADATA or not self._policy.is_remote(socket):
            return
        if self._policy.trusts(holder, KernelObject(ObjectKind.SOCKET, connection.inode), socket):
            return
        for owner in speaks_for(holder, self._table):
            child = self._polls.contact(owner, holder, peer, observation.at)
            if child is not None and (reported := self._rounds.get(child)) is not None:
                self._plan(reported, now)

    def ended(self, key: ProcessKey, now: int) -> None:
        """Take in the end of a process."""
        if (found := self._rounds.get(key)) is not None:
            self._plan(found, now)
        self._polls.forget(key)
        self._strays.pop(key, None)
        self._channels.forget(key)
        self._conversations.forget(key)

    # Looking again

    def _plan(self, item: _Round, due: int) -> None:
        item.due = due
        heapq.heappush(self._due, (due, item.child))

    def next_due(self) -> int | None:
        """Return when something is due, in milliseconds of the engine's clock, or None."""
        while self._due:
            due, key = self._due[0]
            found = self._rounds.get(key)
            if found is not None and found.due == due:
                return due
            heapq.heappop(self._due)
        return None

    def judge(self, view: ObjectView, now: int) -> Iterator[LoopVerdict]:
        """Yield what follows from the commands that are due; the same loop again only when it weighs more."""
        while (due := self.next_due()) is not None and due <= now:
            _, key = heapq.heappop(self._due)
            item = self._rounds[key]
            item.due = 0
            yield from self._look(item, view, now)
            following = self._next(item, now)
            if following is None:
                self._rounds.pop(key, None)
                if not any(order.answered for order in item.orders):
                    self._stray(item)
            else:
                self._plan(item, following)

    def _next(self, item: _Round, now: int) -> int | None:
        if not (item.polled or item.orders):
            return None
        waits = item.polled or any(not order.answered for order in item.orders)
        if item.over is not None and (now - item.over >= AFTER_END_MS or (not waits and item.settled)):
            return None
        if now - item.started >= _LONGEST_MS:
            return None
        if item.over is not None and not waits:
            return now + SETTLE_MS
        while item.step < len(_LOOKS_MS):
            item.step += 1
            if item.step < len(_LOOKS_MS) and item.started + _LOOKS_MS[item.step] > now:
                return item.started + _LOOKS_MS[item.step]
        return now + (_LATER_MS if item.over is None else AFTER_END_MS // 4)

    def _look(self, item: _Round, view: ObjectView, now: int) -> Iterator[LoopVerdict]:
        alive = view.lives(item.child)
        if not alive and item.over is None:
            item.over = now
        if item.searches:
            item.searches = False
            item.orders = self._orders(item, self._channels.joined(view, item.owner, now), view)
        for order in list(item.orders):
            moved = view.activity(order.channel.socket.inode)
            if moved is None:
                if not order.answered:
                    item.orders.remove(order)
            elif order.answered:
                self._conversations.settle(item.owner, order, moved)
                item.settled = item.over is not None
            elif order.is_answered_by(moved, item.started):
                # A shell that goes on reading is dataflow's; a client that goes on talking answers nothing.
                if alive and (item.reads_on or order.orders is Orders.ASKED):
                    item.orders.remove(order)
                else:
                    yield from self._answered(item, order, moved, view)
        if item.polled:
            if alive:
                self._polls.alive(item.owner, item.child, now + _LATER_MS)
            else:
                for talk in self._polls.settle(item.owner, item.child):
                    item.polled = False
                    yield from self._polled(item, talk, view)

    def _answered(self, item: _Round, order: Order, moved: Activity, view: ObjectView) -> Iterator[LoopVerdict]:
        known = self._conversations.answer(
            item.owner, order, moved, item.command, runs_shell=item.runs_shell, captured=item.captured
        )
        if not known.unasked and known.rounds < ORDERLY_SHARE * (known.rounds + self._strays.get(item.owner, 0)):
            return
        socket = order.channel.socket
        assert socket.remote is not None
        pattern = Pattern(
            orders=known.orders,
            owner=self._owner(item.owner, view),
            runs_shell=known.runs_shell,
            captured=known.captured,
            rounds=known.rounds,
            variety=variety(known.texts),
            initiated=self._initiated(socket),
            brief=known.longest <= BRIEF_ORDER,
            greeting=socket.remote.port in GREETING_PORTS and known.unasked == 1,
        )
        yield from self._conclude(item.owner, order.channel.holder, socket, socket.remote, pattern)

    def _polled(self, item: _Round, talk: Talk, view: ObjectView) -> Iterator[LoopVerdict]:
        if not talk.orderly or self._channels.is_own_listener(view, item.owner, talk.peer):
            return
        pattern = Pattern(
            orders=Orders.ASKED,
            owner=self._owner(item.owner, view),
            runs_shell=True,
            captured=True,
            rounds=talk.rounds,
            variety=variety(talk.texts),
            initiated=True,
            brief=False,
        )
        yield from self._conclude(item.owner, talk.holder, None, talk.peer, pattern)

    def _conclude(
        self, owner: ProcessKey, holder: ProcessKey, socket: Socket | None, peer: Endpoint, pattern: Pattern
    ) -> Iterator[LoopVerdict]:
        weight = weigh(pattern)
        told = self._told.get((owner, peer))
        if weight is None or (told is not None and _ORDERED.index(told) >= _ORDERED.index(weight)):
            return
        self._told[owner, peer] = weight
        while len(self._told) > MEMORY_LIMIT:
            del self._told[next(iter(self._told))]
        yield LoopVerdict(
            process=owner if self._table.get(owner) else holder,
            holder=holder,
            socket=socket,
            peer=peer,
            pattern=pattern,
            weight=weight,
            confidence=confidence(pattern, weight),
        )

    def _owner(self, key: ProcessKey, view: ObjectView) -> Owner:
        """Return what sort of program executes; a fork that no sensor has told of yet is what it was forked from."""
        for _ in range(FORKS):
            found = self._table.get(key) or view.process(key)
            above = None if found else view.parent(key)
            if above is None:
                return owner_kind(found, view.image(key) if found else None)
            key = above
        return Owner.SCRIPT
