"""The engine with rules of a SOC: what becomes a finding, and what only counts towards one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from nbsentinel.context.cells import Cells
from nbsentinel.context.origins import Origins
from nbsentinel.context.processes import ProcessTable
from nbsentinel.detect.engine import Engine
from nbsentinel.detect.heldback import held_back
from nbsentinel.detect.rules.compile import compile_paths
from nbsentinel.detect.rules.correlate import Correlator
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import load_pack
from nbsentinel.detect.trust import Trust
from nbsentinel.events import (
    Connect,
    Connection,
    Endpoint,
    EnvironSweep,
    Exec,
    Finding,
    Inode,
    KernelInfo,
    Millis,
    Observation,
    ProcessKey,
    Severity,
)
from support.simulation import System

RULES = """title: Fetch
name: fetch
id: 11111111-1111-4111-8111-111111111111
logsource: {category: process_creation}
detection: {s: {Image|endswith: /fetch}, condition: s}
---
title: Run
name: run
id: 22222222-1111-4111-8111-111111111111
logsource: {category: process_creation}
detection: {s: {Image|endswith: /run}, condition: s}
---
title: Fetch, then run
id: 33333333-1111-4111-8111-111111111111
level: high
correlation: {type: temporal_ordered, rules: [fetch, run], group-by: [CurrentDirectory], timespan: 1m%s}
---
title: Fetch and no run
id: 44444444-1111-4111-8111-111111111111
correlation: {type: temporal, condition: fetch and not run, timespan: 1m%s}
"""


class Bench:
    """An engine over a simulated system with a clock of its own."""

    def __init__(
        self,
        folder: Path,
        rules: str = RULES % ("", ""),
        surface: str = "other",
        failed: Callable[[Exception], None] | None = None,
        loopback_is_remote: bool = False,
    ) -> None:
        path = folder / "rules.yml"
        path.write_text(rules)
        compiled = compile_paths([path])
        assert compiled.failed == ()
        self.pack = pack = load_pack(compiled.pack())
        self.matcher = Matcher(pack)
        self.system, self.now = System(), 1_000
        table, cells = ProcessTable(), Cells()
        self.engine = Engine(
            matcher=self.matcher,
            table=table,
            trust=Trust(table, loopback_is_remote=loopback_is_remote, brokers=()),
            look=lambda: self.system,
            describe=lambda _: None,
            clock=lambda: Millis(self.now),
            own=ProcessKey(1, 1),
            cells=cells,
            origins=Origins(table, cells, tuple),
            correlator=Correlator(pack.rules),
            failed=failed,
            surface=surface,
        )

    def executed(self, at: int, exe: str, folder: str = "/a") -> Observation:
        key = self.system.start(exe)
        self.system.processes[key] = replace(self.system.processes[key], cwd=folder)
        return self.system.executed(key, at)

    def execute(self, at: int, exe: str, folder: str = "/a") -> list[Finding]:
        self.now = max(self.now, at)
        return self.engine.observe([self.executed(at, exe, folder)])


def test_a_correlation_is_a_finding_about_its_last_event(tmp_path: Path) -> None:
    """The two steps alone are none; together they are one, with the rules that were met and what joins them."""
    bench = Bench(tmp_path)
    assert bench.execute(2_000, "/bin/fetch") == []
    assert bench.execute(3_000, "/bin/run", "/b") == []
    (found,) = bench.execute(4_000, "/bin/run")
    assert (found.title, found.process.exe, int(found.severity)) == ("Fetch, then run", "/bin/run", 4)
    assert found.fields["CorrelatedRules"] == "fetch, run"
    assert found.fields["CorrelatedCount"] == "2"
    assert found.fields["CurrentDirectory"] == "/a"


def test_a_rule_that_a_correlation_generates_is_a_finding_too(tmp_path: Path) -> None:
    """With `generate: true` the steps are findings of their own."""
    bench = Bench(tmp_path, RULES % ((", generate: true",) * 2))
    assert [f.title for f in bench.execute(2_000, "/bin/fetch")] == ["Fetch"]
    assert [f.title for f in bench.execute(3_000, "/bin/run")] == ["Run", "Fetch, then run"]


@pytest.mark.parametrize("runs", [True, False])
def test_what_did_not_happen_is_told_when_its_time_is_over(tmp_path: Path, runs: bool) -> None:
    """A window that had to wait is judged by the clock, about the process that opened it."""
    bench = Bench(tmp_path)
    bench.execute(2_000, "/bin/fetch")
    if runs:
        bench.execute(3_000, "/bin/run", "/b")
    due = bench.engine.next_due()
    assert due is not None
    assert due <= 62_001
    bench.now = 63_000
    found = bench.engine.tick()
    assert [(f.title, f.process.exe) for f in found] == ([] if runs else [("Fetch and no run", "/bin/fetch")])


@pytest.mark.parametrize(("apart", "fires"), [(30_000, True), (90_000, False)])
def test_time_is_that_of_the_events(tmp_path: Path, apart: int, fires: bool) -> None:
    """Steps that were observed late, all at once, are as far apart as they happened."""
    bench = Bench(tmp_path)
    bench.now = 500_000
    steps = [bench.executed(100_000, "/bin/fetch"), bench.executed(100_000 + apart, "/bin/run")]
    assert ("Fetch, then run" in [f.title for f in bench.engine.observe(steps)]) is fires


COUNT = """title: Twice
id: 55555555-1111-4111-8111-111111111111
correlation: {type: event_count, rules: [fetch], timespan: 1m, condition: {gte: 2}}
---
title: Controlled
name: controlled
id: 66666666-1111-4111-8111-111111111111
logsource: {category: process_creation}
detection: {s: {RemoteControlled: direct}, condition: s}
---
title: Controlled and fetched
id: 77777777-1111-4111-8111-111111111111
correlation: {type: temporal, rules: [fetch, controlled], timespan: 1m, generate: true}
"""


def test_an_execution_counts_once(tmp_path: Path) -> None:
    """What is concluded about a process later is one more event for rules on that, and none of its execution."""
    bench = Bench(tmp_path, RULES.split("---", maxsplit=1)[0] + "---\n" + COUNT)
    shell, peer = bench.system.start("/bin/fetch", "-i", image="shell"), bench.system.connection()
    bench.system.stdio(shell, peer, peer)
    titles = {f.title for f in bench.engine.observe([bench.system.executed(shell, 1_000)])}
    assert titles >= {"Controlled", "Controlled and fetched"}
    assert "Twice" not in titles
    assert "Twice" in [f.title for f in bench.execute(2_000, "/bin/fetch")]


def test_one_bad_event_takes_no_neighbour_along(tmp_path: Path) -> None:
    """What goes wrong with one observation is told, and the others of its turn are judged."""
    wrong: list[Exception] = []
    bench = Bench(tmp_path, RULES % ((", generate: true",) * 2), failed=wrong.append)
    failing, peer = bench.system.start("/bin/fetch"), bench.system.connection()
    bench.system.stdio(failing, peer, peer)
    bad = bench.system.executed(failing, 2_000)
    fine = bench.system.image

    def image(key: ProcessKey) -> str | None:
        if key == failing:
            raise RuntimeError("the look failed")
        return fine(key)

    bench.system.image = image  # type: ignore[method-assign]
    others = [bench.executed(2_000, "/bin/run"), bad, bench.executed(2_001, "/bin/run", "/b")]
    assert [f.title for f in bench.engine.observe(others)] == ["Run", "Run"]
    assert [str(error) for error in wrong] == ["the look failed"]


def _rule(number: int, name: str, more: str = "") -> str:
    return f"""title: {name}
