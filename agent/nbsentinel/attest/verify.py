"""Verification, for whoever did not write the chain.

Event by event, as the collector does it::

    accepted = verify_genesis(first_line, key=trusted)
    accepted = verify_next(second_line, accepted.state)

A whole export at once, with any number of interleaved chains::

    report = verify_export(lines, TrustedKeys.from_json(keys), heads_from_json(heads))
    assert report.verified, report.problems

All of it is without I/O. What is accepted was written by the holder of the chain's keys, in this order, with nothing
removed but what the agent itself states to have dropped. What cannot be told: whether the events are true (whoever
holds the key can lie from then on), and without heads from the collector whether the end was cut off.
"""

from nbsentinel.attest.export import MAX_PROBLEMS, verify_export
from nbsentinel.attest.follow import Accepted, ChainState, verify_genesis, verify_next
from nbsentinel.attest.gaps import Gap, Pruned
from nbsentinel.attest.integrity import IntegrityError, Reason
from nbsentinel.attest.outcome import ChainOutcome, Ending, Problem, Report
from nbsentinel.attest.trust import TrustedKeys, heads_from_json

__all__ = [
    "MAX_PROBLEMS",
    "Accepted",
    "ChainOutcome",
    "ChainState",
    "Ending",
    "Gap",
    "IntegrityError",
    "Problem",
    "Pruned",
    "Reason",
    "Report",
    "TrustedKeys",
    "heads_from_json",
    "verify_export",
    "verify_genesis",
    "verify_next",
]
