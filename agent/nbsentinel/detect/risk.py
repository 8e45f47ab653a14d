"""The risk score of an incident: a sum that a person can follow. Pure.

docs/reference/severity.md has the same numbers as a table; a test compares them.
"""

from __future__ import annotations

import msgspec

from nbsentinel.events import Confidence, Finding, Risk, Severity

BASE = {
    Severity.INFORMATIONAL: 5,
    Severity.LOW: 25,
    Severity.MEDIUM: 50,
    Severity.HIGH: 75,
    Severity.CRITICAL: 95,
}
PERCENT = {Confidence.LOW: 60, Confidence.MEDIUM: 80, Confidence.HIGH: 100}
"""What is left of the base, by how sure the finding is."""
TACTIC = 6
"""For each ATT&CK tactic beyond the first: steps of different kinds are what sets an attack apart from a habit."""
TACTICS_MOST = 24
ROLE_SURFACES = frozenset({"studio-jupyterlab", "studio-code-editor", "studio-classic", "notebook-instance"})
ROLE = 5
"""Where every process can use the execution role's credentials."""
LEVELS = ((85, 4), (60, 3), (35, 2), (15, 1), (0, 0))
"""Least score and OCSF `risk_level_id`."""


class Weighing(msgspec.Struct):
    """What an incident's score rests on, as far as it is known."""

    surface: str = "other"
    worst: int = 0
    words: str = ""
    """What the worst step was, for people."""
    tactics: set[str] = msgspec.field(default_factory=set)

    def add(self, finding: Finding) -> None:
        """Take one more finding in; what is left out of an incident's list of steps still counts."""
        self.tactics.update(technique.tactic_uid for technique in finding.attacks if technique.tactic_uid)
        points = BASE[finding.severity] * PERCENT[finding.confidence] // 100
        if points > self.worst:
            self.worst = points
            self.words = f"severity {finding.severity.name.lower()}, confidence {finding.confidence.name.lower()}"

    def risk(self) -> Risk:
        """Return the score, its level, and how it came about."""
        several = min(TACTICS_MOST, TACTIC * max(0, len(self.tactics) - 1))
        role = ROLE if self.surface in ROLE_SURFACES else 0
        score = min(100, self.worst + several + role)
        parts = [f"{self.words}: {self.worst}"]
        if several:
            parts.append(f"{len(self.tactics)} tactics: +{several}")
        if role:
            parts.append(f"the role's credentials are there ({self.surface}): +{role}")
        level = next(level for least, level in LEVELS if score >= least)
        return Risk(score, level, "; ".join(parts))
