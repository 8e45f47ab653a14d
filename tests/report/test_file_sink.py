"""The file sink: every event once, whatever happened to the agent or the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nbsentinel.events import SensorState
from nbsentinel.report.recorder import Recorder
from nbsentinel.report.sinks.file import FileSink
from nbsentinel.report.spool import Spool

from .conftest import finding

Begin = Callable[..., Recorder]


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def expected(spool: Spool) -> list[bytes]:
    return [row.line for row in spool.after(0, 10_000)]


def test_lines_are_the_signed_bytes(spool: Spool, begin: Begin, tmp_path: Path) -> None:
    """The file holds exactly the canonical lines, private to the user."""
    recorder, path = begin(), tmp_path / "out" / "events.jsonl"
    sink = FileSink(spool, path)
    sink.start()
    recorder.record([finding(1), finding(2)])
    sink.notify()
    sink.stop(1)
    assert lines(path) == expected(spool)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("torn", [0, 1, 57])
def test_death_between_writing_and_remembering(spool: Spool, begin: Begin, tmp_path: Path, torn: int) -> None:
    """Killed after a write and before the cursor moved, or in the middle of a line: no event twice, none lost."""
    recorder, path = begin(), tmp_path / "events.jsonl"
    recorder.record([finding(i) for i in range(5)])
    every = expected(spool)
    path.write_bytes(b"".join(line + b"\n" for line in every[:4]) + every[4][:torn])
    sink = FileSink(spool, path)
    sink.start()
    sink.stop(1)
    assert lines(path) == every


def test_foreign_file_is_appended_to(spool: Spool, begin: Begin, tmp_path: Path) -> None:
    """A file that does not end with one of our events keeps what it has."""
    begin()
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"other": 1}\n')
    sink = FileSink(spool, path)
    sink.start()
    sink.stop(1)
    assert lines(path) == [b'{"other": 1}', *expected(spool)]


def test_rotation_by_renaming(spool: Spool, begin: Begin, tmp_path: Path) -> None:
    """A renamed file keeps its events; new ones go to a new file."""
    recorder, path = begin(), tmp_path / "events.jsonl"
    sink = FileSink(spool, path)
    sink.start()
    path.rename(tmp_path / "events.1")
    recorder.record([finding(1)])
    sink.notify()
    sink.stop(1)
    assert lines(tmp_path / "events.1") + lines(path) == expected(spool)
    assert sink.truncations == 0


def test_truncation_is_noticed(spool: Spool, begin: Begin, tmp_path: Path) -> None:
    """A file that lost lines, or was removed, is counted, and delivery goes on."""
    recorder, path = begin(), tmp_path / "events.jsonl"
    sink = FileSink(spool, path)
    sink.start()
    path.write_bytes(b"")
    recorder.record([finding(1)])
    sink.notify()
    path.unlink()
    recorder.record([finding(2)])
    sink.notify()
    sink.stop(1)
    assert sink.truncations == 2
    assert lines(path) == expected(spool)[-1:]


def test_a_cut_is_noticed_while_nothing_happens(spool: Spool, begin: Begin, tmp_path: Path) -> None:
    """A look tells of a file that was emptied or removed, once, without a new event."""
    begin()
    path, told = tmp_path / "events.jsonl", list[tuple[Path, str]]()
    sink = FileSink(spool, path, lambda *one: told.append(one))
    sink.start()
    size = path.stat().st_size
    sink.look()
    path.write_bytes(b"")
    sink.look()
    sink.look()
    assert told == [(path, f"cut from {size} to 0 bytes")]
    path.unlink()
    sink.look()
    sink.look()
    assert [how for _, how in told[1:]] == ["removed while it is written"]
    sink.stop(1)


def test_file_that_cannot_be_written(spool: Spool, begin: Begin, tmp_path: Path) -> None:
    """An unusable path degrades coverage and loses nothing: the events stay in the spool."""
    begin()
    (tmp_path / "file").write_text("")
    sink = FileSink(spool, tmp_path / "file" / "events.jsonl")
    sink.start()
    assert sink.coverage().state is SensorState.DEGRADED
    assert spool.waiting("file") == 1
    (tmp_path / "file").unlink()
    sink.notify()
    sink.stop(1)
    assert spool.waiting("file") == 0
