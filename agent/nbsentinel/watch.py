"""The sensors that the configuration asks for, each with its lane to the pipeline, and what they say of themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container

from nbsentinel.config import Config
from nbsentinel.context.origins import Origins
from nbsentinel.context.processes import ProcessTable
from nbsentinel.events import Coverage, Exit, Observation, ProcessKey, SensorState
from nbsentinel.sensors.base import Lane, Sensor
from nbsentinel.sensors.files.catalogue import BUILT_IN, configured
from nbsentinel.sensors.files.sensor import FileSensor
from nbsentinel.sensors.guard.sensor import GuardSensor, Settings
from nbsentinel.sensors.kernels.sensor import KernelSensor
from nbsentinel.sensors.procfs.sensor import ProcfsSensor


class Watch:
    """All sensors of an agent.

    Args:
        config: Which ones, and how.
        ready: Set whenever something waits in a lane.
        table: The process table.
        notice: Takes a line for the operator, which is signed as well.
        keeper: The agent's parent, which guarded processes may not touch; 0 for none.
    """

    def __init__(
        self,
        config: Config,
        ready: threading.Event,
        table: ProcessTable,
        notice: Callable[[str], None],
        keeper: Callable[[], int],
    ) -> None:
        self._config, self._ready, self._table = config, ready, table
        self._tested: dict[str, Coverage] = {}
        self.lanes: list[Lane] = []
        self.own = Lane("self", ready)
        """For what the agent finds out about itself."""
        self.procfs = ProcfsSensor(self._lane("procfs").put, period_ms=config.sensors.procfs_period_ms)
        self.lanes.append(self.own)
        self.all: list[Sensor] = [self.procfs]
        self.guard: GuardSensor | None = None
        if config.guard.enabled:
            chosen = config.guard
            settings = Settings(connect=chosen.connect, terminals=chosen.terminals, server=chosen.server)
            self.guard = GuardSensor(self._lane("guard"), self.procfs, config.run_dir, notice, settings, keeper())
            self.all.append(self.guard)
        self.kernels: KernelSensor | None = None
        if config.sensors.kernels:
            self.kernels = KernelSensor(self._lane("kernels"), config.run_dir)
            self.all.append(self.kernels)
        self.files: FileSensor | None = None
        if config.sensors.files:
            self.files = self._make_files(notice)
            self.all.append(self.files)

    def _lane(self, name: str) -> Lane:
        lane = Lane(name, self._ready, self._config.sensors.queue_limit)
        self.lanes.append(lane)
        return lane

    def _make_files(self, notice: Callable[[str], None]) -> FileSensor:
        config, guard, table = self._config, self.guard, self._table
        more = (configured(watch.path, watch.kind, changes=watch.changes) for watch in config.sensors.watch)

        def roots() -> Container[ProcessKey]:
            return guard.roots() if guard is not None else ()

        return FileSensor(
            self._lane("files"),
            config.run_dir,
            table.lived_at,
            roots,
            table.get,
            notice,
            self.procfs.wake,
            leases=config.sensors.leases and guard is not None,
            patterns=(*more, *BUILT_IN),
        )

    def start(self) -> None:
        """Start all."""
        for sensor in self.all:
            sensor.start()

    def take(self, most: int) -> list[list[Observation]]:
        """Return up to so many observations of each lane; `settle` wants the same list when they are recorded."""
        if self.kernels is not None:
            self.kernels.catch_up()  # what a kernel told before it did what others saw
        shares = [lane.take(most) for lane in self.lanes]
        if self.files is not None and any(isinstance(item, Exit) for share in shares for item in share):
            self.files.ended()
        return shares

    def settle(self, shares: list[list[Observation]]) -> None:
        """Say that what was taken has gone through the whole pipeline."""
        for lane, share in zip(self.lanes, shares, strict=True):
            lane.settled += len(share)

    def look_around(self, origins: Origins) -> None:
        """Have guard and kernel sensor look at all processes for what they should see and do not."""
        live = self._table.live()
        if self.guard is not None:
            self.guard.find_unguarded(live, origins.of)
        if self.kernels is not None:
            self.kernels.consider(live)

    def test(self) -> list[Coverage]:
        """Test every sensor with something harmless that it must see; one that cannot even be tested is unavailable."""
        for sensor in self.all:
            try:
                self._tested[sensor.name] = sensor.self_test()
            except Exception as error:  # noqa: BLE001, PERF203 - the others are tested all the same
                why = f"the self-test failed: {type(error).__name__}: {error}"
                self._tested[sensor.name] = Coverage(sensor=sensor.name, state=SensorState.UNAVAILABLE, why=why)
        return [self._tested[sensor.name] for sensor in self.all]

    def coverage(self) -> list[Coverage]:
        """Return how far each sensor can be relied on now; one that failed its last test stays unavailable."""
        found = []
        for sensor in self.all:
            tested, now = self._tested.get(sensor.name), sensor.coverage()
            failed = tested is not None and tested.state is SensorState.UNAVAILABLE
            found.append(tested if failed and tested is not None else now)
        return found

    def drops(self) -> dict[str, int]:
        """Return what did not fit, by lane, and what could not be told to us, for example while no agent ran."""
        drops = {lane.sensor: lane.dropped for lane in self.lanes}
        drops |= {"guard_untold": self.guard.lost} if self.guard is not None else {}
        drops |= {"kernels_untold": self.kernels.lost} if self.kernels is not None else {}
        return drops | (self.files.drops() if self.files is not None else {})
