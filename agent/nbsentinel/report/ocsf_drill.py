"""How a test alert is told from a real one, in members that OCSF has for it. Pure."""

from __future__ import annotations

from nbsentinel.report.ocsf_objects import Object

LABEL = "nbsentinel:test"
"""In `metadata.labels` of every test alert, and of nothing else: what a SIEM routes by."""
_PROFILE = "incident"
_VERDICT_TEST = 6


def as_test(event: Object) -> Object:
    """Return a finding with the marks of a test: the verdict Test of OCSF's incident profile, and a label."""
    metadata = event["metadata"]
    assert isinstance(metadata, dict)
    marked = {**metadata, "labels": [LABEL], "profiles": [*metadata["profiles"], _PROFILE]}
    return {**event, "metadata": marked, "verdict_id": _VERDICT_TEST, "verdict": "Test"}
