"""Evaluating conditions: each test becomes a function of an event, combined as the rule says.

Matching is case-insensitive by default, by `fold` on both sides. No test takes longer than its text is long: wildcards
are found from left to right, regular expressions by `Linear`. A field that is missing meets no
test but `null` and `exists: false`; a field with several values meets a test when one of them does.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone

from nbsentinel.detect.rules.linear import Linear
from nbsentinel.detect.rules.pack import And, Comparison, Node, Not, Or
from nbsentinel.detect.rules.text import fold

_MISSING = object()


class Event:
    """The fields of one event, with what was already worked out about them."""

    __slots__ = ("_lowered", "fields", "known")

    def __init__(self, fields: Mapping[str, object]) -> None:
        self.fields = fields
        self.known: dict[int, bool] = {}
        """Outcomes of tests that several rules share."""
        self._lowered: dict[str, tuple[str, ...]] = {}

    def values(self, field: str) -> tuple[object, ...]:
        """Return the values of a field; none where it is missing or null."""
        value = self.fields.get(field)
        if value is None:
            return ()
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)

    def texts(self, field: str) -> tuple[str, ...]:
        """Return the values of a field as text."""
        return tuple(text_of(value) for value in self.values(field))

    def lowered(self, field: str) -> tuple[str, ...]:
        """Return the values of a field as lowered text."""
        found = self._lowered.get(field)
        if found is None:
            value = self.fields.get(field)
            found = (fold(value),) if type(value) is str else tuple(fold(text) for text in self.texts(field))
            self._lowered[field] = found
        return found


def text_of(value: object) -> str:
    """Return a value as Sigma's text has it: booleans in lower case."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


Holds = Callable[[Event], bool]


def compile_node(node: Node, tests: dict[Comparison, Holds]) -> Holds:
    """Return a condition as a function of an event.

    Args:
        node: The condition.
        tests: Functions of tests compiled so far; equal tests share one and its outcome.
    """
    if isinstance(node, Comparison):
        if node not in tests:
            tests[node] = _remembered(len(tests), _compile_test(node))
        return tests[node]
    if isinstance(node, Not):
        inner = compile_node(node.item, tests)
        return lambda event: not inner(event)
    items = tuple(compile_node(item, tests) for item in node.items)
    if len(items) == 1:
        return items[0]
    if isinstance(node, And):
        return lambda event: _all(items, event)
    assert isinstance(node, Or)
    return lambda event: _any(items, event)


def _all(items: tuple[Holds, ...], event: Event) -> bool:
    for item in items:  # noqa: SIM110 - a generator costs more than the test
        if not item(event):
            return False
    return True


def _any(items: tuple[Holds, ...], event: Event) -> bool:
    for item in items:  # noqa: SIM110 - a generator costs more than the test
        if item(event):
            return True
    return False


def _remembered(number: int, test: Holds) -> Holds:
    def holds(event: Event) -> bool:
        known = event.known.get(number)
        if known is None:
            known = event.known[number] = test(event)
        return known

    return holds


def _compile_test(test: Comparison) -> Holds:
    if test.field is None:
        return _keyword(test)
    if test.op in ("eq", "contains", "startswith", "endswith", "like", "re"):
        return _text_test(test.field, test, _text_predicate(test))
    return _SPECIAL[test.op](test.field, test)


def _keyword(test: Comparison) -> Holds:
    """A keyword may stand anywhere in any field."""
    found = Comparison(None, "contains", test.value, test.cased) if test.op == "eq" else test
    predicate = _text_predicate(found)
    cased = found.cased or found.op == "re"
    return lambda event: any(
        predicate(text) for name in event.fields for text in (event.texts(name) if cased else event.lowered(name))
    )


def _text_test(field: str, test: Comparison, predicate: Callable[[str], bool]) -> Holds:
    if test.cased or test.op == "re":
        return lambda event: any(predicate(text) for text in event.texts(field))

    def holds(event: Event) -> bool:
        for text in event.lowered(field):  # noqa: SIM110 - a generator costs more than the test
            if predicate(text):
                return True
        return False

    return holds


