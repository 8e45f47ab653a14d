"""What kernels tell, chosen as context of findings: the finding's own cell, and the API calls of its processes."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container

from nbsentinel.events import CellRun, Finding, KernelAudit, Observation, ProcessKey
from nbsentinel.report.ocsf_kernel import KernelTold

RECENT_LIMIT = 5_000
"""Remembered in case a finding needs them; apart from executions and connections, so that they displace none."""
CELLS_LIMIT = 500


class KernelSelection:
    """Chooses among what kernels tell.

    Args:
        watched: The processes of findings and their ancestors, as they are at any time.
    """

    def __init__(self, watched: Container[ProcessKey]) -> None:
        self._watched = watched
        self._recent: deque[KernelTold] = deque(maxlen=RECENT_LIMIT)
        self._cells: OrderedDict[tuple[ProcessKey, str], None] = OrderedDict()
        """Cells of findings, by kernel and cell id."""
        self._runs: OrderedDict[tuple[ProcessKey, str | None], None] = OrderedDict()
        """Their runs, by kernel and message id."""
        self._processes: OrderedDict[ProcessKey, None] = OrderedDict()
        """What findings are about."""

    def choose(self, observations: list[Observation], findings: list[Finding]) -> list[KernelTold]:
        """Return what belongs to these findings or earlier ones, oldest first; each is returned once."""
        told = [item for item in observations if isinstance(item, KernelTold)]
        for finding in findings:
            self._processes[finding.process.key] = None
            if finding.origin.process is not None and finding.origin.cell is not None:
                self._runs[finding.origin.process, finding.origin.cell.message_id] = None
                if finding.origin.cell_id is not None:
                    self._cells[finding.origin.process, finding.origin.cell_id] = None
        if findings:
            told = [*self._recent, *told]
            self._recent.clear()
        for bounded in (self._cells, self._runs, self._processes):
            while len(bounded) > CELLS_LIMIT:
                bounded.popitem(last=False)
        chosen: list[KernelTold] = []
        for item in told:
            (chosen if self._belongs(item) else self._recent).append(item)
        return chosen

    def _belongs(self, item: KernelTold) -> bool:
        run = item.key, item.message_id
        if isinstance(item, CellRun):
            if item.cell_id is not None and (item.key, item.cell_id) in self._cells:
                self._runs[run] = None
            return run in self._runs
        if isinstance(item, KernelAudit):
            return run in self._runs or item.key in self._processes
        return item.key in self._watched
