"""What a running agent makes of what the guard sees: events, findings, lineage, and who guards whom."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from guard.harness import PROGRAM
from live.account import Account
from live.agent import LiveAgent, live_agent
from nbsentinel_guard import abi

pytestmark = pytest.mark.skipif(abi.machine() is None, reason="no table of system calls for this machine")
Event = dict[str, Any]
RULES = {
    "claim": "5b1d7a52-7c0e-4c34-9a55-4b7f0d1f9a24",
    "connects unreadable": "5b1d7a52-7c0e-4c34-9a55-4b7f0d1f9a21",
    "unreadable shell": "5b1d7a52-7c0e-4c34-9a55-4b7f0d1f9a22",
    "hides": "5b1d7a52-7c0e-4c34-9a55-4b7f0d1f9a23",
    "outside": "5b1d7a52-7c0e-4c34-9a55-4b7f0d1f9a07",
}


class Site:
    """An agent that reports everything, and a way to run things under its guard as its user."""

    def __init__(self, account: Account, folder: Path, agent: LiveAgent) -> None:
        self.account, self.folder, self.agent = account, folder, agent
        self.run_dir = folder / "agent" / "run"

    def guarded(self, *command: str) -> list[str]:
        inner = [sys.executable, "-I", "-S", PROGRAM, "--run-dir", str(self.run_dir), "--", *command]
        return [*self.account.prefix, *inner]

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = self.account.environment(self.folder)
        return subprocess.run(
            self.guarded(*command), capture_output=True, text=True, timeout=60, env=environment, **options
        )

    def events(self) -> list[Event]:
        return self.agent.events()

    def wait(self, wanted: Callable[[Event], bool], seconds: float = 15) -> Event:
        deadline = time.monotonic() + seconds
        while True:
            for event in self.events():
                if wanted(event):
                    return event
            assert time.monotonic() < deadline, "no such event"
            time.sleep(0.1)

    def finding(self, rule: str, seconds: float = 15) -> Event:
        uid = RULES[rule]
        return self.wait(
            lambda e: e["class_uid"] == 2004 and e["finding_info"]["analytic"]["uid"] == uid, seconds=seconds
        )


@pytest.fixture(scope="module")
def site(account: Account, folder: Path) -> Iterator[Site]:
    with live_agent(account, folder / "agent", '[report]\nlevel = "all"\n[guard]\nserver = true\n') as running:
        yield Site(account, folder, running)


def connects(port: int) -> Callable[[Event], bool]:
    return lambda e: e["class_uid"] == 4001 and e["dst_endpoint"].get("port") == port


def test_outcome_of_connections(site: Site) -> None:
    """One event for each connection, with what came of it: established, or refused where the socket shows it."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        open_port, closed_port = server.getsockname()[1], closed.getsockname()[1]
        code = (
            f"import socket, time; s = socket.socket(); s.connect(('127.0.0.1', {open_port}))\n"
            f"t = socket.socket(); t.connect_ex(('127.0.0.1', {closed_port})); time.sleep(2)"
        )
        assert site.run(sys.executable, "-c", code).returncode == 0
    established, refused = site.wait(connects(open_port)), site.wait(connects(closed_port))
    assert established["unmapped"]["nbsentinel"]["outcome"] == "established"
    assert established["status"] == "Success"
    assert refused["unmapped"]["nbsentinel"]["outcome"] in ("refused", "unknown")
    assert sum(connects(open_port)(event) for event in site.events()) == 1


FORK = """
import os, socket, sys, threading, time
def connect(port):
    with socket.socket() as s: s.connect_ex(("127.0.0.1", port))
first, stays = int(sys.argv[1]), float(sys.argv[2])
for again in range(2):  # a child, then a child of a child whose parent has ended
    if os.fork() == 0:
        if again and os.fork(): os._exit(0)
        if again: time.sleep(0.2)
        connect(first + 2 * again)
        thread = threading.Thread(target=connect, args=(first + 2 * again + 1,)); thread.start(); thread.join()
        time.sleep(stays)
        os._exit(0)
time.sleep(0.6 + stays)
"""


@pytest.mark.parametrize("stays", [0, 1])
def test_connections_of_forks(site: Site, stays: int) -> None:
    """What a fork connects to before it executes anything is told with it, though it ends at once."""
    first = 20 + 4 * stays
    assert site.run(sys.executable, "-c", FORK, str(first), str(stays)).returncode == 0
    told = [site.wait(connects(port))["actor"]["process"] for port in range(first, first + 4)]
    pids = [process["pid"] for process in told]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    command = told[0]["parent_process"]["pid"]
    for process in told:
        assert process["cmd_line"].endswith(f"{first} {stays}")
        above = process["parent_process"]
        while above["pid"] != command:
            above = above["parent_process"]


