"""Test alerts: signed and stored like any finding, marked by the agent alone, limited and counted."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nbsentinel import drill
from nbsentinel.attest.verify import verify_genesis, verify_next
from nbsentinel.cli import run
from nbsentinel.context.cells import Cells
from nbsentinel.context.origins import Origins
from nbsentinel.context.processes import ProcessTable
from nbsentinel.drill import SEVERITIES, Drills
from nbsentinel.errors import SpoolError
from nbsentinel.events import AgentEvent, Exec, Lifecycle, Millis, Process, ProcessKey
from nbsentinel.local.server import LocalServer
from nbsentinel.report import ocsf, recorder
from nbsentinel.report.ocsf_drill import LABEL, as_test
from nbsentinel.report.outlets import Fate
from nbsentinel.report.recorder import Recorder
from nbsentinel.report.spool import Row, Spool

REPORTER = ocsf.Reporter(agent_uid="a", version="0", surface={})
ASKING = Process(
    key=ProcessKey(os.getpid(), 7), parent=None, name="nbsentinel", exe="/bin/nbsentinel", argv=(), argv_length=0
)


class Site:
    """Everything behind the pipeline but real sinks: what becomes of an event is said by a list of fates each."""

    def __init__(self, folder: Path) -> None:
        moments = itertools.count(1_000)
        self.spool = Spool(folder / "state", max_bytes=1 << 20)
        self.recorder = Recorder(
            self.spool,
            "c",
            clock=self._clock(moments),
            render=lambda event: ocsf.agent_event(event, REPORTER),
            recorded=lambda: None,
        )
        self.recorder.begin(AgentEvent(at=Millis(1), what=Lifecycle.ENROL, message="start"))
        self.fates: dict[str, list[Fate]] = {"file": [Fate(True)]}
        table = ProcessTable()
        table.apply(Exec(at=Millis(1), process=ASKING, source="procfs"))
        self.drills = Drills(
            self.recorder,
            self.spool,
            self,
            lambda finding: as_test(ocsf.finding(finding, REPORTER)),
            table,
            Origins(table, Cells(), tuple),
            self._clock(moments),
        )

    @staticmethod
    def _clock(moments: Iterator[int]) -> Callable[[], Millis]:
        return lambda: Millis(next(moments))

    @property
    def names(self) -> list[str]:
        return list(self.fates)

    def fate(self, name: str, row: Row) -> Fate:
        fates = self.fates[name]
        return fates.pop(0) if len(fates) > 1 else fates[0]

    def ask(self, severity: object = "informational", wait: object = 1, pid: int = ASKING.key.pid) -> list[Any]:
        return [answer for answer in self.drills.answer(severity, wait, pid) if answer]

    def alerts(self) -> list[dict[str, Any]]:
        return [json.loads(row.line) for row in self.spool.latest(100, 2004)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.spool.close()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_alert_is_a_signed_and_marked_finding(site: Site, severity: str) -> None:
    """A test alert is in the chain, verifies, has the severity that was asked for, its marks, and names who asked."""
    told, delivery = site.ask(severity)
    (event,) = site.alerts()
    first, second = site.spool.after(0, 10)
    assert verify_next(second.line, verify_genesis(first.line).state).state.head.sequence == 2
    assert told["test_alert"]["uid"] == event["finding_info"]["uid"]
    assert (told["test_alert"]["chain"], told["test_alert"]["sequence"]) == ("c", event["metadata"]["sequence"])
    assert event["severity_id"] == SEVERITIES[severity]
    assert event["is_alert"] is (event["severity_id"] >= 3)
    assert (event["metadata"]["labels"], event["verdict"]) == ([LABEL], "Test")
    assert event["evidences"][0]["process"]["file"]["path"] == "/bin/nbsentinel"
    assert delivery["delivery"]["sink"] == "file"
    assert delivery["delivery"]["ms"] >= 0


def test_alerts_are_limited_and_counted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second alert within the period is refused and counted and makes no event; after it one is made again."""
    site.ask()
    for _ in range(3):
        (answer,) = site.ask("critical")
        assert "once in 10 s" in answer["refused"]
    assert len(site.alerts()) == 1
    assert site.drills.counters() == {"test_alerts": 1, "test_alerts_refused": 3}
    monkeypatch.setattr(site.drills, "_next", time.monotonic())
    assert "test_alert" in site.ask()[0]
    assert site.drills.counters() == {"test_alerts": 2, "test_alerts_refused": 3}


@pytest.mark.parametrize("severity", [None, "", "fatal", 5, ["low"], {}, "LOW"])
def test_nonsense_makes_nothing(site: Site, severity: object) -> None:
    """What is no severity is an error, makes no event and uses up no turn."""
    assert "error" in site.ask(severity)[0]
    assert site.alerts() == []
    assert "test_alert" in site.ask()[0]


@pytest.mark.parametrize("wait", [None, "1", True, -1, 10**9, 1.5, []])
def test_nonsense_patience(site: Site, wait: object) -> None:
    """The patience is a bounded number of seconds."""
    assert "error" in site.ask(wait=wait)[0]
    assert site.alerts() == []


