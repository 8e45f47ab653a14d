"""The rules in force: the pack, its matcher and correlator, and all that is wrong with them, for the operator."""

from __future__ import annotations

from pathlib import Path

from nbsentinel.detect.rules.correlate import Correlator
from nbsentinel.detect.rules.exceptions import digest
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import Pack
from nbsentinel.errors import RuleError
from nbsentinel.events import Millis

TOLD_LIMIT = 20
"""Problems, and filters with what they suppressed, that a heartbeat names; all are counted."""


class RulesInForce:
    """One pack at work.

    Args:
        pack: The rules.
        exceptions: Where the configuration says that the admin's exceptions are; empty for nowhere.
        now: The time, for exceptions that are over.
    """

    def __init__(self, pack: Pack, exceptions: str, now: Millis) -> None:
        self.pack = pack
        self.matcher, self.correlator = Matcher(pack), Correlator(pack.rules)
        self._problems = [f"rule cannot be used: {failed}" for failed in (*pack.failed, *self.matcher.failed)]
        self._problems += _unlike(pack, exceptions)
        self._over = self._expire(now)

    def _expire(self, now: Millis) -> list[str]:
        return [
            f"exception {item.name} ({item.id}) of {item.owner or 'nobody'} expired on {item.expires}, so it is ignored"
            for item in self.matcher.expire(now)
        ]

    def check(self, now: Millis) -> list[str]:
        """Return what the operator should be told now: exceptions that are over since the last call."""
        over = self._expire(now)
        self._over += over
        return over

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong: rules that failed, exceptions that are over or not in the pack."""
        return [*self._problems, *self._over]

    def vitals(self) -> dict[str, object]:
        """Return what heartbeats and `status` say of the rules, as a JSON object."""
        asked, remembered = self.matcher.lookups
        problems = self.problems
        suppressed = sorted(self.matcher.suppressed.items(), key=lambda item: (-item[1], item[0]))[:TOLD_LIMIT]
        return {
            "problems": problems[:TOLD_LIMIT],
            "problem_count": len(problems),
            "suppressed": [{"filter": uid, "count": count} for uid, count in suppressed if count],
            "lookups": {"asked": asked, "remembered": remembered},
            "correlations": self.correlator.counters,
        }


def _unlike(pack: Pack, exceptions: str) -> list[str]:
    """Return why the exceptions that the configuration names are not those that the pack was made with."""
    if not exceptions:
        return []
    again = f"make the pack again with `nbsentinel rules compile --exceptions {exceptions}`"
    try:
        found = digest(Path(exceptions))
    except RuleError as error:
        return [f"exceptions cannot be read: {error.message}"]
    if not pack.exceptions_sha256:
        return [f"the rule pack has no exceptions, so none is in force; {again}"]
    if found != pack.exceptions_sha256:
        return [f"the exceptions have changed since the rule pack was made, so the old ones are in force; {again}"]
    return []
