"""The table of recall: every rule set is judged on the same events, ours by what was reported; nothing is hidden."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attacks.cases import ALL as SHELLS
from attacks.cases.acts import ALL as ACTS
from attacks.loops import ALL as LOOPS
from benchmarks.recall import (
    BOTH,
    LIVE,
    PUBLIC,
    REPLAYED,
    Case,
    Judge,
    Table,
    compare,
    main,
    missed,
    page,
    read,
    render,
    replaying,
    reported,
)
from benign.cases import ALL as WORK
from benign.cases import ORDINARY
from live.recording import HEADER, about, jobs
from nbsentinel.cli import run
from nbsentinel.detect.rules.compile import compile_paths
from nbsentinel.detect.rules.pack import Pack, default_pack, load_pack

Event = dict[str, Any]
SIGMA = """title: Netcat
id: 22222222-2222-4222-8222-222222222222
level: high
logsource:
  category: process_creation
detection:
  s:
    Image|endswith: /nc
  condition: s
---
title: Shell
id: 22222222-2222-4222-8222-222222222223
level: low
logsource:
  category: process_creation
detection:
  s:
    Image|endswith: /bash
  condition: s
"""


def launch(path: str, pid: int = 5) -> Event:
    """Return an execution."""
    process = {"pid": pid, "cmd_line": path, "file": {"path": path}, "parent_process": {"pid": 2}}
    return {"class_uid": 1007, "activity_id": 1, "time": 1, "process": process}


def found(rule: str, severity: int = 4, path: str = "/bin/bash", **told: str) -> Event:
    """Return a finding of ours."""
    return {
        "class_uid": 2004,
        "activity_id": 1,
        "time": 2,
        "severity_id": severity,
        "finding_info": {"analytic": {"name": rule}},
        "evidences": [{"process": launch(path)["process"]}],
        "enrichments": [{"name": name, "value": value} for name, value in told.items()],
    }


def put(folder: Path, place: str, *events: Event, proved: bool = True) -> None:
    """Write a recording."""
    kind, group, name = place.split("/")
    header = {"category": HEADER, "name": name, "group": group, "kind": kind, "proved": proved, "guarded": True}
    path = folder / f"{place}.ndjson"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, *events)))


@pytest.fixture
def public(tmp_path: Path) -> Pack:
    """Two rules of somebody else."""
    rules = tmp_path / "public"
    rules.mkdir()
    (rules / "rules.yml").write_text(SIGMA)
    return load_pack(compile_paths([rules]).pack())


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Attacks that one, the other, both or nobody tells; ordinary work with a false alarm of each."""
    folder = tmp_path / "recordings"
    put(folder, "attacks/shells/silent-to-lines", launch("/bin/bash"), found("reverse_shell_direct"))
    put(folder, "attacks/shells/netcat", launch("/bin/nc"), found("reverse_shell_direct"))
    put(folder, "attacks/shells/only-theirs", launch("/bin/nc"))
    over = {**found("reverse_shell_direct"), "activity_id": 3}
    put(folder, "attacks/loops/quiet", launch("/bin/bash"), found("command_loop_possible", severity=2), over)
    put(folder, "attacks/loops/broken", launch("/bin/nc"), proved=False)
    put(folder, "benign/work/port-check", launch("/bin/nc"))
    put(folder, "benign/work/installer", launch("/bin/true"), found("persistence_shell", severity=3))
    put(folder, "benign/work/calm", launch("/bin/true"))
    return folder


@pytest.fixture
def table(recordings: Path, public: Pack) -> Table:
    """All of it compared."""
    judges: dict[str, Judge] = {
        LIVE: reported,
        REPLAYED: replaying(default_pack(), findings=True),
        PUBLIC: replaying(public, findings=False),
    }
    return compare(read(recordings), judges)


