"""One YAML document to a rule, a correlation or a filter, not yet joined with the others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import yaml
from sigma.correlations import SigmaCorrelationRule
from sigma.exceptions import SigmaError
from sigma.filters import SigmaFilter
from sigma.modifiers import SigmaWideModifier, modifier_mapping
from sigma.rule import SigmaRule

from nbsentinel.context.surface import KINDS, STUDIO
from nbsentinel.detect.rules.attack import techniques
from nbsentinel.detect.rules.conditions import Placeholders, UnsupportedError, convert
from nbsentinel.detect.rules.pack import CORRELATION, FailedRule, Filter, Node, Rule

CUSTOM_KEY = "nbsentinel"
"""Our own key: `why`, `advice`, `confidence`, `level_by_surface` in a rule; `owner`, `reason`, `expires` in an
exception."""
_LEVELS = ("informational", "low", "medium", "high", "critical")
_KEYS = ("logsource", "level", "status", "date", "related", "tags", "title", "id", "condition", "detection")
_NESTED_KEYS = ("timespan", "group-by", "aliases", "generate", "rules", "condition", "type")
modifier_mapping.setdefault("utf16le", SigmaWideModifier)  # the specification's name for what pySigma calls `wide`
Fail = Callable[[str, str], FailedRule]


class _Own(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    why: str = ""
    advice: tuple[str, ...] = ()
    confidence: str = ""
    level_by_surface: dict[str, str] = {}


class _Exception(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    owner: str = ""
    reason: str = ""
    expires: date | None = None


class Document:
    """What the documents have in common: an id, a name, where they stand, and how to say what is wrong with them."""

    def __init__(self, uid: str, name: str, source: str, fail: Fail) -> None:
        self.id, self.name, self.source, self.fail = uid, name, source, fail


class Base(Document):
    """A rule on events."""

    def __init__(self, rule: Rule, sigma: SigmaRule, fail: Fail) -> None:
        super().__init__(rule.id, rule.name, rule.source, fail)
        self.rule, self.logsource = rule, sigma.logsource


class Correlated(Document):
    """A correlation, whose rules are still names."""

    def __init__(self, rule: Rule, sigma: SigmaCorrelationRule, fail: Fail) -> None:
        super().__init__(rule.id, rule.name, rule.source, fail)
        self.rule, self.sigma = rule, sigma


class Filtering(Document):
    """A filter, whose rules are still names."""

    def __init__(self, item: Filter, sigma: SigmaFilter, fail: Fail) -> None:
        super().__init__(item.id, item.name, item.source, fail)
        self.filter, self.logsource = item, sigma.logsource
        named = sigma.filter.rules
        self.rules = None if isinstance(named, str) else [str(reference.reference) for reference in named]
        """Names or ids; None for every rule of the logsource."""

    def over(self, today: date | None) -> FailedRule | None:
        """Return what to report where its last day is over."""
        expires = self.filter.expires
        if today is None or not expires or date.fromisoformat(expires) >= today:
            return None
        return self.fail("expires", f"expired on {expires}, so it is ignored; renew or remove it")


def read_document(
    path: Path, number: int, node: yaml.Node, content: object, placeholders: Placeholders, *, exception: bool
) -> Document | FailedRule:
    """Return one document of a file, or the reason why it cannot be used.

    Args:
        path: The file.
        number: Which of its documents, from 0.
        node: The document with its lines.
        content: The document as data.
        placeholders: Values for `expand`.
        exception: Whether it must carry what an admin's exception needs.
    """

    def fail(key: str, reason: str) -> FailedRule:
        title = str(content.get("title", "")) if isinstance(content, dict) else ""
        return FailedRule(str(path), _line(node, key), key, reason, title)

    if not isinstance(content, dict):
        return fail("", "not a mapping")
    place = path.name if number == 0 else f"{path.name}#{number}"
    try:
        if "filter" in content:
            return _filter(path, place, content, placeholders, fail, exception=exception)
        if "correlation" in content:
            return _correlation(path, place, content, fail)
        return _rule(path, place, content, placeholders, fail)
    except UnsupportedError as error:
        return fail(error.key, error.message)
    except SigmaError as error:
        return fail(_key_of(error, content), _one_line(error))
    except msgspec.ValidationError as error:
        return fail(CUSTOM_KEY, _one_line(error))
    except Exception as error:  # noqa: BLE001 - whatever the parser stumbles over concerns this document alone
        return fail("", f"not a Sigma rule: {_one_line(error)}")


def _rule(path: Path, place: str, content: dict[str, Any], placeholders: Placeholders, fail: Fail) -> Base:
    sigma = _without_errors(SigmaRule.from_dict(content, collect_errors=True))
    conditions: tuple[Node, ...] = tuple(convert(i.parsed, placeholders) for i in sigma.detection.parsed_condition)
    return Base(_about(path, place, content, sigma, _category(sigma), conditions), sigma, fail)


def _correlation(path: Path, place: str, content: dict[str, Any], fail: Fail) -> Correlated:
    sigma = _without_errors(SigmaCorrelationRule.from_dict(content, collect_errors=True))
    return Correlated(_about(path, place, content, sigma, CORRELATION, ()), sigma, fail)


def _filter(
    path: Path, place: str, content: dict[str, Any], placeholders: Placeholders, fail: Fail, *, exception: bool
) -> Filtering:
    sigma = _without_errors(SigmaFilter.from_dict(content, collect_errors=True))
    own = msgspec.convert(content.get(CUSTOM_KEY, {}), _Exception)
    if exception:
        for key, value in (("owner", own.owner.strip()), ("reason", own.reason.strip()), ("expires", own.expires)):
            if not value:
                raise UnsupportedError(CUSTOM_KEY, f"an exception needs `{key}`, so it is ignored")
    (condition,) = sigma.filter.parsed_condition
    item = Filter(
        id=str(sigma.id) if sigma.id else f"file:{place}",
        name=sigma.name or path.stem,
        title=sigma.title,
        condition=convert(condition.parsed, placeholders),
        owner=_text(own.owner),
        reason=_text(own.reason),
        expires=own.expires.isoformat() if own.expires else "",
        source=path.name,
    )
    return Filtering(item, sigma, fail)


def _without_errors(sigma: Any) -> Any:
    if sigma.errors:
        raise sigma.errors[0]
    return sigma


def _about(
    path: Path, place: str, content: dict[str, Any], sigma: Any, category: str, conditions: tuple[Node, ...]
) -> Rule:
    """Return a rule with all that it says about itself."""
    own = msgspec.convert(content.get(CUSTOM_KEY, {}), _Own)
    tags = tuple(str(tag) for tag in sigma.tags)
    level = str(sigma.level).lower() if sigma.level else "medium"
    if level not in _LEVELS:
        raise UnsupportedError("level", f"unknown level {level!r}")
    if own.confidence not in ("", "low", "medium", "high"):
        raise UnsupportedError(CUSTOM_KEY, f"unknown confidence {own.confidence!r}")
    levels = _levels(own.level_by_surface)
    values: dict[str, Any] = {"level": level, "confidence": own.confidence, "level_by_surface": levels}
    return Rule(
        id=str(sigma.id) if sigma.id else f"file:{place}",
        name=sigma.name or path.stem,
        title=sigma.title,
        description=_text(sigma.description),
        why=_text(own.why),
        techniques=techniques(tags),
        tags=tags,
        false_positives=tuple(str(item) for item in sigma.falsepositives or ()),
        advice=tuple(_text(item) for item in own.advice),
        category=category,
        conditions=conditions,
        source=path.name,
        **values,
    )


def _levels(given: dict[str, str]) -> dict[str, str]:
    """Return levels by kind of surface; `studio` stands for every kind of Studio that is not named itself."""
    for surface, level in given.items():
        if surface != STUDIO and surface not in KINDS:
            known = ", ".join((*KINDS, STUDIO))
            raise UnsupportedError(surface, f"unknown surface {surface!r} in level_by_surface; known are {known}")
        if level.lower() not in _LEVELS:
            raise UnsupportedError(surface, f"unknown level {level!r} for surface {surface}")
    every = {kind: given[STUDIO].lower() for kind in KINDS if STUDIO in given and kind.startswith(f"{STUDIO}-")}
    return dict(sorted({**every, **{kind: level.lower() for kind, level in given.items() if kind in KINDS}}.items()))


def _category(rule: SigmaRule) -> str:
    source = rule.logsource
    return str(source.category or "/".join(part for part in (source.product, source.service) if part))


def _text(value: object) -> str:
    return " ".join(str(value or "").split())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _key_of(error: BaseException, content: dict[str, Any]) -> str:
    """Return the key that an error of pySigma is about, by the words of its message and type."""
    text = f"{type(error).__name__} {error}".lower()
    for nested in ("correlation", "filter"):
        if nested in content:
            words = text.replace("sigmacorrelation", "").replace("sigmafilter", "")
            inside = content[nested] if isinstance(content[nested], dict) else ()
            return next((key for key in _NESTED_KEYS if key.rstrip("s") in words and key in inside), nested)
    for key in _KEYS:
        if key in text and (key in content or key in ("title", "logsource", "detection")):
            return key
    return "detection"


def _line(node: yaml.Node, key: str) -> int:
    """Return the line of a key, at any depth, or of the document."""
    waiting, seen = [node], set()
    while key and waiting:
        found = waiting.pop()
        if id(found) in seen:  # an alias, perhaps to what it stands in
            continue
        seen.add(id(found))
        if isinstance(found, yaml.MappingNode):
            for name, _ in found.value:
                if name.value == key or str(name.value).partition("|")[0] == key:
                    return int(name.start_mark.line) + 1
            waiting += [value for _, value in reversed(found.value)]
        elif isinstance(found, yaml.SequenceNode):
            waiting += reversed(found.value)
    return int(node.start_mark.line) + 1
