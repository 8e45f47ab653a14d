"""What is recorded at each report level: findings alone, findings with their context, or everything."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TypeGuard

from nbsentinel.events import (
    Connect,
    ConnectStage,
    EnvironSweep,
    Exec,
    Exit,
    FileAccess,
    Finding,
    Observation,
    ProcessKey,
    SystemCall,
)
from nbsentinel.report.ocsf_kernel import KernelTold
from nbsentinel.report.selection_kernel import KernelSelection

RECENT_LIMIT = 5_000
"""Executions and connections remembered in case a finding needs them as context."""
CONTEXT_LIMIT = 2_000
"""Processes of findings whose further events are recorded too."""
LINEAGE_DEPTH = 8
Recordable = Exec | Exit | Connect | SystemCall | FileAccess | EnvironSweep | KernelTold


class Selection:
    """Chooses which observations are recorded beside findings.

    Args:
        level: `findings`, `context` or `all`.
    """

    def __init__(self, level: str) -> None:
        self._level = level
        self._recent: deque[Recordable] = deque(maxlen=RECENT_LIMIT)
        self._watched: OrderedDict[ProcessKey, None] = OrderedDict()
        self._kernels = KernelSelection(self._watched)

    def choose(self, observations: list[Observation], findings: list[Finding]) -> list[Recordable]:
        """Return the observations to record now, oldest first; each is returned once."""
        if self._level == "findings":
            return []
        candidates = [o for o in observations if _is_recordable(o)]
        if self._level == "all":
            return candidates
        candidates = [o for o in candidates if not isinstance(o, KernelTold)]
        for finding in findings:
            for process in (finding.process, *finding.relays, *finding.lineage[:LINEAGE_DEPTH]):
                self._watched[process.key] = None
                self._watched.move_to_end(process.key)
        while len(self._watched) > CONTEXT_LIMIT:
            self._watched.popitem(last=False)
        chosen: list[Recordable] = []
        recent = list(self._recent) if findings else []
        for item in (*recent, *candidates):
            if isinstance(item, Exec):
                self._belongs(item)  # first, because what the process did before belongs too
        if findings:
            self._recent.clear()
        for item in (*recent, *candidates):
            if self._belongs(item):
                chosen.append(item)
            elif not isinstance(item, Exit):
                self._recent.append(item)
        told = self._kernels.choose(observations, findings)
        return sorted([*chosen, *told], key=lambda item: item.at) if told else chosen

    def _belongs(self, observation: Recordable) -> bool:
        """Return whether to record it; what a watched process executes is watched from then on."""
        if isinstance(observation, Exec):
            process = observation.process
            if process.key in self._watched:
                return True
            if process.parent in self._watched and process.kernel is None:
                self._watched[process.key] = None
                return True
            return False
        if isinstance(observation, EnvironSweep) or (isinstance(observation, FileAccess) and observation.key is None):
            return any(key in self._watched for key in observation.candidates)
        return observation.key in self._watched


def _is_recordable(observation: Observation) -> TypeGuard[Recordable]:
    if isinstance(observation, Connect):
        return observation.stage in (ConnectStage.WHOLE, ConnectStage.RESULT)
    return isinstance(observation, (Exec, Exit, SystemCall, FileAccess, EnvironSweep, KernelTold))
