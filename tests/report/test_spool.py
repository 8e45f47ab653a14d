"""The durable queue: what was appended is there after any death, in order, within its bound."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbsentinel.errors import SpoolError
from nbsentinel.report.spool import SET_ASIDE_FACT, Entry, Spool


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
    """A spool that is no database any more does not keep the agent from starting; each is kept for a look."""
    for turn, name in enumerate(["spool.broken", "spool.broken-1", "spool.broken-2"]):
        (tmp_path / "spool.db").write_bytes(b"not a database %d" % turn * 1000)
        spool = Spool(tmp_path, max_bytes=1000)
        spool.append([entry(1)])
        assert spool.fact(SET_ASIDE_FACT) == name
        spool.close()
    for turn, name in enumerate(["spool.broken", "spool.broken-1", "spool.broken-2"]):
        assert (tmp_path / name).read_bytes().startswith(b"not a database %d" % turn)


def test_damage_inside_the_file_is_met_at_the_start(tmp_path: Path) -> None:
    """A spool with an overwritten page is set aside as well; it does not fail later, while events are written."""
    spool = Spool(tmp_path, max_bytes=1 << 20)
    spool.append([entry(i, size=3000) for i in range(1, 100)])
    spool.close()
    content = bytearray(spool.path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    spool.path.write_bytes(content)
    spool = Spool(tmp_path, max_bytes=1 << 20)
    spool.append([entry(1)])
    spool.close()
    assert (tmp_path / "spool.broken").read_bytes() == content


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """The folder of a sound spool with five events that nobody has open."""
    spool = Spool(tmp_path, max_bytes=10_000)
    spool.append([entry(i) for i in range(1, 6)])
    spool.close()
    return tmp_path


def untouched(folder: Path) -> bool:
    """Return whether the spool of `filled` is there as it was, and nothing was set aside."""
    spool = Spool(folder, max_bytes=10_000)
    stored = [row.sequence for row in spool.after(0, 10)]
    spool.close()
    return stored == [1, 2, 3, 4, 5] and not list(folder.glob("spool.broken*"))


def test_start_without_descriptors_leaves_the_spool_alone(filled: Path) -> None:
    """A file that cannot be opened is one clear error, and as good as before."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(SpoolError) as caught:
            Spool(filled, max_bytes=10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "unable to open database file" in caught.value.message
    assert untouched(filled)


def test_start_beside_a_lock_leaves_the_spool_alone(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A locked file is one clear error, and as good as before."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "timeout": 0}))
    other = connect(filled / "spool.db", isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SpoolError, match="locked"):
        Spool(filled, max_bytes=10_000)
    other.close()
    assert untouched(filled)


@pytest.mark.parametrize("words", ["database or disk is full", "disk I/O error"])
def test_start_on_a_full_disk(filled: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """The ballast is given up for the start; where that does not help or is gone, the spool is as good as before."""
    connect, ballast = sqlite3.connect, filled / "ballast"

    def refuse(*args: Any, **options: Any) -> sqlite3.Connection:
        if helps and not ballast.exists():
            return connect(*args, **options)
        raise sqlite3.OperationalError(words)

    with monkeypatch.context() as full:
        full.setattr(sqlite3, "connect", refuse)
        helps = True
        Spool(filled, max_bytes=10_000).close()
        helps = False
        for _ in range(2):
            with pytest.raises(SpoolError, match=words):
                Spool(filled, max_bytes=10_000)
            assert not ballast.exists()
    assert untouched(filled)


WRITES: dict[str, Callable[[Spool], object]] = {
    "append": lambda spool: spool.append([entry(9, size=9000)]),
    "begin_chain": lambda spool: spool.begin_chain(entry(1, chain="new", size=9000)),
    "remember": lambda spool: spool.remember("x", "x" * 9000),
    "advance": lambda spool: spool.advance("x" * 9000, 1),
    "set_chain_state": lambda spool: spool.set_chain_state("c", "x" * 9000),
}


@pytest.fixture
def full(spool: Spool) -> Spool:
    """A spool whose file may not grow any more, as on a full disk."""
    spool.begin_chain(entry(1))
    pages = spool._db.execute("PRAGMA page_count").fetchone()[0]
    spool._db.execute(f"PRAGMA max_page_count={pages}")
    return spool


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_write_on_a_full_disk(full: Spool, monkeypatch: pytest.MonkeyPatch, write: Callable[[Spool], object]) -> None:
    """Every kind of write gives up the ballast when the disk is full, and succeeds if that makes room."""
    unlink = Path.unlink

    def make_room(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        full._db.execute("PRAGMA max_page_count=1000000")

    monkeypatch.setattr(Path, "unlink", make_room)
    write(full)
    assert not (full.path.parent / "ballast").exists()


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_write_on_a_disk_that_stays_full(full: Spool, write: Callable[[Spool], object]) -> None:
    """Every kind of write that fails in the end is one clear error, changes nothing, and the next one may succeed."""
    before = full.size
    for _ in range(2):
        with pytest.raises(SpoolError, match="disk is full"):
            write(full)
    assert [row.sequence for row in full.after(0, 10)] == [1]
    assert full.size == before
    full._db.execute("PRAGMA max_page_count=1000000")
    write(full)


@pytest.mark.parametrize("write", [lambda s: s.forget_delivered([], "c"), Spool.prune], ids=["forget", "prune"])
def test_making_room_while_locked(spool: Spool, write: Callable[[Spool], object]) -> None:
    """Deleting that fails is one clear error too."""
    spool._db.execute("PRAGMA busy_timeout=0")
    other = sqlite3.connect(spool.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SpoolError, match="locked"):
        write(spool)
    other.close()


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
    runs = spool.prune()
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


def test_pruning_takes_from_every_chain(spool: Spool) -> None:
    """Old noise of an earlier session goes before today's findings; the newest event of each chain stays."""
    spool.append([entry(i, chain="old", size=500, vital=i == 1) for i in range(1, 31)])
    spool.append([entry(1, chain="new", vital=True)])
    spool.append([entry(i, chain="new", severity=5, size=500) for i in range(2, 5)])
    spool.append([entry(i, chain="new", size=500) for i in range(5, 7)])
    (run,) = spool.prune()
    assert (run.chain, run.first) == ("old", 2)
    assert not spool.over_bound()
    assert [row.sequence for row in spool.after(0, 100) if row.chain == "new"] == [1, 2, 3, 4, 5, 6]
    spool.append([entry(i, chain="new", severity=5, size=900) for i in range(7, 15)])
    left = [(row.chain, row.sequence) for row in spool.after(0, 100)]
    runs = spool.prune()
    taken = {(run.chain, number) for run in runs for number in range(run.first, run.last + 1)}
    assert {("new", 5), ("new", 6), ("old", 29)} <= taken
    kept = [(row.chain, row.sequence) for row in spool.after(0, 100)]
    assert kept == [place for place in left if place not in taken]
    assert [number for chain, number in kept if chain == "old"] == [1, 30]


def test_delivered_findings_make_room_first(spool: Spool) -> None:
    """Over the bound, findings that every sink has taken go, oldest first, before anything that still waits."""
    spool.append([entry(i, severity=5, size=500, kind=2004) for i in range(1, 11)])
    spool.advance("a", spool.after(0, 100)[-1].id)
    spool.append([entry(i, size=500) for i in range(11, 21)])
    spool.forget_delivered(["a"], "c")
    left = [row.sequence for row in spool.after(0, 100)]
    assert left == list(range(left[0], 21))
    assert 1 < left[0] < 11
    assert not spool.over_bound()
    assert spool.size == sum(len(row.line) for row in spool.after(0, 100))


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
