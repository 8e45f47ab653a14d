"""What a process is among the programs that serve and run notebooks and open terminals, by its arguments. Pure."""

from __future__ import annotations

import posixpath
from itertools import pairwise
from typing import NamedTuple

from nbsentinel.events import Process

_EDITORS = ("code-server", "openvscode-server", "sagemaker-code-editor", "code-oss", "codium-server")
_EDITOR_MARKS = ("server-main.js", "bootstrap-fork", "ptyHostMain.js")
_RUNNERS = {
    "jupyter-nbconvert": "nbconvert",
    "jupyter-execute": "jupyter execute",
    "jupyter-run": "jupyter run",
    "papermill": "papermill",
}
_MODULES = {"nbconvert": "nbconvert", "nbclient": "jupyter execute", "papermill": "papermill"}
_SUBCOMMANDS = {"nbconvert": "nbconvert", "execute": "jupyter execute", "run": "jupyter run"}
_SERVER_PROGRAMS = ("jupyter-lab", "jupyter-labhub", "jupyter-server", "jupyter-notebook", "jupyterhub-singleuser")
_SERVER_MODULES = ("jupyterlab", "jupyter_server", "notebook", "jupyterlab.labapp", "jupyter_server.serverapp")
_SERVER_COMMANDS = ("lab", "server", "notebook")


class Run(NamedTuple):
    """A program that runs a notebook from beginning to end."""

    tool: str
    notebook: str | None


def looks_like_server(process: Process) -> bool:
    """Return whether the arguments are those of a Jupyter server program."""
    names = [posixpath.basename(arg) for arg in process.argv[:4]]
    if any(name in _SERVER_PROGRAMS for name in names[:2]):
        return True
    for name, following in zip(names, process.argv[1:4]):  # noqa: B905 - the lengths differ by one
        if name == "-m" and following in _SERVER_MODULES:
            return True
        if name == "jupyter" and following in _SERVER_COMMANDS:
            return True
    return False


def is_editor(process: Process) -> bool:
    """Return whether a process is a part of Code Editor (VS Code's server) that opens terminals."""
    names = [posixpath.basename(argument) for argument in process.argv[:3]]
    if any(name in _EDITORS for name in names[:2]) or any(name.endswith(_EDITOR_MARKS) for name in names):
        return True
    return "--type=ptyHost" in process.argv


def run_of(process: Process) -> Run | None:
    """Return the run of a notebook that a process is, None where it is none."""
    names = [posixpath.basename(argument) for argument in process.argv[:4]]
    tool = next((_RUNNERS[name] for name in names[:2] if name in _RUNNERS), None)
    for before, name in pairwise(names):
        if before == "-m" and name in _MODULES:
            tool = _MODULES[name]
        elif before in ("jupyter", "jupyter.py") and name in _SUBCOMMANDS:
            tool = _SUBCOMMANDS[name]
    if tool is None:
        return None
    path = next((argument for argument in process.argv[1:] if argument.endswith(".ipynb")), None)
    return Run(tool, posixpath.normpath(posixpath.join(process.cwd or "", path)) if path else None)
