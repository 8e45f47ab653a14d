"""Files are known by content; each change is told once."""

from __future__ import annotations

import os
import time
from pathlib import Path

from nbsentinel.protect.files import Files, program_files


def watched(*paths: Path, before: dict[str, str] | None = None) -> Files:
    files = Files([str(path) for path in paths], before or {})
    assert files.look() == []
    files.take()
    return files


def test_each_content_is_told_once(tmp_path: Path) -> None:
    """Changed, changed again, vanished, put back: one change each; a new time alone is none."""
    path = tmp_path / "a"
    path.write_text("one")
    files = watched(path)
    assert files.look() == []
    os.utime(path, (1, 1))
    assert files.look() == []
    path.write_text("two")
    (change,) = files.look()
    assert change.path == str(path)
    assert change.detail.count("sha256") == 2
    assert files.look() == []
    path.unlink()
    assert [change.detail.rpartition(", ")[2] for change in files.look()] == ["is gone"]
    assert files.look() == []
    path.write_text("two")
    assert len(files.look()) == 1


def test_replaced_with_the_same_size_and_time(tmp_path: Path) -> None:
    """Setting the time back does not hide a change."""
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("one")
    files = watched(path)
    stat = path.stat()
    other.write_text("two")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)
    assert len(files.look()) == 1


def test_nothing_waits_for_a_fifo(tmp_path: Path) -> None:
    """What is put in a file's place does not hold the agent up."""
    path = tmp_path / "a"
    path.write_text("one")
    files = watched(path)
    path.unlink()
    os.mkfifo(path)
    (change,) = files.look()
    assert change.detail.endswith("is not readable")


def test_what_the_agent_before_knew_counts(tmp_path: Path) -> None:
    """A change between two agents is told by the second."""
    path = tmp_path / "a"
    path.write_text("one")
    before = watched(path).contents
    path.write_text("two")
    files = Files([str(path)], before)
    assert [change.path for change in files.take()] == [str(path)]
    assert files.look() == []


def test_a_look_is_cheap_and_comes_round(tmp_path: Path) -> None:
    """A few files a look, every file in turn, far below a millisecond."""
    paths = [tmp_path / str(number) for number in range(200)]
    for path in paths:
        path.write_text("one")
    files = watched(*paths)
    paths[150].write_text("two")
    assert sum(len(files.look(64)) for _ in range(4)) == 1
    spent = []
    for _ in range(20):
        begin = time.perf_counter()
        files.look(64)
        spent.append(time.perf_counter() - begin)
    assert min(spent) < 0.002


def test_own_files_are_known() -> None:
    """The program is this package, the guard's and the interpreter."""
    found = set(program_files())
    assert {Path(path).name for path in found} >= {"agent.py", "launcher.py", "default_pack.json"}
    assert all(os.path.isabs(path) for path in found)
