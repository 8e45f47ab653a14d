"""Which cell of a kernel started a process or runs in a thread, as far as what the kernel tells allows. No I/O.

A kernel's word is a hint: code in it can lie. That a process is the kernel's child is certain; which of its cells
started it is concluded here, and how sure that is stands beside it. "Unknown" is an answer with a reason.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

import msgspec

from nbsentinel.events import Cell, CellPhase, CellRun, Certainty, KernelAudit, Millis, Process, ProcessKey

RUNS_LIMIT, AUDITS_LIMIT, THREADS_LIMIT = 512, 512, 1024
"""Remembered for each kernel: runs of cells, reports of new processes, threads whose cell is known."""
KERNELS_LIMIT = 64
PROCESSES_LIMIT = 8192
OPEN_MS = 1000
"""Longest time between the kernel's report of opening a file and the file sensor's."""
NEAR_MS = 30
"""Longest usual time between a report and the birth; only where there is none so close are older ones considered."""
TICK_MS = 10
"""A process's start is known to one tick of the kernel's clock."""
SPAWN_MS = 2000
"""Longest time between the kernel's report of a new process and that process's first image: a fork of a big kernel."""
SPAWNS = frozenset(
    ("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn", "os.spawn")
)
"""Audit events after which the kernel has a new child."""


class Place(msgspec.Struct, frozen=True):
    """A cell, how sure that is, and why."""

    cell: Cell | None
    certainty: Certainty
    reason: str


class _Run(msgspec.Struct):
    cell: Cell
    thread: int
    started: Millis
    ended: Millis | None = None

    def runs(self, since: int, until: int) -> bool:
        """Return whether it ran at any time between two moments."""
        return self.started <= until and (self.ended is None or self.ended >= since)


class _Kernel:
    """What one kernel told."""

    def __init__(self) -> None:
        self.runs: OrderedDict[tuple[str, int], _Run] = OrderedDict()
        self.spawns: deque[KernelAudit] = deque(maxlen=AUDITS_LIMIT)
        self.opens: deque[KernelAudit] = deque(maxlen=AUDITS_LIMIT)
        self.threads: OrderedDict[int, tuple[str, Millis]] = OrderedDict()

    def cell(self, message_id: str | None) -> Cell | None:
        """Return the newest run of a request."""
        return next((run.cell for run in reversed(self.runs.values()) if run.cell.message_id == message_id), None)

    def runs_at(self, message_id: str | None, at: int) -> bool:
        """Return whether a request's cell ran at a moment."""
        return any(run.cell.message_id == message_id and run.runs(at, at) for run in self.runs.values())

    def running(self, since: int, until: int) -> list[_Run]:
        """Return the runs that overlap a time."""
        return [run for run in self.runs.values() if run.runs(since, until)]


