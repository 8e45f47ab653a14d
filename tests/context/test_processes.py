"""Ancestry that survives double forks, reparenting, pid reuse and the end of parents."""

from __future__ import annotations

import pytest

from nbsentinel.context import processes as module
from nbsentinel.context.processes import ProcessTable
from nbsentinel.events import Exec, Exit, KernelInfo, Millis, ProcessKey
from support.simulation import System


def fill(system: System) -> ProcessTable:
    table = ProcessTable()
    for key in system.processes:
        table.apply(system.executed(key))
    return table


def test_lineage_outlives_the_parents() -> None:
    """A daemon whose parents have ended still belongs to the kernel that started it."""
    system = System()
    info = KernelInfo(kernel_id="k1", connection_file="/x/kernel-k1.json", notebook="/home/a.ipynb")
    kernel = system.start("/usr/bin/python3", kernel=info)
    middle = system.start("/bin/sh", parent=kernel)
    daemon = system.start("/usr/bin/daemon", parent=middle)
    table = fill(system)
    table.apply(Exit(at=Millis(1), key=middle, source="t"))
    assert [process.key for process in table.lineage(daemon)] == [middle, kernel]


def test_reparenting_does_not_change_the_first_parent() -> None:
    """A process seen again under init keeps the parent it was born with."""
    from msgspec.structs import replace

    system = System()
    init, parent = system.start("/sbin/init"), system.start("/bin/sh")
    child = system.start("/bin/daemon", parent=parent)
    table = fill(system)
    again = replace(system.processes[child], parent=init, argv=("renamed",))
    table.apply(Exec(at=Millis(2), process=again, source="t"))
    assert table.lineage(child)[0].key == parent
    found = table.get(child)
    assert found is not None
    assert found.argv == ("renamed",)


def test_pid_reuse_is_harmless() -> None:
    """Two processes with one pid are two processes."""
    system = System()
    old = system.start("/bin/old")
    table = fill(system)
    table.apply(Exit(at=Millis(1), key=old, source="t"))
    new = ProcessKey(old.pid, old.start + 1)
    from msgspec.structs import replace

    table.apply(Exec(at=Millis(2), process=replace(system.processes[old], key=new, argv=("/bin/new",)), source="t"))
    assert table.get(old) != table.get(new)
    assert not table.is_live(old)
    assert table.is_live(new)


def test_ended_processes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many processes end, only so many are remembered."""
    monkeypatch.setattr(module, "ENDED_LIMIT", 50)
    system = System()
    parent = system.start("/bin/sh")
    keys = [system.start("/bin/true", parent=parent) for _ in range(200)]
    table = fill(system)
    for key in keys:
        table.apply(Exit(at=Millis(1), key=key, source="t"))
    assert sum(table.get(key) is not None for key in keys) == 50
    assert len(list(table.children(parent))) == 50


def test_a_circle_of_parents_ends() -> None:
    """Nonsense in the ancestry does not keep anybody busy."""
    from msgspec.structs import replace

    system = System()
    one = system.start("/bin/a")
    two = system.start("/bin/b", parent=one)
    system.processes[one] = replace(system.processes[one], parent=two)
    assert len(fill(system).lineage(one)) <= 2
