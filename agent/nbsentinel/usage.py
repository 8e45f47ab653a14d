"""What the agent itself costs."""

from __future__ import annotations

import time

import psutil


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
