"""The file sink: every event once, whatever happened to the agent or the file."""

from __future__ import annotations

import os
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nbsentinel.errors import SpoolError
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


@contextmanager
def room(size: int) -> Iterator[None]:
    """Let no file grow beyond a size: the write that crosses it is cut, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk(spool: Spool, begin: Begin, tmp_path: Path) -> None:
    """A write that is cut in the middle of a line leaves no part of its batch; later each event is there once."""
    recorder, path = begin(), tmp_path / "events.jsonl"
    old = b"x" * (4 << 20) + b"\n"  # longer than the spool's files, so that the limit meets this one alone
    path.write_bytes(old)
    told = list[str]()
    sink = FileSink(spool, path, lambda _path, how: told.append(how))
    recorder.record([finding(i) for i in range(5)])
    with room(len(old) + len(expected(spool)[0]) + 50):
        sink.start()
        for _ in range(2):
            sink.notify()
            assert path.read_bytes() == old
        assert sink.coverage().state is SensorState.DEGRADED
    sink.notify()
    sink.stop(1)
    assert sink.coverage().state is SensorState.ACTIVE
    assert lines(path)[1:] == expected(spool)
    assert told == []


def test_torn_line_that_cannot_be_cut_off_at_once(
    spool: Spool, begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is appended behind a torn line: it is cut off first."""
    recorder, path = begin(), tmp_path / "events.jsonl"
    sink = FileSink(spool, path)
    sink.start()
    recorder.record([finding(i) for i in range(3)])
    cut = len(b"\n".join(expected(spool)[:3])) + 20
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        left = cut - path.stat().st_size
        if left <= 0:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:left])

    def fail(_descriptor: int, _size: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        patch.setattr(os, "ftruncate", fail)
        sink.notify()
        sink.notify()
    sink.notify()
    sink.stop(1)
    assert lines(path) == expected(spool)


@pytest.mark.parametrize("error", [SpoolError("the disk is full"), sqlite3.OperationalError("database is locked")])
@pytest.mark.parametrize("step", ["cursor", "after", "advance"])
def test_spool_that_fails_for_a_while(
    spool: Spool, begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    """A spool that cannot be used is in coverage, raises nothing, and no event is in the file twice afterwards."""
    recorder, path = begin(), tmp_path / "events.jsonl"
    sink = FileSink(spool, path)
    sink.start()
    recorder.record([finding(1)])

    def fail(*_: object) -> object:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(spool, step, fail)
        sink.notify()
        sink.notify()
        assert sink.coverage().state is SensorState.DEGRADED
        assert str(error) in sink.coverage().why
    path.rename(tmp_path / "events.1")
    recorder.record([finding(2)])
    sink.notify()
    sink.stop(1)
    assert sink.coverage().state is SensorState.ACTIVE
    assert lines(tmp_path / "events.1") + lines(path) == expected(spool)


def test_file_that_becomes_usable_later(spool: Spool, begin: Begin, tmp_path: Path) -> None:
    """The end of a file that could not be opened at the start is looked at once it can be."""
    recorder, path = begin(), tmp_path / "out" / "events.jsonl"
    recorder.record([finding(1)])
    (tmp_path / "out").write_text("")
    sink = FileSink(spool, path)
    sink.start()
    (tmp_path / "out").unlink()
    path.parent.mkdir()
    path.write_bytes(b"".join(line + b"\n" for line in expected(spool)) + b"torn")
    sink.notify()
    sink.stop(1)
    assert lines(path) == expected(spool)


def test_last_line_that_only_looks_like_an_event(spool: Spool, begin: Begin, tmp_path: Path) -> None:
    """A foreign last line with members of the wrong type is a foreign line like any other."""
    begin()
    path = tmp_path / "events.jsonl"
    foreign = b'{"attestation_list":[{"chain_uid":["x"]}],"metadata":{"sequence":1}}'
    path.write_bytes(foreign + b"\n")
    sink = FileSink(spool, path)
    sink.start()
    sink.stop(1)
    assert lines(path) == [foreign, *expected(spool)]
