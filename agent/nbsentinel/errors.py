"""Errors of the agent: one base, a one-line message and a next step for the person who can mend it."""

from __future__ import annotations


class NbsentinelError(Exception):
    """Base of every error that the agent raises on purpose.

    Args:
        message: One line that says what is wrong, with the data (path, line, key, pid).
        hint: One line that says what to do next; printed below the message.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(NbsentinelError):
    """The configuration cannot be used. The admin can mend it."""


class RuleError(NbsentinelError):
    """A rule or a rule pack cannot be used. Its author can mend it."""


class VerificationError(NbsentinelError):
    """Evidence does not verify, or cannot be judged."""


class AgentUnreachableError(NbsentinelError):
    """No agent answers on the socket. Whoever runs the machine can start it."""


class CollectorError(NbsentinelError):
    """The collector refused or did not answer. Its operator can mend it."""


class SpoolError(NbsentinelError):
    """The spool cannot be read or written. Whoever owns the disk can mend it."""


class AlertRefusedError(NbsentinelError):
    """The agent makes no test alert now. Whoever asked can wait."""
