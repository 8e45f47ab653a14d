"""What a correlation keeps of one group, and whether its condition holds: pure, bounded, by the events' own time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

from nbsentinel.detect.rules.evaluate import Event, compile_node
from nbsentinel.detect.rules.pack import Comparison, Correlation, Node, Not
from nbsentinel.events import Millis

REORDERED_MS, RECENT = 1_000, 64
"""Events of an order that are kept to be put into the order of their times: how long, and how many."""
KEPT = 1_000
"""Events or values kept for one group, or what its count needs; of more than that the oldest are given up."""
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "gte": int.__ge__,
    "gt": int.__gt__,
    "lte": int.__le__,
    "lt": int.__lt__,
    "eq": int.__eq__,
    "neq": int.__ne__,
}


class Occurrence(NamedTuple):
    """One event, as far as a window needs it."""

    at: Millis
    rules: frozenset[str]
    """Ids of the rules that it met."""
    value: str
    """What value_count counts."""


class Window(ABC):
    """One group's events within the time span, reduced to what the condition asks for."""

    __slots__ = ("_correlation", "_most", "given_up")

    def __init__(self, correlation: Correlation) -> None:
        self._correlation = correlation
        self._most = max(KEPT, correlation.count + 1)
        self.given_up = 0
        """Entries that did not fit."""

    @abstractmethod
    def add(self, event: Occurrence) -> None:
        """Take an event in; its time is at most REORDERED_MS before the latest for an order, and not before it else."""

    def holds(self) -> bool:
        """Return whether the condition holds with what was taken in last."""
        return _COMPARE[self._correlation.op](self.count(), self._correlation.count)

    @abstractmethod
    def count(self) -> int:
        """Return the number that the condition is about."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how much is kept."""


class _Events(Window):
    """event_count: the times."""

    __slots__ = ("_times",)

    def __init__(self, correlation: Correlation) -> None:
        super().__init__(correlation)
        self._times: deque[Millis] = deque()

    def add(self, event: Occurrence) -> None:
        self._times.append(event.at)
        while self._times[0] < event.at - self._correlation.timespan_ms:
            self._times.popleft()
        if len(self._times) > self._most:
            self._times.popleft()
            self.given_up += 1

    def count(self) -> int:
        return len(self._times)

    __len__ = count


class _Values(Window):
    """value_count: each value with its latest time."""

    __slots__ = ("_latest",)

    def __init__(self, correlation: Correlation) -> None:
        super().__init__(correlation)
        self._latest: OrderedDict[str, Millis] = OrderedDict()

    def add(self, event: Occurrence) -> None:
        self._latest[event.value] = event.at
        self._latest.move_to_end(event.value)
        while next(iter(self._latest.values())) < event.at - self._correlation.timespan_ms:
            self._latest.popitem(last=False)
        if len(self._latest) > self._most:
            self._latest.popitem(last=False)
            self.given_up += 1

    def count(self) -> int:
        return len(self._latest)

    __len__ = count


class _Present(Window):
    """temporal: each rule with its latest time."""

    __slots__ = ("_latest", "_test")

    def __init__(self, correlation: Correlation) -> None:
        super().__init__(correlation)
        self._latest: dict[str, Millis] = {}
        self._test = compile_node(correlation.condition, {}) if correlation.condition is not None else None

    def add(self, event: Occurrence) -> None:
        begin = event.at - self._correlation.timespan_ms
        self._latest = {uid: time for uid, time in self._latest.items() if time >= begin}
        self._latest.update(dict.fromkeys(event.rules, event.at))

    def holds(self) -> bool:
        return super().holds() if self._test is None else self._test(Event(dict.fromkeys(self._latest, True)))

    def count(self) -> int:
        return len(self._latest)

    __len__ = count


class _Order(Window):
    """temporal_ordered: for each place in the order, the latest beginning of a chain that has come so far.

    Two sensors tell of the same moment one after the other, so what came last is kept and put into the order of time.
    """

    __slots__ = ("_before", "_begins", "_met", "_recent")

    def __init__(self, correlation: Correlation) -> None:
        super().__init__(correlation)
        self._begins: list[Millis | None] = [None] * len(correlation.rules)
        self._before = list(self._begins)
        """The same without those in `_recent`."""
        self._recent: list[Occurrence] = []
        self._met = False

    def add(self, event: Occurrence) -> None:
        place = bisect_right(self._recent, event.at, key=lambda one: one.at)
        self._recent.insert(place, event)
        if place == len(self._recent) - 1:
            self._met = self._take(self._begins, event)
        else:
            self._begins = list(self._before)
            reached = [self._take(self._begins, one) for one in self._recent]
            self._met = any(reached[place:])
        while len(self._recent) > RECENT or self._recent[0].at < self._recent[-1].at - REORDERED_MS:
            self._take(self._before, self._recent.pop(0))

    def _take(self, begins: list[Millis | None], event: Occurrence) -> bool:
        """Take the next event into account; return whether it ends a chain."""
        begin = event.at - self._correlation.timespan_ms
        wanted = self._correlation.rules
        ends = False
        # From the last place to the first, so that one event does not take two places.
        for place in range(len(wanted) - 1, -1, -1):
            if wanted[place] in event.rules:
                before = event.at if place == 0 else begins[place - 1]
                if before is not None and before >= begin:
                    begins[place] = before
                    ends = ends or place == len(wanted) - 1
        return ends

    def holds(self) -> bool:
        return self._met

    def count(self) -> int:
        return sum(begin is not None for begin in self._begins)

    def __len__(self) -> int:
        return len(self._begins) + len(self._recent)


_WINDOWS: dict[str, type[Window]] = {
    "event_count": _Events,
    "value_count": _Values,
    "temporal": _Present,
    "temporal_ordered": _Order,
}


def new_window(correlation: Correlation) -> Window:
    """Return an empty window."""
    return _WINDOWS[correlation.type](correlation)


def only_grows(correlation: Correlation) -> bool:
    """Return whether more events can only help the condition, so that it is judged at each.

    The others (`lt`, `lte`, `eq`, `neq`, `a and not b`) are judged when the window is over.
    """
    if correlation.condition is not None:
        return not _negates(correlation.condition)
    return correlation.op in ("gte", "gt")


def _negates(node: Node) -> bool:
    if isinstance(node, Comparison):
        return False
    return isinstance(node, Not) or any(_negates(item) for item in node.items)
