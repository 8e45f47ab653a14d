r"""Regular expressions in time linear in the text, whatever the pattern and whoever wrote the text.

Python's own engine tries alternatives one after the other: `(a+)+$` takes hours on forty letters, and the text of a
command line is the attacker's. Here a pattern becomes a set of positions that are followed all at once (Thompson,
1968), and sets that were met before are remembered, so that most characters cost one look into a dictionary. What such
an engine cannot do is refused when the rule is compiled: look-around, back-references, atomic groups. The worst that a
text can do is to meet a new set at every character; that costs characters times positions, and positions are bounded.

Python parses the pattern, so that a rule means here what it means to `re`, apart from ignored case, which compares
characters as `fold` lowers them.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from nbsentinel.detect.rules.text import fold, fold_char

if sys.version_info >= (3, 11):
    from re import _constants as sre  # type: ignore[attr-defined]
    from re import _parser as sre_parser  # type: ignore[attr-defined]
else:
    import sre_constants as sre
    import sre_parse as sre_parser

POSITION_LIMIT = 4_000
"""Positions of one pattern; counted repetitions are written out, so `(.){200,}` has about 400."""
REMEMBERED_LIMIT = 10_000
"""Steps from one set of positions to another that are remembered for one pattern; then all are forgotten."""
_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL}
_START, _OTHER, _WORD, _LINE, _LAST_LINE, _END = range(6)
"""What a place in a text has before or behind it: nothing, a character, a word's, a line's end, the last line's end."""


class PatternError(ValueError):
    """A pattern that cannot be matched in linear time, or is no pattern."""


class _Chars:
    """A set of characters that a position accepts."""

    __slots__ = ("_folds", "_items", "_negated", "target")

    def __init__(self, items: list[tuple[Any, Any]], *, negated: bool, folds: bool) -> None:
        self._items, self._negated, self._folds = items, negated, folds
        self.target = -1

    def accepts(self, char: str) -> bool:
        """Return whether a character is in the set."""
        forms = {char, fold_char(char), *_upper(char)} if self._folds else {char}
        return any(self._has(form) for form in forms) is not self._negated

    def _has(self, char: str) -> bool:
        code = ord(char)
        for kind, value in self._items:
            if kind is sre.LITERAL:
                if code == value or (self._folds and fold_char(char) == fold_char(chr(value))):
                    return True
            elif kind is sre.RANGE:
                if value[0] <= code <= value[1]:
                    return True
            elif _in_category(value, char):
                return True
        return False


def _upper(char: str) -> str:
    upper = char.upper()
    return upper if len(upper) == 1 else ""


def _in_category(category: Any, char: str) -> bool:
    positive = {
        sre.CATEGORY_DIGIT: str.isdecimal,
        sre.CATEGORY_SPACE: str.isspace,
        sre.CATEGORY_WORD: _is_word,
    }.get(category)
    if positive is not None:
        return positive(char)
    negative = {
        sre.CATEGORY_NOT_DIGIT: str.isdecimal,
        sre.CATEGORY_NOT_SPACE: str.isspace,
        sre.CATEGORY_NOT_WORD: _is_word,
    }[category]
    return not negative(char)


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


