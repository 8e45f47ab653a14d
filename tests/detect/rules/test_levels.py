"""Levels by surface: what a rule may say, and what is refused with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbsentinel.context.surface import KINDS, describe
from nbsentinel.detect.rules.compile import compile_paths
from nbsentinel.detect.rules.pack import default_pack, load_pack

RULE = """title: Ask
id: 11111111-1111-4111-8111-111111111111
logsource: {category: process_creation}
detection:
    s: {Image|endswith: /ask}
    condition: s
level: low
nbsentinel:
    level_by_surface:
"""


def test_studio_stands_for_every_studio(tmp_path: Path) -> None:
    """A level for Studio holds on each kind of it, but where that kind has its own."""
    (tmp_path / "r.yml").write_text(f"{RULE}        studio: HIGH\n        studio-classic: medium\n        other: low\n")
    compiled = compile_paths([tmp_path])
    assert compiled.failed == ()
    (rule,) = load_pack(compiled.pack()).rules
    assert rule.level_by_surface == {
        "studio-jupyterlab": "high",
        "studio-code-editor": "high",
        "studio-classic": "medium",
        "other": "low",
    }


@pytest.mark.parametrize(
    ("text", "key", "words", "line"),
    [
        ("        laptop: low\n", "laptop", "unknown surface 'laptop' in level_by_surface; known are studio-jup", 10),
        ("        other: low\n        studio: loud\n", "studio", "unknown level 'loud' for surface studio", 11),
        ("        - other\n", "nbsentinel", "Expected `object`", 8),
        ("        other: 3\n", "nbsentinel", "Expected `str`", 8),
    ],
)
def test_what_does_not_exist_is_refused(tmp_path: Path, text: str, key: str, words: str, line: int) -> None:
    """A surface or a level that nobody knows is an error with file, line and key, not a rule that never changes."""
    (tmp_path / "r.yml").write_text(RULE + text)
    (failed,) = compile_paths([tmp_path]).failed
    assert (failed.key, failed.line) == (key, line)
    assert words in failed.reason


def test_kinds_are_those_that_are_found() -> None:
    """Every kind that a rule may name is one that the agent can find itself on."""
    found = {describe({"AppType": name}, {}, None).kind for name in ("JupyterLab", "CodeEditor", "JupyterServer", "x")}
    arn = "arn:aws:sagemaker:eu-west-1:123456789012:notebook-instance/n"
    found.add(describe({"ResourceArn": arn}, {}, None).kind)
    assert found == set(KINDS)


def test_asking_for_metadata_is_ordinary_on_a_notebook_instance() -> None:
    """What SDKs do all day there is a trace there, and more than a trace elsewhere."""
    rules = {rule.name: rule for rule in default_pack().rules}
    for name in ("instance_metadata_by_kernel", "metadata_by_program"):
        assert (rules[name].level, rules[name].level_by_surface["notebook-instance"]) == ("low", "informational")
    for name in ("metadata_by_foreign_program", "metadata_by_cell"):
        assert (rules[name].level, rules[name].level_by_surface) == ("medium", {})
