"""Which cell did it: real kernels, hundreds of cells, every way of doing something later or elsewhere."""

from __future__ import annotations

import hashlib
import random
import re
import time
from pathlib import Path
from typing import Any

import ipykernel
import pytest

from kernel.harness import Kernel, Listener, kernel, listener

CELLS = 250
"""For each of two kernels."""
SETUP = """
import asyncio, concurrent.futures, multiprocessing, os, socket, subprocess, threading, time
def connect(address):
    socket.socket().connect_ex((address, 9))
def later(address, seconds=0.05):
    time.sleep(seconds); connect(address)
async def soon(address):
    await asyncio.sleep(0.03); connect(address)
"""
CONNECT, POPEN, SYSTEM = "socket.connect", "subprocess.Popen", "os.system"
WAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "at once": ("connect({address!r})", (CONNECT,)),
    "thread": ("threading.Thread(target=later, args=({address!r},)).start()", (CONNECT,)),
    "thread of a thread": (
        "threading.Thread(target=lambda: threading.Timer(0.03, connect, [{address!r}]).start()).start()",
        (CONNECT,),
    ),
    "pool": (
        "with concurrent.futures.ThreadPoolExecutor() as pool: pool.submit(later, {address!r}, 0).result()",
        (CONNECT,),
    ),
    "task": ("task = asyncio.ensure_future(soon({address!r}))", (CONNECT,)),
    "await": ("await soon({address!r})", (CONNECT,)),
    "to_thread": ("await asyncio.to_thread(connect, {address!r})", (CONNECT,)),
    "subprocess": ("subprocess.run(['/bin/true', {address!r}]).returncode", (POPEN,)),
    "system": ("os.system('true {address}')", (SYSTEM,)),
    "nested": ('get_ipython().run_cell("connect({address!r})");', (CONNECT,)),
    "error": ("connect({address!r}); 1/0", (CONNECT,)),
}
SILENT = {
    "%%bash": ("%%bash\ntrue {address}", POPEN),
    "!cmd": ("!true {address}", "os.forkpty"),
    "double fork": (
        (
            "pid = os.fork()\nif pid == 0:\n    connect({address!r})\n    if os.fork() == 0: connect({address!r})\n"
            "    os._exit(0)\nos.waitpid(pid, 0);"
        ),
        "os.fork",
    ),
}
"""Ways whose own process says nothing: the event that the kernel has for each."""


def address_of(number: int) -> str:
    return f"127.{number >> 16 & 255}.{number >> 8 & 255}.{(number & 255) or 255}"


def about(heard: Listener, name: str, address: str) -> list[list[Any]]:
    whole = re.compile(re.escape(address) + r"(?!\d)")
    return [event for event in heard.audits(name) if any(whole.search(text) for text in event[5].values())]


def test_500_cells(tmp_path: Path) -> None:
    """In two kernels at once, every event of the interpreter belongs to the right cell; nothing is dropped."""
    chooser = random.Random(7)
    expected: list[tuple[str, str, str, str, int]] = []
    counted: dict[str, list[str]] = {}
    with (
        listener(tmp_path / "run") as heard,
        kernel(tmp_path / "one", tmp_path / "run") as one,
        kernel(tmp_path / "two", tmp_path / "run") as two,
    ):
        one.run(SETUP), two.run(SETUP)
        for number in range(1, CELLS + 1):
            for running, offset in ((one, 1 << 16), (two, 2 << 16)):
                address = address_of(offset + number)
                way = chooser.choice([*WAYS, *SILENT])
                code, *events = WAYS[way] if way in WAYS else SILENT[way]
                outcome = running.run(code.format(address=address), f"cell-{number}")
                assert outcome.status == ("error" if way == "error" else "ok"), (way, outcome.text)
                if way in SILENT:
                    counted.setdefault(str(events[0]), []).append(outcome.message_id)
                else:
                    expected.append((way, events[0][0], address, outcome.message_id, running.pid))
        time.sleep(0.3)
        one.run("0"), two.run("0")
        wrong = []
        for way, name, address, message_id, pid in expected:
            assert heard.wait(lambda name=name, address=address: about(heard, name, address)), (way, address)
            found = about(heard, name, address)
            if [(event[6], event[2] > 0) for event in found] != [(message_id, True)]:
                wrong.append((way, address, found))
            owner = [told.pid for told in list(heard.told) if told.content in found]
            assert owner == [pid], way
        assert wrong == []
        for name, messages in counted.items():
            told = [event[6] for event in heard.audits(name)]
            assert [message for message in messages if told.count(message) != 1] == [], name
        assert {told.pid for told in heard.told} == {one.pid, two.pid}, "a forked child says nothing"
        assert max(told.content[1] for told in heard.told) == 0, "nothing is dropped"