class _Builder:
    """From Python's parse of a pattern to positions: ways out of each are free, bound to a place, or by a character."""

    def __init__(self) -> None:
        self.free: list[list[int]] = []
        self.bound: list[tuple[Any, int] | None] = []
        self.chars: list[_Chars | None] = []
        self.folds = False
        """Whether case is ignored anywhere."""

    def new(self) -> int:
        if len(self.free) >= POSITION_LIMIT:
            raise PatternError(f"needs more than {POSITION_LIMIT} positions; write smaller repetitions")
        self.free.append([])
        self.bound.append(None)
        self.chars.append(None)
        return len(self.free) - 1

    def sequence(self, items: Any, start: int, flags: int) -> int:
        for operation, argument in items:
            start = self._item(operation, argument, start, flags)
        return start

    def _item(self, operation: Any, argument: Any, start: int, flags: int) -> int:
        if operation in (sre.LITERAL, sre.NOT_LITERAL):
            return self._step([(sre.LITERAL, argument)], operation is sre.NOT_LITERAL, start, flags)
        if operation is sre.ANY:
            newline = [] if flags & re.DOTALL else [(sre.LITERAL, 10)]
            return self._step(newline, True, start, 0)
        if operation is sre.IN:
            negated = argument[0][0] is sre.NEGATE
            return self._step(argument[negated:], negated, start, flags)
        if operation is sre.SUBPATTERN:
            _, added, removed, items = argument
            return self.sequence(items, start, (flags | added) & ~removed)
        if operation is sre.BRANCH:
            end = self.new()
            for branch in argument[1]:
                first = self.new()
                self.free[start].append(first)
                self.free[self.sequence(branch, first, flags)].append(end)
            return end
        if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            return self._repeat(argument, start, flags)
        if operation is sre.AT:
            end = self.new()
            multiline = flags & re.MULTILINE
            moved = {sre.AT_BEGINNING: sre.AT_BEGINNING_LINE, sre.AT_END: sre.AT_END_LINE} if multiline else {}
            middle = self.new()
            self.free[start].append(middle)
            self.bound[middle] = (moved.get(argument, argument), end)
            return end
        name = str(operation).lower().replace("_", " ")
        raise PatternError(f"{name}: look-around, back-references and atomic groups cannot be matched in linear time")

    def _step(self, items: list[tuple[Any, Any]], negated: bool, start: int, flags: int) -> int:
        chars = _Chars(list(items), negated=negated, folds=bool(flags & re.IGNORECASE))
        self.folds = self.folds or bool(flags & re.IGNORECASE)
        middle, end = self.new(), self.new()
        self.free[start].append(middle)
        chars.target = end
        self.chars[middle] = chars
        return end

    def _repeat(self, argument: Any, start: int, flags: int) -> int:
        least, most, items = argument
        for _ in range(least):
            start = self.sequence(items, start, flags)
        end = self.new()
        self.free[start].append(end)
        if most == sre.MAXREPEAT:
            again = self.new()
            self.free[start].append(again)
            last = self.sequence(items, again, flags)
            self.free[last] += [again, end]
            return end
        for _ in range(most - least):
            start = self.sequence(items, start, flags)
            self.free[start].append(end)
        return end


class _State:
    """A set of positions behind some character, and where each further character leads."""

    __slots__ = ("behind", "next", "positions")

    def __init__(self, positions: frozenset[int], behind: int) -> None:
        self.positions, self.behind = positions, behind
        self.next: dict[str, _State | None] = {}
        """None where the pattern is met before that character."""


