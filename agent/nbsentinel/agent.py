"""The agent: builds the pipeline and runs it. The one place that knows all the parts."""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from nbsentinel import __version__
from nbsentinel.config import Config
from nbsentinel.context.processes import ProcessTable
from nbsentinel.context.surface import Surface, discover
from nbsentinel.detect.engine import Engine
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import Pack, default_pack, load_pack
from nbsentinel.detect.trust import Trust
from nbsentinel.errors import NbsentinelError
from nbsentinel.events import AgentEvent, Coverage, Finding, Lifecycle, Observation, Refused, SensorState, Severity
from nbsentinel.harden import forbid_dumps
from nbsentinel.local.server import LocalServer
from nbsentinel.report import ocsf
from nbsentinel.report.outlets import Outlets
from nbsentinel.report.recorder import Recorder
from nbsentinel.report.selection import Selection
from nbsentinel.report.spool import Spool
from nbsentinel.sensors.base import Lane, Sensor
from nbsentinel.sensors.guard import GuardSensor
from nbsentinel.sensors.procfs.sensor import ProcfsSensor, now_ms
from nbsentinel.usage import Usage

BATCH = 500
"""Observations taken from one lane in one turn of the pipeline."""
DRAIN_S = 3.0
"""Longest time for delivering what waits when the agent is told to stop."""
LONGEST_WAIT_S = 0.5
HOUSEKEEPING_S = 5.0
Log = Callable[[str, dict[str, object]], None]


