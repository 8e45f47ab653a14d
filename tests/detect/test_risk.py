"""The risk score: monotonous, bounded, and as the documentation says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nbsentinel.detect import risk
from nbsentinel.detect.risk import Weighing
from nbsentinel.events import Confidence, Finding, Severity
from support.findings import finding

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "severity.md"
findings = st.builds(
    lambda severity, confidence, tactic: replace(finding(severity=severity, tactic=tactic), confidence=confidence),
    st.sampled_from(Severity),
    st.sampled_from(Confidence),
    st.sampled_from(["", "TA0001", "TA0002", "TA0006", "TA0010", "TA0011", "TA0040"]),
)


@given(st.lists(findings, min_size=1, max_size=12), st.sampled_from(["other", "notebook-instance"]))
def test_more_never_lowers_the_score(steps: list[Finding], surface: str) -> None:
    """With each step the score stays or rises, between 0 and 100, and its parts add up to it."""
    weighing, before = Weighing(surface), 0
    for step in steps:
        weighing.add(step)
        found = weighing.risk()
        assert before <= found.score <= 100
        assert found.score == min(100, sum(int(part) for part in re.findall(r": \+?(\d+)", found.why)))
        before = found.score


@pytest.mark.parametrize(
    ("severity", "confidence", "tactics", "surface", "score", "level"),
    [
        (Severity.INFORMATIONAL, Confidence.LOW, 1, "other", 3, 0),
        (Severity.LOW, Confidence.MEDIUM, 1, "other", 20, 1),
        (Severity.MEDIUM, Confidence.MEDIUM, 1, "other", 40, 2),
        (Severity.HIGH, Confidence.MEDIUM, 1, "other", 60, 3),
        (Severity.HIGH, Confidence.HIGH, 2, "studio-jupyterlab", 86, 4),
        (Severity.CRITICAL, Confidence.HIGH, 9, "notebook-instance", 100, 4),
    ],
)
def test_scores_are_where_people_expect_them(
    severity: Severity, confidence: Confidence, tactics: int, surface: str, score: int, level: int
) -> None:
    """A single finding of middling confidence has the level of its severity; tactics and the role's credentials add."""
    weighing = Weighing(surface)
    for number in range(tactics):
        weighing.add(replace(finding(severity=severity, tactic=f"TA{number}"), confidence=confidence))
    assert (weighing.risk().score, weighing.risk().level) == (score, level)


def test_the_page_has_the_same_numbers() -> None:
    """The documentation's tables are what the code counts with."""
    text = PAGE.read_text()
    for severity, points in risk.BASE.items():
        assert re.search(rf"\| {severity.name.lower()} \| {points} \|", text), severity
    for confidence, percent in risk.PERCENT.items():
        assert re.search(rf"\| {confidence.name.lower()} \|.*\| {percent}% \|", text), confidence
    assert f"+{risk.TACTIC} for each further tactic, at most +{risk.TACTICS_MOST}" in " ".join(text.split())
    assert f"+{risk.ROLE}" in text
    for least, _ in risk.LEVELS:
        assert f"from {least}" in text