def test_recall_and_false_alarms(table: Table) -> None:
    """Told is what meets a rule of medium or above; what did not prove itself is left out, and that is counted."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in render(table).splitlines() if "|" in line]
    assert lines[0] == ["attacks", "cases", LIVE, REPLAYED, PUBLIC, BOTH]
    rows = {(row[0], number > 4): row[1:] for number, row in enumerate(lines)}
    assert rows["loops", False] == ["1", "0 (0%)", "0 (0%)", "0 (0%)", "0 (0%)"]
    assert rows["shells", False] == ["3", "2 (67%)", "0 (0%)", "2 (67%)", "3 (100%)"]
    assert rows["**all**", False] == ["4", "2 (50%)", "0 (0%)", "2 (50%)", "3 (75%)"]
    assert rows["work", True] == ["3", "1", "0", "1", "2"]
    assert table.unproved == 1


def test_what_is_missed_is_named(table: Table) -> None:
    """An attack that we do not report at medium level is named, with what was said of it."""
    assert missed(table) == ["loops/quiet: command_loop_possible", "shells/only-theirs: nothing"]


def test_false_alarms_are_named(table: Table) -> None:
    """Each false alarm stands with its rule."""
    text = render(table)
    assert f"False alarms of {LIVE}, by rule and number of cases: persistence_shell (1)." in text
    assert f"False alarms of {PUBLIC}, by rule and number of cases: Netcat (1)." in text


def test_behaviour_is_replayed_from_findings_for_us_alone(public: Pack) -> None:
    """A recorded conclusion meets our rule again; other rule sets do not even see the process that only it names."""
    told = {"RemoteControlled": "direct", "InterpreterInput": "commands", "InterpreterKind": "shell"}
    case = Case("attacks", "g", "n", True, True, (found("reverse_shell_direct", path="/bin/nc", **told),))
    assert {alarm.rule for alarm in replaying(default_pack(), findings=True)(case)} == {
        "Reverse shell on a network socket"
    }
    assert replaying(public, findings=False)(case) == set()


def test_page(table: Table, public: Pack) -> None:
    """The page says how many cases it rests on, how many were left out, and has the tables."""
    text = page(table, public)
    assert "7 cases of `tests/attacks` and `tests/benign`" in text
    assert "1 did not prove themselves" in text
    assert "2 compiled, 2 of them on processes" in text
    assert render(table) in text


def test_command(recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints the tables and writes the page."""
    written = tmp_path / "recall.md"
    (tmp_path / "sigma").mkdir()
    (tmp_path / "sigma" / "rules.yml").write_text(SIGMA)
    main([str(recordings), "--sigma", str(tmp_path / "sigma"), "--page", str(written)])
    shown = capsys.readouterr().out
    assert "missed: loops/quiet" in shown
    assert "| **all** | 4 | 2 (50%) |" in shown
    assert "| **all** | 4 | 2 (50%) |" in written.read_text()


@pytest.mark.parametrize("text", ["", "{", "[]\n", '{"category": "recorded_case"}\n'])
def test_no_recording(tmp_path: Path, text: str) -> None:
    """A folder without recordings, and a file that is none, are named."""
    with pytest.raises(SystemExit, match="no recordings"):
        read(tmp_path)
    (tmp_path / "benign" / "g").mkdir(parents=True)
    (tmp_path / "benign" / "g" / "bad.ndjson").write_text(text)
    with pytest.raises(SystemExit, match=r"bad\.ndjson: no recording"):
        read(tmp_path)


def test_recordings_can_be_replayed_by_hand(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`rules replay` reads a recording as it is."""
    path = recordings / "attacks" / "shells" / "netcat.ndjson"
    assert run(["rules", "replay", "--events", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failed_rules"] == []


def test_only_what_is_about_the_case_is_kept() -> None:
    """An event belongs to a case by its process, an ancestor, its actor, an evidence, or one who could have done it."""
    assert about(launch("/bin/x", pid=5), frozenset({5}))
    assert about(launch("/bin/x", pid=5), frozenset({2}))
    assert about({"actor": {"process": {"pid": 9}}}, frozenset({9}))
    assert about(found("r"), frozenset({5}))
    assert about({"unmapped": {"nbsentinel": {"candidates": ["7:1234"]}}}, frozenset({7}))
    assert about({"enrichments": [{"name": "CandidateRoot", "value": "7@1234"}]}, frozenset({7}))
    assert not about({"enrichments": [{"name": "CandidateRoot", "value": "7@1234"}]}, frozenset({1234}))
    assert not about(launch("/bin/x", pid=5), frozenset({55, 7}))
    assert not about({"class_uid": 6002, "unmapped": {"nbsentinel": {"what": "heartbeat"}}}, frozenset({1}))


def test_every_case_of_the_suites_can_be_recorded() -> None:
    """Each case of the suites is among them, once, with a place of its own."""
    every = jobs()
    assert len({job.place for job in every}) == len(every)
    attacks = [*SHELLS, *LOOPS, *ACTS]
    assert {id(job.case) for job in every if job.kind == "attacks"} == set(map(id, attacks))
    assert {id(job.case) for job in every if job.kind == "benign"} == set(map(id, (*WORK, *ORDINARY)))
