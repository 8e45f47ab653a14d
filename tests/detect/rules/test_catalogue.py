"""Our own rules: the committed pack is what they compile to, and each behaviour meets exactly one of them."""

from __future__ import annotations

import itertools
from importlib import resources

import pytest

from nbsentinel.detect.rules.compile import compile_paths
from nbsentinel.detect.rules.correlate import Correlator
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import Pack, default_pack, encode_pack
from nbsentinel.events import Millis
from support import behaviours

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


@pytest.mark.parametrize(
    ("evidence", "name", "level"),
    [
        ("strong", "command_loop", "high"),
        ("fair", "command_loop_likely", "medium"),
        ("weak", "command_loop_possible", "low"),
    ],
)
@pytest.mark.parametrize("initiated", [True, False, None])
def test_each_loop_meets_one_rule(evidence: str, name: str, level: str, initiated: bool | None) -> None:
    """A loop of commands is told once, as loudly as its evidence is worth, whoever opened the connection."""
    fields: dict[str, object] = {
        "Image": "/usr/bin/python3",
        "CommandLine": "python3 job.py",
        "RemoteControlled": "loop",
        "LoopEvidence": evidence,
    }
    if initiated is not None:
        fields["Initiated"] = initiated
    assert [(r.name, r.level) for r in Matcher(default_pack()).match("process_creation", fields)] == [(name, level)]


def test_ordinary_processes_meet_none() -> None:
    """A process that nobody controls meets no rule."""
    assert Matcher(default_pack()).match("process_creation", {"Image": "/bin/sh", "CommandLine": "sh -c ls"}) == ()


LOUD = ("medium", "high", "critical")


@pytest.fixture(scope="module")
def pack() -> Pack:
    """The rules that come with the package."""
    return default_pack()


@pytest.fixture(scope="module")
def matcher(pack: Pack) -> Matcher:
    """The same, ready for events."""
    return Matcher(pack)


@pytest.mark.parametrize(("name", "category", "attack", "twin"), behaviours.ROWS, ids=lambda value: str(value)[:40])
def test_attack_is_told_and_its_twin_is_not(
    matcher: Matcher, name: str, category: str, attack: behaviours.Fields, twin: behaviours.Fields
) -> None:
    """An attack meets its rule; an ordinary act that resembles it does not, and meets nothing of medium or above."""
    assert name in [rule.name for rule in matcher.match(category, attack) if rule.reports]
    found = [rule for rule in matcher.match(category, twin) if rule.reports]
    assert [rule.name for rule in found if rule.name == name or rule.level in LOUD] == []


def _told(pack: Pack, steps: list[behaviours.Step]) -> set[str]:
    """Return the names of the rules, of medium or above, that a sequence of events leads to."""
    matcher, correlator = Matcher(pack), Correlator(pack.rules)
    told = set()
    for at, category, fields in steps:
        matched = matcher.match(category, fields)
        told |= {rule.name for rule in matched if rule.reports and rule.level in LOUD}
        told |= {fired.rule.name for fired in correlator.observe(Millis(at), matched, fields)}
    return told | {fired.rule.name for fired in correlator.advance(None)}


@pytest.mark.parametrize(("name", "attack", "twin"), behaviours.SEQUENCES, ids=lambda value: str(value)[:40])
def test_sequence_is_told_and_its_twin_is_not(
    pack: Pack, name: str, attack: list[behaviours.Step], twin: list[behaviours.Step]
) -> None:
    """Several events that are an attack together meet their correlation; ordinary ones in a row meet nothing."""
    assert name in _told(pack, attack)
    assert _told(pack, twin) == set()


def test_sequence_of_several_kernels_is_none(pack: Pack) -> None:
    """What different kernels and terminals do is not added up."""
    for name, attack, _ in behaviours.SEQUENCES:
        spread = [
            (at, category, {**fields, "LineageRoot": f"{place}@1", "ProcessId": place})
            for place, (at, category, fields) in enumerate(attack)
        ]
        assert name not in _told(pack, spread)


@pytest.mark.parametrize("line", behaviours.ORDINARY)
@pytest.mark.parametrize("folder", ["/usr/bin", "/opt/conda/bin", "/home/u/.local/bin"])
def test_ordinary_command_is_quiet(matcher: Matcher, folder: str, line: str) -> None:
    """What people run in notebooks all day meets nothing of medium or above, wherever the program is installed."""
    fields = behaviours.ran(line, f"{folder}/{line.split(' ', maxsplit=1)[0]}")
    assert [rule.name for rule in matcher.match("process_creation", fields) if rule.level in LOUD] == []


def test_every_rule_has_an_attack_and_a_twin(pack: Pack) -> None:
    """No rule comes without both, but those that only correlations take and those whose behaviour is tested above."""
    tested = {row[0] for row in behaviours.ROWS} | {row[0] for row in behaviours.SEQUENCES}
    elsewhere = {rule.name for rule in pack.rules if "RemoteControlled" in str(rule.conditions)}
    own = {rule.name for rule in pack.rules if rule.category == "agent_tampering" or "unreadable" in rule.name}
    counted = {rule.name for rule in pack.rules if not rule.reports}
    left = {rule.name for rule in pack.rules} - tested - elsewhere - own - counted
    assert left == {"claim_differs", "hides_with_connection"}


def test_every_rule_helps_its_reader() -> None:
    """Each rule says why it matters, what else it could be, what to do, and names techniques."""
    for rule in default_pack().rules:
        assert rule.why, rule.name
        assert rule.advice, rule.name
        assert rule.false_positives, rule.name
        assert rule.techniques, rule.name
        assert all(technique.name != technique.uid and technique.tactic for technique in rule.techniques), rule.name
