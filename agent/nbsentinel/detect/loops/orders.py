"""Commands that come over a connection that stays: what was said on it before and after each of them.

The kernel counts the segments with data in each direction and tells when the last one moved, so one look right after an
execution shows whether something fresh had come and whether anything had been sent to ask for it.
"""

from __future__ import annotations

from collections import deque

import msgspec

from nbsentinel.context.objects import Activity
from nbsentinel.detect.loops.channels import Channel
from nbsentinel.detect.loops.evidence import BRIEF_ORDER, SHORT_ORDER, Orders
from nbsentinel.events import Inode, ProcessKey

ORDER_MS = 300
"""Longest time from the last byte of an order to the execution."""
SLACK_MS = 20
"""Start times come in ticks of 10 ms, the age of bytes in jiffies of up to 10 ms."""
ORDER_BYTES = 8_192
"""More than this in reply to a question is data, not a command."""
CONVERSATION_LIMIT = 2_000
TEXTS_LIMIT = 16
_SILENCE = Activity(0, 0)


class Order(msgspec.Struct):
    """What came on one connection right before a command."""

    channel: Channel
    before: Activity
    late: bool
    """Whether the answer had already been sent when the order was looked at."""
    orders: Orders
    size: int
    answered: bool = False

    def is_answered_by(self, moved: Activity, started: int) -> bool:
        """Return whether what was sent since the command started answers the order."""
        if self.late:
            return True
        return moved.segments_out > self.before.segments_out and moved.sent >= started - SLACK_MS // 2


class Conversation(msgspec.Struct):
    """The answered orders of one process on one connection."""

    said: Activity = _SILENCE
    """What had moved when the last answer was over."""
    clean: bool = True
    """Whether nothing came between the last order and the look at its answer: else a question may hide in `said`."""
    rounds: int = 0
    unasked: int = 0
    short: int = 0
    longest: int = 0
    runs_shell: bool = False
    captured: bool = False
    texts: deque[str] = msgspec.field(default_factory=lambda: deque(maxlen=TEXTS_LIMIT))

    @property
    def orders(self) -> Orders:
        """How the orders came; one that nobody asked for tells more than the others."""
        if self.unasked:
            return Orders.UNASKED
        return Orders.SHORT if self.short == self.rounds else Orders.ASKED


class Conversations:
    """Keeps the conversations of processes, within a bound."""

    def __init__(self) -> None:
        self._known: dict[ProcessKey, dict[Inode, Conversation]] = {}

    def forget(self, key: ProcessKey) -> None:
        """Drop a process that ended."""
        self._known.pop(key, None)

    def _past(self, owner: ProcessKey, channel: Channel) -> Conversation:
        return self._known.get(owner, {}).get(channel.socket.inode) or Conversation()

    def order(self, owner: ProcessKey, started: int, channel: Channel, moved: Activity) -> Order | None:
        """Return what came on a connection as an order, None where nothing fresh came or other things went on.

        Args:
            owner: Who executes.
            started: When the command was started.
            channel: The connection.
            moved: What has moved on it, looked at after the start.
        """
        past = self._past(owner, channel)
        said = past.said
        if moved.segments_in <= said.segments_in or not -ORDER_MS <= moved.received - started <= SLACK_MS:
            return None
        spoke = moved.segments_out - said.segments_out
        size = moved.bytes_in - said.bytes_in
        fresh = spoke > 0 and moved.sent >= started - SLACK_MS // 2
        late = fresh and (moved.sent > moved.received or (moved.sent == moved.received and size <= SHORT_ORDER))
        if spoke and not late and moved.sent > moved.received + SLACK_MS // 2:
            return None
        # Within one tick of the kernel's clock nobody knows what came first; a first line that small is no reply.
        certain = moved.sent > moved.received or (size <= BRIEF_ORDER and said is _SILENCE)
        quiet = past.clean and spoke <= (late and certain)
        orders = Orders.UNASKED if quiet else Orders.SHORT if size <= SHORT_ORDER else Orders.ASKED
        if orders is Orders.ASKED and (channel.joined or size > ORDER_BYTES):
            return None
        return Order(channel, moved, late, orders, size)

    def answer(
        self, owner: ProcessKey, order: Order, moved: Activity, command: str, *, runs_shell: bool, captured: bool
    ) -> Conversation:
        """Count an answered order and return the conversation."""
        order.answered = True
        mine = self._known.setdefault(owner, {})
        while len(self._known) > CONVERSATION_LIMIT:
            del self._known[next(iter(self._known))]
        known = mine.setdefault(order.channel.socket.inode, Conversation())
        known.said, known.clean = moved, moved.segments_in == order.before.segments_in
        known.rounds += 1
        known.unasked += order.orders is Orders.UNASKED
        known.short += order.orders is Orders.SHORT
        known.longest = max(known.longest, order.size)
        known.runs_shell = known.runs_shell or runs_shell
        known.captured = known.captured or captured
        known.texts.append(command)
        return known

    def settle(self, owner: ProcessKey, order: Order, moved: Activity) -> None:
        """Count the rest of an answer to it, unless something new has come."""
        known = self._known.get(owner, {}).get(order.channel.socket.inode)
        if known is not None and moved.segments_in == known.said.segments_in:
            known.said = moved
