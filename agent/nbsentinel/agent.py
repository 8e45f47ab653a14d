"""The agent: builds the pipeline and runs it. The one place that knows all the parts."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path

from nbsentinel import __version__, startup
from nbsentinel.config import Config
from nbsentinel.context.cells import Cells
from nbsentinel.context.origins import Origins
from nbsentinel.context.processes import ProcessTable
from nbsentinel.context.surface import Surface, discover
from nbsentinel.detect.engine import Engine
from nbsentinel.detect.heldback import held_back
from nbsentinel.detect.rules.inforce import RulesInForce
from nbsentinel.detect.trust import Trust
from nbsentinel.drill import Drills
from nbsentinel.events import (
    AgentEvent,
    Coverage,
    Finding,
    Lifecycle,
    Observation,
    SensorState,
    Tamper,
    TamperKind,
)
from nbsentinel.harden import forbid_dumps
from nbsentinel.local.server import LocalServer
from nbsentinel.protect.keeper import RESTART, Bond
from nbsentinel.protect.selfcheck import SelfCheck
from nbsentinel.report import ocsf, ocsf_drill
from nbsentinel.report.outlets import Outlets
from nbsentinel.report.recorder import Recorder
from nbsentinel.report.selection import Selection
from nbsentinel.report.spool import Spool
from nbsentinel.roster import Roster
from nbsentinel.sensors.procfs.sensor import now_ms
from nbsentinel.usage import Governor, Usage
from nbsentinel.watch import Watch

BATCH = 500
"""Observations taken from one lane in one turn of the pipeline."""
DRAIN_S = 3.0
"""Longest waits when the agent is told to stop: for a self-test that runs, and for delivering what waits."""
LONGEST_WAIT_S = 0.5
HOUSEKEEPING_S, LOOK_S = 5.0, 1.0
CLOSINGS = 20
"""Incidents that are told to be over in one turn of housekeeping."""
SELF_TEST_S = 600.0
Log = Callable[[str, dict[str, object]], None]


class Agent:
    """One run of the agent.

    Args:
        config: The configuration.
        log: Takes (event, details) lines for the operator.
        bond: The connection with the keeper, None where nobody keeps it.
        source: The configuration's file.

    Raises:
        NbsentinelError: Something it cannot do without is missing: the folders, the spool, the rules.
    """

    def __init__(self, config: Config, log: Log, *, bond: Bond | None = None, source: Path | None = None) -> None:
        self._config, self._log = config, log
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._lock_files = [startup.lock(folder) for folder in (config.state_dir, config.run_dir)]
        self._spool = Spool(config.state_dir, max_bytes=config.report.spool.max_mebibytes << 20)
        self._surface = discover()
        self._agent_uid = self._remembered_uid()
        self._reporter = self._make_reporter(self._surface)
        self._rules = RulesInForce(startup.load_rules(config), config.detect.exceptions, now_ms())
        self._table = ProcessTable()
        self._watch = Watch(config, self._ready, self._table, self._notice, lambda: bond.keeper if bond else 0)
        sources = [str(path) for path in (source, config.detect.rules, *startup.exception_files(config)) if path]
        self._own = SelfCheck(config, sources, bond, emit=self._watch.own.put, clock=now_ms, stop=self.stop)
        self._trust = Trust(
            self._table,
            loopback_is_remote=config.detect.loopback_is_remote,
            brokers=config.detect.trusted_broker,
        )
        self._cells = Cells()
        self._origins = Origins(self._table, self._cells, lambda: (self._trust.server,) if self._trust.server else ())
        self._engine = Engine(
            matcher=self._rules.matcher,
            correlator=self._rules.correlator,
            table=self._table,
            trust=self._trust,
            look=self._watch.procfs.view,
            describe=self._watch.procfs.describe,
            clock=now_ms,
            own=startup.own_key(),
            cells=self._cells,
            origins=self._origins,
            failed=self._failed,
            surface=self._surface.kind,
        )
        self._selection = Selection(config.report.level)
        self._recorder = Recorder(
            self._spool, str(uuid.uuid4()), clock=now_ms, render=self._own_event, recorded=self._on_recorded
        )
        self._outlets = Outlets(config, self._spool, self._recorder.chain_uid, self._line, self._own.file_meddled)
        roster = self._roster = Roster(self._table, self._origins, self._watch)
        self._drills = Drills(
            self._recorder, self._spool, self._outlets, self._test_alert, self._table, self._origins, now_ms
        )
        self._server = LocalServer(config.run_dir, self._spool, self.status, roster.who, self._drills.answer)
        self._usage, self._governor = Usage(), Governor(config.sensors.processor_limit_percent)
        self._tester = threading.Thread(target=self._test_sensors, name="self-test", daemon=True)
        self._started, self._state = now_ms(), "starting"
        self._findings = self._observations = self._failures = 0

    # Building

    def _remembered_uid(self) -> str:
        known = self._spool.fact("agent_uid")
        if known is None:
            known = str(uuid.uuid4())
            self._spool.remember("agent_uid", known)
        return known

    def _make_reporter(self, surface: Surface) -> ocsf.Reporter:
        return ocsf.Reporter.of(agent_uid=self._agent_uid, version=__version__, surface=startup.surface_fields(surface))

    def _own_event(self, event: AgentEvent) -> dict[str, object]:
        return ocsf.agent_event(event, self._reporter)

    def _test_alert(self, finding: Finding) -> dict[str, object]:
        self._log(finding.title, {"severity": finding.severity.name, "pid": finding.process.key.pid})
        return ocsf_drill.as_test(ocsf.finding(finding, self._reporter))

    def _on_recorded(self) -> None:
        self._outlets.notify()
        self._server.recorded()

    def _line(self, message: str) -> None:
        self._log(message, {})

    # Running

    def stop(self) -> None:
        """Ask the agent to end."""
        self._stop.set()
        self._ready.set()

    def asked(self, number: int) -> None:
        """Hear a signal that asks to end: a kept agent obeys its keeper alone. Safe in a signal handler."""
        self._own.asked(number)

    def run(self) -> int:
        """Run until told to stop; returns the exit code after the goodbye is recorded and delivered as far as possible.

        Returns:
            0, or `RESTART` when the agent wants to be started again: then there is no goodbye.
        """
        forbid_dumps()
        self._begin()
        try:
            self._loop()
        except BaseException:
            self._give_up()
            raise
        if self._own.restart:
            self._give_up()
            return RESTART
        self._end()
        return 0

    def _begin(self) -> None:
        self._spool.adopt(self._own.inherited)
        previous = self._spool.fact("chain")
        details: dict[str, object] = {
            "agent_uid": self._agent_uid,
            "version": __version__,
            "rule_pack": self._rules.pack.sha256,
            "surface": startup.surface_fields(self._surface),
        }
        if previous:
            details["previous_chain"] = previous
        event = AgentEvent(at=now_ms(), what=Lifecycle.ENROL, message="The agent started", details=details)
        self._recorder.begin(event)
        self._spool.remember("chain", self._recorder.chain_uid)
        self._own.leave(self._recorder.held)
        self._outlets.start()
        self._try(self._close_left_open)
        self._server.start()
        self._watch.start()
        self._drain_lanes()
        for problem in self._rules.problems:
            self._notice(problem)
        self._tester.start()

    def _close_left_open(self) -> None:
        """Close what the agents before left open: what follows is told as new incidents."""
        self._recorder.record(startup.closings(self._spool, now_ms()))

    def _try(self, step: Callable[[], None]) -> None:
        """Do something that must not end the watch, whatever it meets; a failure is counted and told."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - see above
            self._failed(error)

    def _test_sensors(self) -> None:
        """Test every sensor at the start and then every ten minutes; a failure is a finding at once."""
        self._try(self._own.take_files)
        while not self._stop.is_set():
            self._try(self._test_once)
            self._stop.wait(SELF_TEST_S)

    def _test_once(self) -> None:
        tested = self._watch.test()
        if self._stop.is_set():
            return  # nothing follows the goodbye
        for found in tested:
            if found.state is not SensorState.ACTIVE:
                self._notice(f"Sensor {found.sensor} is {found.state.value}: {found.why}")
            if found.state is SensorState.UNAVAILABLE and self._state == "ready":
                self._watch.own.put(_failed_test(found))
        if self._state == "starting":
            self._state = "ready"
            self._log("ready", {"chain": self._recorder.chain_uid, "run_dir": str(self._config.run_dir)})
        self._heartbeat()

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        self._log("pipeline error", {"error": f"{type(error).__name__}: {error}", "where": where})

    def _notice(self, message: str) -> None:
        self._recorder.record_own(AgentEvent(at=now_ms(), what=Lifecycle.NOTICE, message=message))
        self._log(message, {})

    def _loop(self) -> None:
        heartbeat = time.monotonic() + self._config.agent.heartbeat_seconds
        housekeeping = time.monotonic() + HOUSEKEEPING_S
        look = time.monotonic() + LOOK_S
        while not self._stop.is_set():
            self._own.rest(self._ready, self._wait())
            self._ready.clear()
            now = time.monotonic()
            try:
                self._drain_lanes()
                if now >= look:
                    look = now + LOOK_S
                    self._outlets.look()
                if now >= housekeeping:
                    housekeeping = now + HOUSEKEEPING_S
                    self._keep_house(now)
                if now >= heartbeat:
                    heartbeat = now + self._config.agent.heartbeat_seconds
                    self._heartbeat()
            except Exception as error:  # noqa: BLE001 - one bad event must not end the watch; it is counted and told
                self._failed(error)
            if self._own.restart:
                return

    def _keep_house(self, now: float) -> None:
        # Ourselves first: whatever fails below may fail because of what this finds.
        self._own.check(self._spool.path, self._recorder.held)
        if self._governor.step(now, time.process_time()):
            self._watch.procfs.slow_down(self._governor.factor, self._governor.share)
        self._spool.forget_delivered(self._outlets.names, self._recorder.chain_uid)
        self._recorder.keep_bound()
        self._outlets.notify()  # what could not be delivered is tried again although nothing happens
        for problem in self._rules.check(now_ms()):
            self._notice(problem)
        over = self._engine.incidents.closings(now_ms(), CLOSINGS)
        self._recorder.record([ocsf.finding(item, self._reporter) for item in over])
        self._watch.look_around(self._origins)

    def _wait(self) -> float:
        due = self._engine.next_due()
        if due is None:
            return LONGEST_WAIT_S
        return min(LONGEST_WAIT_S, max(0.0, (due - now_ms()) / 1000))

    def _drain_lanes(self) -> None:
        while True:
            # Each lane gives its share, so that a flood in one does not hide the other; then the order of time counts.
            shares = self._watch.take(BATCH)
            observations = sorted((item for share in shares for item in share), key=lambda item: item.at)
            findings = self._engine.observe(observations) if observations else self._engine.tick()
            if self._watch.guard is not None:
                self._watch.guard.judged(observations)
            self._report(observations, findings)
            self._watch.settle(shares)
            if all(len(share) < BATCH for share in shares):
                return

    def _report(self, observations: list[Observation], findings: list[Finding]) -> None:
        self._observations += len(observations)
        self._findings += len(findings)
        chosen = self._selection.choose(observations, findings)
        context = [
            event for item in chosen if (event := ocsf.observation(item, self._table, self._reporter, self._origins))
        ]
        # Findings first: they wait for nothing.
        self._recorder.record([*(ocsf.finding(item, self._reporter) for item in findings), *context])
        for item in findings:
            self._log(item.title, {"rule": item.rule_name, "pid": item.process.key.pid, "severity": item.severity.name})

    # Telling

    def _heartbeat(self) -> None:
        event = AgentEvent(
            at=now_ms(), what=Lifecycle.HEARTBEAT, message=f"The agent is {self._state}", details=self._vitals()
        )
        self._recorder.record_own(event)

    def _vitals(self) -> dict[str, object]:
        coverage = [*self._watch.coverage(), self._own.coverage(), *self._outlets.coverage()]
        return {
            "state": self._state,
            "version": __version__,
            "rule_pack": self._rules.pack.sha256,
            "rule_state": self._rules.vitals(),
            "coverage": [
                {"sensor": c.sensor, "state": c.state.value, "why": c.why, "detail": c.detail} for c in coverage
            ],
            "counters": {
                "observations": self._observations,
                "findings": self._findings,
                "grouped": sum(self._engine.incidents.grouped.values()),
                "suppressed": sum(self._rules.matcher.suppressed.values()),
                "pipeline_errors": self._failures,
                "processes": len(self._table),
                **self._drills.counters(),
            },
            "incidents": self._engine.incidents.counters,
            "held_back": held_back(
                self._rules.pack.rules, self._rules.matcher, self._rules.correlator, self._engine.incidents
            ),
            "drops": {**self._watch.drops(), "unrecorded": self._recorder.unrecorded},
            "usage": self._usage.sample(),
        }

    def status(self) -> dict[str, object]:
        """Return what `nbsentinel status` shows, as a JSON object."""
        head = self._recorder.head
        return {
            **self._vitals(),
            "pid": os.getpid(),
            "keeper_pid": self._own.keeper_pid or None,
            "agent_uid": self._agent_uid,
            "started": self._started,
            "chain": {
                "uid": self._recorder.chain_uid,
                "sequence": head.sequence if head else 0,
                "fingerprint": head.fingerprint if head else "",
                "genesis_key": self._recorder.genesis_jwk,
            },
            "spool": {"bytes": self._spool.size, "failure": self._recorder.failure},
            "sinks": self._outlets.status(),
            "surface": startup.surface_fields(self._surface),
            "server_pid": self._trust.server.pid if self._trust.server else None,
            "rules": len(self._rules.pack.rules),
            "sessions": self._roster.sessions(),
        }

    def _end(self) -> None:
        self._tester.join(DRAIN_S)
        for sensor in self._watch.all:
            sensor.stop()
        self._drain_lanes()
        self._state = "stopped"
        details = {**self._vitals(), "stopped_by": self._own.stopped_by}
        message = "The agent was told to stop"
        self._recorder.record_own(AgentEvent(at=now_ms(), what=Lifecycle.GOODBYE, message=message, details=details))
        self._outlets.stop(DRAIN_S)
        self._server.stop()
        self._spool.close()
        for descriptor in self._lock_files:
            os.close(descriptor)
        self._log("stopped", {"chain": self._recorder.chain_uid})

    def _give_up(self) -> None:
        """End without a goodbye, for the keeper to start another agent; what fails now changes nothing any more."""
        steps = [*(sensor.stop for sensor in self._watch.all), self._drain_lanes]
        steps += [lambda: self._own.leave(self._recorder.held), lambda: self._outlets.stop(0), self._server.stop]
        for step in [*steps, self._spool.close]:
            with contextlib.suppress(Exception):
                step()


def _failed_test(found: Coverage) -> Tamper:
    detail = f"the self-test of sensor {found.sensor} failed: {found.why}"
    return Tamper(at=now_ms(), kind=TamperKind.SELF_TEST, target=found.sensor, detail=detail, source="agent")
