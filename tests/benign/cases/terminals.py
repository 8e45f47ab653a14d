"""Shells on terminals of this machine: multiplexers, recorders, programs that drive others."""

from __future__ import annotations

from benign.cases.base import Case
from live.programs import Language

CASES = (
    Case(
        name="tmux-session",
        resembles="a shell on a pty whose master another process holds, joined to its user by a unix socket",
        language=Language.BASH,
        programs=("tmux",),
        text="""
            tmux -f /dev/null -S tm new-session -d -s work 'bash --norc'
            tmux -S tm send-keys -t work 'echo sum $((40 + 2)) > said; sleep 1.5; touch ended' Enter
            for n in {1..100}; do [ -e ended ] && break; sleep 0.1; done
            cat said
            tmux -S tm kill-server
        """,
        expects="sum 42",
    ),
    Case(
        name="screen-session",
        resembles="a shell on a pty whose master another process holds",
        language=Language.BASH,
        programs=("screen",),
        text="""
            mkdir -m 700 sockets && export SCREENDIR=$PWD/sockets
            screen -c /dev/null -dmS work sh -c 'echo sum $((40 + 2)) > said; sleep 2; touch ended'
            for n in {1..100}; do [ -e ended ] && break; sleep 0.1; done
            cat said
        """,
        expects="sum 42",
    ),
    Case(
        name="script-records",
        resembles="a pty relay by script(1): to a file",
        language=Language.BASH,
        programs=("script",),
        text="(echo 'echo sum $((40 + 2))'; sleep 2; echo exit) | script -q -c 'bash --norc' record",
        expects="sum 42",
    ),
    Case(
        name="expect-drives-shell",
        resembles="a shell on a pty with a program at the other end",
        language=Language.BASH,
        programs=("expect",),
        text="""
            expect -c '
                spawn sh
                send "sleep 1; echo sum \\$((40 + 2))\\r"
                expect "sum 42" {send "exit\\r"}
                expect eof
            '
        """,
        expects="sum 42",
    ),
    Case(
        name="pexpect-drives-calculator",
        resembles="a program on a pty with Python at the other end",
        language=Language.PYTHON,
        programs=("bc",),
        text="""
import time, pexpect
bc = pexpect.spawn("bc", ["-q"], timeout=10)
bc.sendline("6*7")
bc.expect(r"\\b42\\b")
time.sleep(2)
bc.sendeof()
bc.expect(pexpect.EOF)
print("answer", 42)
""",
        expects="answer 42",
    ),
    Case(
        name="pexpect-drives-bash-beside-connection",
        resembles="a pty relay: this process has a connection, but what it reads there does not go to the shell",
        language=Language.PYTHON,
        text="""
import http.client, os, time, pexpect
web = http.client.HTTPConnection(os.environ["WEB"].removeprefix("http://"))
web.request("GET", "/data.json")
web.getresponse().read()
time.sleep(0.3)
shell = pexpect.spawn("bash", ["--norc"], timeout=10, encoding="utf-8")
shell.sendline("echo sum $((40 + 2))")
shell.expect("sum 42")
time.sleep(2)
shell.sendline("exit")
shell.expect(pexpect.EOF)
web.close()
print("sum", 42)
""",
        expects="sum 42",
    ),
    Case(
        name="python-prompt-on-local-pty",
        resembles="pty.spawn of a prompt: its user sits at this machine",
        language=Language.PYTHON,
        text="""
import os, pty, sys, time
pid, master = pty.fork()
if pid == 0:
    os.execl(sys.executable, "python", "-q")
os.write(master, b"import time; time.sleep(2); print('sum', 40 + 2)\\nexit()\\n")
said = b""
try:
    while data := os.read(master, 4096):
        said += data
except OSError:
    pass
print(said.decode())
""",
        expects="sum 42",
    ),
    Case(
        name="trusted-broker",
        resembles="a bind shell on ptys: it is registered as a terminal broker",
        language=Language.PYTHON,
        text="""
import os, pty, select, socket, subprocess, sys
CLIENT = '''
import os, socket, sys, time
net = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
net.sendall(b"echo sum $((40 + 2))\\\\n")
said = b""
while b"sum 42" not in said:
    said += net.recv(4096)
time.sleep(2.5)
net.sendall(b"exit\\\\n")
while data := net.recv(4096):
    said += data
print(said.decode())
'''
door = socket.create_server(("127.0.0.1", 0))
clients = [subprocess.Popen([sys.executable, "-c", CLIENT, str(door.getsockname()[1])]) for _ in range(2)]
ways = {}
for _ in clients:
    guest, _ = door.accept()
    pid, master = pty.fork()
    if pid == 0:
        os.execlp("bash", "bash", "--norc")
    ways[guest.fileno()], ways[master] = (guest, master), (guest, master)
while ways:
    for ready in select.select(list(ways), [], [])[0]:
        guest, master = ways.get(ready, (None, None))
        if guest is None:
            continue
        try:
            data = os.read(ready, 4096)
        except OSError:
            data = b""
        if data:
            os.write(master if ready == guest.fileno() else guest.fileno(), data)
        else:
            del ways[guest.fileno()], ways[master]
            guest.close(), os.close(master)
sys.exit(any(client.wait() for client in clients))
""",
        expects="sum 42",
    ),
)
