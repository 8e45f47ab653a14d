"""What an offline check found out, as values that a person's table and a program's JSON are made from."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from nbsentinel.attest.attestation import Head
from nbsentinel.attest.gaps import Pruned
from nbsentinel.attest.integrity import Reason


class Problem(Struct, frozen=True, kw_only=True):
    """One thing that does not verify, or a run of lines with the same thing in one chain."""

    reason: Reason
    message: str
    meaning: str
    line: int | None
    """Line number from 1; None where nothing stands in the file (a chain that is absent)."""
    last_line: int | None = None
    """Where a run of lines ends."""
    count: int = 1
    """Lines of the run."""
    chain_uid: str | None = None
    """What the line claims, where it does not verify."""
    sequence: int | None = None


class Ending(str, Enum):
    """How the last event of a chain leaves it."""

    GOODBYE = "goodbye"
    """The agent said that it stops."""
    OPEN = "open"
    """The chain goes on, or was ended without a word."""


class ChainOutcome(Struct, frozen=True, kw_only=True):
    """One chain of a trusted key."""

    chain_uid: str
    events: int
    """Events that verify."""
    refused: int
    """Lines that claim the chain and do not verify."""
    first_time: int | None
    """`time` of the first verified event, milliseconds since the epoch."""
    last_time: int | None
    keys: tuple[str, ...]
    """Thumbprints of the keys in the order of use."""
    pruned: tuple[Pruned, ...]
    head: Head | None
    """The last verified event."""
    ending: Ending
    end_checked: bool
    """A head of the collector was given, and it stands in the file."""


class Report(Struct, frozen=True, kw_only=True):
    """The outcome for a whole file."""

    lines: int
    events: int
    """Events that verify."""
    chains: tuple[ChainOutcome, ...]
    problems: tuple[Problem, ...]
    """In the order of lines; at most MAX_PROBLEMS."""
    problem_count: int
    """All problems, with those that are not listed."""
    heads_given: bool
    """Without heads a file whose end was cut off cannot be told from a whole one."""

    @property
    def verified(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem_count == 0
