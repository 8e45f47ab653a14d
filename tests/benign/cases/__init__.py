"""Look-alikes of the shells in `attacks`, which must raise nothing: see `base.Case`."""

from benign.cases import command_line, notebooks, processes, terminals
from benign.cases.base import Case

ALL: tuple[Case, ...] = (*notebooks.CASES, *command_line.CASES, *terminals.CASES, *processes.CASES)

__all__ = ["ALL", "Case"]
