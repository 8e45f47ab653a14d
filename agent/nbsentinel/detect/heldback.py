"""What matched and was not told by itself, by rule: nothing that is held back is hidden. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nbsentinel.detect.incidents import Incidents
from nbsentinel.detect.rules.correlate import Correlator
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import Rule

TOLD_LIMIT = 20
"""Rules that a heartbeat names; all are counted."""


def held_back(
    rules: Iterable[Rule], matcher: Matcher, correlator: Correlator, incidents: Incidents
) -> dict[str, object]:
    """Return what heartbeats and `status` say of what was held back, as a JSON object.

    Args:
        rules: The rules in force.
        matcher: Counts what filters and exceptions suppressed.
        correlator: Counts what held again within its time span.
        incidents: Counts repeats, and what its limit held back.
    """
    kinds: dict[str, Mapping[str, int]] = {
        "suppressed": matcher.suppressed_by_rule,
        "repeated": correlator.repeated_by_rule,
        "grouped": incidents.grouped,
        "limited": incidents.limited,
    }
    rows = [
        (sum(counts.values()), rule.name, counts)
        for rule in rules
        if (counts := {kind: found[rule.id] for kind, found in kinds.items() if found.get(rule.id)})
    ]
    rows.sort(key=lambda row: (-row[0], row[1]))
    return {
        "totals": {kind: sum(found.values()) for kind, found in kinds.items()},
        "rules": [{"rule": name, **counts} for _, name, counts in rows[:TOLD_LIMIT]],
        "rule_count": len(rows),
    }