def test_what_a_cell_says_of_itself(tmp_path: Path) -> None:
    """Cell id, message id, count, hash of the text, thread, and whether it failed; the same at both ends."""
    with listener(tmp_path / "run") as heard, kernel(tmp_path / "home", tmp_path / "run") as running:
        good = running.run("x = 'é'", "first")
        bad = running.run("1/0", "second")
        running.run("1", "hidden", store_history=False)
        assert heard.wait(lambda: len([c for c in heard.of("cell") if c[4] == "stop"]) >= 4)
        cells = [(c[4:], c[3]) for c in heard.of("cell") if c[5] in (good.message_id, bad.message_id)]
        digests = [hashlib.sha256(text.encode()).hexdigest() for text in ("x = 'é'", "1/0")]
        assert [
            (["start", good.message_id, "first", good.number, digests[0], False], running.pid),
            (["stop", good.message_id, None, None, None, False], running.pid),
            (["start", bad.message_id, "second", bad.number, digests[1], False], running.pid),
            (["stop", bad.message_id, None, None, None, True], running.pid),
        ] == cells
        (hidden,) = [c for c in heard.of("cell") if c[6] == "hidden"]
        assert hidden[7] is None, "a cell outside the history has no number"


def test_certain_is_only_the_running_thread(tmp_path: Path) -> None:
    """The thread that runs the cell is certain; a thread or task that an earlier cell left is not."""
    with listener(tmp_path / "run") as heard, kernel(tmp_path / "home", tmp_path / "run") as running:
        running.run(SETUP)
        running.run("connect('127.0.1.1')")
        left = running.run("threading.Thread(target=later, args=('127.0.1.2', 0.2)).start()")
        task = running.run("task = asyncio.ensure_future(soon('127.0.1.3'))")
        running.run("await asyncio.sleep(0.4)")
        assert heard.wait(lambda: len(heard.audits(CONNECT)) >= 3)
        found = {address: about(heard, CONNECT, address)[0] for address in ("127.0.1.1", "127.0.1.2", "127.0.1.3")}
        assert found["127.0.1.1"][7] is True
        assert found["127.0.1.2"][6:] == [left.message_id, False]
        assert found["127.0.1.3"][6:] == [task.message_id, False]


@pytest.mark.skipif(int(ipykernel.__version__.split(".")[0]) < 7, reason="subshells came with ipykernel 7")
def test_two_cells_at_once(tmp_path: Path) -> None:
    """A cell in a subshell and one in the main shell run at the same time, each in its thread."""
    with listener(tmp_path / "run") as heard, kernel(tmp_path / "home", tmp_path / "run") as running:
        running.run(SETUP)
        beside = running.subshell()
        slow = running.ask("for n in range(20): time.sleep(0.02); connect('127.1.0.%d' % n)", "beside", subshell=beside)
        quick = [running.run(f"time.sleep(0.02); connect('127.2.0.{n}')", f"main-{n}") for n in range(10)]
        assert heard.wait(lambda: [c for c in heard.of("cell") if c[4:6] == ["stop", slow]])
        threads = {c[3] for c in heard.of("cell") if c[5] == slow}
        assert len(threads) == 1
        assert running.pid not in threads
        inside = [event for n in range(20) for event in about(heard, CONNECT, f"127.1.0.{n}")]
        assert [(slow, True, {e[3]} == threads) for e in inside] == [(slow, True, True)] * 20
        for n, outcome in enumerate(quick):
            (event,) = about(heard, CONNECT, f"127.2.0.{n}")
            assert event[6:] == [outcome.message_id, True]
            assert event[3] == running.pid