name: {name}
id: {number}0000000-1111-4111-8111-111111111111
logsource: {{category: process_creation}}
detection: {{s: {{Image|endswith: /{name}}}, condition: s}}
level: medium
{more}
"""


CHAIN = "---\n".join(_rule(number, name) for number, name in enumerate(("download", "shell", "read", "upload"), 1))


def test_what_one_kernel_does_is_one_incident(tmp_path: Path) -> None:
    """The steps of an attack in one kernel are one incident in their order; another kernel's are not part of it."""
    bench = Bench(tmp_path, CHAIN)
    kernels = []
    for name in "ab":
        kernel = bench.system.start("/bin/python3", kernel=KernelInfo(kernel_id=name, connection_file=f"/run/{name}"))
        bench.engine.observe([bench.system.executed(kernel, 1_000)])
        kernels.append(kernel)
    found: dict[ProcessKey, list[Finding]] = {kernel: [] for kernel in kernels}
    for at, exe in enumerate(("/bin/download", "/bin/shell", "/bin/read", "/bin/upload"), 2):
        for kernel in kernels:
            bench.now = at * 1_000
            started = bench.system.start(exe, parent=kernel)
            found[kernel] += bench.engine.observe([bench.system.executed(started, bench.now)])
    incidents = [[finding.incident for finding in findings] for findings in found.values()]
    assert [len({incident.uid for incident in each if incident}) for each in incidents] == [1, 1]
    assert incidents[0][0] != incidents[1][0]
    for each in incidents:
        assert each[-1] is not None
        assert [step.title for step in each[-1].steps] == ["download", "shell", "read", "upload"]
        assert [step.at for step in each[-1].steps] == [2_000, 3_000, 4_000, 5_000]


