"""What else matches Sigma rules on events in Python: pySigma's SQLite backend, and sigma-rule-matcher."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from sigma.backends.sqlite import sqliteBackend
from sigma.rule import SigmaRule
from sigma_rule_matcher import RuleMatcher

Event = dict[str, object]
Pairs = set[tuple[int, str]]
"""(number of an event, id of a rule)."""


def read(folder: Path) -> list[SigmaRule]:
    """Return the rules of a folder."""
    return [SigmaRule.from_yaml(path.read_text()) for path in sorted(folder.rglob("*.yml"))]


class Sqlite:
    """All rules as one UNION over a table of events in memory."""

    def __init__(self, rules: Iterable[SigmaRule], fields: list[str]) -> None:
        backend = sqliteBackend()
        self._ids, conditions = [], []
        for rule in rules:
            for query in backend.convert_rule(rule):
                self._ids.append(str(rule.id))
                conditions.append(str(query).partition(" WHERE ")[2])
        self._fields = fields
        self._database = sqlite3.connect(":memory:", isolation_level=None, cached_statements=16)
        self._database.create_function("regexp", 2, _search, deterministic=True)
        columns = ", ".join(f'"{field}" TEXT COLLATE NOCASE' for field in fields)
        self._database.execute(f"CREATE TABLE events ({columns})")
        marks = ", ".join("?" * len(fields))
        self._insert = f"INSERT INTO events VALUES ({marks})"
        self._union = " UNION ALL ".join(
            f"SELECT rowid, {number} FROM events WHERE {condition}" for number, condition in enumerate(conditions)
        )

    def _row(self, event: Event) -> list[object]:
        return [None if (value := event.get(field)) is None else str(value) for field in self._fields]

    def stream(self, events: list[Event]) -> Pairs:
        """Match one event after the other."""
        found: Pairs = set()
        execute = self._database.execute
        for number, event in enumerate(events):
            execute("DELETE FROM events")
            execute(self._insert, self._row(event))
            for _, rule in execute(self._union):
                found.add((number, self._ids[rule]))
        return found

    def batch(self, events: list[Event]) -> Pairs:
        """Match all events at once."""
        execute = self._database.execute
        execute("DELETE FROM events")
        execute("BEGIN")
        self._database.executemany(self._insert, map(self._row, events))
        execute("COMMIT")
        return {(row - 1, self._ids[rule]) for row, rule in execute(self._union)}


def _search(pattern: str, text: str | None) -> bool | None:
    return None if text is None else re.search(pattern, text) is not None


class Evaluator:
    """sigma-rule-matcher: each rule asked for each event."""

    def __init__(self, rules: Iterable[SigmaRule], probe: Event) -> None:
        self._matchers = []
        self.unsupported = 0
        """Rules that it does not read or cannot ask."""
        for rule in rules:
            try:
                matcher = RuleMatcher(rule)
                matcher.match(probe)
            except Exception:  # noqa: BLE001 - whatever it stumbles over is a rule that it cannot use
                self.unsupported += 1
            else:
                self._matchers.append((str(rule.id), matcher))

    def stream(self, events: list[Event]) -> Pairs:
        """Match one event after the other."""
        found: Pairs = set()
        for number, event in enumerate(events):
            for uid, matcher in self._matchers:
                try:
                    met = matcher.match(event)
                except Exception:  # noqa: BLE001 - as above, for what only some events bring about
                    continue
                if met:
                    found.add((number, uid))
        return found
