"""The texts of rules as their authors wrote them, for the pages that people read. Needs the extra `rules`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from nbsentinel.detect.rules.exceptions import rule_files

_SHOWN = ("logsource", "detection", "correlation")


def detections(paths: Iterable[Path]) -> dict[str, str]:
    """Return logsource and detection, or correlation, of every rule among or below the paths, by rule id.

    A rule without an id has that of its place, as in a pack. What cannot be read is left out: compiling says why.

    Raises:
        RuleError: A path does not exist.
    """
    found: dict[str, str] = {}
    for path in rule_files(paths):
        try:
            text = path.read_text()
            nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
        lines = text.splitlines()
        for number, node in enumerate(nodes):
            if isinstance(node, yaml.MappingNode):
                place = path.name if number == 0 else f"{path.name}#{number}"
                found.setdefault(_id(node) or f"file:{place}", _excerpt(node, lines))
    return found


def _id(node: yaml.MappingNode) -> str:
    return next((str(value.value) for key, value in node.value if key.value == "id"), "")


def _excerpt(node: yaml.MappingNode, lines: list[str]) -> str:
    """Return the shown keys of a document with their lines as they stand in the file."""
    shown: list[str] = []
    starts = [int(key.start_mark.line) for key, _ in node.value]
    for (key, value), following in zip(node.value, [*starts[1:], _end(node, lines)], strict=True):
        if key.value in _SHOWN:
            shown += lines[key.start_mark.line : max(following, value.start_mark.line + 1)]
            while shown and (not shown[-1].strip() or shown[-1].lstrip().startswith("#")):
                shown.pop()
    return "\n".join(shown)


def _end(node: yaml.MappingNode, lines: list[str]) -> int:
    """Return the line after the last one of a document; the mark of its end may stand on the next `---`."""
    return min(int(node.end_mark.line) + (1 if node.end_mark.column else 0), len(lines))
