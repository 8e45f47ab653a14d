"""What kernels tell is recorded as context of the findings that it belongs to, and not otherwise."""

from __future__ import annotations

import pytest

from nbsentinel.events import (
    ApiCall,
    Cell,
    CellPhase,
    CellRun,
    Confidence,
    Finding,
    KernelAudit,
    Millis,
    Observation,
    Origin,
    OriginKind,
    Process,
    ProcessKey,
    Severity,
)
from nbsentinel.report.selection import Selection

KERNEL, OTHER, SHELL = ProcessKey(1, 1), ProcessKey(2, 1), ProcessKey(3, 1)


def process(key: ProcessKey) -> Process:
    return Process(key=key, parent=None, name="p", exe=None, argv=(), argv_length=0)


def cell(number: int, key: ProcessKey = KERNEL) -> list[Observation]:
    """Return all that a kernel tells of one cell."""
    message, at = f"m{number}", Millis(number * 10)
    start = CellRun(
        at=at, key=key, phase=CellPhase.START, thread=1, message_id=message, cell_id=f"c{number}", source="kernels"
    )
    audit = KernelAudit(
        at=Millis(at + 1), key=key, thread=1, name="os.system", arguments={}, message_id=message, source="kernels"
    )
    call = ApiCall(
        at=Millis(at + 2),
        key=key,
        thread=1,
        service="s3",
        operation="ListBuckets",
        via="botocore",
        message_id=message,
        source="kernels",
    )
    stop = CellRun(at=Millis(at + 3), key=key, phase=CellPhase.STOP, thread=1, message_id=message, source="kernels")
    return [start, audit, call, stop]


def cell_of(cell_id: str | None) -> Cell | None:
    return Cell(message_id=cell_id.replace("c", "m"), cell_id=cell_id) if cell_id else None


def finding(cell_id: str | None, about: ProcessKey = SHELL) -> Finding:
    return Finding(
        uid="u",
        rule_id="r",
        rule_name="r",
        title="t",
        why="w",
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        at=Millis(0),
        process=process(about),
        lineage=(process(KERNEL),),
        origin=Origin(kind=OriginKind.KERNEL, source="s", process=KERNEL, cell=cell_of(cell_id)),
    )


def test_the_cell_of_a_finding_is_its_context() -> None:
    """Of the cells before a finding its own is recorded, with what it did; of the others their API calls alone."""
    selection = Selection("context")
    one, two = cell(1), cell(2)
    assert selection.choose([*one, *two], []) == []
    chosen = selection.choose([], [finding("c1")])
    assert chosen == [*one, two[2]]
    assert selection.choose([], [finding("c1")]) == [], "each is recorded once"


def test_a_finding_in_the_middle_of_a_cell() -> None:
    """What comes after the finding belongs to it as long as it is the same cell; a stop has no cell id of its own."""
    selection = Selection("context")
    start, audit, call, stop = cell(1)
    assert selection.choose([start], []) == []
    assert selection.choose([audit], [finding("c1")]) == [start, audit]
    assert selection.choose([call, stop, *cell(2)[:2]], []) == [call, stop]


def test_a_kernel_that_a_finding_is_about() -> None:
    """Where the kernel itself is what a finding is about, all that its code did is context; other kernels' is not."""
    selection = Selection("context")
    mine, theirs = cell(1), cell(2, OTHER)
    selection.choose([*mine, *theirs], [])
    assert selection.choose([], [finding(None, KERNEL)]) == mine[1:3]


@pytest.mark.parametrize(("level", "count"), [("findings", 0), ("all", 4)])
def test_levels(level: str, count: int) -> None:
    """`all` records everything, `findings` nothing."""
    assert len(Selection(level).choose(cell(1), [])) == count


def test_much_that_kernels_tell_displaces_nothing() -> None:
    """A kernel that tells without end does not push executions out of memory."""
    from nbsentinel.events import Exec

    selection = Selection("context")
    executed = Exec(at=Millis(0), process=process(SHELL), source="procfs")
    selection.choose([executed], [])
    for number in range(3000):
        selection.choose(cell(number, OTHER), [])
    assert executed in selection.choose([], [finding(None)])
