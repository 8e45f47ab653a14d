"""Matching: which rules an event meets, found through an index of what each rule cannot do without.

For every rule the index holds literals of which at least one must occur in a certain field. Only rules whose literal
occurs, and the few that need none, are evaluated; equal tests of different rules are evaluated once an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from nbsentinel.detect.rules.evaluate import Event, compile_node
from nbsentinel.detect.rules.pack import And, Comparison, Node, Not, Or, Pack, Rule

Value = str | int | bool | None | tuple[str, ...] | list[str]
_LITERAL_OPS = ("eq", "contains", "startswith", "endswith", "like")
_WILDCARDS = "*?"
Literal = tuple[str, str, str]
"""(field, operation, lowered text)"""


class _Compiled:
    """A rule with its test and its place in the pack."""

    __slots__ = ("holds", "order", "rule")

    def __init__(self, order: int, rule: Rule, holds: Callable[[Event], bool]) -> None:
        self.order, self.rule, self.holds = order, rule, holds


class _FieldIndex:
    """Which literals occur in one field: by the whole text, by its last path component, by search."""

    __slots__ = ("exact", "last", "search")

    def __init__(self) -> None:
        self.exact: dict[str, list[_Compiled]] = {}
        self.last: dict[str, list[_Compiled]] = {}
        self.search: dict[str, list[_Compiled]] = {}

    def add(self, op: str, text: str, rule: _Compiled) -> None:
        if op == "eq":
            self.exact.setdefault(text, []).append(rule)
        elif op == "endswith" and text.startswith("/") and text.count("/") == 1:
            self.last.setdefault(text[1:], []).append(rule)
        else:
            self.search.setdefault(text, []).append(rule)

    def candidates(self, text: str) -> Iterable[list[_Compiled]]:
        if (found := self.exact.get(text)) is not None:
            yield found
        if self.last and (found := self.last.get(text.rpartition("/")[2])) is not None:
            yield found
        for literal, rules in self.search.items():
            if literal in text:
                yield rules


class _Category:
    """All rules of one category."""

    __slots__ = ("always", "fields")

    def __init__(self) -> None:
        self.always: list[_Compiled] = []
        self.fields: dict[str, _FieldIndex] = {}

    def add(self, rule: _Compiled) -> None:
        needed = required_literals(Or(rule.rule.conditions))
        if needed is None:
            self.always.append(rule)
            return
        for field, op, text in needed:
            self.fields.setdefault(field, _FieldIndex()).add(op, text, rule)

    def candidates(self, event: Event) -> list[_Compiled]:
        found: dict[int, _Compiled] = {rule.order: rule for rule in self.always}
        for field, index in self.fields.items():
            for text in event.lowered(field):
                for rules in index.candidates(text):
                    for rule in rules:
                        found[rule.order] = rule
        return [found[order] for order in sorted(found)]


class Matcher:
    """The rules of a pack, ready for events.

    Args:
        pack: The rules. Their order in the pack is the order of the answers.
    """

    def __init__(self, pack: Pack) -> None:
        self._categories: dict[str, _Category] = {}
        tests: dict[Comparison, Callable[[Event], bool]] = {}
        for order, rule in enumerate(pack.rules):
            compiled = _Compiled(order, rule, compile_node(Or(rule.conditions), tests))
            self._categories.setdefault(rule.category, _Category()).add(compiled)

    @property
    def categories(self) -> frozenset[str]:
        """The categories that any rule looks at."""
        return frozenset(self._categories)

    def match(self, category: str, fields: Mapping[str, object]) -> tuple[Rule, ...]:
        """Return the rules that an event meets.

        Args:
            category: Sigma's category, for example `process_creation`.
            fields: Sigma's fields; a value is text, a number, a boolean, None, or several texts of which any may match.
        """
        rules = self._categories.get(category)
        if rules is None:
            return ()
        event = Event(fields)
        return tuple(rule.rule for rule in rules.candidates(event) if rule.holds(event))


def required_literals(node: Node) -> frozenset[Literal] | None:
    """Return literals of which at least one must occur for a condition to hold, or None where there are none."""
    if isinstance(node, Comparison):
        return _of_test(node)
    if isinstance(node, Not):
        return None
    options = [required_literals(item) for item in node.items]
    if isinstance(node, Or):
        found: set[Literal] = set()
        for option in options:
            if option is None:
                return None
            found |= option
        return frozenset(found) or None
    assert isinstance(node, And)
    known = [option for option in options if option]
    return max(known, key=_selectivity) if known else None


def _selectivity(option: frozenset[Literal]) -> tuple[int, int]:
    """Prefer what is looked up to what is searched, then long literals, then few."""
    searched = sum(not (op == "eq" or (op == "endswith" and text.rfind("/") == 0)) for _, op, text in option)
    return (-searched, min(len(text) for _, _, text in option))


def _of_test(test: Comparison) -> frozenset[Literal] | None:
    if test.field is None or test.op not in _LITERAL_OPS:
        return None
    if test.op == "like":
        parts = literal_parts(test.value)
        longest = max(parts, key=len, default="")
        return frozenset({(test.field, "contains", longest.lower())}) if longest else None
    return frozenset({(test.field, test.op, test.value.lower())}) if test.value else None


def literal_parts(pattern: str) -> list[str]:
    r"""Return the literal runs of a `like` pattern, in which `*` and `?` are wildcards and `\` escapes them."""
    parts, current, escaped = [], "", False
    for char in pattern:
        if escaped:
            current, escaped = current + char, False
        elif char == "\\":
            escaped = True
        elif char in _WILDCARDS:
            parts.append(current)
            current = ""
        else:
            current += char
    return [part for part in (*parts, current) if part]
