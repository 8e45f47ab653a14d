"""What every sink is."""

from __future__ import annotations

from typing import Protocol

from nbsentinel.events import Coverage


class Sink(Protocol):
    """Takes recorded events out of the spool, in order, at least once."""

    name: str
    """Its name in the spool's cursors and in `status`."""

    def start(self) -> None:
        """Begin to deliver."""

    def notify(self) -> None:
        """Hear that new events were recorded; returns at once unless delivery itself is immediate."""

    def look(self) -> None:
        """Notice what somebody did to what was delivered; called about once a second, takes microseconds."""

    def stop(self, timeout: float) -> None:
        """Deliver what can be delivered within `timeout` seconds, then stop."""

    def coverage(self) -> Coverage:
        """Return whether delivery works."""