@pytest.fixture
def files(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    for name in (".aws", ".ssh", "work"):
        (home / name).mkdir(parents=True)
    for name in (".aws/credentials", ".ssh/id_rsa", ".netrc", "work/config.json", "work/credentials"):
        (home / name).write_text("x")
    return home


OPENED = {
    "open('.aws/credentials').read()": (".aws/credentials", "read"),
    "open(os.path.expanduser('~/.ssh/id_rsa'), 'rb').close()": (".ssh/id_rsa", "read"),
    "os.close(os.open(b'.aws/credentials', os.O_RDONLY))": (".aws/credentials", "read"),
    "__import__('pathlib').Path('.netrc').read_text()": (".netrc", "read"),
    "open('.ssh/authorized_keys', 'a').close()": (".ssh/authorized_keys", "write"),
    "os.chdir('.aws'); open('credentials').close(); os.chdir('..')": (".aws/credentials", "read"),
    "open('.aws/./credentials').close()": (".aws/credentials", "read"),
    "open('/proc/self/environ').close()": ("/proc/self/environ", "read"),
}
UNWATCHED = ("open('work/config.json').close()", "open('work/credentials').close()", "open(os.dup(0)).close()")


def test_watched_files(files: Path, tmp_path: Path) -> None:
    """Opening a credential file is told with its whole path however it is named; files of the same name are not."""
    with listener(tmp_path / "run") as heard, kernel(files, tmp_path / "run") as running:
        running.run("import os")
        for code, (path, access) in OPENED.items():
            outcome = running.run(code)
            assert outcome.status == "ok", outcome.text
            assert heard.wait(lambda m=outcome.message_id: [e for e in heard.audits("open") if e[6] == m]), code
            found = [e[5] for e in heard.audits("open") if e[6] == outcome.message_id]
            assert found == [{"Path": str(files / path), "Access": access, "By": "user"}], code
        before = len(heard.audits("open"))
        for code in UNWATCHED:
            running.run(code)
        last = running.run("open('.netrc').close()")
        assert heard.wait(lambda: [e for e in heard.audits("open") if e[6] == last.message_id])
        assert len(heard.audits("open")) == before + 1


def test_the_agent_names_the_files(files: Path, tmp_path: Path) -> None:
    """A kernel watches what the agent asks for, instead of its own list."""
    with listener(tmp_path / "run", ("work/config.json",)) as heard, kernel(files, tmp_path / "run") as running:
        running.run("1")
        running.run("open('work/config.json').close(); open('.netrc').close()")
        assert heard.wait(lambda: heard.audits("open"))
        assert [e[5]["Path"] for e in heard.audits("open")] == [str(files / "work/config.json")]


PROGRAMS = {
    "import pty; pty.spawn(['/bin/true', 'a'], lambda fd: b'')": ("pty.spawn", {"CommandLine": "/bin/true a"}),
    "import os; os.waitpid(os.posix_spawn('/bin/true', ['true', 'b'], {}), 0)": (
        "os.posix_spawn",
        {"Path": "/bin/true", "CommandLine": "true b"},
    ),
    "import ctypes; ctypes.CDLL('libc.so.6')": ("ctypes.dlopen", {"Library": "libc.so.6"}),
    "import socket; socket.getaddrinfo('localhost', 80)": ("socket.getaddrinfo", {"Host": "localhost", "Port": "80"}),
    "import socket; socket.socket(socket.AF_UNIX).connect_ex('/nowhere')": ("socket.connect", {"UnixPath": "/nowhere"}),
    "import subprocess; subprocess.run('exit 3', shell=True)": (
        "subprocess.Popen",
        {"Path": "/bin/sh", "CommandLine": "/bin/sh -c exit 3"},
    ),
    "import socket; socket.socket(socket.AF_INET6).connect_ex(('::1', 9))": (
        "socket.connect",
        {"Address": "[::1]:9", "By": "user"},
    ),
}


def test_arguments(tmp_path: Path) -> None:
    """Each kind of event says what it is about."""
    with listener(tmp_path / "run") as heard, kernel(tmp_path / "home", tmp_path / "run") as running:
        for code, (name, arguments) in PROGRAMS.items():
            outcome = running.run(code)
            assert outcome.status == "ok", outcome.text
            assert heard.wait(lambda o=outcome, n=name: [e for e in heard.audits(n) if e[6] == o.message_id]), code
            assert arguments in [e[5] for e in heard.audits(name) if e[6] == outcome.message_id], code


def test_exec_in_place_of_the_kernel(tmp_path: Path) -> None:
    """A kernel that turns itself into another program says so before."""
    with listener(tmp_path / "run") as heard:
        running = Kernel(tmp_path / "home", tmp_path / "run")
        try:
            running.ask("import os; os.execv('/bin/sleep', ['sleep', '30'])")
            assert heard.wait(lambda: heard.audits("os.exec"))
            assert heard.audits("os.exec")[0][5] == {"Path": "/bin/sleep", "CommandLine": "sleep 30"}
        finally:
            running.close()
