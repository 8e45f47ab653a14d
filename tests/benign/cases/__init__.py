"""Look-alikes of the shells in `attacks`, which must raise nothing: see `base.Case`."""

from benign.cases import command_line, data, keys, loops, notebooks, processes, projects, terminals
from benign.cases.base import Case

ALL: tuple[Case, ...] = (*notebooks.CASES, *command_line.CASES, *terminals.CASES, *processes.CASES, *loops.CASES)

GUARDED: tuple[Case, ...] = (*processes.CASES, *loops.CASES)
"""Those that are run under the guard as well, where nothing that they do is missed."""

ORDINARY: tuple[Case, ...] = (*projects.CASES, *data.CASES, *keys.CASES)
"""Work in a home full of credentials, under the guard; WEB is a web server, AWS a script that calls an API."""

__all__ = ["ALL", "GUARDED", "ORDINARY", "Case"]
