"""What every sensor is: a thread that puts observations into its own bounded queue and tells its coverage."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from nbsentinel.events import Coverage, Observation

QUEUE_LIMIT = 20_000
"""Observations that wait for the pipeline, for each sensor; about 40 MB at worst."""


class Lane:
    """A bounded queue from one sensor to the pipeline; what does not fit is counted, never silently lost.

    Args:
        sensor: The sensor's name, under which drops are counted.
        ready: Set whenever something waits.
        limit: Observations that may wait.
    """

    def __init__(self, sensor: str, ready: threading.Event, limit: int = QUEUE_LIMIT) -> None:
        self.sensor = sensor
        self._ready = ready
        self._limit = limit
        self._waiting: deque[Observation] = deque()
        self._lock = threading.Lock()
        self.dropped = 0
        """Observations that did not fit since the start."""
        self.accepted = 0
        """Observations taken in since the start."""
        self.settled = 0
        """How many of them have gone through the whole pipeline: what they led to is recorded."""

    def put(self, observation: Observation) -> bool:
        """Add an observation; return False and count a drop when the lane is full."""
        with self._lock:
            if len(self._waiting) >= self._limit:
                self.dropped += 1
                self._ready.set()
                return False
            self._waiting.append(observation)
            self.accepted += 1
        self._ready.set()
        return True

    def take(self, most: int) -> list[Observation]:
        """Return up to `most` waiting observations, oldest first."""
        with self._lock:
            count = min(most, len(self._waiting))
            return [self._waiting.popleft() for _ in range(count)]

    @property
    def is_crowded(self) -> bool:
        """Whether it is half full: a source that can wait does."""
        return len(self._waiting) >= self._limit // 2

    def __len__(self) -> int:
        return len(self._waiting)


Emit = Callable[[Observation], bool]


class Sensor(Protocol):
    """A source of observations with a thread of its own."""

    name: str

    def start(self) -> None:
        """Begin to watch."""

    def stop(self) -> None:
        """Stop watching and wait for the thread, at most two seconds."""

    def coverage(self) -> Coverage:
        """Return how far this sensor can be relied on now."""

    def self_test(self) -> Coverage:
        """Do something harmless that the sensor must see, and return whether it did."""
