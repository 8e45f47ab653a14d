"""Compiling Sigma rules: pySigma parses and validates, we turn its conditions into a pack's tree.

Needs the extra `rules`. A rule that cannot be compiled is returned with file, line, key and reason; the others are not
affected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml
from sigma.exceptions import SigmaError
from sigma.rule import SigmaRule

from nbsentinel.detect.rules.attack import techniques
from nbsentinel.detect.rules.conditions import UnsupportedError, convert
from nbsentinel.detect.rules.pack import Node, Rule
from nbsentinel.errors import RuleError

CUSTOM_KEY = "nbsentinel"
"""Our own key in a rule: `why`, `advice`, `confidence`."""
FILE_LIMIT = 1 << 20
_LEVELS = ("informational", "low", "medium", "high", "critical")


class FailedRule(msgspec.Struct, frozen=True):
    """A rule that cannot be used, and why."""

    file: str
    line: int
    key: str
    """The part of the rule that is wrong, as far as that is known."""
    reason: str
    title: str = ""


class _Own(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    why: str = ""
    advice: tuple[str, ...] = ()
    confidence: str = ""


class Compiled(msgspec.Struct, frozen=True):
    """The outcome for a set of files."""

    rules: tuple[Rule, ...]
    failed: tuple[FailedRule, ...]


def compile_paths(paths: Iterable[Path]) -> Compiled:
    """Compile every `.yml` and `.yaml` file among or below the paths.

    Raises:
        RuleError: A path does not exist, or none of them holds a rule file.
    """
    rules: list[Rule] = []
    failed: list[FailedRule] = []
    for path in _files(paths):
        for outcome in compile_file(path):
            if isinstance(outcome, Rule):
                rules.append(outcome)
            else:
                failed.append(outcome)
    seen: dict[str, Rule] = {}
    for rule in rules:
        if rule.id in seen:
            reason = f"the id {rule.id} is that of {seen[rule.id].source} too"
            failed.append(FailedRule(rule.source, 1, "id", reason, rule.title))
        else:
            seen[rule.id] = rule
    return Compiled(tuple(seen.values()), tuple(failed))


def _files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix in (".yml", ".yaml") and p.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise RuleError(f"{path}: no such file or folder", hint="Give a folder of Sigma rules.")
    if not found:
        raise RuleError("no rule files (*.yml) there", hint="Give a folder of Sigma rules.")
    return found


def compile_file(path: Path) -> Iterator[Rule | FailedRule]:
    """Yield the rules of one YAML file, each compiled or with the reason why not."""
    try:
        text = _read_text(path)
        documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        contents = list(yaml.safe_load_all(text))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        yield FailedRule(str(path), mark.line + 1 if mark else 1, "", f"cannot be read: {_one_line(error)}")
        return
    for node, content in zip(documents, contents, strict=True):
        if content is not None:
            yield _compile_document(path, node, content)


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(FILE_LIMIT + 1)
    if len(data) > FILE_LIMIT:
        raise ValueError(f"larger than {FILE_LIMIT} bytes")
    return data.decode()


def _compile_document(path: Path, node: yaml.Node, content: object) -> Rule | FailedRule:
    def fail(key: str, reason: str) -> FailedRule:
        title = str(content.get("title", "")) if isinstance(content, dict) else ""
        return FailedRule(str(path), _line(node, key), key, reason, title)

    if not isinstance(content, dict):
        return fail("", "not a mapping")
    for key in ("correlation", "filter"):
        if key in content:
            return fail(key, f"Sigma {key}s are not supported yet")
    try:
        rule = SigmaRule.from_dict(content, collect_errors=True)
        if rule.errors:
            return fail(_key_of(rule.errors[0], content), _one_line(rule.errors[0]))
        return _rule(path, rule)
    except UnsupportedError as error:
        return fail(error.key, error.message)
    except SigmaError as error:
        return fail(_key_of(error, content), _one_line(error))
    except msgspec.ValidationError as error:
        return fail(CUSTOM_KEY, _one_line(error))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        return fail("", f"not a Sigma rule: {_one_line(error)}")


def _rule(path: Path, rule: SigmaRule) -> Rule:
    own = msgspec.convert(rule.custom_attributes.get(CUSTOM_KEY, {}), _Own)
    conditions: tuple[Node, ...] = tuple(convert(item.parsed) for item in rule.detection.parsed_condition)
    tags = tuple(str(tag) for tag in rule.tags)
    level = str(rule.level).lower() if rule.level else "medium"
    if level not in _LEVELS:
        raise UnsupportedError("level", f"unknown level {level!r}")
    if own.confidence not in ("", "low", "medium", "high"):
        raise UnsupportedError(CUSTOM_KEY, f"unknown confidence {own.confidence!r}")
    values: dict[str, Any] = {"level": level, "confidence": own.confidence}
    return Rule(
        id=str(rule.id) if rule.id else f"file:{path.name}",
        name=rule.name or path.stem,
        title=rule.title,
        description=_text(rule.description),
        why=_text(own.why),
        techniques=techniques(tags),
        tags=tags,
        false_positives=tuple(str(item) for item in rule.falsepositives or ()),
        advice=tuple(_text(item) for item in own.advice),
        category=_category(rule),
        conditions=conditions,
        source=path.name,
        **values,
    )


def _category(rule: SigmaRule) -> str:
    source = rule.logsource
    return str(source.category or "/".join(part for part in (source.product, source.service) if part))


def _text(value: object) -> str:
    return " ".join(str(value or "").split())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _key_of(error: BaseException, content: dict[str, Any]) -> str:
    """Return the top-level key that an error of pySigma is about, by the words of its message and type."""
    text = f"{type(error).__name__} {error}".lower()
    for key in ("logsource", "level", "status", "date", "related", "tags", "title", "id", "condition", "detection"):
        if key in text and (key in content or key in ("title", "logsource", "detection")):
            return key
    return "detection"


def _line(node: yaml.Node, key: str) -> int:
    """Return the line of a key, at any depth, or of the document."""
    found = _find(node, key) if key else None
    return (found or node).start_mark.line + 1


def _find(node: yaml.Node, key: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key or str(name.value).partition("|")[0] == key:
                assert isinstance(name, yaml.Node)
                return name
            if (found := _find(value, key)) is not None:
                return found
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            if (found := _find(item, key)) is not None:
                return found
    return None
