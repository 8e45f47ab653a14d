"""Correlations: what follows from several matches within a time span. Pure; time is that of the events.

A window slides where more events can only help (`gte`, `gt`, all rules of a set or an order): it is judged at every
event, over the time span that ends there. Where they can hurt (`lt`, `lte`, `eq`, `neq`, `not`) it begins with a
group's first event and is judged when it is over.

What holds goes on holding with every further event. So within a time span a group is told once, and again only where
the program is one that it was not told with: a harmless first hit does not hide the attack, and a flood does not
become a flood of findings. All others are counted.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from nbsentinel.detect.rules.evaluate import text_of
from nbsentinel.detect.rules.pack import Correlation, Rule
from nbsentinel.detect.rules.windows import REORDERED_MS, Occurrence, Window, new_window, only_grows
from nbsentinel.events import Millis

ENTRIES_LIMIT = 60_000
"""Entries kept by all correlations together, at 200 bytes at most; each has its share, so that a flood in one does not
empty another. A group that is alone is kept, whatever its count needs."""
LEAST_ENTRIES = 500
GROUP_COST = 4
"""Entries that a group costs beside those in its window."""
LATE_MS = 60_000
"""An event that is older than its group's latest by less counts as of then; by more, the clock was set back."""
TEXT_LIMIT = 64
"""Longer values are kept as their hash."""
TOLD_LIMIT = 32
"""Programs remembered that a group was told with."""


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """A correlation whose condition holds."""

    rule: Rule
    at: Millis
    count: int
    """The number that its condition is about: events, distinct values, or rules."""
    rules: tuple[str, ...]
    """Names of the rules that were met, in the correlation's order."""
    group: dict[str, str]
    token: Any = None
    """What the caller gave with the last event."""


class _Group:
    """What is kept of one group."""

    __slots__ = ("entries", "fields", "latest", "met", "opened", "token", "told", "told_at", "window")

    def __init__(self, correlation: Correlation, at: Millis) -> None:
        self.window: Window = new_window(correlation)
        self.opened = self.latest = at
        self.met: dict[str, Millis] = {}
        self.told_at: Millis | None = None
        self.told: set[str] = set()
        self.entries = 0
        self.fields: dict[str, object] = {}
        self.token: Any = None


class _Correlating:
    """One correlation with its groups, those touched last at the end."""

    def __init__(self, rule: Rule, names: dict[str, str], limit: int) -> None:
        assert rule.correlation is not None
        self.rule, self.correlation, self._names, self._limit = rule, rule.correlation, names, limit
        self._wanted = frozenset(rule.correlation.rules)
        self.slides = only_grows(rule.correlation)
        self.groups: OrderedDict[tuple[str, ...], _Group] = OrderedDict()
        self.entries = self.evicted = self.given_up = self.ungrouped = self.restarted = self.repeated = 0

    def add(self, at: Millis, rules: frozenset[str], fields: Mapping[str, object], token: Any) -> Fired | None:
        rules &= self._wanted
        shown = self._shown(rules, fields)
        value = self._value(fields)
        if shown is None or value is None:
            self.ungrouped += 1
            return None
        key = tuple(_short(text) for text in shown.values())
        group = self.groups.get(key)
        if group is not None and at < group.latest - LATE_MS:
            self._drop(key)
            self.restarted += 1
            group = None
        if group is None:
            group = self.groups[key] = _Group(self.correlation, at)
            self.entries += GROUP_COST
        elif self.slides:
            self.groups.move_to_end(key)
        told_at, group.latest = at, (at := max(at, group.latest))
        in_order = self.correlation.type == "temporal_ordered" and told_at >= at - REORDERED_MS
        group.window.add(Occurrence(told_at if in_order else at, rules, value))
        for uid in rules:
            group.met[uid] = at
        self._account(group)
        if not self.slides:
            group.fields, group.token = {**fields, **shown}, token
            return None
        if not group.window.holds() or not self._is_news(group, fields, at):
            return None
        return self._fired(group, shown, at, token)

    def over(self, at: Millis | None) -> Iterable[tuple[Fired, Mapping[str, object]]]:
        """Yield what holds in windows that are over at a time, or in all; forget them."""
        while self.groups:
            key, group = next(iter(self.groups.items()))
            if at is not None and at <= group.opened + self.correlation.timespan_ms:
                return
            self._drop(key)
            if group.window.holds():
                shown = {item.name: text_of(group.fields[item.name]) for item in self.correlation.group_by}
                yield self._fired(group, shown, group.latest, group.token), group.fields

    def due(self) -> Millis | None:
        """Return when the first window is over."""
        if self.slides or not self.groups:
            return None
        return Millis(next(iter(self.groups.values())).opened + self.correlation.timespan_ms + 1)

    def _fired(self, group: _Group, shown: dict[str, str], at: Millis, token: Any) -> Fired:
        begin = at - self.correlation.timespan_ms
        met = tuple(
            self._names.get(uid, uid)
            for uid in dict.fromkeys(self.correlation.rules)
            if group.met.get(uid, begin - 1) >= begin
        )
        count = group.window.count()
        return Fired(rule=self.rule, at=at, count=count, rules=met, group=shown, token=token)

    def _is_news(self, group: _Group, fields: Mapping[str, object], at: Millis) -> bool:
        program = _short(text_of(fields.get("Image", "")))
        if group.told_at is None or at > group.told_at + self.correlation.timespan_ms:
            group.told_at, group.told = at, {program}
            return True
        if program in group.told or len(group.told) >= TOLD_LIMIT:
            self.repeated += 1
            return False
        group.told.add(program)
        return True

    def _shown(self, rules: frozenset[str], fields: Mapping[str, object]) -> dict[str, str] | None:
        """Return what an event is grouped by, or None where it does not have it."""
        shown = {}
        for item in self.correlation.group_by:
            name = next((item.fields[uid] for uid in self.correlation.rules if uid in rules and uid in item.fields), "")
            value = fields.get(name or item.name)
            if value is None:
                return None
            shown[item.name] = text_of(value)
        return shown

    def _value(self, fields: Mapping[str, object]) -> str | None:
        if not self.correlation.values:
            return ""
        values = [fields.get(name) for name in self.correlation.values]
        return None if None in values else "\0".join(_short(text_of(value)) for value in values)

    def _account(self, group: _Group) -> None:
        self.entries += len(group.window) - group.entries
        group.entries = len(group.window)
        while self.entries > self._limit and len(self.groups) > 1:
            self.evicted += 1
            self._drop(next(key for key, other in self.groups.items() if other is not group))

    def _drop(self, key: tuple[str, ...]) -> None:
        group = self.groups.pop(key)
        self.given_up += group.window.given_up
        self.entries -= group.entries + GROUP_COST


