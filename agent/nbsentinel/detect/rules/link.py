"""Joining documents: which filters belong to which rules, and what correlations take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sigma.correlations import (
    CorrelationConditionAND,
    CorrelationConditionNOT,
    SigmaCorrelationRule,
    SigmaExtendedCorrelationCondition,
    SigmaRuleReference,
)

from nbsentinel.detect.rules.conditions import UnsupportedError
from nbsentinel.detect.rules.documents import Base, Correlated, Document, Filtering
from nbsentinel.detect.rules.pack import (
    And,
    Comparison,
    Correlation,
    FailedRule,
    Filter,
    GroupField,
    Node,
    Not,
    Or,
    Rule,
)

COUNT_LIMIT = 10_000
"""Largest bound of a count: so many events of one group are kept."""
_TYPES = ("event_count", "value_count", "temporal", "temporal_ordered")


def link(documents: Iterable[Document]) -> tuple[tuple[Rule, ...], tuple[Filter, ...], tuple[FailedRule, ...]]:
    """Return rules with their filters and correlations, the filters in use, and what could not be joined."""
    documents = list(documents)
    bases = [item for item in documents if isinstance(item, Base)]
    failed: list[FailedRule] = []
    belongs: dict[str, list[str]] = {}
    filters = []
    for item in documents:
        if isinstance(item, Filtering):
            chosen = _filtered(item, bases, failed)
            filters += [item.filter] if chosen else []
            for base in chosen:
                belongs.setdefault(base.id, []).append(item.id)
    correlations = _correlations([d for d in documents if isinstance(d, Correlated)], bases, failed)
    asked: dict[str, bool] = {}
    for rule in correlations:
        assert rule.correlation is not None
        for uid in rule.correlation.rules:
            asked[uid] = asked.get(uid, False) or rule.correlation.generate
    rules = [*(base.rule for base in bases), *correlations]
    linked = (
        msgspec.structs.replace(rule, reports=asked.get(rule.id, True), filters=tuple(sorted(belongs.get(rule.id, ()))))
        for rule in rules
    )
    return tuple(linked), tuple(filters), tuple(failed)


def _names(documents: Iterable[Document]) -> dict[str, Document]:
    found: dict[str, Document] = {}
    for document in documents:
        found.setdefault(document.name, document)
    for document in documents:
        found[document.id] = document
    return found


def _filtered(item: Filtering, bases: list[Base], failed: list[FailedRule]) -> list[Base]:
    """Return the rules that a filter belongs to; a name without one is reported and the others count."""
    if item.rules is None:
        chosen = [base for base in bases if base.logsource in item.logsource]
        if not chosen:
            failed.append(item.fail("logsource", "no rule has this logsource, so the filter does nothing"))
        return chosen
    names, chosen = _names(bases), []
    for name in item.rules:
        base = names.get(name)
        if not isinstance(base, Base):
            failed.append(item.fail("rules", f"no rule on events is called {name!r}"))
        elif base.logsource not in item.logsource:
            failed.append(item.fail("logsource", f"the rule {name!r} has another logsource"))
        else:
            chosen.append(base)
    return chosen


def _correlations(documents: list[Correlated], bases: list[Base], failed: list[FailedRule]) -> list[Rule]:
    """Return the correlations whose rules all exist; the others, and those that go in circles, are reported."""
    names, ready, waiting = _names([*bases, *documents]), {base.id for base in bases}, list(documents)
    found: list[Rule] = []
    while waiting:
        left = []
        for document in waiting:
            try:
                correlation = _correlation(document.sigma, names)
            except UnsupportedError as error:
                failed.append(document.fail(error.key, error.message))
                continue
            if all(uid in ready for uid in correlation.rules):
                ready.add(document.id)
                found.append(msgspec.structs.replace(document.rule, correlation=correlation))
            else:
                left.append((document, correlation))
        if len(left) == len(waiting):
            for document, correlation in left:
                missing = ", ".join(uid for uid in correlation.rules if uid not in ready)
                failed.append(document.fail("rules", f"what it takes cannot be used, or goes in circles: {missing}"))
            break
        waiting = [document for document, _ in left]
    return found


def _correlation(sigma: SigmaCorrelationRule, names: dict[str, Document]) -> Correlation:
    kind = sigma.type.name.lower()
    if kind not in _TYPES:
        raise UnsupportedError("type", f"{kind} is not supported; these are: {', '.join(_TYPES)}")
    condition = sigma.condition
    if sigma.rules is not None:
        named = [str(reference.reference) for reference in sigma.rules]
    else:
        assert isinstance(condition, SigmaExtendedCorrelationCondition)
        named = condition.get_referenced_rules()
    rules = tuple(_resolved(name, names) for name in named)
    if not rules:
        raise UnsupportedError("rules", "a correlation needs rules")
    values: dict[str, Any] = {"type": kind}
    if isinstance(condition, SigmaExtendedCorrelationCondition):
        if kind == "temporal":
            values["condition"] = _presence(condition.parsed, names)
        else:
            rules = _order(condition, names)
    elif kind == "temporal_ordered":
        _check_order(condition, len(rules))
    else:
        values |= _bound(condition, kind, len(set(rules)))
    return Correlation(
        rules=rules,
        timespan_ms=sigma.timespan.seconds * 1000,
        group_by=tuple(_group_field(name, sigma, names) for name in sigma.group_by or ()),
        generate=sigma.generate,
        **values,
    )


def _resolved(name: str, names: dict[str, Document]) -> str:
    if name not in names:
        raise UnsupportedError("rules", f"no rule is called {name!r}")
    return names[name].id


def _presence(item: Any, names: dict[str, Document]) -> Node:
    if isinstance(item, SigmaRuleReference):
        return Comparison(_resolved(str(item.reference), names), "exists", "true")
    parts = tuple(_presence(part, names) for part in item.args)
    if isinstance(item, CorrelationConditionNOT):
        return Not(parts[0])
    return And(parts) if isinstance(item, CorrelationConditionAND) else Or(parts)


def _order(condition: SigmaExtendedCorrelationCondition, names: dict[str, Document]) -> tuple[str, ...]:
    """Return the rules of an order that is written as `a and b and c`."""
    parsed = condition.parsed
    if isinstance(parsed, CorrelationConditionAND):
        named = [str(item.reference) for item in parsed.args if isinstance(item, SigmaRuleReference)]
        if len(named) == len(parsed.args):
            return tuple(_resolved(name, names) for name in named)
    raise UnsupportedError("condition", "an order needs rules that are joined by `and` alone")


def _check_order(condition: Any, rules: int) -> None:
    if (condition.op.name, condition.count) != ("GTE", rules):
        raise UnsupportedError("condition", "an order is met by all of its rules; leave the condition away")


def _bound(condition: Any, kind: str, rules: int) -> dict[str, Any]:
    op, count = condition.op.name.lower(), condition.count
    if not isinstance(count, int) or not 0 <= count <= COUNT_LIMIT:
        raise UnsupportedError("condition", f"{count} is not a whole number from 0 to {COUNT_LIMIT}")
    if kind == "temporal":
        count = min(count, rules) if op == "gte" else count  # a rule may be named twice
    never = {"lt": count <= 1, "lte": count < 1, "eq": count < 1, "neq": False, "gt": False, "gte": False}[op]
    if never:
        raise UnsupportedError("condition", f"{op} {count} can never be met: what has no event has no group")
    fields = condition.fieldref or ()
    return {"op": op, "count": count, "values": (fields,) if isinstance(fields, str) else tuple(fields)}


def _group_field(name: str, sigma: SigmaCorrelationRule, names: dict[str, Document]) -> GroupField:
    alias = sigma.aliases.aliases.get(name)
    mapping = {} if alias is None else {_resolved(str(r.reference), names): f for r, f in alias.mapping.items()}
    return GroupField(name, mapping)
