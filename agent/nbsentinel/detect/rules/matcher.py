"""Matching: which rules an event meets, and which of them a filter suppressed.

An index says which rules an event could meet; only those are evaluated, and tests that several of them share once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone

from nbsentinel.detect.rules.evaluate import Event, compile_node
from nbsentinel.detect.rules.index import Index
from nbsentinel.detect.rules.pack import Comparison, FailedRule, Filter, Node, Or, Pack, Rule
from nbsentinel.events import Millis

Value = str | int | bool | None | tuple[str, ...] | list[str]


class _CompiledFilter:
    """A filter with its condition, and how often it suppressed a match."""

    __slots__ = ("filter", "holds", "in_force", "suppressed")

    def __init__(self, item: Filter, holds: Callable[[Event], bool]) -> None:
        self.filter, self.holds, self.in_force, self.suppressed = item, holds, True, 0


class _Compiled:
    """A rule with its test and its filters."""

    __slots__ = ("filters", "holds", "rule", "suppressed")

    def __init__(self, rule: Rule, holds: Callable[[Event], bool], filters: tuple[_CompiledFilter, ...]) -> None:
        self.rule, self.holds, self.filters, self.suppressed = rule, holds, filters, 0

    def counts(self, event: Event, *, told: bool) -> bool:
        """Return whether no filter suppresses a match; the first that does is told so, unless it was told before."""
        for item in self.filters:
            if item.in_force and not item.holds(event):
                item.suppressed += told
                self.suppressed += told
                return False
        return True


class Matcher:
    """The rules of a pack, ready for events.

    Args:
        pack: The rules. Their order in the pack is the order of the answers. Correlations are left to `Correlator`.
    """

    def __init__(self, pack: Pack) -> None:
        self._tests: dict[Comparison, Callable[[Event], bool]] = {}
        self.failed: list[FailedRule] = []
        """What a pack holds that cannot be matched, because something else than our compiler wrote it."""
        self._filters: dict[str, _CompiledFilter] = {}
        for item in pack.filters:
            if (holds := self._compile(item, item.condition)) is not None:
                self._filters[item.id] = _CompiledFilter(item, holds)
        by_category: dict[str, list[_Compiled]] = {}
        self._filtered: list[_Compiled] = []
        for rule in pack.rules:
            if rule.correlation is None and (holds := self._compile(rule, Or(rule.conditions))) is not None:
                filters = tuple(self._filters[uid] for uid in rule.filters if uid in self._filters)
                compiled_rule = _Compiled(rule, holds, filters)
                by_category.setdefault(rule.category, []).append(compiled_rule)
                self._filtered += [compiled_rule] if filters else []
        self._categories = {
            category: Index((item, Or(item.rule.conditions)) for item in compiled)
            for category, compiled in by_category.items()
        }

    def _compile(self, item: Rule | Filter, condition: Node) -> Callable[[Event], bool] | None:
        try:
            return compile_node(condition, self._tests)
        except (ValueError, KeyError, RecursionError) as error:
            self.failed.append(FailedRule(item.source, 1, "", f"cannot be matched: {error}", item.title))
            return None

    @property
    def categories(self) -> frozenset[str]:
        """The categories that any rule looks at."""
        return frozenset(self._categories)

    @property
    def suppressed(self) -> dict[str, int]:
        """How many matches each filter suppressed so far, by the filter's id."""
        return {uid: item.suppressed for uid, item in self._filters.items()}

    @property
    def suppressed_by_rule(self) -> dict[str, int]:
        """How many of its matches filters suppressed so far, by rule id; only rules of which there were any."""
        return {item.rule.id: item.suppressed for item in self._filtered if item.suppressed}

    @property
    def lookups(self) -> tuple[int, int]:
        """How often the index was asked, and how often it remembered the answer."""
        indexes = self._categories.values()
        return sum(index.asked for index in indexes), sum(index.remembered for index in indexes)

    def expire(self, now: Millis) -> tuple[Filter, ...]:
        """End the filters whose last day is over, and return those that ended since the last call."""
        today = datetime.fromtimestamp(now / 1000, tz=timezone.utc).date().isoformat()
        over = [
            item
            for item in self._filters.values()
            if item.in_force and item.filter.expires and item.filter.expires < today
        ]
        for item in over:
            item.in_force = False
        return tuple(item.filter for item in over)

    def match(self, category: str, fields: Mapping[str, object], *, told: bool = True) -> tuple[Rule, ...]:
        """Return the rules that an event meets and no filter suppresses.

        Args:
            category: Sigma's category, for example `process_creation`.
            fields: Sigma's fields; a value is text, a number, a boolean, None, or several texts of which any may match.
            told: Whether to count what filters suppress; not for an event that was matched before.
        """
        index = self._categories.get(category)
        if index is None:
            return ()
        candidates = index.candidates(fields)
        if not candidates:
            return ()
        event = Event(fields)
        return tuple(item.rule for item in candidates if item.holds(event) and item.counts(event, told=told))
