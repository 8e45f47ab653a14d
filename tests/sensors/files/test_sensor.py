"""The sensor's own bookkeeping: drops of the kernel, what is told twice, what it says of itself."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from nbsentinel.events import FileAccess, FileOperation, Millis, Process, ProcessKey, SensorState, Tamper, TamperKind
from nbsentinel.sensors.base import Lane
from nbsentinel.sensors.files.catalogue import Pattern, Use
from nbsentinel.sensors.files.lessees import Opener
from nbsentinel.sensors.files.places import Target
from nbsentinel.sensors.files.sensor import FileSensor
from nbsentinel.sensors.files.telling import CANDIDATES, Telling
from nbsentinel.sensors.procfs.wake import CLOSE_COUNT, CLOSE_EACH_S, JOIN_S


def process(pid: int, root: ProcessKey | None = None) -> Process:
    return Process(
        key=ProcessKey(pid, pid),
        parent=None,
        name="p",
        exe="/bin/p",
        argv=("p",),
        argv_length=1,
        uid=os.getuid(),
        root=root,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path / "home"


@pytest.fixture
def made(home: Path) -> Iterator[tuple[FileSensor, Lane]]:
    """A sensor without leases, and the lane that it fills."""
    lane = Lane("files", threading.Event())
    patterns = [Pattern("aws", ".aws/credentials", Use.READ), Pattern("persistence-shell", ".bashrc", Use.CHANGE)]
    patterns.append(Pattern("vault", "v*/*.token", Use.READ))
    sensor = FileSensor(
        lane,
        home.parent / "run",
        lambda _: [],
        tuple,
        lambda _: None,
        print,
        leases=False,
        patterns=patterns,
        where=lambda: (str(home),),
    )
    sensor.start()
    yield sensor, lane
    sensor.stop()


def wait(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def accesses(lane: Lane, seen: list[FileAccess]) -> list[FileAccess]:
    seen += [item for item in lane.take(100) if isinstance(item, FileAccess)]
    return seen


def test_without_the_guard(made: tuple[FileSensor, Lane], home: Path) -> None:
    """Without leases events are told all the same, who holds the file is named, and coverage says what is lacking."""
    sensor, lane = made
    seen: list[FileAccess] = []
    assert sensor.self_test().state is SensorState.DEGRADED
    assert "not named by leases" in sensor.coverage().why
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text("x")
    assert wait(lambda: any(one.operation is FileOperation.CREATE for one in accesses(lane, seen)))
    with (home / ".aws/credentials").open():
        assert wait(lambda: any(one.operation is FileOperation.READ for one in accesses(lane, seen)))
    read = next(one for one in seen if one.operation is FileOperation.READ)
    assert (read.kind, read.path) == ("aws", str(home / ".aws/credentials"))
    assert read.certainty.startswith("unknown: ") == (read.key is None)
    (home / ".bashrc").write_text("x")
    assert wait(lambda: any(one.kind == "persistence-shell" for one in accesses(lane, seen)))
    (home / ".aws/credentials").unlink()
    assert wait(lambda: any(one.operation is FileOperation.DELETE for one in accesses(lane, seen)))


@pytest.mark.parametrize("how", ["unlink", "rename", "with its folder"])
def test_what_goes_while_the_sensor_looks_around_is_told(
    made: tuple[FileSensor, Lane], home: Path, tmp_path: Path, how: str
) -> None:
    """A file that goes while the sensor lists what exists is told as gone, once, and by the right word."""
    sensor, lane = made
    sensor.self_test()  # what is there at its first look is not told as new
    word = FileOperation.RENAME if how == "rename" else FileOperation.DELETE
    for turn in range(20):
        path, last, seen = home / f"v{turn}/a.token", home / f"v{turn}/b.token", list[FileAccess]()

        def told(name: Path, what: FileOperation, seen: list[FileAccess] = seen) -> bool:
            return any((one.path, one.operation) == (str(name), what) for one in accesses(lane, seen))

        path.parent.mkdir()
        path.write_text("x")
        assert wait(lambda: told(path, FileOperation.CREATE))  # noqa: B023 - asked before the next turn
        last.write_text("x")
        deadline = time.monotonic() + 10
        while not told(last, FileOperation.CREATE):  # told in the middle of a look
            assert time.monotonic() < deadline
        if how == "unlink":
            path.unlink()
        elif how == "rename":
            path.rename(tmp_path / "elsewhere")
        else:
            shutil.rmtree(path.parent)
        assert wait(lambda: told(path, word))  # noqa: B023 - asked before the next turn
        time.sleep(0.4 if turn > 15 else 0)
        accesses(lane, seen)
        assert [one.operation for one in seen if one.path == str(path)].count(word) == 1


def test_overflow_is_told_and_counted(made: tuple[FileSensor, Lane], home: Path) -> None:
    """Events that the kernel dropped are tampering of a kind of its own, counted, and everything is looked at again."""
    sensor, lane = made
    seen: list[FileAccess] = []
    time.sleep(0.2)
    lane.take(100)
    sensor._overflowed()
    found = [item for item in lane.take(100) if isinstance(item, Tamper)]
    assert [(one.kind, one.target) for one in found] == [(TamperKind.OVERFLOW, "files")]
    assert sensor.drops()["files_overflow"] == 1
    assert "dropped events 1 times" in sensor.coverage().why
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text("x")
    assert wait(lambda: bool(accesses(lane, seen)))


def settle(telling: Telling) -> None:
    """Wait until everything is told."""
    while telling.next_due() is not None:
        telling.tell_late()
        time.sleep(0.01)


def test_candidates() -> None:
    """Where nobody is named, guarded processes that lived then are, the newest first, and none of ours."""
    told: list[object] = []
    everyone = [process(pid, root=ProcessKey(5, 5)) for pid in range(10, 40)] + [process(5), process(99)]
    telling = Telling(
        lambda item: not told.append(item), lambda _: everyone, lambda: {ProcessKey(5, 5)}, lambda _: None
    )
    telling.ours = lambda: frozenset({39, 38})
    target = Target("/nonexistent/file", "aws", Use.READ)
    for _ in range(3):
        telling.tell_unnamed(target, FileOperation.READ, time.time(), "no lease", ())
    settle(telling)
    (access,) = told
    assert isinstance(access, FileAccess)
    assert access.key is None
    assert access.certainty == "unknown: no lease"
    assert [key.pid for key in access.candidates] == list(range(37, 37 - CANDIDATES, -1))
    assert telling.repeated == 2


def test_without_a_guard_the_only_fresh_program_is_it() -> None:
    """A read beside one program that has just started is told with it, a change is not; a guarded one excludes it."""
    now = time.time()
    fresh = msgspec.structs.replace(process(7), started=Millis(int(now * 1000) - 200))
    for others, operation, named in (
        ([], FileOperation.READ, True),
        ([], FileOperation.WRITE, False),
        ([process(8, root=ProcessKey(5, 5))], FileOperation.READ, False),
    ):
        told: list[FileAccess] = []
        telling = Telling(
            lambda item, told=told: not told.append(item),  # type: ignore[misc, arg-type]
            lambda _, others=others: [fresh, *others],  # type: ignore[misc]
            tuple,
            {fresh.key: fresh}.get,
        )
        telling.tell_unnamed(Target("/nonexistent/file", "aws", Use.READ), operation, now, "no guard", ())
        settle(telling)
        (access,) = told
        assert (access.key, access.certainty) == ((fresh.key, "timing") if named else (None, "unknown: no guard"))


def test_where_a_path_leads_is_told(made: tuple[FileSensor, Lane], home: Path) -> None:
    """A watched path that becomes a link is told with what it leads to."""
    sensor, lane = made
    sensor.self_test()  # what is there at its first look is not told as new
    seen: list[FileAccess] = []
    (home / ".bashrc").symlink_to("/dev/null")
    assert wait(lambda: any(one.link == "/dev/null" for one in accesses(lane, seen)))


def test_whoever_is_not_known_is_looked_for_at_once(home: Path) -> None:
    """Without leases an open has another sensor look at once which programs run, and a flood of opens not each time."""
    looked: list[float] = []
    sensor = FileSensor(
        Lane("files", threading.Event()),
        home.parent / "run",
        lambda _: [],
        tuple,
        lambda _: None,
        print,
        lambda: looked.append(time.monotonic()),
        leases=False,
        patterns=[Pattern("aws", ".aws/credentials", Use.READ)],
        where=lambda: (str(home),),
    )
    secret = home / ".aws" / "credentials"
    secret.parent.mkdir()
    secret.write_text("x")
    sensor.start()
    try:
        sensor.self_test()
        looked.clear()
        began = time.monotonic()
        for _ in range(300):
            secret.read_text()
        assert wait(lambda: bool(looked))
        assert len(looked) <= CLOSE_COUNT + 2 + (time.monotonic() - began) * (1 / JOIN_S + 1 / CLOSE_EACH_S)
    finally:
        sensor.stop()


def test_one_program_that_does_not_block_is_it() -> None:
    """An open beside exactly one program that opens without blocking is that program's; beside two it is nobody's."""
    told: list[FileAccess] = []
    keys = (ProcessKey(7, 7), ProcessKey(8, 8))
    telling = Telling(lambda item: not told.append(item), lambda _: [], tuple, {k: process(k.pid) for k in keys}.get)  # type: ignore[arg-type]
    target = Target("/nonexistent/file", "aws", Use.READ)
    telling.tell_unnamed(target, FileOperation.READ, 1.0, "x", keys[:1])
    telling.tell_unnamed(target, FileOperation.READ, 2.0, "x", keys)
    settle(telling)
    assert [(one.key, one.certainty) for one in told] == [(keys[0], "exec"), (None, "unknown: x")]
    assert told[1].candidates == keys
    assert told[0].at == Millis(1000)


def test_a_program_that_nobody_knows_is_a_candidate_at_most() -> None:
    """What opens without blocking may mean any file: without its arguments it is not said to have opened this one."""
    told: list[FileAccess] = []
    telling = Telling(lambda item: not told.append(item), lambda _: [], tuple, lambda _: None)  # type: ignore[arg-type]
    key = ProcessKey(7, 7)
    telling.tell_unnamed(Target("/nonexistent/file", "netrc", Use.READ), FileOperation.READ, 1.0, "x", [key])
    settle(telling)
    assert [(one.key, one.certainty, one.candidates) for one in told] == [(None, "unknown: x", (key,))]


def test_an_image_that_is_not_known_yet_is_waited_for() -> None:
    """Who opens as one program is not told while the pipeline knows it as the one before, or not before its time."""
    target = Target("/nonexistent/file", "aws", Use.READ)
    before = process(7)
    after = msgspec.structs.replace(before, exe="/usr/bin/cat", argv=("cat", "file"))
    opener = Opener(before.key, 7, "lease", False, b"/usr/bin/cat", b"cat\0file\0", Millis(1))
    for executed in (True, False):
        told: list[FileAccess] = []
        known = {before.key: before}
        telling = Telling(lambda item, told=told: not told.append(item), lambda _: [], tuple, known.get)  # type: ignore[misc, arg-type]
        telling.tell_named(target, FileOperation.READ, opener)
        telling.tell_late()
        assert told == []
        if executed:
            known[before.key] = after
            telling.tell_late()
            assert telling.next_due() is None
        settle(telling)
        assert [item.key for item in told] == [before.key]


@pytest.mark.parametrize(
    ("argv", "cwd", "named"),
    [
        (("tar", "-cf", "x.tar", "."), "{home}", True),
        (("tar", "-C", "{home}", "-cf", "x.tar", ".aws"), "/", True),
        (("rsync", "-a", "{home}/", "host:"), "/", True),
        (("grep", "-r", "key"), "{home}", True),
        (("tail", "-f", "train.log"), "{home}/work", False),
        (("tail", "-f", "{home}/.aws/credentials"), "/", True),
        (("python3", "backup.py"), "/", True),
    ],
)
def test_who_does_not_block_must_mean_the_file(home: Path, argv: tuple[str, ...], cwd: str, named: bool) -> None:
    """Who opens without blocking is named if its arguments or folder lead to the file, or if it runs a script."""
    (home / "work").mkdir(exist_ok=True)
    (home / "work" / "train.log").touch()
    told: list[FileAccess] = []
    base = process(7)
    one = Process(
        key=base.key,
        parent=None,
        name="p",
        exe=f"/usr/bin/{argv[0]}",
        argv=tuple(word.format(home=home) for word in argv),
        argv_length=1,
        cwd=cwd.format(home=home),
        uid=os.getuid(),
    )
    telling = Telling(lambda item: not told.append(item), lambda _: [], tuple, {one.key: one}.get)  # type: ignore[arg-type]
    telling.tell_unnamed(
        Target(str(home / ".aws" / "credentials"), "aws", Use.READ), FileOperation.READ, 1.0, "x", (one.key,)
    )
    settle(telling)
    assert [item.key for item in told] == [one.key if named else None]
