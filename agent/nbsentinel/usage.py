"""What the agent itself costs, and what it does about it."""

from __future__ import annotations

import time

import psutil

WINDOW_S = 60.0
CALM_WINDOWS = 5
"""Minutes below half of the limit after which the usual rate is back."""
MOST_FACTOR = 64


class Usage:
    """Samples processor and memory of this process."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def sample(self) -> dict[str, object]:
        """Return resident memory in bytes and processor use since the last sample in thousandths of a core."""
        wall, cpu = time.monotonic(), time.process_time()
        elapsed = max(wall - self._wall, 1e-6)
        share = round(1000 * (cpu - self._cpu) / elapsed)
        if elapsed >= 1:
            self._wall, self._cpu = wall, cpu
        return {"resident_bytes": self._process.memory_info().rss, "cpu_millicores": share}


class Governor:
    """Decides once a minute how much slower than usual to look; pure, the clocks are passed in.

    Args:
        limit: The share of a core, in percent, above which to slow down; 0 for never.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._begin: tuple[float, float] | None = None
        self._calm = 0
        self.factor = 1
        """How many times longer than usual to wait between two looks."""
        self.share = 0.0
        """The share of a core in the last whole minute, in percent."""

    def step(self, wall: float, cpu: float) -> bool:
        """Take the clocks, in seconds; return whether the factor changed."""
        if self._begin is None:
            self._begin = wall, cpu
            return False
        elapsed = wall - self._begin[0]
        if elapsed < WINDOW_S or not self._limit:
            return False
        self.share = 100 * (cpu - self._begin[1]) / elapsed
        self._begin = wall, cpu
        self._calm = self._calm + 1 if self.share < self._limit / 2 else 0
        before = self.factor
        if self.share > self._limit:
            self.factor = min(MOST_FACTOR, 2 * self.factor)
        elif self._calm >= CALM_WINDOWS:
            self.factor = 1
        return self.factor != before
