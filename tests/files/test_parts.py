"""The parts of the lessor by themselves: what is asked of it in the shared page, which programs it makes way for."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsentinel_guard import inotify, openers, sleepers
from nbsentinel_guard.lease import BUSY_PER_S, LONGEST_RETRY_S, Lease, is_remote
from nbsentinel_guard.standdown import ONLY_LOOK, OPENERS, PLACES, WAIT_S, WORDS, StandDown


def shared() -> memoryview:
    return memoryview(bytearray(WORDS * 8)).cast("Q")


@pytest.fixture
def ignored() -> Iterator[None]:
    """The signal that asks a lessor to look does nothing here."""
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGUSR2, before)


def test_asking_waits_for_the_answer(ignored: None) -> None:
    """Whoever asks goes on when the lessor has settled it, and not before."""
    words = shared()
    guard, lessor = StandDown(words), StandDown(words)
    lessor.open(os.getpid())
    seen: list[int] = []

    def answer() -> None:
        while not (asking := lessor.asking())[0]:
            time.sleep(0.0001)
        seen.extend(asking[0])
        lessor.settle(asking[1])

    thread = threading.Thread(target=answer)
    thread.start()
    assert guard.ask(4711 | ONLY_LOOK)
    thread.join()
    assert seen == [4711 | ONLY_LOOK]
    assert lessor.asking()[0] == []


def test_nobody_waits_for_a_lessor_that_hangs(ignored: None) -> None:
    """Without an answer an execution is held for a few milliseconds only; without a lessor not at all."""
    words = shared()
    guard, lessor = StandDown(words), StandDown(words)
    lessor.open(os.getpid())
    started = time.monotonic()
    assert not guard.ask(1)
    assert WAIT_S <= time.monotonic() - started < 50 * WAIT_S
    lessor.open(0)
    assert not guard.is_open
    assert guard.ask(2)


def test_more_questions_than_places(ignored: None) -> None:
    """Of very many questions at once the last ones are kept, and all are settled together."""
    lessor = StandDown(shared())
    lessor.open(os.getpid())
    threads = [threading.Thread(target=lessor.ask, args=(pid,)) for pid in range(1, 2 * PLACES + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asking, asked = lessor.asking()
    assert (len(asking), asked) == (PLACES, 2 * PLACES)
    lessor.settle(asked)
    assert lessor.asking()[0] == []


@given(st.sets(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=2 * OPENERS))
def test_openers_are_listed_within_the_page(inodes: set[tuple[int, int]]) -> None:
    """However many programs are listed, the page holds as many as fit, and nothing else is overwritten."""
    words = shared()
    down = StandDown(words)
    down.open(7)
    down.list_openers(sorted(inodes))
    assert not down.is_opener(0)
    assert down._openers == frozenset(sorted(inodes)[:OPENERS])
    assert down.is_open


def test_a_running_program_is_told_by_its_file(tmp_path: Path) -> None:
    """An opener is known under any name, and another program under its name is not taken for it."""
    sleep = os.stat("/bin/sleep")
    down = StandDown(shared())
    down.list_openers([(sleep.st_dev, sleep.st_ino)])
    with subprocess.Popen(["/bin/sleep", "5"]) as child:
        assert down.is_opener(child.pid)
        child.kill()
    assert not down.is_opener(os.getpid())
    assert all(isinstance(pair, tuple) for pair in openers.inodes())


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (b"python3\0-c\0os.open(x, os.O_NONBLOCK)\0", True),
        (b"python3\0/usr/bin/borg\0create\0", True),
        (b"python3\0borg\0", True),
        (b"python3\0train.py\0", False),
        (b"python3\0-m\0borg\0", False),
        (b"", False),
    ],
)
def test_interpreters_by_their_arguments(argv: bytes, expected: bool) -> None:
    """Code that names the flag, and scripts of known backup programs, are told from everything else."""
    assert openers.names_flag(argv) is expected


def test_script_is_read_only_if_it_is_a_file(tmp_path: Path) -> None:
    """A script that names the flag is found; a fifo, a device or a folder in its place neither blocks nor counts."""
    (tmp_path / "a.py").write_text("import os\nos.O_NONBLOCK\n")
    (tmp_path / "b.py").write_text("import os\n")
    os.mkfifo(tmp_path / "c.py")
    own = os.getpid()
    found = {
        name: openers.script_names_flag(own, b"python3\0%s\0" % os.fsencode(path))
        for name, path in {
            "a": tmp_path / "a.py",
            "b": tmp_path / "b.py",
            "c": tmp_path / "c.py",
            "folder": tmp_path,
            "none": tmp_path / "none",
            "device": Path("/dev/zero"),
        }.items()
    }
    assert found == {"a": True, "b": False, "c": False, "folder": False, "none": False, "device": False}


@given(st.binary(max_size=80))
def test_any_arguments(argv: bytes) -> None:
    """Whatever bytes arguments are, nothing fails."""
    openers.names_flag(argv)
    openers.script_of(argv.split(b"\0"))
    openers.is_interpreter(argv)


@pytest.fixture
def watcher() -> Iterator[inotify.Inotify]:
    made = inotify.Inotify()
    yield made
    made.close()


def test_lease_and_who_waits(tmp_path: Path, watcher: inotify.Inotify) -> None:
    """The kernel's list names who waits for which file, and nobody when it was opened without blocking."""
    path = tmp_path / "file"
    path.write_text("x")
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        lease = Lease(1, os.fsencode(path), fcntl.F_WRLCK, watcher)
        lease.arm()
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        assert lease.is_broken
        assert sleepers.waiting(os.getpid()) == {lease.inode: []}
        lease.release()
        lease.arm()
        # In a process of its own: a fork would have the lease too.
        with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as reader:
            deadline = time.monotonic() + 10
            while not lease.is_broken and time.monotonic() < deadline:
                time.sleep(0.001)
            assert sleepers.waiting(os.getpid()) == {lease.inode: [reader.pid]}
            assert sleepers.look(set(), time.monotonic() + 5) == [reader.pid]
            assert not lease.is_for_writing
            lease.release()
            assert reader.communicate()[0] == b"x"
        os.close(lease.descriptor)
    finally:
        signal.signal(signal.SIGIO, before)