@pytest.mark.parametrize(
    ("surface", "severity", "words"),
    [
        ("notebook-instance", Severity.INFORMATIONAL, "informational, because this is notebook-instance"),
        ("studio-code-editor", Severity.HIGH, "high, because this is studio-code-editor; medium elsewhere"),
        ("other", Severity.MEDIUM, ""),
    ],
)
def test_severity_depends_on_the_surface(tmp_path: Path, surface: str, severity: Severity, words: str) -> None:
    """A rule's level for this surface is the finding's severity, and the finding says that it is."""
    levels = "nbsentinel: {level_by_surface: {studio: high, notebook-instance: informational}}"
    bench = Bench(tmp_path, _rule(1, "ask", levels), surface)
    (found,) = bench.execute(2_000, "/bin/ask")
    assert found.severity is severity
    assert found.severity_why.startswith(words)
    assert bool(found.severity_why) is bool(words)


def test_what_is_held_back_is_counted_by_rule(tmp_path: Path) -> None:
    """Of every match that is no finding of its own it is said which rule it met, and why it was not told."""
    exception = """---
title: Ours
id: 90000000-1111-4111-8111-111111111111
logsource: {category: process_creation}
filter: {rules: [ask], ours: {CurrentDirectory: /ours}, condition: not ours}
---
title: Often
name: often
id: 80000000-1111-4111-8111-111111111111
correlation:
    {type: event_count, rules: [count], group-by: [CurrentDirectory], timespan: 1h, condition: {gte: 1}, generate: true}
"""
    bench = Bench(tmp_path, f"{_rule(1, 'ask')}---\n{_rule(2, 'count')}{exception}")
    bench.execute(2_000, "/bin/ask")
    for at in range(3):
        assert bench.execute(3_000 + at, "/bin/ask", "/ours") == []
        bench.execute(4_000 + at, "/bin/count")
    again = bench.executed(5_000, "/bin/count")
    assert len(bench.engine.observe([again])) == 1
    assert bench.engine.observe([again]) == []
    engine = bench.engine
    told = held_back(bench.pack.rules, bench.matcher, engine.correlator, engine.incidents)
    assert told["totals"] == {"suppressed": 3, "repeated": 4, "grouped": 1, "limited": 0}
    assert told["rules"] == [
        {"rule": "often", "repeated": 4},
        {"rule": "ask", "suppressed": 3},
        {"rule": "count", "grouped": 1},
    ]
    assert told["rule_count"] == 3


SWEEPS = """title: Sweep
id: 71111111-1111-4111-8111-111111111111
logsource: {category: environ_sweep, product: nbsentinel}
detection: {s: {Decoys|gte: 1}, expected: {CandidateCommandLine|endswith: /bin/monitor}, condition: s and not expected}
"""


@pytest.mark.parametrize("expected", [True, False])
def test_rules_see_every_candidate_and_findings_a_few(tmp_path: Path, expected: bool) -> None:
    """What a finding shows of candidates is cut; what rules compare is not."""
    bench = Bench(tmp_path, SWEEPS)
    names = [f"/bin/p{number}" for number in range(9)] + ["/bin/monitor"] * expected
    for name in names:
        bench.execute(2_000, name)
    keys = tuple(bench.system.processes)
    found = bench.engine.observe([EnvironSweep(at=Millis(3_000), decoys=1, candidates=keys, source="files")])
    assert [finding.title for finding in found] == ([] if expected else ["Sweep"])
    for finding in found:
        assert finding.fields["CandidateCommandLine"] == "/bin/p0\n/bin/p1\n/bin/p2"


@pytest.mark.parametrize(
    ("ip", "loopback_is_remote", "remote"),
    [("203.0.113.9", False, True), ("127.0.0.1", False, False), ("::1", False, False), ("127.0.0.1", True, True)],
)
def test_rules_see_what_counts_as_remote(tmp_path: Path, ip: str, loopback_is_remote: bool, remote: bool) -> None:
    """A rule asks whether the peer is another machine; in demos and tests this one counts as another."""
    rules = """
title: Out
name: out
id: 11111111-1111-4111-8111-111111111111
level: high
logsource: {category: network_connection}
detection: {s: {DestinationIsRemote: true}, condition: s}
"""
    bench = Bench(tmp_path, rules, loopback_is_remote=loopback_is_remote)
    started = bench.executed(2_000, "/bin/x")
    assert isinstance(started, Exec)
    connection = Connection(protocol="tcp", local=None, remote=Endpoint(ip, 443), inode=Inode(7), initiated=True)
    told = Connect(at=Millis(2_001), key=started.process.key, connection=connection, source="guard")
    assert bool(bench.engine.observe([started, told])) is remote