FLIP = r"""
#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
static volatile struct sockaddr_in to;
static unsigned short ports[2];
static volatile int end;
static void *flip(void *unused) {
    for (unsigned turn = 0; !end; turn++) to.sin_port = ports[turn & 1];
    return unused;
}
int main(int argc, char **argv) {
    ports[0] = htons(atoi(argv[1]));
    ports[1] = htons(atoi(argv[2]));
    to.sin_family = AF_INET;
    to.sin_port = ports[0];
    inet_pton(AF_INET, "127.0.0.1", (void *)&to.sin_addr);
    pthread_t thread;
    pthread_create(&thread, 0, flip, 0);
    for (int turn = 0; turn < 60; turn++) {
        int s = socket(AF_INET, SOCK_STREAM, 0);
        connect(s, (void *)&to, sizeof to);
        usleep(30000);
        close(s);
    }
    end = 1;
    return 0;
}
"""


@contextmanager
def serving(*servers: socket.socket) -> Iterator[None]:
    """Accept and keep connections meanwhile."""
    end = threading.Event()

    def accept(server: socket.socket) -> None:
        server.settimeout(0.2)
        kept = []
        while not end.is_set():
            try:
                kept.append(server.accept()[0])
            except TimeoutError:
                continue
        for connection in kept:
            connection.close()

    threads = [threading.Thread(target=accept, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_claim_that_differs(site: Site) -> None:
    """A thread that changes the address while the call is looked at: the real peer is reported, and the difference."""
    source, program = site.folder / "flip.c", site.folder / "flip"
    source.write_text(FLIP)
    subprocess.run(["cc", "-O1", "-pthread", "-o", program, source], check=True)
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        serving(one, two),
    ):
        ports = {one.getsockname()[1], two.getsockname()[1]}
        for _ in range(5):
            site.run(str(program), *map(str, sorted(ports)))
            time.sleep(1)
            if any(
                e["class_uid"] == 2004 and e["finding_info"]["analytic"]["uid"] == RULES["claim"] for e in site.events()
            ):
                break
    site.finding("claim")
    event = site.wait(lambda e: e["class_uid"] == 4001 and "claimed" in e["unmapped"]["nbsentinel"])
    claimed = int(event["unmapped"]["nbsentinel"]["claimed"].rpartition(":")[2])
    assert {claimed, event["dst_endpoint"]["port"]} == ports


def test_unreadable_process_that_connects(site: Site) -> None:
    """An execute-only program that connects is a finding, with the path that was asked for."""
    if os.geteuid() == 0 and not site.account.prefix:
        pytest.skip("root reads everything")
    if not shutil.which("nc"):
        pytest.skip("nc is not installed")
    hidden = site.folder / "hidden-client"
    shutil.copy(os.path.realpath(str(shutil.which("nc"))), hidden)
    site.account.own(hidden)
    hidden.chmod(0o111)
    with socket.create_server(("127.0.0.1", 0)) as server, serving(server):
        site.run(str(hidden), "-w", "1", "127.0.0.1", str(server.getsockname()[1]), stdin=subprocess.DEVNULL)
    found = site.finding("connects unreadable")
    assert found["evidences"][0]["process"]["file"]["path"] == str(hidden)


def test_unreadable_shell(site: Site) -> None:
    """An execute-only shell is a finding."""
    hidden = site.folder / "deep" / "bash"
    hidden.parent.mkdir()
    shutil.copy(os.path.realpath("/bin/bash"), hidden)
    site.account.own(hidden)
    hidden.chmod(0o111)
    hidden.parent.chmod(0o755)
    assert site.run(str(hidden), "-c", "sleep 0.3; exit 3").returncode == 3
    site.finding("unreadable shell")


def test_process_that_hides_after_connecting(site: Site) -> None:
    """Connecting, then making oneself not dumpable is a finding; an agent of keys that only hides is none."""
    with socket.create_server(("127.0.0.1", 0)) as server, serving(server):
        code = (
            "import ctypes, socket, time; "
            f"s = socket.create_connection(('127.0.0.1', {server.getsockname()[1]})); time.sleep(0.3); "
            f"ctypes.CDLL(None).prctl({abi.PR_SET_DUMPABLE}, 0, 0, 0, 0); time.sleep(0.3)"
        )
        site.run(sys.executable, "-c", code)
    found = site.finding("hides")
    only = f"import ctypes; ctypes.CDLL(None).prctl({abi.PR_SET_DUMPABLE}, 0, 0, 0, 0); print('innocent')"
    site.run(sys.executable, "-c", only)
    site.wait(lambda e: e["class_uid"] == 1007 and "innocent" in json.dumps(e) and e["activity_id"] == 99)
    mine = [
        e
        for e in site.events()
        if e["class_uid"] == 2004 and e["finding_info"]["analytic"]["uid"] == found["finding_info"]["analytic"]["uid"]
    ]
    assert not any("innocent" in json.dumps(e) for e in mine)


def test_preloads_are_told(site: Site) -> None:
    """What LD_PRELOAD loads stands in the event."""
    site.run("env", "LD_PRELOAD=/nowhere/other.so", "/bin/echo", "preloaded")
    event = site.wait(
        lambda e: (
            e["class_uid"] == 1007
            and e["activity_id"] == 1
            and e["process"].get("cmd_line", "").endswith("echo preloaded")
            and "env" not in e["process"].get("cmd_line", "")
        )
    )
    assert event["unmapped"]["nbsentinel"]["preloads"] == "LD_PRELOAD=/nowhere/other.so"


def test_lineage_survives_double_forks(site: Site) -> None:
    """A process whose parents are gone, in a session of its own, still belongs to the command that was guarded."""
    inner = "(setsid sh -c '(setsid sh -c \"sleep 0.2; exec /bin/echo orphan-of-many\" &)' &); sleep 1; : root-of-many"
    site.run("bash", "-c", inner)
    event = site.wait(
        lambda e: e["class_uid"] == 1007 and e["process"].get("cmd_line", "") == "/bin/echo orphan-of-many", seconds=20
    )
    line, above = [], event["process"].get("parent_process")
    while above:
        line.append(above.get("cmd_line", ""))
        above = above.get("parent_process")
    assert any("root-of-many" in command for command in line), line


KERNEL = textwrap.dedent(
    """
    import sys, time
    from jupyter_client import KernelManager
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    def show(message):
        if message["msg_type"] in ("stream", "execute_result"):
            content = message["content"]
            print((content.get("text") or content["data"]["text/plain"]).strip())
    for code in sys.argv[1:]:
        client.execute_interactive(code, timeout=60, output_hook=show)
    client.stop_channels()
    manager.shutdown_kernel()
    """
)


def kernel(site: Site, environment: dict[str, str], *cells: str) -> list[str]:
    """Run cells in a kernel that no launcher started; return what they print."""
    command = [*site.account.prefix, sys.executable, "-c", KERNEL, *cells]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=site.folder, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_kernel_guards_itself(site: Site) -> None:
    """From an IPython startup file: what the kernel starts is seen; the user finds no name of ours, and no output."""
    startup = site.folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    text = subprocess.run(
        [sys.executable, "-m", "nbsentinel", "guard", "--run-dir", str(site.run_dir), "--startup-file"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (startup / "00-nbsentinel.py").write_text(text)
    for path in (site.folder / "ipython", startup.parent, startup, startup / "00-nbsentinel.py"):
        site.account.own(path)
    environment = {**site.account.environment(site.folder), "IPYTHONDIR": str(site.folder / "ipython")}
    cells = (
        "[n for n in dir() if 'nbsentinel' in n]",
        "import subprocess; subprocess.run(['/bin/echo', 'a-cell-ran-this'], capture_output=True).returncode",
        "open('/proc/self/status').read().count('Seccomp:\\t2')",
    )
    assert kernel(site, environment, *cells) == ["[]", "0", "1"]
    site.wait(lambda e: e["class_uid"] == 1007 and e["process"].get("cmd_line", "") == "/bin/echo a-cell-ran-this")
    # without an agent a kernel is as ever
    (startup / "00-nbsentinel.py").write_text(text.replace(str(site.run_dir), "/nonexistent"))
    assert kernel(site, environment, "1 + 1") == ["2"]


def test_kernel_outside_the_guard(site: Site) -> None:
    """A kernel that nobody guards is a finding, of low severity."""
    code = "import time; time.sleep(17); print('waited')"
    assert kernel(site, site.account.environment(site.folder), code) == ["waited"]
    found = site.finding("outside", seconds=20)
    assert found["severity_id"] == 2


def test_server_guards_itself(site: Site) -> None:
    """With `[guard] server = true` the extension guards the server; its children cannot signal what is outside."""
    code = (
        "from nbsentinel_jupyter.server import guard_server\n"
        "import os, subprocess, threading\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        f"print(repr(guard_server({str(site.run_dir)!r})), repr(guard_server({str(site.run_dir)!r})))\n"
        "print(subprocess.run(['/bin/echo', 'below-the-server'], capture_output=True, text=True).stdout)\n"
        "one = subprocess.Popen(['sleep', '9']); other = subprocess.run(['kill', str(one.pid)]).returncode\n"
        "print(other, one.wait())\n"
    )
    result = subprocess.run(
        [*site.account.prefix, sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.stdout.splitlines()[0] == "'' ''", result.stderr
    assert result.stdout.splitlines()[-1] == "0 -15"
    site.wait(lambda e: e["class_uid"] == 1007 and e["process"].get("cmd_line", "") == "/bin/echo below-the-server")
