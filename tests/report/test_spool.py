"""The durable queue: what was appended is there after any death, in order, within its bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbsentinel.errors import SpoolError
from nbsentinel.report.spool import Entry, Spool


def entry(
    sequence: int, *, severity: int = 1, chain: str = "c", size: int = 20, vital: bool = False, kind: int = 1007
) -> Entry:
    line = b"%d:" % sequence + b"x" * size
    return Entry(chain=chain, sequence=sequence, class_uid=kind, severity=severity, line=line, vital=vital)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "state", max_bytes=10_000)
    yield made
    made.close()


def test_order_and_cursor(spool: Spool) -> None:
    """Events come out in the order they went in, from where a sink left off."""
    spool.append([entry(i) for i in range(1, 6)])
    rows = spool.after(spool.cursor("s"), 3)
    assert [row.sequence for row in rows] == [1, 2, 3]
    spool.advance("s", rows[-1].id)
    assert [row.sequence for row in spool.after(spool.cursor("s"), 10)] == [4, 5]
    assert spool.waiting("s") == 2


def test_private(spool: Spool) -> None:
    """Nobody else may read what waits."""
    assert spool.path.stat().st_mode & 0o777 == 0o600
    assert spool.path.parent.stat().st_mode & 0o777 == 0o700


def test_batch_is_all_or_nothing(spool: Spool) -> None:
    """A batch that cannot be written whole leaves nothing behind."""
    spool.append([entry(2)])
    with pytest.raises(Exception, match="UNIQUE"):
        spool.append([entry(1), entry(2)])
    assert [row.sequence for row in spool.after(0, 10)] == [2]


def test_what_was_appended_survives_kill_9(tmp_path: Path) -> None:
    """Every event that was called recorded is there after the writer was killed in the middle of writing."""
    code = (
        "import sys; from pathlib import Path; from nbsentinel.report.spool import Entry, Spool\n"
        "s = Spool(Path(sys.argv[1]), max_bytes=1 << 30)\n"
        "for i in range(1, 1_000_000):\n"
        "    s.append([Entry(chain='c', sequence=i, class_uid=1, severity=1, line=b'x' * 300)])\n"
        "    print(i, flush=True)\n"
    )
    for turn in range(3):
        folder = tmp_path / str(turn)
        writer = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        with writer.stdout:
            time.sleep(0.5 + 0.1 * turn)
            os.kill(writer.pid, signal.SIGKILL)
            told = [int(line) for line in writer.stdout.read().split()]
        writer.wait()
        assert told
        spool = Spool(folder, max_bytes=1 << 30)
        stored = [row.sequence for row in spool.after(0, 10_000_000)]
        spool.close()
        assert stored == list(range(1, len(stored) + 1))
        assert len(stored) >= told[-1]


def test_broken_file_is_set_aside(tmp_path: Path) -> None:
    """A spool that is no database any more does not keep the agent from starting; it is kept for a look."""
    (tmp_path / "spool.db").write_bytes(b"not a database" * 1000)
    spool = Spool(tmp_path, max_bytes=1000)
    spool.append([entry(1)])
    spool.close()
    assert (tmp_path / "spool.broken").read_bytes().startswith(b"not a database")


def test_unusable_folder(tmp_path: Path) -> None:
    """A folder that cannot be made is one clear error."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="cannot be used"):
        Spool(tmp_path / "file" / "state", max_bytes=1000)


def test_pruning_takes_the_oldest_of_the_lowest_severity(spool: Spool) -> None:
    """Over the bound, low severity goes first, oldest first; vital and newest events stay; the runs are told."""
    spool.append([entry(1, vital=True, size=500)])
    spool.append([entry(i, severity=4 if i % 10 == 0 else 1, size=500) for i in range(2, 31)])
    assert spool.over_bound()
    runs = spool.prune("c")
    left = [row.sequence for row in spool.after(0, 100)]
    taken = [n for run in runs for n in range(run.first, run.last + 1)]
    assert sorted(left + taken) == list(range(1, 31))
    assert {1, 10, 20, 30} <= set(left)
    assert taken == sorted(taken)
    assert max(taken) < min(n for n in left if n % 10 and n != 1)
    assert not spool.over_bound()
    for run in runs:
        assert run.first_line.startswith(b"%d:" % run.first)
        assert run.last_line.startswith(b"%d:" % run.last)
        assert sum(run.severities.values()) == run.last - run.first + 1


def test_delivered_events_go_and_findings_stay_readable(spool: Spool) -> None:
    """What every sink has taken is deleted, the newest findings excepted."""
    spool.begin_chain(entry(1, vital=True))
    spool.append([entry(i, kind=2004 if i == 3 else 1007) for i in range(2, 8)])
    for sink in ("a", "b"):
        spool.advance(sink, spool.after(0, 10)[4].id)
    spool.advance("b", spool.after(0, 10)[2].id)
    spool.forget_delivered(["a", "b"], "c")
    assert [row.sequence for row in spool.after(0, 10)] == [3, 4, 5, 6, 7]
    assert [row.sequence for row in spool.latest(5, 2004)] == [3]


def test_chains_are_remembered_until_delivered(spool: Spool) -> None:
    """A chain of an earlier session is forgotten once nothing of it waits."""
    spool.begin_chain(entry(1, chain="old", vital=True))
    spool.begin_chain(entry(1, chain="new", vital=True))
    assert [(chain, state) for chain, state, _ in spool.chains()] == [("old", "new"), ("new", "new")]
    spool.set_chain_state("old", "enrolled")
    spool.advance("a", spool.after(0, 10)[-1].id)
    spool.forget_delivered(["a"], "new")
    assert [chain for chain, _, _ in spool.chains()] == ["new"]


def test_facts(spool: Spool) -> None:
    """Small values are kept."""
    assert spool.fact("x") is None
    spool.remember("x", "1")
    spool.remember("x", "2")
    assert spool.fact("x") == "2"
