"""Lets a Python kernel that the launcher starts report, without a file in any IPython folder.

IPython runs the file that PYTHONSTARTUP names, in kernels too. The launcher names one of ours there; that file puts
back at once what the user had, and runs it (nbsentinel_kernel/launched.py).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

VARIABLE, CARRIER = b"PYTHONSTARTUP", b"NBSENTINEL_STARTUP"
_CONNECTION = ("connection_file", "-f")
_FILE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "nbsentinel_kernel", "launched.py")


def starts_kernel(command: Sequence[str]) -> bool:
    """Return whether a command starts ipykernel, itself or through a shell: it names that and a connection file."""
    line = " ".join(command)
    return "ipykernel" in line and any(word in line for word in _CONNECTION)


def environment(given: list[bytes], run_dir: str, file: str = _FILE) -> list[bytes]:
    """Return an environment in which a kernel reports.

    Args:
        given: Entries `NAME=value`, any of them odd.
        run_dir: Folder of the agent's sockets.
        file: What IPython is to run.
    """
    if not os.path.isfile(file):
        return given
    before = [entry for entry in given if entry.startswith(VARIABLE + b"=")]
    rest = [entry for entry in given if not entry.startswith((VARIABLE + b"=", CARRIER + b"="))]
    carried = os.fsencode(run_dir) + (b"\n" + before[0].partition(b"=")[2] if before else b"")
    return [*rest, VARIABLE + b"=" + os.fsencode(file), CARRIER + b"=" + carried]
