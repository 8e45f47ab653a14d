"""The guard's first law: a program behaves under it exactly as without it. Exit code and output are compared."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from guard.harness import Guard, guard
from nbsentinel_guard import abi

pytestmark = pytest.mark.skipif(abi.machine() is None, reason="no table of system calls for this machine")


class Case(msgspec.Struct, frozen=True):
    """A program whose behaviour must not change."""

    name: str
    command: tuple[str, ...]
    needs: str = ""


def sh(name: str, script: str, needs: str = "") -> Case:
    return Case(name, ("bash", "-c", script), needs)


def py(name: str, script: str) -> Case:
    return Case(name, (sys.executable, "-c", script))


_ALARM = (
    "import signal, {0}; signal.signal(signal.SIGALRM, lambda *_: None); "
    "signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)\n"
)
_QUIET = "\nsignal.setitimer(signal.ITIMER_REAL, 0)"
"""Without it the next alarm ends the interpreter, which has taken its handlers down already."""
CASES = (
    sh("exit code", "exit 42"),
    sh("killed by a signal", "kill -SEGV $$"),
    sh("killed child", "sleep 9 & kill -9 $!; wait $!; echo $?"),
    sh("terminated child", "sleep 9 & kill $!; wait $!; echo $?"),
    sh("stopped child", "sleep 0.2 & kill -STOP $!; kill -CONT $!; wait $!; echo $?"),
    sh("process group", "set -m; sleep 9 & kill -TERM -- -$!; wait $!; echo $?"),
    sh("trap", "trap 'echo caught' TERM; kill -TERM $$; echo on"),
    sh("interrupt", "trap 'echo int; exit 5' INT; kill -INT $$; sleep 1"),
    sh("not found", "no-such-program-at-all; echo $?"),
    sh("not executable", "/etc/passwd; echo $?"),
    sh("a folder", "/tmp; echo $?"),
    sh("path search", "PATH=/nonexistent:/nonexistent2:$PATH; ls -d / ; echo $?"),
    sh("pipeline", "seq 1000 | sort -rn | head -3; echo ${PIPESTATUS[*]}"),
    sh("broken pipe", "yes | head -1; echo ${PIPESTATUS[*]}"),
    sh("here document", "cat <<X\na\nb\nX"),
    sh("process substitution", "diff <(seq 3) <(seq 4); echo $?"),
    sh("background and wait", "for i in 1 2 3; do (exit $i) & wait $!; echo $?; done"),
    sh("time limit", "timeout 0.2 sleep 5; echo $?"),
    sh("limits", "ulimit -n 77; ulimit -n; bash -c 'ulimit -n'"),
    sh("nice", "nice -n 5 nice"),
    sh("affinity", "taskset -c 0 bash -c 'taskset -p $$ >/dev/null; echo $?'", "taskset"),
    sh("script file", "printf '#!/bin/sh\\necho script $1\\n' > s.sh; chmod +x s.sh; ./s.sh x; rm s.sh"),
    sh("script without a line", "echo 'echo plain' > p; chmod +x p; ./p; rm p"),
    sh("missing interpreter", "printf '#!/no/such\\n' > m; chmod +x m; ./m; echo $?; rm m"),
    sh("execute-only program", "cp /bin/true xo; chmod 111 xo; ./xo; echo $?; rm -f xo"),
    sh("empty argument", "/bin/echo '' x ''"),
    sh("long arguments", "/bin/echo $(seq 20000) | md5sum"),
    sh("too long", "/bin/echo $(seq 600000) >/dev/null 2>&1; echo $?"),
    sh("environment", "env -i A=1 /usr/bin/env"),
    sh("refused connection", "(exec 3<>/dev/tcp/127.0.0.1/1) 2>/dev/null; echo $?"),
    sh("hundred programs", "for i in $(seq 100); do /bin/echo $i; done | md5sum"),
    sh("many at once", "for i in $(seq 200); do sleep 0.1 & done; wait; echo done"),
    sh("xargs", "seq 60 | xargs -P 8 -n 1 /bin/echo | sort -n | md5sum"),
    sh("find exec", "find /etc/passwd -exec basename {} \\;"),
    sh("tar", "mkdir d; seq 9 > d/a; tar cf t.tar d; tar tf t.tar; rm -r d t.tar"),
    sh(
        "git",
        "git init -q g && cd g && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git log --format=%s; cd ..; rm -rf g",
        "git",
    ),
    sh("perl", "perl -e 'print `echo hi`; exit 3'", "perl"),
    sh("script in a pty", "script -qec 'tty >/dev/null; echo $?' /dev/null", "script"),
    sh("setsid", "setsid -w sh -c 'exit 4'; echo $?", "setsid"),
    sh("gdb", "gdb -q -batch -ex run -ex 'info inferiors' /bin/true 2>&1 | grep -c exited", "gdb"),
    sh("strace", "strace -f -o /dev/null sh -c 'true; exit 6'; echo $?", "strace"),
    sh("node", 'node -e \'console.log(require("child_process").execSync("echo n").toString())\'', "node"),
    sh("curl refused", "curl -s http://127.0.0.1:1/; echo $?", "curl"),
    py("subprocess", "import subprocess; print(subprocess.run(['sh', '-c', 'exit 3']).returncode)"),
    py("vfork and errors", "import subprocess\ntry: subprocess.run(['/no/such'])\nexcept OSError as e: print(e)"),
    py("posix_spawn", "import os; p = os.posix_spawnp('true', ['true'], os.environ); print(os.waitpid(p, 0)[1])"),
    py("fork", "import os; p = os.fork() or os._exit(9); print(os.waitpid(p, 0)[1])"),
    py("exec", "import os; os.execvp('echo', ['echo', 'in place'])"),
    py("pty", "import pty; print(pty.spawn(['sh', '-c', 'echo in a pty; exit 2']))"),
    py("multiprocessing fork", "import multiprocessing as m; print(m.get_context('fork').Pool(2).map(abs, [-1, -2]))"),
    py(
        "multiprocessing spawn",
        "import multiprocessing as m\nif __name__ == '__main__': print(m.get_context('spawn').Pool(1).map(abs, [-1]))",
    ),
    py(
        "threads that connect",
        "import socket, threading\nr = []\ndef f():\n    s = socket.socket(); r.append(s.connect_ex(('127.0.0.1', 1))); s.close()\nt = [threading.Thread(target=f) for _ in range(40)]\n[x.start() for x in t]; [x.join() for x in t]; print(sorted(r))",
    ),
    py(
        "server and client",
        "import socket\ns = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); a, _ = s.accept(); a.sendall(b'x'); print(c.recv(1))",
    ),
    py("ipv6", "import socket; s = socket.socket(socket.AF_INET6); print(s.connect_ex(('::1', 1)))"),
    py("unix socket", "import socket; s = socket.socket(socket.AF_UNIX); print(s.connect_ex('/nonexistent'))"),
    py(
        "abstract socket",
        "import socket; l = socket.socket(socket.AF_UNIX); l.bind('\\0nbs-test-t'); l.listen(); s = socket.socket(socket.AF_UNIX); print(s.connect_ex('\\0nbs-test-t'))",
    ),
    py(
        "udp",
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.1', 9)); print(s.getpeername()); s.connect(('127.0.0.1', 10)); print(s.getpeername())",
    ),
    py(
        "bad address",
        "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.connect(3, 8, 16), ctypes.get_errno()); import socket; s = socket.socket(); print(l.connect(s.fileno(), 8, 16), ctypes.get_errno())",
    ),
    py(
        "non-blocking",
        "import socket; s = socket.socket(); s.setblocking(False); print(s.connect_ex(('127.0.0.1', 1)) in (111, 115))",
    ),
    py(
        "time-out",
        "import socket\ntry: socket.create_connection(('127.0.0.1', 1), timeout=1)\nexcept OSError as e: print(e)",
    ),
    py(
        "asyncio",
        "import asyncio\nasync def f():\n    p = await asyncio.create_subprocess_exec('echo', 'a', stdout=-1)\n    print((await p.communicate())[0])\n    try: await asyncio.open_connection('127.0.0.1', 1)\n    except OSError as e: print(e)\nasyncio.run(f())",
    ),
    py("name lookup", "import socket; print(socket.gethostbyname('localhost'))"),
    py(
        "alarms and sleep",
        _ALARM.format("time") + "t = time.monotonic(); time.sleep(0.3); print(time.monotonic() - t >= 0.3)" + _QUIET,
    ),
    py(
        "alarms and programs",
        _ALARM.format("subprocess") + "print(sum(subprocess.call(['true']) for _ in range(40)))" + _QUIET,
    ),
    py(
        "child signals",
        "import signal, subprocess; n = []; signal.signal(signal.SIGCHLD, lambda *_: n.append(1)); print(sum(subprocess.call(['true']) for _ in range(30)), len(n) > 0)",
    ),
    py(
        "keyboard interrupt",
        "import os, signal, threading, time\nthreading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\ntry: time.sleep(5)\nexcept KeyboardInterrupt: print('interrupted')",
    ),
    py(
        "interrupted connect",
        "import os, signal, socket, threading\nl = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(0)\nfill = [socket.socket() for _ in range(4)]\n[f.setblocking(False) or f.connect_ex(l.getsockname()) for f in fill]\nthreading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\ns = socket.socket()\ntry: s.connect(l.getsockname()); print('connected')\nexcept KeyboardInterrupt: print('interrupted')",
    ),
    py(
        "own limits",
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (99, 99)); print(r.getrlimit(r.RLIMIT_NOFILE))",
    ),
    py(
        "own priority",
        "import os; os.setpriority(os.PRIO_PROCESS, 0, 3); os.setpriority(os.PRIO_PROCESS, os.getpid(), 4); print(os.nice(0))",
    ),
    py("own affinity", "import os; os.sched_setaffinity(os.getpid(), {0}); print(os.sched_getaffinity(0))"),
    py(
        "child's limits",
        "import resource as r, subprocess; p = subprocess.Popen(['sleep', '1']); r.prlimit(p.pid, r.RLIMIT_NOFILE, (88, 88)); print(r.prlimit(p.pid, r.RLIMIT_NOFILE)); p.kill()",
    ),
    py(
        "signal zero",
        "import os; os.kill(os.getpid(), 0); print('alive')\ntry: os.kill(2**22 - 7, 0)\nexcept OSError as e: print(e)",
    ),
    py(
        "pidfd",
        "import os, signal, subprocess; p = subprocess.Popen(['sleep', '9']); f = os.pidfd_open(p.pid); signal.pidfd_send_signal(f, 15); print(p.wait())",
    ),
    py(
        "memfd",
        "import os; f = os.memfd_create('m'); os.write(f, open('/bin/true', 'rb').read()); print(os.spawnv(os.P_WAIT, f'/proc/self/fd/{f}', ['m']))",
    ),
)
C_PROGRAMS = {
    "static": ("-static",),
    "dynamic": (),
    "threads": ("-pthread", "-DTHREADS"),
}
C_SOURCE = r"""
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
static void *work(void *unused) {
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(1) };
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    int r = connect(s, (struct sockaddr *)&to, sizeof to);
    printf("%d %s\n", r, strerror(errno));
    return unused;
}
int main(int argc, char **argv) {
    if (argc > 1) { puts(argv[1]); return 5; }
#ifdef THREADS
    pthread_t t; pthread_create(&t, 0, work, 0); pthread_join(t, 0);
#else
    work(0);
#endif
    fflush(stdout);
    int status; pid_t child = vfork();
    if (child == 0) { execl(argv[0], argv[0], "again", (char *)0); _exit(1); }
    waitpid(child, &status, 0);
    printf("%d\n", WEXITSTATUS(status));
    return 0;
}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory):
    with guard(tmp_path_factory.mktemp("g") / "run") as found:
        yield found