class Agent:
    """One run of the agent.

    Args:
        config: The configuration.
        log: Takes (event, details) lines for the operator.

    Raises:
        NbsentinelError: Something it cannot do without is missing: the folders, the spool, the rules.
    """

    def __init__(self, config: Config, log: Log) -> None:
        self._config, self._log = config, log
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._lock_files = [_lock(folder) for folder in (config.state_dir, config.run_dir)]
        self._spool = Spool(config.state_dir, max_bytes=config.report.spool.max_mebibytes << 20)
        self._surface = discover()
        self._agent_uid = self._remembered_uid()
        self._reporter = self._make_reporter(self._surface)
        self._pack = _load_rules(config)
        self._table = ProcessTable()
        self._lane = Lane("procfs", self._ready, config.sensors.queue_limit)
        self._procfs = ProcfsSensor(self._lane.put, period_ms=config.sensors.procfs_period_ms)
        self._lanes = [self._lane]
        self._sensors: list[Sensor] = [self._procfs]
        self._guard: GuardSensor | None = None
        if config.guard.enabled:
            lane = Lane("guard", self._ready, config.sensors.queue_limit)
            self._lanes.append(lane)
            self._guard = GuardSensor(lane.put, self._procfs, config.run_dir, self._notice)
            self._sensors.append(self._guard)
        self._trust = Trust(
            self._table,
            loopback_is_remote=config.detect.loopback_is_remote,
            brokers=config.detect.trusted_broker,
        )
        self._engine = Engine(
            matcher=Matcher(self._pack),
            table=self._table,
            trust=self._trust,
            look=self._procfs.view,
            describe=self._procfs.describe,
            clock=now_ms,
        )
        self._selection = Selection(config.report.level)
        self._recorder = Recorder(
            self._spool, str(uuid.uuid4()), clock=now_ms, render=self._own_event, recorded=self._on_recorded
        )
        self._outlets = Outlets(config, self._spool, self._recorder.chain_uid, self._line)
        self._server = LocalServer(config.run_dir, self._spool, self.status)
        self._usage = Usage()
        self._coverage: dict[str, Coverage] = {}
        self._started = now_ms()
        self._state = "starting"
        self._findings = self._observations = self._failures = 0

    # Building

    def _remembered_uid(self) -> str:
        known = self._spool.fact("agent_uid")
        if known is None:
            known = str(uuid.uuid4())
            self._spool.remember("agent_uid", known)
        return known

    def _make_reporter(self, surface: Surface) -> ocsf.Reporter:
        return ocsf.Reporter.of(agent_uid=self._agent_uid, version=__version__, surface=_surface_fields(surface))

    def _own_event(self, event: AgentEvent) -> dict[str, object]:
        return ocsf.agent_event(event, self._reporter)

    def _on_recorded(self) -> None:
        self._outlets.notify()
        self._server.recorded()

    def _line(self, message: str) -> None:
        self._log(message, {})

    # Running

    def stop(self) -> None:
        """Ask the agent to end; safe in a signal handler."""
        self._stop.set()
        self._ready.set()

    def run(self) -> None:
        """Run until `stop`; returns after the goodbye is recorded and delivered as far as possible."""
        forbid_dumps()
        self._begin()
        try:
            self._loop()
        finally:
            self._end()

    def _begin(self) -> None:
        previous = self._spool.fact("chain")
        details: dict[str, object] = {
            "agent_uid": self._agent_uid,
            "version": __version__,
            "rule_pack": self._pack.sha256,
            "surface": _surface_fields(self._surface),
        }
        if previous:
            details["previous_chain"] = previous
        event = AgentEvent(at=now_ms(), what=Lifecycle.ENROL, message="The agent started", details=details)
        self._recorder.begin(event)
        self._spool.remember("chain", self._recorder.chain_uid)
        self._outlets.start()
        self._server.start()
        for sensor in self._sensors:
            sensor.start()
        self._drain_lanes()
        threading.Thread(target=self._test_sensors, name="self-test", daemon=True).start()

    def _test_sensors(self) -> None:
        for sensor in self._sensors:
            found = sensor.self_test()
            self._coverage[sensor.name] = found
            if found.state is not SensorState.ACTIVE:
                self._notice(f"Sensor {found.sensor} is {found.state.value}: {found.why}")
        self._state = "ready"
        self._heartbeat()
        self._log("ready", {"chain": self._recorder.chain_uid, "run_dir": str(self._config.run_dir)})

    def _notice(self, message: str) -> None:
        self._log(message, {})
        self._recorder.record_own(AgentEvent(at=now_ms(), what=Lifecycle.NOTICE, message=message))

    def _loop(self) -> None:
        heartbeat = time.monotonic() + self._config.agent.heartbeat_seconds
        housekeeping = time.monotonic() + HOUSEKEEPING_S
        while not self._stop.is_set():
            self._ready.wait(self._wait())
            self._ready.clear()
            try:
                self._drain_lanes()
            except Exception as error:  # noqa: BLE001 - one bad event must not end the watch; it is counted and told
                self._failures += 1
                self._log("pipeline error", {"error": f"{type(error).__name__}: {error}"})
            now = time.monotonic()
            if now >= heartbeat:
                heartbeat = now + self._config.agent.heartbeat_seconds
                self._heartbeat()
            if now >= housekeeping:
                housekeeping = now + HOUSEKEEPING_S
                self._spool.forget_delivered(self._outlets.names, self._recorder.chain_uid)
                self._recorder.keep_bound()

    def _wait(self) -> float:
        due = self._engine.next_due()
        if due is None:
            return LONGEST_WAIT_S
        return min(LONGEST_WAIT_S, max(0.0, (due - now_ms()) / 1000))

    def _drain_lanes(self) -> None:
        while True:
            # Each lane gives its share, so that a flood in one does not hide the other; then the order of time counts.
            shares = [lane.take(BATCH) for lane in self._lanes]
            observations = sorted((item for share in shares for item in share), key=lambda item: item.at)
            findings = self._engine.observe(observations) if observations else self._engine.tick()
            if self._guard is not None:
                self._guard.judged(observations)
            self._report(observations, findings)
            if all(len(share) < BATCH for share in shares):
                return

    def _report(self, observations: list[Observation], findings: list[Finding]) -> None:
        self._observations += len(observations)
        self._findings += len(findings)
        chosen = self._selection.choose(observations, findings)
        context = [event for item in chosen if (event := ocsf.observation(item, self._table, self._reporter))]
        # Findings first: they wait for nothing.
        self._recorder.record([*(ocsf.finding(item, self._reporter, status="new") for item in findings), *context])
        for observation in observations:
            if isinstance(observation, Refused):
                self._refused(observation)
        for item in findings:
            self._log(item.title, {"rule": item.rule_name, "pid": item.process.key.pid, "severity": item.severity.name})

    def _refused(self, observation: Refused) -> None:
        process = self._table.get(observation.key)
        who = process.command_line if process else "a process that is not known"
        message = f"Process {observation.key.pid} ({who}) tried to stop or starve process {observation.target} of ours"
        self._log(message, {"call": observation.call})
        details: dict[str, object] = {"pid": observation.key.pid, "call": observation.call}
        event = AgentEvent(at=now_ms(), what=Lifecycle.NOTICE, message=message, details=details, severity=Severity.HIGH)
        self._recorder.record_own(event)

    # Telling

    def _heartbeat(self) -> None:
        event = AgentEvent(
            at=now_ms(), what=Lifecycle.HEARTBEAT, message=f"The agent is {self._state}", details=self._vitals()
        )
        self._recorder.record_own(event)

    def _vitals(self) -> dict[str, object]:
        coverage = [*self._sensor_coverage(), *self._outlets.coverage()]
        return {
            "state": self._state,
            "version": __version__,
            "rule_pack": self._pack.sha256,
            "coverage": [{"sensor": c.sensor, "state": c.state.value, "why": c.why} for c in coverage],
            "counters": {
                "observations": self._observations,
                "findings": self._findings,
                "grouped": self._engine.incidents.grouped,
                "pipeline_errors": self._failures,
                "processes": len(self._table),
            },
            "drops": {**{lane.sensor: lane.dropped for lane in self._lanes}, "unrecorded": self._recorder.unrecorded},
            "usage": self._usage.sample(),
        }

    def _sensor_coverage(self) -> list[Coverage]:
        found = []
        for sensor in self._sensors:
            tested, now = self._coverage.get(sensor.name), sensor.coverage()
            failed = tested is not None and tested.state is SensorState.UNAVAILABLE
            found.append(tested if failed and tested is not None else now)
        return found

    def status(self) -> dict[str, object]:
        """Return what `nbsentinel status` shows, as a JSON object."""
        head = self._recorder.head
        return {
            **self._vitals(),
            "pid": os.getpid(),
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
            "surface": _surface_fields(self._surface),
            "server_pid": self._trust.server.pid if self._trust.server else None,
            "rules": len(self._pack.rules),
        }

    def _end(self) -> None:
        for sensor in self._sensors:
            sensor.stop()
        self._drain_lanes()
        self._state = "stopped"
        event = AgentEvent(
            at=now_ms(), what=Lifecycle.GOODBYE, message="The agent was told to stop", details=self._vitals()
        )
        self._recorder.record_own(event)
        self._outlets.stop(DRAIN_S)
        self._server.stop()
        self._spool.close()
        for descriptor in self._lock_files:
            os.close(descriptor)
        self._log("stopped", {"chain": self._recorder.chain_uid})


def _lock(folder: Path) -> int:
    """Make a private folder and take its lock, so that two agents never share it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise NbsentinelError(f"{folder}: belongs to another user", hint="Choose another folder in [agent].")
        folder.chmod(0o700)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise NbsentinelError(f"{folder}: {error.strerror}", hint="Set [agent] state_dir and run_dir.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise NbsentinelError(f"{folder}: another agent uses it", hint="`nbsentinel status` shows it.") from error
    return descriptor


def _load_rules(config: Config) -> Pack:
    return load_pack(Path(config.detect.rules).read_bytes()) if config.detect.rules else default_pack()


def _surface_fields(surface: Surface) -> dict[str, str]:
    fields = {name: getattr(surface, name) for name in surface.__struct_fields__}
    return {name: value for name, value in fields.items() if isinstance(value, str) and value}
