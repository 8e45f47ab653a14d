"""Recorded events through rules and correlations again, as the engine would put them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from nbsentinel.detect.fields import Fields
from nbsentinel.detect.recorded import event_time, from_ocsf
from nbsentinel.detect.rules.correlate import Correlator
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import Pack
from nbsentinel.errors import RuleError
from nbsentinel.events import Millis


class Recorded(NamedTuple):
    """One event of a recording."""

    category: str
    fields: Fields
    at: Millis


class Replayed(NamedTuple):
    """What a recording met."""

    matches: dict[str, int]
    """By rule id; correlations among them."""
    suppressed: dict[str, int]
    """By filter id."""
    correlations: dict[str, int]
    """Counters of the correlator."""
    seconds: float
    """Matching alone, without reading."""


def read_events(path: Path) -> Iterator[Recorded]:
    """Yield the events of a file of OCSF lines or of flat objects of Sigma fields with `category`.

    An event without a time has that of the one before it.

    Raises:
        RuleError: It cannot be read, or a line is neither.
    """
    at = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                event = _event(path, number, line)
                at = event_time(event) or at
                if "class_uid" not in event:
                    yield Recorded(str(event["category"]), event, Millis(at))
                elif (known := _known(path, number, event)) is not None:
                    yield Recorded(*known, Millis(at))
    except OSError as error:
        raise RuleError(f"{path}: {error.strerror}", hint="Give a file of events, one JSON object a line.") from error


def _event(path: Path, number: int, line: bytes) -> dict[str, object]:
    hint = 'A line is an OCSF event or a flat object of Sigma fields with "category".'
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RuleError(f"{path}:{number}: not JSON: {error}", hint=hint) from error
    if not isinstance(event, dict) or not ("class_uid" in event or isinstance(event.get("category"), str)):
        raise RuleError(f"{path}:{number}: neither class_uid nor category", hint=hint)
    return event


def _known(path: Path, number: int, event: dict[str, object]) -> tuple[str, Fields] | None:
    try:
        return from_ocsf(event)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        hint = "Give a file that the agent's file sink wrote."
        raise RuleError(f"{path}:{number}: not an event of ours: {error}", hint=hint) from error


def play(pack: Pack, events: Iterable[Recorded], *, now: int) -> Replayed:
    """Match events in order and return what they met.

    Args:
        pack: The rules.
        events: The recording.
        now: The time by which exceptions are over, in milliseconds since the epoch.
    """
    matcher, correlator = Matcher(pack), Correlator(pack.rules)
    matcher.expire(Millis(now))
    matches: dict[str, int] = {}
    began = time.perf_counter()
    for category, fields, at in events:
        matched = matcher.match(category, fields)
        if not matched:
            continue
        for rule in matched:
            matches[rule.id] = matches.get(rule.id, 0) + 1
        for fired in correlator.observe(at, matched, fields):
            matches[fired.rule.id] = matches.get(fired.rule.id, 0) + 1
    for fired in correlator.advance(None):
        matches[fired.rule.id] = matches.get(fired.rule.id, 0) + 1
    seconds = time.perf_counter() - began
    suppressed = {uid: count for uid, count in matcher.suppressed.items() if count}
    return Replayed(matches, suppressed, correlator.counters, seconds)
