"""Waiting for something that another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable

LOOK_S = 0.01


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Wait until something holds, at most some seconds; return whether it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True
