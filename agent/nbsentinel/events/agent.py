"""What the agent says of itself."""

from __future__ import annotations

from enum import Enum

import msgspec

from nbsentinel.events.findings import Severity
from nbsentinel.events.processes import Millis


class SensorState(str, Enum):
    """How far a sensor can be relied on."""

    ACTIVE = "active"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """What one sensor says of itself; signed in every heartbeat."""

    sensor: str
    state: SensorState
    why: str = ""
    """Empty when active."""
    detail: str = ""
    """Which of the kernel's features it uses, and what that means; empty where there is no choice."""


class Lifecycle(str, Enum):
    """Moments in the agent's own life that are signed into the chain."""

    ENROL = "enrol"
    """The first event of a chain: presents the first key."""
    HEARTBEAT = "heartbeat"
    KEY_ROTATION = "key_rotation"
    DROPPED = "dropped"
    """States which events were pruned or never recorded."""
    GOODBYE = "goodbye"
    NOTICE = "notice"
    """Anything else the operator should know, for example a failed sensor."""


class AgentEvent(msgspec.Struct, frozen=True, kw_only=True, tag="agent"):
    """An event about the agent itself."""

    at: Millis
    what: Lifecycle
    message: str
    details: dict[str, object] = {}
    """JSON values: strings, booleans, integers, lists and objects of these; no floats."""
    severity: Severity = Severity.INFORMATIONAL