def _text_predicate(test: Comparison) -> Callable[[str], bool]:
    wanted = test.value if test.cased or test.op == "re" else fold(test.value)
    if test.op == "eq":
        return lambda text: text == wanted
    if test.op == "contains":
        return lambda text: wanted in text
    if test.op == "startswith":
        return lambda text: text.startswith(wanted)
    if test.op == "endswith":
        return lambda text: text.endswith(wanted)
    if test.op == "like":
        return _like(wanted)
    return Linear(wanted, test.flags).search


def _like(pattern: str) -> Callable[[str], bool]:
    r"""Return the test for a pattern in which `*` is any run, `?` one character, and `\` escapes.

    The first place where a part fits is as good as any later one, so nothing is tried twice.
    """
    parts = [""]
    escaped = False
    for char in pattern:
        if escaped:
            parts[-1] += re.escape(char)
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == "*":
            parts.append("")
        else:
            parts[-1] += "." if char == "?" else re.escape(char)
    compiled = [re.compile(part, re.DOTALL) for part in parts]
    if len(compiled) == 1:
        return lambda text: compiled[0].fullmatch(text) is not None
    first, *middle, _ = compiled
    last = re.compile(rf"(?:{parts[-1]})\Z", re.DOTALL)
    width = len(re.sub(r"\\(.)", r"\1", parts[-1], flags=re.DOTALL))

    def holds(text: str) -> bool:
        found = first.match(text)
        for part in middle:
            if found is None:
                return False
            found = part.search(text, found.end())
        if found is None:
            return False
        begin = len(text) - width
        return begin >= found.end() and last.match(text, begin) is not None

    return holds


def _null(field: str, _test: Comparison) -> Holds:
    return lambda event: event.fields.get(field) is None


def _exists(field: str, test: Comparison) -> Holds:
    wanted = test.value == "true"
    return lambda event: (event.fields.get(field, _MISSING) is not _MISSING) is wanted


def _bool(field: str, test: Comparison) -> Holds:
    return lambda event: test.value in event.lowered(field)


def _cidr(field: str, test: Comparison) -> Holds:
    network = ipaddress.ip_network(test.value, strict=False)

    def contains(text: str) -> bool:
        try:
            return ipaddress.ip_address(text) in network
        except ValueError:
            return False

    return lambda event: any(contains(text) for text in event.texts(field))


def _reference(field: str, test: Comparison) -> Holds:
    compare: Callable[[str, str], bool] = {
        "startswith": str.startswith,
        "endswith": str.endswith,
    }.get(test.flags, str.__eq__)

    def holds(event: Event) -> bool:
        others = event.lowered(test.value)
        return any(compare(text, other) for text in event.lowered(field) for other in others)

    return holds


def _number(value: object) -> float | None:
    try:
        return float(text_of(value))
    except ValueError:
        return None


def _comparison(field: str, test: Comparison) -> Holds:
    bound = float(test.value)
    compare: Callable[[float], bool] = {
        "num": lambda number: number == bound,
        "lt": lambda number: number < bound,
        "lte": lambda number: number <= bound,
        "gt": lambda number: number > bound,
        "gte": lambda number: number >= bound,
    }[test.op]
    return lambda event: any((n := _number(value)) is not None and compare(n) for value in event.values(field))


def _time_part(field: str, test: Comparison) -> Holds:
    wanted = int(test.value)

    def part(value: object) -> int | None:
        moment = _moment(value)
        if moment is None:
            return None
        return moment.isocalendar().week if test.op == "week" else int(getattr(moment, test.op))

    return lambda event: any(part(value) == wanted for value in event.values(field))


def _moment(value: object) -> datetime | None:
    """Return a time given as milliseconds since the epoch or as ISO 8601, in UTC."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000, tz=timezone.utc)
        found = datetime.fromisoformat(text_of(value).replace("Z", "+00:00"))
    except (ValueError, OverflowError, OSError):
        return None
    return found.astimezone(timezone.utc) if found.tzinfo else found.replace(tzinfo=timezone.utc)


_SPECIAL: dict[str, Callable[[str, Comparison], Holds]] = {
    "null": _null,
    "exists": _exists,
    "bool": _bool,
    "cidr": _cidr,
    "ref": _reference,
    **dict.fromkeys(("num", "lt", "lte", "gt", "gte"), _comparison),
    **dict.fromkeys(("minute", "hour", "day", "week", "month", "year"), _time_part),
}