def outcome(command: list[str], folder: Path) -> tuple[int, str, str]:
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=folder, stdin=subprocess.DEVNULL, errors="replace"
    )
    # bash names the pid of a job that was killed
    return result.returncode, result.stdout, re.sub(r"(line \d+:) +\d+ ", r"\1 PID ", result.stderr)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_as_without(running: Guard, tmp_path: Path, case: Case) -> None:
    """Exit code, output and errors are those of the unguarded program."""
    if case.needs and not shutil.which(case.needs):
        pytest.skip(f"{case.needs} is not installed")
    plain = outcome(list(case.command), tmp_path)
    assert outcome(running.command(*case.command), tmp_path) == plain
    assert not running.of_kind("failure")


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
@pytest.mark.parametrize("kind", C_PROGRAMS)
def test_c_programs(running: Guard, tmp_path: Path, kind: str) -> None:
    """Static and threaded programs connect, vfork and execute as ever, and are seen."""
    source, program = tmp_path / "p.c", tmp_path / f"program-{kind}"
    source.write_text(C_SOURCE)
    subprocess.run(["cc", "-O1", "-o", str(program), str(source), *C_PROGRAMS[kind]], check=True, capture_output=True)
    assert outcome(running.command(str(program)), tmp_path) == outcome([str(program)], tmp_path)
    seen = lambda: [e for e in running.of_kind("exec") if e["name"] == program.name[:15]]  # noqa: E731
    assert running.wait(lambda: len(seen()) >= 2)