class Correlator:
    """All correlations of a pack.

    Args:
        rules: The pack's rules, correlations and others.
        entries: Bound of what is kept, in events.
    """

    def __init__(self, rules: Sequence[Rule], *, entries: int = ENTRIES_LIMIT) -> None:
        names = {rule.id: rule.name for rule in rules}
        chosen = [rule for rule in rules if rule.correlation is not None]
        share = max(LEAST_ENTRIES, entries // max(1, len(chosen)))
        self._all = [_Correlating(rule, names, share) for rule in chosen]
        self._takers: dict[str, list[_Correlating]] = {}
        for item in self._all:
            for uid in dict.fromkeys(item.correlation.rules):
                self._takers.setdefault(uid, []).append(item)

    def observe(
        self, at: Millis, matched: Sequence[Rule], fields: Mapping[str, object], token: Any = None
    ) -> list[Fired]:
        """Take in what one event met, and return what follows.

        Args:
            at: The event's time.
            matched: The rules that it met.
            fields: Its fields.
            token: Comes back with what follows.
        """
        if not self._all or not matched:
            return []
        rules = frozenset(rule.id for rule in matched)
        fired = self.advance(at)
        for item in self._asked(rules):
            if (found := item.add(at, rules, fields, token)) is not None:
                fired.append(found)
                fired += self.observe(found.at, (found.rule,), {**fields, **found.group}, token)
        return fired

    def advance(self, at: Millis | None) -> list[Fired]:
        """Judge windows that are over at a time, or with None all that are open: at the end of a recording."""
        fired = []
        for item in self._all:
            if not item.slides:
                for found, fields in item.over(at):
                    fired.append(found)
                    fired += self.observe(found.at, (found.rule,), fields, found.token)
        return fired

    def next_due(self) -> Millis | None:
        """Return when `advance` has something to judge, or None."""
        return min((due for item in self._all if (due := item.due()) is not None), default=None)

    def _asked(self, rules: frozenset[str]) -> list[_Correlating]:
        found: dict[int, _Correlating] = {}
        for uid in rules:
            for item in self._takers.get(uid, ()):
                found[id(item)] = item
        return list(found.values()) if len(found) < 2 else [item for item in self._all if id(item) in found]

    @property
    def counters(self) -> dict[str, int]:
        """What did not fit, could not be grouped, began again or was a repeat."""
        return {
            "evicted_groups": sum(item.evicted for item in self._all),
            "given_up_entries": sum(
                item.given_up + sum(group.window.given_up for group in item.groups.values()) for item in self._all
            ),
            "ungrouped": sum(item.ungrouped for item in self._all),
            "restarted": sum(item.restarted for item in self._all),
            "repeated": sum(item.repeated for item in self._all),
        }

    @property
    def repeated_by_rule(self) -> dict[str, int]:
        """How often each correlation held again without being told, by rule id; only where it did."""
        return {item.rule.id: item.repeated for item in self._all if item.repeated}

    def __len__(self) -> int:
        return sum(item.entries for item in self._all)


def _short(text: str) -> str:
    if len(text) <= TEXT_LIMIT:
        return text
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
