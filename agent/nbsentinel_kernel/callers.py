"""Whose code does something: the user's own, or an installed package's.

A library that signs in reads the same files, and asks the same addresses, as code that collects credentials. Frames
tell them apart, as far as the kernel can be believed at all: code can be compiled under any file name.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

USER, UNKNOWN = "user", "unknown"
FRAMES_LIMIT = 64
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_CARRIERS = frozenset(("requests", "urllib3", "httpx", "httpcore"))
"""Packages that connect for whoever calls them."""
_OPEN_OF_IPYTHON = "_modified_open"
"""What stands for `open` in a cell."""


def caller(carried: bool) -> str:
    """Return the installed package whose code does what is done now, `user` for any other code.

    Args:
        carried: Whether to look beyond packages that only carry requests; where there is nothing, it is such a one.
    """
    frame: FrameType | None = sys._getframe(1)
    carrier = ""
    for _ in range(FRAMES_LIMIT):
        if frame is None:
            break
        file = frame.f_code.co_filename
        package = _package(file)
        if package in _CARRIERS and carried:
            carrier = package
        elif package and frame.f_code.co_name != _OPEN_OF_IPYTHON:
            return package
        elif not package and not file.startswith((_LIBRARY, _HERE, "<frozen ")):
            return USER
        frame = frame.f_back
    return carrier or UNKNOWN


def _package(file: str) -> str:
    """Return the name of an installed package, or module, by where its file is; "" for no such one."""
    _, found, rest = file.rpartition("-packages" + os.sep)
    return rest.partition(os.sep)[0].partition(".")[0] if found else ""