class Linear:
    """A regular expression that can say whether a text contains it.

    Args:
        pattern: As Python's `re` writes it.
        flags: Any of `i`, `m`, `s`.

    Raises:
        PatternError: No pattern, or one with look-around, back-references or too large repetitions.
    """

    def __init__(self, pattern: str, flags: str = "") -> None:
        wanted = 0
        for name in flags:
            wanted |= _FLAGS[name]
        try:
            parsed = sre_parser.parse(pattern, wanted)
        except (re.error, OverflowError, RecursionError) as error:
            raise PatternError(f"not a regular expression: {error}") from error
        if parsed.state.flags & (re.ASCII | re.LOCALE):
            raise PatternError("the flags a and L are not supported")
        self._builder = _Builder()
        self._first = self._builder.new()
        self._met = self._builder.sequence(parsed, self._first, parsed.state.flags)
        self._states: dict[tuple[frozenset[int], int], _State] = {}
        self._steps = 0
        found = _required(parsed)
        self._needed = () if self._builder.folds else tuple(map(tuple, found))
        self.required = [frozenset(map(fold, choice)) for choice in found]
        """Sets of folded texts: a text that contains the pattern contains one of each set."""

    def search(self, text: str) -> bool:
        """Return whether the text contains the pattern."""
        for choice in self._needed:
            for one in choice:
                if one in text:
                    break
            else:
                return False
        state = self._state(frozenset(), _START)
        for char in text.removesuffix("\n"):
            found = state.next.get(char, state)
            if found is state and char not in state.next:
                found = self._step(state, char, _kind(char))
            if found is None:
                return True
            state = found
        if text.endswith("\n"):
            if self._met in self._closure(state, _LAST_LINE):
                return True
            state = self._moved(state, "\n", _LAST_LINE)
        return self._met in self._closure(state, _END)

    def _state(self, positions: frozenset[int], behind: int) -> _State:
        known = self._states.get((positions, behind))
        if known is None:
            known = self._states[positions, behind] = _State(positions, behind)
        return known

    def _step(self, state: _State, char: str, kind: int) -> _State | None:
        if self._steps >= REMEMBERED_LIMIT:
            for known in self._states.values():
                known.next.clear()
            self._states.clear()
            self._steps = 0
        self._steps += 1
        met = self._met in self._closure(state, kind)
        found = None if met else self._moved(state, char, kind)
        state.next[char] = found
        return found

    def _moved(self, state: _State, char: str, kind: int) -> _State:
        behind = _LINE if kind == _LAST_LINE else kind
        positions = set()
        for position in self._closure(state, kind):
            chars = self._builder.chars[position]
            if chars is not None and chars.accepts(char):
                positions.add(chars.target)
        return self._state(frozenset(positions), behind)

    def _closure(self, state: _State, ahead: int) -> set[int]:
        """Return the positions that can be reached without a character, from the state's and from a new beginning."""
        found = {self._first, *state.positions}
        waiting = list(found)
        while waiting:
            position = waiting.pop()
            reached = list(self._builder.free[position])
            bound = self._builder.bound[position]
            if bound is not None and _holds(bound[0], state.behind, ahead):
                reached.append(bound[1])
            for other in reached:
                if other not in found:
                    found.add(other)
                    waiting.append(other)
        return found


def _kind(char: str) -> int:
    if char == "\n":
        return _LINE
    return _WORD if _is_word(char) else _OTHER


def _holds(place: Any, behind: int, ahead: int) -> bool:
    if place in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
        return behind == _START
    if place is sre.AT_BEGINNING_LINE:
        return behind in (_START, _LINE)
    if place is sre.AT_END:
        return ahead in (_END, _LAST_LINE)
    if place is sre.AT_END_STRING:
        return ahead == _END
    if place is sre.AT_END_LINE:
        return ahead in (_END, _LINE, _LAST_LINE)
    boundary = (behind == _WORD) is not (ahead == _WORD)
    if place is sre.AT_BOUNDARY:
        return boundary
    # In Python before 3.14 a text without a character has no boundary and no place that is none.
    return not boundary and (sys.version_info >= (3, 14) or not (behind == _START and ahead == _END))


CHOICE_LIMIT = 16
"""Texts that one run of characters may have for it to be worth looking up."""


def _required(items: Any) -> list[frozenset[str]]:
    """Return sets of texts; every text that contains the pattern contains one of each set, apart from case."""
    found: list[frozenset[str]] = []
    runs = {""}

    def close() -> None:
        if "" not in runs:
            found.append(frozenset(runs))
        runs.clear()
        runs.add("")

    for operation, argument in _flat(items):
        chars = _few(operation, argument)
        if chars and len(runs) * len(chars) <= CHOICE_LIMIT:
            runs = {run + char for run in runs for char in chars}
            continue
        if operation is sre.AT:
            continue
        close()
        if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT) and argument[0] > 0:
            found += _required(argument[2])
        elif operation is sre.BRANCH:
            options = [_required(branch) for branch in argument[1]]
            if all(options):
                found.append(frozenset().union(*(max(option, key=_shortest) for option in options)))
    close()
    return found


def _flat(items: Any) -> Any:
    for operation, argument in items:
        if operation is sre.SUBPATTERN:
            yield from _flat(argument[3])
        else:
            yield operation, argument


def _few(operation: Any, argument: Any) -> list[str]:
    """Return the characters of an item that is one of few, else nothing."""
    if operation is sre.LITERAL:
        return [chr(argument)]
    if operation is sre.IN and len(argument) <= CHOICE_LIMIT and all(kind is sre.LITERAL for kind, _ in argument):
        return [chr(value) for _, value in argument]
    return []


def _shortest(texts: frozenset[str]) -> int:
    return min(len(text) for text in texts)
