"""Events that rules describe themselves, from their conditions."""

from __future__ import annotations

import ipaddress
import random
import sys
from typing import Any

from nbsentinel.detect.rules.literals import literal_parts
from nbsentinel.detect.rules.pack import And, Comparison, Node, Not, Or, Rule

if sys.version_info >= (3, 11):
    from re import _constants as sre
    from re import _parser as sre_parser
else:
    import sre_constants as sre
    import sre_parse as sre_parser


def described(rule: Rule, chance: random.Random) -> dict[str, object]:
    """Return an event made of a rule's own literals; it meets the rule unless what must not be came in by chance."""
    parts: dict[str, list[Comparison]] = {}
    _choose(chance.choice(rule.conditions), parts, chance)
    fields: dict[str, object] = {}
    for field, tests in parts.items():
        text = " ".join(_text(test) for test in tests if test.op in ("contains", "like", "re"))
        if all(test.op == "endswith" for test in tests) and chance.random() < 0.5:
            text = "/opt/tools"
        for test in tests:
            if test.op == "startswith":
                text = f"{test.value}{text}"
            elif test.op == "endswith":
                text = f"{text}{test.value}"
        whole = next((_text(test) for test in tests if test.op in ("eq", "cidr", "num")), None)
        fields[field] = text if whole is None else whole
    return fields


def _choose(node: Node, parts: dict[str, list[Comparison]], chance: random.Random) -> None:
    """Collect tests that together meet a condition; what must not be is left to luck."""
    if isinstance(node, Comparison):
        if node.field is not None:
            parts.setdefault(node.field, []).append(node)
    elif isinstance(node, Or):
        _choose(chance.choice(node.items), parts, chance)
    elif isinstance(node, And):
        for item in node.items:
            _choose(item, parts, chance)
    else:
        assert isinstance(node, Not)


def _text(test: Comparison) -> str:
    if test.op == "like":
        return "x".join(literal_parts(test.value))
    if test.op == "re":
        return example(test.value)
    if test.op == "cidr":
        return str(ipaddress.ip_network(test.value, strict=False)[0])
    return test.value


def example(pattern: str) -> str:
    """Return a text that contains a regular expression."""
    return "".join(_example(operation, argument) for operation, argument in sre_parser.parse(pattern))


def _example(operation: Any, argument: Any) -> str:
    if operation is sre.LITERAL:
        return chr(argument)
    if operation is sre.IN:
        return _member(argument)
    if operation is sre.SUBPATTERN:
        return "".join(_example(*item) for item in argument[3])
    if operation is sre.BRANCH:
        return "".join(_example(*item) for item in argument[1][0])
    if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        least, _, items = argument
        return "".join(_example(*item) for item in items) * least
    return "" if operation is sre.AT else "x"


def _member(items: Any) -> str:
    kind, value = items[0]
    if kind is sre.NEGATE:
        return "q"
    if kind is sre.CATEGORY:
        return {sre.CATEGORY_SPACE: " ", sre.CATEGORY_DIGIT: "7"}.get(value, "w")
    return chr(value[0] if kind is sre.RANGE else value)
