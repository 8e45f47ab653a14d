"""A page for each rule, and an index by tactic, in Markdown. Pure."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence

from nbsentinel.detect.rules.needs import EXAMPLES, NEEDS, behaviour_of, fields_in, guarded_only
from nbsentinel.detect.rules.pack import Rule
from nbsentinel.events import Technique

MADE = "<!-- Made from the rules by `nbsentinel rules pages`; changes here are lost. -->"
"""The first line of every page: what begins with it may be replaced and removed."""
INDEX = "README.md"
LEVELS = ("critical", "high", "medium", "low", "informational")
_TACTICS = ("TA0043", "TA0042", "TA0001", "TA0002", "TA0003", "TA0004", "TA0005", "TA0006", "TA0007", "TA0008")
_TACTICS_LATER = ("TA0009", "TA0011", "TA0010", "TA0040")
_ORDER = {uid: number for number, uid in enumerate((*_TACTICS, *_TACTICS_LATER))}
"""Tactics as the ATT&CK matrix has them, from left to right."""
_EXAMPLE_SPACE = uuid.UUID("5b1d7a52-7c0e-4c34-9a55-4b7f0d1fffff")
_FILE_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def pages(rules: Sequence[Rule], texts: Mapping[str, str], *, reference: str = "") -> dict[str, str]:
    """Return all pages by file name.

    Args:
        rules: The rules, compiled together.
        texts: The detection of each by rule id, as its author wrote it.
        reference: Where the pages about fields and exceptions are, seen from here; empty for nowhere.
    """
    names = _file_names(rules)
    takers: dict[str, list[Rule]] = {}
    for rule in rules:
        for uid in rule.correlation.rules if rule.correlation else ():
            takers.setdefault(uid, []).append(rule)
    book = _Book({rule.id: rule for rule in rules}, names, takers, texts, reference)
    made = {names[rule.id]: book.page(rule) for rule in rules}
    return {INDEX: _index(rules, names, reference), **made}


def _file_names(rules: Iterable[Rule]) -> dict[str, str]:
    """Return a file name for each rule id; what is called alike is told apart by a part of its id."""
    found: dict[str, str] = {}
    taken = {INDEX.lower()}
    for rule in rules:
        stem = _FILE_NAME.sub("-", rule.name).strip("-") or "rule"
        names = (f"{stem}.md", f"{stem}-{_FILE_NAME.sub('-', rule.id)[-12:]}.md")
        name = next((name for name in names if name.lower() not in taken), f"{stem}-{len(taken)}.md")
        taken.add(name.lower())
        found[rule.id] = name
    return found


def tactics_of(rule: Rule) -> list[tuple[str, str]]:
    """Return uid and name of the tactics that a rule's techniques belong to, in the matrix's order."""
    found = {(t.tactic_uid, t.tactic) for t in rule.techniques if t.tactic_uid}
    return sorted(found, key=lambda tactic: (_ORDER.get(tactic[0], len(_ORDER)), tactic))


def technique_url(technique: Technique) -> str:
    """Return where ATT&CK describes a technique."""
    return f"https://attack.mitre.org/techniques/{technique.uid.replace('.', '/')}/"


class _Book:
    """What the pages have in common."""

    def __init__(
        self,
        rules: Mapping[str, Rule],
        names: Mapping[str, str],
        takers: Mapping[str, Sequence[Rule]],
        texts: Mapping[str, str],
        reference: str,
    ) -> None:
        self._rules, self._names, self._takers = rules, names, takers
        self._texts, self._reference = texts, reference

    def page(self, rule: Rule) -> str:
        """Return the page of a rule."""
        parts = [MADE, f"# {_text(rule.title)}", self._facts(rule)]
        parts += self._section("What it means", rule.description)
        parts += self._section("Why it matters", rule.why)
        parts += _list("What to do", rule.advice)
        parts += _list("What else it could be", rule.false_positives)
        parts += ["## Data it needs", *self._data(rule)]
        if text := self._texts.get(rule.id):
            parts += ["## Detection", f"```yaml\n{text}\n```"]
        parts += ["## An exception", *self._exception(rule)]
        return "\n\n".join(parts) + "\n"

    def _section(self, title: str, text: str) -> list[str]:
        return [f"## {title}", _text(text)] if text else []

    def _facts(self, rule: Rule) -> str:
        attacks = "<br>".join(f"[{t.uid}]({technique_url(t)}) {t.name} ({t.tactic})" for t in rule.techniques)
        rows = [
            ("name", _code(rule.name)),
            ("id", _code(rule.id)),
            ("level", "; ".join((rule.level, *(f"{v} on {k}" for k, v in sorted(rule.level_by_surface.items()))))),
            ("confidence", _confidence(rule)),
            ("category", _code(rule.category)),
            ("a match is", self._outcome(rule)),
            ("ATT&CK", attacks or "none named"),
        ]
        return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])

    def _link(self, rule: Rule) -> str:
        return f"[{_code(rule.name)}]({self._names[rule.id]})"

    def _outcome(self, rule: Rule) -> str:
        taken = ", ".join(self._link(other) for other in self._takers.get(rule.id, ()))
        if not rule.reports:
            return f"no finding by itself; {taken} counts it"
        return f"a finding; {taken} counts it too" if taken else "a finding"

    def _bases(self, rule: Rule) -> list[Rule]:
        """Return the rules on events that a rule rests on: itself, or all below a correlation."""
        if rule.correlation is None:
            return [rule]
        found: dict[str, Rule] = {}
        for uid in rule.correlation.rules:
            found |= {base.id: base for base in self._bases(self._rules[uid])}
        return list(found.values())

    def _data(self, rule: Rule) -> Iterator[str]:
        if rule.correlation is not None:
            taken = ", ".join(self._link(self._rules[uid]) for uid in rule.correlation.rules)
            yield f"Matches of {taken}."
        bases = self._bases(rule)
        rows = ["| category | filled by |", "| --- | --- |"]
        for category in sorted({base.category for base in bases}):
            filled = NEEDS.get(category, "no sensor of ours: such a rule waits for events that somebody else records")
            rows.append(f"| `{category}` | {filled} |")
        yield "\n".join(rows)
        conditions = [condition for base in bases for condition in base.conditions]
        used = sorted(fields_in(conditions))
        told = f" ([what they hold]({self._reference}/rules.md#fields))" if self._reference else ""
        if used:
            yield f"Fields{told}: {', '.join(f'`{name}`' for name in used)}."
        if behaviour := behaviour_of(used):
            yield behaviour
        if guard := guarded_only(used):
            yield f"Known under the guard alone: {', '.join(f'`{name}`' for name in guard)}."

    def _exception(self, rule: Rule) -> Iterator[str]:
        bases = self._bases(rule)
        if rule.correlation is not None:
            these = ", ".join(self._link(base) for base in bases)
            yield (
                f"An exception belongs to a rule on events: here to {these}. What it takes away does not count for this"
                " correlation either, nor for others."
            )
        about = f" ([more]({self._reference}/rules.md#exceptions))" if self._reference else ""
        yield (
            "Put this into a file of your exceptions, say what is expected as narrowly as you can, give it an id of its"
            f" own, and make the pack again with `nbsentinel rules compile --exceptions`{about}."
        )
        yield f"```yaml\n{example_exception(bases[0])}\n```"


def example_exception(rule: Rule) -> str:
    """Return an exception for a rule on events, to be filled in; it compiles as it stands."""
    field, value = EXAMPLES.get(rule.category, ("Image", "/opt/tools/bin/the-program-you-expect"))
    source = [f"    {line}" for line in _logsource(rule.category)]
    named = f"    rules: [{rule.name}]" if re.fullmatch(r"[A-Za-z_][\w-]*", rule.name) else f"    rules: ['{rule.id}']"
    lines = [
        f"title: What is expected here of {rule.name}",
        f"id: {uuid.uuid5(_EXAMPLE_SPACE, rule.id)}",
        "logsource:",
        *source,
        "filter:",
        named,
        "    expected:",
        f"        {field}: {value}",
        "    condition: not expected",
        "nbsentinel:",
        "    owner: who answers for it",
        "    reason: why it is expected, or a ticket",
        "    expires: 2027-12-31",
    ]
    return "\n".join(lines)


def _logsource(category: str) -> list[str]:
    product, _, service = category.partition("/")
    return [f"product: {product}", f"service: {service}"] if service else [f"category: {category}"]


def _confidence(rule: Rule) -> str:
    if rule.confidence:
        return rule.confidence
    if behaviour_of(fields_in(rule.conditions)):
        return "as sure as the behaviour is; each finding says it"
    return "medium"


def _index(rules: Sequence[Rule], names: Mapping[str, str], reference: str) -> str:
    reporting = sum(rule.reports for rule in rules)
    more = f" How rules are made, tuned and replayed is in [rules]({reference}/rules.md)." if reference else ""
    counts = f"{reporting} rules make findings, {len(rules) - reporting} are only counted by correlations."
    parts = [MADE, "# Rules by tactic", f"{counts} A rule stands below each tactic of its techniques.{more}"]
    groups: dict[tuple[str, str], list[Rule]] = {}
    for rule in rules:
        for tactic in tactics_of(rule) or [("", "No tactic")]:
            groups.setdefault(tactic, []).append(rule)
    for uid, name in sorted(groups, key=lambda tactic: (_ORDER.get(tactic[0], len(_ORDER)), tactic)):
        link = f"[{uid}](https://attack.mitre.org/tactics/{uid}/)" if uid else ""
        rows = ["| rule | level | techniques |", "| --- | --- | --- |"]
        rows += [_row(rule, names[rule.id]) for rule in sorted(groups[uid, name], key=_loudest_first)]
        parts += [f"## {name}", *([link] if link else []), "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _loudest_first(rule: Rule) -> tuple[int, int, str]:
    return (not rule.reports, LEVELS.index(rule.level), rule.name)


def _row(rule: Rule, name: str) -> str:
    level = rule.level if rule.reports else "counted"
    techniques = ", ".join(t.uid for t in rule.techniques)
    return f"| [{_text(rule.title)}]({name})<br>{_code(rule.name)} | {level} | {techniques} |"


def _list(title: str, items: Sequence[str]) -> list[str]:
    return [f"## {title}", "\n".join(f"- {_text(item)}" for item in items)] if items else []


def _text(text: str) -> str:
    """Return an author's words as Markdown shows them: nothing in them is markup but code between backticks."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        part if number % 2 else re.sub(r"([\\<>*_\[\]|`])", r"\\\1", part) for number, part in enumerate(parts)
    )


def _code(text: str) -> str:
    """Return a name as code that also a table takes."""
    return f"`{text.replace('`', chr(39)).replace('|', '¦')}`"
