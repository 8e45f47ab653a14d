"""From pySigma's parsed conditions to a pack's tree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sigma import conditions, types

from nbsentinel.detect.rules.linear import Linear, PatternError
from nbsentinel.detect.rules.pack import And, Comparison, Node, Not, Or

Placeholders = Mapping[str, tuple[str, ...]]
"""Values for the modifier `expand`, by the name between the percent signs."""

_PARTS = ("minute", "hour", "day", "week", "month", "year")
_FLAGS = {"IGNORECASE": "i", "MULTILINE": "m", "DOTALL": "s"}
_COMPARE = {"LT": "lt", "LTE": "lte", "GT": "gt", "GTE": "gte"}


class UnsupportedError(Exception):
    """Something in a rule that we cannot match; says which key and why."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key, self.message = key, message


def convert(item: Any, placeholders: Placeholders) -> Node:
    """Return a parsed condition as a tree.

    Raises:
        UnsupportedError: A value type that cannot be matched, for example a placeholder without a value.
    """
    if isinstance(item, conditions.ConditionAND):
        return And(tuple(convert(child, placeholders) for child in item.args))
    if isinstance(item, conditions.ConditionOR):
        return Or(tuple(convert(child, placeholders) for child in item.args))
    if isinstance(item, conditions.ConditionNOT):
        return Not(convert(item.args[0], placeholders))
    if isinstance(item, conditions.ConditionFieldEqualsValueExpression):
        return _value(item.field, item.value, placeholders)
    if isinstance(item, conditions.ConditionValueExpression):
        return _value(None, item.value, placeholders)
    raise UnsupportedError("condition", f"{type(item).__name__} cannot be matched")


def _value(field: str | None, value: Any, placeholders: Placeholders) -> Node:
    if isinstance(value, types.SigmaExpansion):
        return Or(tuple(_value(field, child, placeholders) for child in value.values))
    if isinstance(value, (types.SigmaString, types.SigmaRegularExpression)) and value.contains_placeholder():
        replaced = _replaced(field, value, placeholders)
        return replaced[0] if len(replaced) == 1 else Or(tuple(replaced))
    if isinstance(value, types.SigmaString):
        return string_test(field, value)
    if isinstance(value, types.SigmaRegularExpression):
        return _pattern(field, str(value.regexp.original), value.flags)
    if field is None:
        if isinstance(value, types.SigmaNumber):
            return Comparison(None, "contains", str(value))
        raise UnsupportedError("detection", f"{type(value).__name__} needs a field")
    return _typed(field, value)


def _replaced(field: str | None, value: Any, placeholders: Placeholders) -> list[Node]:
    expression = isinstance(value, types.SigmaRegularExpression)

    def values(placeholder: Any) -> Iterator[Any]:
        if not placeholders.get(placeholder.name):
            reason = f"the placeholder %{placeholder.name}% has no value; give a file with --placeholders"
            raise UnsupportedError(field or "detection", reason)
        for text in placeholders[placeholder.name]:
            yield re.escape(text) if expression else types.SigmaString(text)

    if expression:
        found = value.regexp.replace_placeholders(values)
        return [_pattern(field, "".join(str(part) for part in item.s), value.flags) for item in found]
    cased = isinstance(value, types.SigmaCasedString)
    return [string_test(field, item, cased=cased) for item in value.replace_placeholders(values)]


def _pattern(field: str | None, pattern: str, given: Iterable[Any]) -> Comparison:
    flags = "".join(sorted(_FLAGS[flag.name] for flag in given if flag.name in _FLAGS))
    try:
        Linear(pattern, flags)
    except PatternError as error:
        raise UnsupportedError(field or "detection", str(error)) from error
    return Comparison(field, "re", pattern, True, flags)


def _typed(field: str, value: Any) -> Node:
    if isinstance(value, types.SigmaTimestampPart):
        part = value.timestamp_part.name.lower()
        if part in _PARTS:
            return Comparison(field, part, str(value.number))  # type: ignore[arg-type]
    if isinstance(value, types.SigmaNumber):
        return Comparison(field, "num", str(value.number))
    if isinstance(value, types.SigmaBool):
        return Comparison(field, "bool", "true" if value.boolean else "false")
    if isinstance(value, types.SigmaNull):
        return Comparison(field, "null")
    if isinstance(value, types.SigmaExists):
        return Comparison(field, "exists", "true" if value.exists else "false")
    if isinstance(value, types.SigmaCIDRExpression):
        return Comparison(field, "cidr", value.cidr)
    if isinstance(value, types.SigmaCompareExpression) and value.op.name in _COMPARE:
        return Comparison(field, _COMPARE[value.op.name], str(value.number.number))  # type: ignore[arg-type]
    if isinstance(value, types.SigmaFieldReference):
        flags = "startswith" if value.starts_with else "endswith" if value.ends_with else ""
        return Comparison(field, "ref", value.field, flags=flags)
    raise UnsupportedError(field, f"{type(value).__name__} cannot be matched")


def string_test(field: str | None, value: types.SigmaString, *, cased: bool | None = None) -> Node:
    """Return the test for a Sigma string: the simplest operation that means the same as its wildcards."""
    cased = isinstance(value, types.SigmaCasedString) if cased is None else cased
    parts = list(value.s)
    many = types.SpecialChars.WILDCARD_MULTI
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) == 1 and all(part == many for part in parts if not isinstance(part, str)):
        before, after = parts[0] == many, parts[-1] == many
        operation = {(True, True): "contains", (True, False): "endswith", (False, True): "startswith"}.get(
            (before, after), "eq"
        )
        return Comparison(field, operation, texts[0], cased)  # type: ignore[arg-type]
    if not parts:
        return Comparison(field, "eq", "", cased)
    if field is not None and parts == [many]:
        return Comparison(field, "exists", "true")
    return Comparison(field, "like", "".join(_escaped(part, many) for part in parts), cased)


def _escaped(part: object, many: object) -> str:
    if isinstance(part, str):
        return part.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")
    return "*" if part == many else "?"
