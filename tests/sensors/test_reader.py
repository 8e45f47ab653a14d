"""Reading /proc: identities, races with the end of a process, strange names."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from nbsentinel.events import ProcessKey
from nbsentinel.sensors.procfs import reader


def test_every_live_process_can_be_asked_everything() -> None:
    """No process on this machine, ours or not, makes a reading function raise."""
    for pid in reader.pids():
        reader.stat(pid)
        reader.process(pid)
        reader.stdio(pid)


def test_own_process() -> None:
    """What is read of ourselves is what we know of ourselves."""
    found = reader.process(os.getpid())
    assert found is not None
    assert found.key.pid == os.getpid()
    assert found.parent is not None
    assert found.parent.pid == os.getppid()
    assert found.uid == os.getuid()
    assert found.cwd == os.getcwd()
    assert abs(found.started / 1000 - time.time()) < 86_400


def test_gone_process() -> None:
    """A process that has ended is None, not an error."""
    child = subprocess.Popen(["true"])
    child.wait()
    assert reader.process(child.pid) is None
    assert not reader.is_alive(ProcessKey(child.pid, 1))


def test_start_time_is_close_to_the_truth() -> None:
    """The start time in milliseconds is that of the clock on the wall, within two ticks and scheduling."""
    before = time.time() * 1000
    child = subprocess.Popen(["sleep", "5"])
    try:
        found = reader.process(child.pid)
        assert found is not None
        assert before - 50 <= found.started <= time.time() * 1000 + 50
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("name", [b"plain", b") R 1 (", b"\xff\xfe", b"new\nline", "‮evil".encode()])
def test_names_and_arguments_are_any_bytes(tmp_path: os.PathLike[str], name: bytes) -> None:
    """Names with brackets, invalid UTF-8, line breaks or bidirectional controls become printable text."""
    program = os.path.join(os.fsencode(tmp_path), name)
    os.symlink(b"/bin/sleep", program)
    child = subprocess.Popen([program, b"5"])
    try:
        deadline = time.monotonic() + 5
        while (found := reader.process(child.pid)) and len(found.argv) != 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert found is not None
        text = found.name + found.command_line
        assert text.isprintable()
        text.encode()
    finally:
        child.kill()
        child.wait()


def test_kernel_is_known_by_its_connection_file(tmp_path: os.PathLike[str]) -> None:
    """A connection file among the arguments makes a kernel, with its ports and its notebook."""
    path = os.path.join(tmp_path, "kernel-abc.json")
    with open(path, "w") as file:
        file.write('{"shell_port": 5001, "iopub_port": 5002, "ip": "127.0.0.1", "transport": "tcp", "key": "secret"}')
    command = [sys.executable, "-c", "import time; time.sleep(5)", "-f", "kernel-abc.json"]
    child = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "JPY_SESSION_NAME": "/home/a/b.ipynb"})
    try:
        deadline = time.monotonic() + 5
        while not (found := reader.process(child.pid)) or found.kernel is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert found.kernel.kernel_id == "abc"
        assert found.kernel.ports == (5001, 5002)
        assert found.kernel.notebook == "/home/a/b.ipynb"
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"shell_port": "x"}', "null"])
def test_broken_connection_file(tmp_path: os.PathLike[str], content: str) -> None:
    """A connection file that is no such thing is no error."""
    path = os.path.join(tmp_path, "kernel-abc.json")
    with open(path, "w") as file:
        file.write(content)
    found = reader.kernel_info(os.getpid(), ("python", "-f", path), None)
    assert found is None or found.ports == ()


def test_connection_file_that_is_a_fifo(tmp_path: os.PathLike[str]) -> None:
    """A fifo in place of the connection file does not block the sensor."""
    path = os.path.join(tmp_path, "kernel-abc.json")
    os.mkfifo(path)
    assert reader.kernel_info(os.getpid(), ("python", "-f", path), None) is None
