"""Whose code opens a file or connects: what a rule can tell a library from a cell by."""

from __future__ import annotations

import os
import sysconfig
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from nbsentinel_kernel.callers import UNKNOWN, USER, caller

PACKAGES = sysconfig.get_paths()["purelib"]
LIBRARY = os.path.dirname(os.__file__)
CELL = "/tmp/ipykernel_7/1234.py"


def function(file: str, text: str) -> Callable[..., Any]:
    """Return the function `f` of a module whose code is in a file of that name."""
    space: dict[str, Any] = {"caller": caller}
    exec(compile(text, file, "exec"), space)
    found: Callable[..., Any] = space["f"]
    return found


def seen(files: Sequence[str], *, carried: bool) -> str:
    """Return who is seen where the code of these files calls one another, the first of them the outermost."""
    layers = [function(file, "def f(inner):\n    return inner[0](inner[1:])\n") for file in files]
    asks = function(f"{LIBRARY}/io.py", f"def f(inner):\n    return caller({carried})\n")
    return str(layers[0]([*layers[1:], asks]))


@pytest.mark.parametrize(
    ("files", "carried", "expected"),
    [
        ([CELL], False, USER),
        ([CELL, f"{LIBRARY}/pathlib.py"], False, USER),
        ([CELL, f"{PACKAGES}/botocore/configloader.py", f"{LIBRARY}/configparser.py"], False, "botocore"),
        ([CELL, f"{PACKAGES}/requests/utils.py", f"{LIBRARY}/netrc.py"], False, "requests"),
        ([CELL, f"{PACKAGES}/requests/api.py", f"{PACKAGES}/urllib3/connection.py"], True, USER),
        ([CELL, f"{PACKAGES}/botocore/utils.py", f"{PACKAGES}/urllib3/connection.py"], True, "botocore"),
        (["/home/u/project/helper.py", "<frozen importlib._bootstrap>"], False, USER),
        ([CELL, f"{PACKAGES}/six.py"], False, "six"),
    ],
)
def test_the_nearest_code_that_acts_for_nobody_else_counts(files: list[str], carried: bool, expected: str) -> None:
    """The standard library, and for connections what carries requests, act for whoever calls them."""
    assert seen(files, carried=carried) == expected


@pytest.mark.parametrize(("files", "expected"), [([], UNKNOWN), ([f"{PACKAGES}/requests/api.py"], "requests")])
def test_a_thread_that_only_libraries_run_in(files: list[str], expected: str) -> None:
    """Where nobody's code is above, the carrier is named, or nobody."""
    found: list[str] = []
    keep = function(f"{LIBRARY}/keep.py", "def f(found, inner):\n    found.append(inner[0](inner[1:]))\n")
    layers = [function(file, "def f(inner):\n    return inner[0](inner[1:])\n") for file in files]
    asks = function(f"{LIBRARY}/io.py", "def f(inner):\n    return caller(True)\n")
    thread = threading.Thread(target=keep, args=(found, [*layers, asks]))
    thread.start()
    thread.join()
    assert found == [expected]