def test_each_sink_has_its_word(site: Site) -> None:
    """Sinks are told as they confirm; one that refuses for good at once, one that says nothing when patience ends."""
    site.fates = {
        "late": [Fate(False), Fate(False), Fate(True)],
        "silent": [Fate(False, "connection refused; 9 events wait for it")],
        "refuses": [Fate(False, "set aside", final=True)],
        "quick": [Fate(True)],
    }
    told, *deliveries = site.ask()
    assert told["test_alert"]["sinks"] == ["late", "silent", "refuses", "quick"]
    words = {d["delivery"]["sink"]: d["delivery"].get("why", "confirmed") for d in deliveries}
    assert words == {
        "refuses": "set aside",
        "quick": "confirmed",
        "late": "confirmed",
        "silent": "connection refused; 9 events wait for it",
    }
    assert list(words) == ["refuses", "quick", "late", "silent"]


def test_who_asks_may_be_unknown(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that no sensor has seen is named by its pid."""
    monkeypatch.setattr(drill, "KNOWN_S", 0.1)
    site.ask(pid=4711)
    (event,) = site.alerts()
    assert event["evidences"][0]["process"]["pid"] == 4711
    assert "not seen yet" in str(event["enrichments"])


def test_disk_that_takes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the alert cannot be stored, that is the answer; it is kept and goes out when the disk takes it."""

    def refuse(_: object) -> None:
        raise SpoolError("no space left")

    with monkeypatch.context() as full:
        full.setattr(site.spool, "append", refuse)
        (answer,) = site.ask()
    assert "no space left" in answer["refused"]
    site.recorder.record_own(AgentEvent(at=Millis(2), what=Lifecycle.NOTICE, message="there is room again"))
    assert [event["verdict"] for event in site.alerts()] == ["Test"]


def test_neither_disk_nor_memory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the alert cannot even be kept in memory, the answer says that it is lost."""

    def refuse(_: object) -> None:
        raise SpoolError("no space left")

    monkeypatch.setattr(site.spool, "append", refuse)
    monkeypatch.setattr(recorder, "MEMORY_LIMIT", 0)
    (answer,) = site.ask()
    assert "the alert is lost" in answer["refused"]


@pytest.fixture
def run_dir(site: Site, tmp_path: Path) -> Iterator[str]:
    """An agent's socket before the same."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    server = LocalServer(folder, site.spool, lambda: {"state": "ready"}, lambda _: None, site.drills.answer)
    server.start()
    yield str(folder)
    server.stop()


def test_command_says_what_became_of_it(site: Site, run_dir: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All confirmed is exit code 0; asked again at once it is refused with exit code 4 and says when."""
    assert run(["test-alert", "--run-dir", run_dir, "--severity", "high"]) == 0
    shown = capsys.readouterr().out
    assert "(high) is event 2 of chain c, signed and on disk" in shown
    assert "file         confirmed after" in shown
    assert run(["test-alert", "--run-dir", run_dir]) == 4
    assert "once in 10 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fates", "words"),
    [
        ({"file": [Fate(True)], "collector": [Fate(False, "no answer")]}, "collector    not confirmed: no answer"),
        ({}, "No sink is configured"),
    ],
)
def test_command_without_every_word(
    site: Site, run_dir: str, fates: dict[str, list[Fate]], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sink that does not confirm, or none at all, is exit code 1 with the reason."""
    site.fates = fates
    assert run(["test-alert", "--run-dir", run_dir, "--wait", "1"]) == 1
    assert words in capsys.readouterr().out


def test_command_for_programs(site: Site, run_dir: str, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has the alert, each sink's word, and whether all confirmed."""
    assert run(["test-alert", "--run-dir", run_dir, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["confirmed"] is True
    assert [delivery["sink"] for delivery in found["deliveries"]] == ["file"]
    assert found["uid"] == site.alerts()[0]["finding_info"]["uid"]


def test_fates_in_real_outlets(tmp_path: Path) -> None:
    """What the cursor of a sink has passed is delivered; before that its backlog is told; what was pruned is lost."""
    from nbsentinel.config import Config
    from nbsentinel.report.outlets import Outlets

    config = Config()
    config = msgspec.structs.replace(
        config,
        report=msgspec.structs.replace(
            config.report,
            collector=msgspec.structs.replace(config.report.collector, url="http://127.0.0.1:9"),
        ),
    )
    made = Site(tmp_path)
    outlets = Outlets(config, made.spool, "c", print, lambda _path, _how: None)
    made.ask()
    (row,) = made.spool.latest(1, 2004)
    fate = outlets.fate("collector", row)
    assert (fate.delivered, fate.final) == (False, False)
    assert "2 events wait for it" in fate.why
    lost = outlets.fate("collector", Row(row.id + 1, "c", row.sequence + 1, b""))
    assert (lost.delivered, lost.final) == (False, True)
    made.spool.advance("collector", row.id)
    assert outlets.fate("collector", row).delivered
    made.spool.set_chain_state("c", "refused")
    fate = outlets.fate("collector", row)
    assert (fate.delivered, fate.final) == (False, True)
    assert "refuses" in fate.why
    made.spool.close()