class Cells:
    """Runs of cells, and which process belongs to which."""

    def __init__(self) -> None:
        self._kernels: OrderedDict[ProcessKey, _Kernel] = OrderedDict()
        self._places: OrderedDict[ProcessKey, Place] = OrderedDict()

    def learn(self, told: CellRun | KernelAudit) -> None:
        """Take in what a kernel tells. Order among kernels' messages matters, order beside other sensors' does not."""
        kernel = self._kernels.setdefault(told.key, _Kernel())
        self._kernels.move_to_end(told.key)
        while len(self._kernels) > KERNELS_LIMIT:
            self._kernels.popitem(last=False)
        if isinstance(told, CellRun):
            _note_run(kernel, told)
            return
        if told.name in SPAWNS:
            kernel.spawns.append(told)
        elif told.name == "open":
            kernel.opens.append(told)
        if told.message_id is not None:
            kernel.threads[told.thread] = told.message_id, told.at
            kernel.threads.move_to_end(told.thread)
            while len(kernel.threads) > THREADS_LIMIT:
                kernel.threads.popitem(last=False)

    def forget(self, key: ProcessKey) -> None:
        """Drop a kernel that has ended; what its processes belong to stays known."""
        self._kernels.pop(key, None)

    def started(self, process: Process, line: Iterable[Process], at: Millis) -> None:
        """Conclude which cell a process belongs to when its first image is seen; a later image changes nothing.

        Args:
            process: The process.
            line: Its ancestors, from the parent upwards.
            at: When that image was seen.
        """
        known = self._places.get(process.key)
        if process.kernel is not None or (known is not None and known.certainty is not Certainty.UNKNOWN):
            return
        place = self._inherited(process, line, at)
        if place is None:
            return
        self._places[process.key] = place
        while len(self._places) > PROCESSES_LIMIT:
            self._places.popitem(last=False)

    def _inherited(self, process: Process, line: Iterable[Process], at: Millis) -> Place | None:
        eldest = process
        for ancestor in line:
            if ancestor.kernel is not None:
                return self._child(ancestor.key, eldest, at)
            known = self._places.get(ancestor.key)
            if known is not None:
                return known
            eldest = ancestor
        return None

    def of_process(self, key: ProcessKey) -> Place | None:
        """Return the cell that started a process or an ancestor of it, None where no kernel has told of any."""
        return self._places.get(key)

    def _child(self, key: ProcessKey, child: Process, at: Millis) -> Place:
        kernel = self._kernels.get(key)
        if kernel is None:
            return Place(None, Certainty.UNKNOWN, "unknown: the kernel does not report its cells")
        born = int(child.started)
        running = kernel.running(born - TICK_MS, max(born, min(at, born + TICK_MS)))
        told = _told_of(kernel, child, born, at)
        if told is not None and (cell := kernel.cell(told.message_id)) is not None:
            if told.certain:
                return Place(cell, Certainty.CERTAIN, f"certain: the kernel told of {told.name} in the cell's thread")
            return Place(
                cell, Certainty.LIKELY, f"likely: the kernel told of {told.name} in code that the cell started"
            )
        if len(running) == 1:
            return Place(running[0].cell, Certainty.LIKELY, "likely: the only cell that ran when the process started")
        return Place(None, Certainty.UNKNOWN, _why_not(kernel, running, "when the process started"))

    def of_thread(self, key: ProcessKey, thread: int, at: Millis) -> Place:
        """Return the cell that something in the kernel itself belongs to.

        Args:
            key: The kernel.
            thread: The native id of the thread that did it, 0 where that is not known.
            at: When.
        """
        kernel = self._kernels.get(key)
        if kernel is None:
            return Place(None, Certainty.UNKNOWN, "unknown: the kernel does not report its cells")
        running = kernel.running(at, at)
        own = [run for run in running if run.thread == thread and thread]
        if own:
            return Place(own[-1].cell, Certainty.CERTAIN, "certain: the thread ran this cell")
        message_id, _ = kernel.threads.get(thread, (None, 0))
        if thread and message_id is not None and (cell := kernel.cell(message_id)) is not None:
            return Place(cell, Certainty.LIKELY, "likely: the kernel told of the thread as one that the cell started")
        if len(running) == 1 and not thread:
            return Place(running[0].cell, Certainty.LIKELY, "likely: the only cell that ran at that moment")
        return Place(None, Certainty.UNKNOWN, _why_not(kernel, running, "at that moment"))

    def opened(self, key: ProcessKey, path: str, at: Millis) -> KernelAudit | None:
        """Return the kernel's own word of opening a file at about that time, None where it said nothing."""
        kernel = self._kernels.get(key)
        near = [told for told in kernel.opens if abs(told.at - at) <= OPEN_MS] if kernel else []
        return next((told for told in reversed(near) if told.arguments.get("Path") == path), None)

    def of_message(self, key: ProcessKey, message_id: str | None, *, certain: bool) -> Place | None:
        """Return the cell that the kernel itself named, None where it named none that is known."""
        kernel = self._kernels.get(key)
        cell = kernel.cell(message_id) if kernel is not None and message_id else None
        if cell is None:
            return None
        if certain:
            return Place(cell, Certainty.CERTAIN, "certain: the kernel told of it in the cell's thread")
        return Place(cell, Certainty.LIKELY, "likely: the kernel told of it in code that the cell started")


def _note_run(kernel: _Kernel, told: CellRun) -> None:
    place = told.message_id, told.thread
    if told.phase is CellPhase.STOP:
        run = kernel.runs.get(place)
        if run is not None:
            run.ended = told.at
        return
    for run in kernel.runs.values():
        if run.thread == told.thread and run.ended is None:
            run.ended = told.at  # its end was lost: a thread runs one cell at a time
    cell = Cell(
        message_id=told.message_id,
        cell_id=told.cell_id,
        execution_count=told.execution_count,
        source_sha256=told.source_sha256,
    )
    kernel.runs.pop(place, None)
    kernel.runs[place] = _Run(cell, told.thread, told.at)
    while len(kernel.runs) > RUNS_LIMIT:
        kernel.runs.popitem(last=False)


def _told_of(kernel: _Kernel, child: Process, born: int, at: int) -> KernelAudit | None:
    """Return the report that a child came from; None where several cells may have started it.

    A kernel tells before it forks, so the report is older than the birth, which is known to a tick. A cell that ended
    before another one's report came does not start anything more in its own thread.
    """
    latest = min(at, born + TICK_MS)
    spawns = [told for told in kernel.spawns if born - SPAWN_MS <= told.at <= latest]
    same = [
        told for told in spawns if (line := told.arguments.get("CommandLine")) and child.command_line.endswith(line)
    ]
    for candidates in (same, spawns):
        near = [told for told in candidates if told.at >= born - NEAR_MS] or candidates[-1:]
        last = near[-1].at if near else 0
        alive = [told for told in near if not told.certain or kernel.runs_at(told.message_id, last)]
        if alive and len({told.message_id for told in alive}) == 1:
            return next((told for told in alive if told.certain), alive[-1])
    return None


def _why_not(kernel: _Kernel, running: list[_Run], when: str) -> str:
    if len(running) > 1:
        return f"unknown: {len(running)} cells ran {when}, and the kernel did not tell which of them it was"
    if running:
        return f"unknown: a background thread of the kernel; cell {_name(running[0])} ran {when}"
    if kernel.runs:
        return f"unknown: no cell ran {when}; the last one was {_name(next(reversed(kernel.runs.values())))}"
    return f"unknown: no cell ran {when}"


def _name(run: _Run) -> str:
    return run.cell.cell_id or run.cell.message_id or "without an id"
