"""Our own rules: the committed pack is what they compile to, and each behaviour meets exactly one of them."""

from __future__ import annotations

import itertools
from importlib import resources

import pytest

from nbsentinel.detect.rules.compile import compile_paths
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import default_pack, encode_pack

CATALOGUE = resources.files("nbsentinel.detect.rules").joinpath("catalogue")
BEHAVIOURS = [
    (flow, kind, source, initiated)
    for flow, kind, source, initiated in itertools.product(
        ("direct", "relayed"),
        ("shell", "code", "none"),
        ("commands", "argument", "unknown-program"),
        (True, False, None),
    )
    if (kind == "none") == (source == "unknown-program") and not (kind == "none" and flow == "relayed")
]


def test_pack_is_up_to_date() -> None:
    """The committed pack equals a fresh compilation of the catalogue: `make rules` writes it."""
    with resources.as_file(CATALOGUE) as folder:
        compiled = compile_paths([folder])
    assert compiled.failed == ()
    committed = resources.files("nbsentinel.detect.rules").joinpath("default_pack.json").read_bytes()
    assert encode_pack(compiled.rules) == committed


@pytest.mark.parametrize(("flow", "kind", "source", "initiated"), BEHAVIOURS)
def test_each_behaviour_meets_one_rule(flow: str, kind: str, source: str, initiated: bool | None) -> None:
    """Whatever the engine can conclude of a controlled process, exactly one rule says so."""
    fields: dict[str, object] = {
        "Image": "/bin/sh",
        "CommandLine": "sh",
        "RemoteControlled": flow,
        "InterpreterKind": kind,
        "InterpreterInput": source,
    }
    if initiated is not None:
        fields["Initiated"] = initiated
    found = Matcher(default_pack()).match("process_creation", fields)
    assert len(found) == 1, [rule.name for rule in found]
    if initiated is False and kind != "none":
        assert found[0].name == "bind_shell"


def test_ordinary_processes_meet_none() -> None:
    """A process that nobody controls meets no rule."""
    assert Matcher(default_pack()).match("process_creation", {"Image": "/bin/sh", "CommandLine": "sh -c ls"}) == ()


def test_every_rule_helps_its_reader() -> None:
    """Each rule says why it matters, what else it could be, what to do, and names techniques."""
    for rule in default_pack().rules:
        assert rule.why, rule.name
        assert rule.advice, rule.name
        assert rule.false_positives, rule.name
        assert rule.techniques, rule.name
        assert all(technique.name != technique.uid and technique.tactic for technique in rule.techniques), rule.name
