"""Pages of rules: the committed ones are what the catalogue says, and what they offer can be used."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import msgspec
import pytest

from nbsentinel.detect.rules.compile import Compiled, compile_paths
from nbsentinel.detect.rules.needs import NEEDS
from nbsentinel.detect.rules.pack import CORRELATION, default_pack
from nbsentinel.detect.rules.pages import INDEX, MADE, example_exception, pages
from nbsentinel.detect.rules.sources import detections

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "docs" / "rules"
LINK = re.compile(r"(?<!\\)\]\(([^)#]+)(?:#([^)]+))?\)")


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    """The catalogue."""
    with resources.as_file(resources.files("nbsentinel.detect.rules").joinpath("catalogue")) as folder:
        return compile_paths([folder])


@pytest.fixture(scope="module")
def made(compiled: Compiled) -> dict[str, str]:
    """Its pages."""
    with resources.as_file(resources.files("nbsentinel.detect.rules").joinpath("catalogue")) as folder:
        return pages(compiled.rules, detections([folder]), reference="../reference")


def test_committed_pages_are_up_to_date(made: dict[str, str]) -> None:
    """The pages in docs are those that the catalogue makes, no more and no fewer: `make docs` writes them."""
    assert {path.name: path.read_text() for path in COMMITTED.glob("*")} == made


def test_every_rule_has_a_page_that_says_all(compiled: Compiled, made: dict[str, str]) -> None:
    """A page has the rule's id, its level, its techniques with links, its sensors, its detection and an exception."""
    for rule in compiled.rules:
        page = made[f"{rule.name}.md"]
        assert page.startswith(f"{MADE}\n\n# ")
        assert f"| id | `{rule.id}` |\n| level | {rule.level}" in page
        for technique in rule.techniques:
            assert f"(https://attack.mitre.org/techniques/{technique.uid.replace('.', '/')}/)" in page
        headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
        wanted = ["What it means", "Why it matters", "What to do", "What else it could be"]
        assert headings == [*wanted, "Data it needs", "Detection", "An exception"]
        detection = page.partition("## Detection")[2]
        assert ("correlation:" if rule.category == CORRELATION else "condition:") in detection
        assert f"({rule.name}.md)" in made[INDEX]


def test_every_category_names_its_sensors(compiled: Compiled) -> None:
    """No rule of ours is on a category of which nobody says who fills it."""
    assert {rule.category for rule in compiled.rules} - {CORRELATION} == NEEDS.keys()


def test_links_lead_somewhere(made: dict[str, str]) -> None:
    """Every link inside the documentation leads to a file, and to a heading that it has."""
    for name, page in made.items():
        for target, anchor in LINK.findall(re.sub(r"```.*?```", "", page, flags=re.DOTALL)):
            if target.startswith("https://attack.mitre.org/"):
                continue
            path = COMMITTED / target
            assert path.is_file(), f"{name}: {target}"
            headings = [line.lstrip("# ").lower().replace(" ", "-") for line in path.read_text().splitlines()]
            assert not anchor or anchor in headings, f"{name}: {target}#{anchor}"


def test_example_exceptions_work(compiled: Compiled, tmp_path: Path) -> None:
    """The exception on each page compiles as it stands and belongs to that rule alone."""
    bases = [rule for rule in compiled.rules if rule.correlation is None]
    for rule in bases:
        (tmp_path / f"{rule.name}.yml").write_text(example_exception(rule))
    with resources.as_file(resources.files("nbsentinel.detect.rules").joinpath("catalogue")) as folder:
        found = compile_paths([folder], exceptions=tmp_path)
    assert found.failed == ()
    assert {item.owner for item in found.filters} == {"who answers for it"}
    assert all(len(rule.filters) == 1 for rule in found.rules if rule.correlation is None)
    assert len(found.filters) == len(bases)


def test_detection_is_the_authors_text(tmp_path: Path) -> None:
    """What stands in the file is shown as it stands, comments inside included, of each document its own."""
    text = """title: One
id: 22222222-2222-4222-8222-222222222222
logsource:
  category: process_creation
# about the level
level: low
detection:
  s:
    Image|endswith: /nc   # the program
  condition: s

---
title: Two
correlation: {type: event_count, rules: [One], timespan: 1m, condition: {gte: 2}}
"""
    (tmp_path / "two.yml").write_text(text)
    assert detections([tmp_path]) == {
        "22222222-2222-4222-8222-222222222222": (
            "logsource:\n  category: process_creation\n"
            "detection:\n  s:\n    Image|endswith: /nc   # the program\n  condition: s"
        ),
        "file:two.yml#1": "correlation: {type: event_count, rules: [One], timespan: 1m, condition: {gte: 2}}",
    }


def test_strange_names_stay_inside_the_folder() -> None:
    """Whatever a rule is called, its page is a file of its own below the folder, and its words are no markup."""
    some = default_pack().rules[0]
    names = ["../../etc/x", "README", "readme", "", "..", "a|b`c", "same", "same", "Same"]
    rules = [
        msgspec.structs.replace(some, name=name, id=f"id-{number}", title="<b>`x`|[y](z)", correlation=None)
        for number, name in enumerate(names)
    ]
    found = pages(rules, {})
    assert len({name.lower() for name in found}) == len(names) + 1
    for name, page in found.items():
        assert re.fullmatch(r"[A-Za-z0-9_-]+\.md", name)
        assert "<b>" not in page.replace("\\<b", "")
        assert "](z)" not in page.replace("\\](z)", "")