def test_retries(tmp_path: Path, watcher: inotify.Inotify) -> None:
    """A lease is tried again after pauses that grow to a bound, and a file that is opened too often is left alone."""
    path = tmp_path / "file"
    path.write_text("x")
    lease = Lease(1, os.fsencode(path), fcntl.F_WRLCK, watcher)
    pauses = []
    for _ in range(20):
        lease.postpone(10.0)
        pauses.append(lease.due - 10.0)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(LONGEST_RETRY_S)
    assert [lease.broken(100.0) for _ in range(BUSY_PER_S + 1)] == [False] * BUSY_PER_S + [True]
    os.close(lease.descriptor)


def test_holders_of_a_file(tmp_path: Path) -> None:
    """Who has a file open is found by its descriptor, whatever name it was opened by."""
    path = tmp_path / "file"
    path.write_text("x")
    (tmp_path / "link").symlink_to(path)
    code = f"f = open({str(tmp_path / 'link')!r}); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert sleepers.holding(os.fsencode(path), set(), time.monotonic() + 5) == [child.pid]
        assert sleepers.holding(os.fsencode(path), {child.pid}, time.monotonic() + 5) == []
        child.communicate(b"\n")


def test_local_files_are_not_remote(tmp_path: Path) -> None:
    """The file systems of this machine are told from network and user file systems by the mount table."""
    assert not is_remote(os.fsencode(tmp_path))
    assert stat.S_ISDIR(os.stat(tmp_path).st_mode)


def test_inotify_tells_overflow(tmp_path: Path, watcher: inotify.Inotify) -> None:
    """More events than the kernel keeps end in one that says so."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    watcher.add(os.fsencode(tmp_path), inotify.CREATE | inotify.DELETE)
    for _ in range(limit // 2 + 10):
        os.close(os.open(tmp_path / "x", os.O_CREAT | os.O_WRONLY))
        os.unlink(tmp_path / "x")
    found = []
    while events := watcher.read():
        found += events
    assert any(mask & inotify.OVERFLOW for _, mask, _ in found)
