"""Why an event does not verify, in a closed set of reasons that people, programs and the collector's API share."""

from __future__ import annotations

from enum import Enum

from nbsentinel.errors import VerificationError


class Reason(str, Enum):
    """What is wrong with an event or with a chain."""

    NOT_CANONICAL = "not-canonical"
    NOT_ATTESTED = "not-attested"
    CHANGED = "changed"
    WRONG_KEY = "wrong-key"
    BAD_SIGNATURE = "bad-signature"
    GAP = "gap"
    REORDERED = "reordered"
    DUPLICATED = "duplicated"
    FORK = "fork"
    BROKEN_LINK = "broken-link"
    UNKNOWN_CHAIN = "unknown-chain"
    TRUNCATED = "truncated"

    @property
    def meaning(self) -> str:
        """What the reason says about the evidence, for a person who did not build it."""
        return _MEANINGS[self]


_MEANINGS = {
    Reason.NOT_CANONICAL: "The line is not what an agent writes: it was reformatted or damaged after signing. "
    "Do not rely on it.",
    Reason.NOT_ATTESTED: "Nothing proves where the line comes from. Treat it as if anybody had written it.",
    Reason.CHANGED: "The content was altered after it was signed. What it says is not what the agent saw.",
    Reason.WRONG_KEY: "It was signed by a key that the chain did not hand over to: it comes from somebody else, "
    "or the event that announced the key is missing or damaged.",
    Reason.BAD_SIGNATURE: "The signature is not the agent's: the line was altered and its fingerprint computed anew, "
    "or it was made up.",
    Reason.GAP: "Events were removed, and no signed statement of the agent says that it dropped them.",
    Reason.REORDERED: "The line is genuine but stands in the wrong place: the file was rearranged.",
    Reason.DUPLICATED: "The same line stands in the file more than once; count it once.",
    Reason.FORK: "Two different events are validly signed for one place in the chain: the signing key was used by two "
    "writers, so it was stolen or the agent was restored from a copy.",
    Reason.BROKEN_LINK: "The event is validly signed but continues another history: an event before it was inserted, "
    "removed or replaced by someone who holds the key.",
    Reason.UNKNOWN_CHAIN: "No trusted key is known for the chain, so nothing about it can be checked.",
    Reason.TRUNCATED: "The collector has seen later events of the chain than the file holds: its end was cut off.",
}


class IntegrityError(VerificationError):
    """An event does not verify.

    Args:
        reason: Which promise is broken.
        message: One line with the data.
        chain_uid: The chain that the event claims, as far as it can be told.
        sequence: The place in the chain that it claims.
        line: Line number in the file, from 1, where there is a file.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        chain_uid: str | None = None,
        sequence: int | None = None,
        line: int | None = None,
    ) -> None:
        super().__init__(message, hint=reason.meaning)
        self.reason = reason
        self.chain_uid = chain_uid
        self.sequence = sequence
        self.line = line
