"""Context of findings: what the processes of a finding and those that they started did, before it and after it."""

from __future__ import annotations

import pytest

from nbsentinel.events import (
    Connect,
    Connection,
    Endpoint,
    Exec,
    Finding,
    Inode,
    Millis,
    Observation,
    Process,
    ProcessKey,
)
from nbsentinel.report.selection import Selection
from support import findings

SHELL, CHILD, STRANGER = ProcessKey(10, 1), ProcessKey(20, 1), ProcessKey(30, 1)


def process(key: ProcessKey, parent: ProcessKey | None = None) -> Process:
    return Process(key=key, parent=parent, name="p", exe=None, argv=(), argv_length=0)


def executed(at: int, key: ProcessKey, parent: ProcessKey | None = None) -> Exec:
    return Exec(at=Millis(at), process=process(key, parent), source="procfs")


def connected(at: int, key: ProcessKey) -> Connect:
    remote = Endpoint("192.0.2.1", 443)
    connection = Connection(protocol="tcp", local=None, remote=remote, inode=Inode(at), initiated=True)
    return Connect(at=Millis(at), key=key, connection=connection, source="guard")


def finding() -> Finding:
    return findings.finding(process(SHELL))


CONTEXT: list[Observation] = [connected(1, CHILD), executed(2, CHILD, SHELL)]
NOISE: list[Observation] = [connected(3, STRANGER), executed(4, STRANGER)]


@pytest.mark.parametrize("before", [0, 1, 2], ids=["with the finding", "half of it before", "before the finding"])
def test_connection_before_the_execution_that_ties_it_in(before: int) -> None:
    """A connection that was seen before its process was known as a child of the finding's is context all the same."""
    selection = Selection("context")
    assert selection.choose([*CONTEXT[:before], *NOISE], []) == []
    assert selection.choose(CONTEXT[before:], [finding()]) == CONTEXT


def test_everything_is_chosen_once() -> None:
    """What was not context of one finding is still there for the next, and what was is not told again."""
    selection = Selection("context")
    selection.choose(NOISE, [])
    assert selection.choose(CONTEXT, [finding()]) == CONTEXT
    assert selection.choose([], [finding()]) == []
    assert selection.choose([executed(5, STRANGER, CHILD)], [finding()]) == [*NOISE, executed(5, STRANGER, CHILD)]


def test_child_of_a_watched_process_after_the_finding() -> None:
    """After a finding, one batch with a child's connection before its execution is context as a whole."""
    selection = Selection("context")
    selection.choose([], [finding()])
    assert selection.choose([*CONTEXT, *NOISE], []) == CONTEXT
