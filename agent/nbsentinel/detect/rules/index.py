"""Which rules of a category an event could meet: one pass of Aho-Corasick over all its fields at once.

A rule is looked up by the clause that ordinary commands meet least, and then must meet its other clauses that are worth
asking. What was found is remembered by the event's text,
because the same process is matched several times, and the same commands come again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from nbsentinel.detect.rules.evaluate import text_of
from nbsentinel.detect.rules.literals import MARKS, Clause, clauses, cost, is_framed
from nbsentinel.detect.rules.pack import And, Comparison, Node, Not, Or
from nbsentinel.detect.rules.text import fold

try:
    import ahocorasick_rs as automata
except ImportError:  # no wheel for this platform: slower, and the same answers
    automata = None  # type: ignore[assignment,unused-ignore]

HAS_AUTOMATA = automata is not None
REMEMBERED_LIMIT = 2_048
"""Texts remembered in each of two generations."""
REMEMBERED_LENGTH = 1_024
"""Longer texts are not remembered: so all that is remembered stays below 8 MB, whatever is executed."""
CLAUSES, CLAUSE_COST, CLAUSE_LENGTH = 4, 6.0, 60
"""Clauses of a rule that are asked, how often ordinary commands may meet them, and their literals: each literal that is
asked for costs a hit wherever it occurs; one with a mark only in its field's one place."""
T = TypeVar("T")
Find = Callable[[str], set[int]]


class Index(Generic[T]):
    """The rules of one category.

    Args:
        items: Each rule with its condition. Their order is the order of the answers.
    """

    def __init__(self, items: Iterable[tuple[T, Node]]) -> None:
        items = list(items)
        self._marks = {name: chr(min(n, MARKS - 1)) for n, name in enumerate(fields_of(node for _, node in items))}
        numbers: dict[str, int] = {}
        always: list[int] = []
        wanted: list[list[tuple[int, tuple[frozenset[int], ...]]]] = []

        def number_of(literal: str) -> int:
            if literal not in numbers:
                numbers[literal] = len(numbers)
                wanted.append([])
            return numbers[literal]

        for place, (_, node) in enumerate(items):
            needed = sorted(set(clauses(node, self._marks.__getitem__)), key=_order)
            if not needed:
                always.append(place)
                continue
            first, *others = needed
            worth = [other for other in others if len(other) <= CLAUSE_LENGTH and _is_worth(other)][: CLAUSES - 1]
            rest = tuple(frozenset(number_of(literal) for literal in sorted(other)) for other in worth)
            for literal in sorted(first):
                wanted[number_of(literal)].append((place, rest))
        self._items = tuple(item for item, _ in items)
        self._always = frozenset(always)
        self._unmatched = tuple(self._items[place] for place in always)
        self._rules = tuple(tuple(entry) for entry in wanted)
        self._find = _finder(list(numbers))
        self._framed = tuple(self._marks.items())
        self._young: dict[str, tuple[T, ...]] = {}
        self._old: dict[str, tuple[T, ...]] = {}
        self.asked = self.remembered = 0
        """How often candidates were asked for, and how often they were known."""

    def candidates(self, fields: Mapping[str, object]) -> tuple[T, ...]:
        """Return the rules that an event could meet, in order; a rule that is not among them is not met."""
        parts: list[str] = []
        get = fields.get
        for name, mark in self._framed:
            value = get(name)
            if value is None:
                continue
            if value.__class__ is str:
                parts += (mark, value, mark)
            else:
                for one in value if isinstance(value, (list, tuple)) else (value,):
                    parts += (mark, text_of(one), mark)
        text = "".join(parts)
        self.asked += 1
        found = self._young.get(text)
        if found is not None:
            self.remembered += 1
            return found
        found = self._old.get(text)
        if found is None:
            found = self._look_up(fold(text))
        else:
            self.remembered += 1
        if len(text) <= REMEMBERED_LENGTH:
            if len(self._young) >= REMEMBERED_LIMIT:
                self._old, self._young = self._young, {}
            self._young[text] = found
        return found

    def _look_up(self, text: str) -> tuple[T, ...]:
        hits = self._find(text)
        if not hits:
            return self._unmatched
        places = set(self._always)
        for hit in hits:
            for place, rest in self._rules[hit]:
                if place in places:
                    continue
                for clause in rest:
                    if clause.isdisjoint(hits):
                        break
                else:
                    places.add(place)
        return tuple(self._items[place] for place in sorted(places))


def _is_worth(clause: Clause) -> bool:
    return cost(clause)[0] <= CLAUSE_COST or all(map(is_framed, clause))


def _order(clause: Clause) -> tuple[float, int, list[str]]:
    return (*cost(clause), sorted(clause))


def _finder(literals: list[str]) -> Find:
    """Return a function from a text to the numbers of the literals in it."""
    if not literals:
        return lambda _: set()
    if not HAS_AUTOMATA:
        return lambda text: {number for number, literal in enumerate(literals) if literal in text}
    automaton = automata.AhoCorasick(literals, implementation=automata.Implementation.DFA)
    search = automaton.find_matches_as_indexes
    return lambda text: {hit[0] for hit in search(text, overlapping=True)}


def fields_of(nodes: Iterable[Node]) -> list[str]:
    """Return the fields that have literals, those of most tests first."""
    counts: dict[str, int] = {}

    def walk(node: Node) -> None:
        if isinstance(node, Comparison):
            if node.field is not None and node.op in ("eq", "contains", "startswith", "endswith", "like", "re", "bool"):
                counts[node.field] = counts.get(node.field, 0) + 1
        elif isinstance(node, Not):
            walk(node.item)
        else:
            assert isinstance(node, (And, Or))
            for item in node.items:
                walk(item)

    for node in nodes:
        walk(node)
    return sorted(counts, key=lambda name: (-counts[name], name))
