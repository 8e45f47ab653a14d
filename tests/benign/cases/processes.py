"""Programs that hold others on pipes, with and without connections of their own."""

from __future__ import annotations

from benign.cases.base import Case
from live.programs import Language

CASES = (
    Case(
        name="bash-kernel",
        resembles="a relay to bash on pipes: nothing here is connected",
        language=Language.PYTHON,
        text="""
import subprocess, time
bash = subprocess.Popen(["bash", "--norc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
for cell in range(5):
    bash.stdin.write(f"x=$((x + {cell})); echo cell {cell} $x\\n")
    print(bash.stdout.readline(), end="")
    time.sleep(0.4)
bash.stdin.close()
bash.wait()
""",
        expects="cell 4 10",
    ),
    Case(
        name="pipeline-of-processes",
        resembles="a chain of relays",
        language=Language.PYTHON,
        text="""
import subprocess, time
P = subprocess.PIPE
sort = subprocess.Popen(["sort"], stdin=P, stdout=P, text=True)
uniq = subprocess.Popen(["uniq", "-c"], stdin=sort.stdout, stdout=P, text=True)
for n in range(20):
    print("ab"[n % 2], file=sort.stdin, flush=True)
    time.sleep(0.1)
sort.stdin.close()
print(" ".join(uniq.communicate()[0].split()))
""",
        expects="10 a 10 b",
    ),
    Case(
        name="multiprocessing-pools",
        resembles="Python children on pipes and unix sockets",
        language=Language.PYTHON,
        text="""
import multiprocessing, subprocess, time

def work(n):
    time.sleep(0.2)
    return int(subprocess.run(["sh", "-c", f"echo $(({n} * {n}))"], capture_output=True).stdout)

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(3) as pool:
            print(method, sum(pool.map(work, range(6))))
""",
        expects="forkserver 55",
    ),
    Case(
        name="workers-on-tcp",
        resembles="a program that takes orders over TCP: pickled functions of this program, and short shells for data",
        language=Language.PYTHON,
        text="""
import pickle, socket, subprocess, sys, time

def square(n):
    time.sleep(0.15)
    return int(subprocess.run(["sh", "-c", f"echo $(({n} * {n}))"], capture_output=True).stdout)

def receive(net):
    size = int.from_bytes(net.recv(4, socket.MSG_WAITALL), "big")
    return pickle.loads(net.recv(size, socket.MSG_WAITALL))

def send(net, value):
    data = pickle.dumps(value)
    net.sendall(len(data).to_bytes(4, "big") + data)

if len(sys.argv) > 1:
    net = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    while (task := receive(net)) is not None:
        send(net, square(task))
    sys.exit()
door = socket.create_server(("127.0.0.1", 0))
workers = [subprocess.Popen([sys.executable, __file__, str(door.getsockname()[1])]) for _ in range(2)]
nets = [door.accept()[0] for _ in workers]
total = 0
for n in range(0, 20, 2):
    for step, net in enumerate(nets):
        send(net, n + step)
    total += sum(map(receive, nets))
for net in nets:
    send(net, None)
for worker in workers:
    worker.wait()
print("total", total)
""",
        expects="total 2470",
    ),
    Case(
        name="language-server-proxy",
        resembles="a bind shell by relay: what sits on the pipes is a program that reads data",
        language=Language.PYTHON,
        text="""
import os, select, socket, subprocess, sys
EDITOR = '''
import json, socket, sys, time
net = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
answers = net.makefile()
for n in range(10):
    net.sendall(json.dumps({"id": n}).encode() + b"\\\\n")
    answer = answers.readline()
    time.sleep(0.25)
print(answer)
'''
SERVER = "import sys, json\\nfor line in sys.stdin: print(json.dumps({'echo': json.loads(line)['id'] * 2}), flush=True)"
open("server.py", "w").write(SERVER)

door = socket.create_server(("127.0.0.1", 0))
editor = subprocess.Popen([sys.executable, "-c", EDITOR, str(door.getsockname()[1])])
guest, _ = door.accept()
child = subprocess.Popen([sys.executable, "server.py", "--stdio"], stdin=-1, stdout=-1, bufsize=0)
other = {guest.fileno(): child.stdin.fileno(), child.stdout.fileno(): guest.fileno()}
while datas := [(side, os.read(side, 4096)) for side in select.select(list(other), [], [])[0]]:
    if not all(data for _, data in datas):
        break
    for side, data in datas:
        os.write(other[side], data)
child.stdin.close()
sys.exit(child.wait() or editor.wait())
""",
        expects='{"echo": 18}',
    ),
    Case(
        name="web-server-runs-shells",
        resembles="a bind shell: requests only choose which fixed command runs, and their bodies are its data",
        language=Language.PYTHON,
        text="""
import http.client, subprocess, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        done = subprocess.run(["sh", "-c", "sleep 0.6; sort | uniq -c | tail -n 1"], input=body, capture_output=True)
        self.send_response(200)
        self.send_header("Content-Length", str(len(done.stdout)))
        self.end_headers()
        self.wfile.write(done.stdout)

server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = http.client.HTTPConnection(*server.server_address)
for n in range(4):
    client.request("POST", "/", b"x\\n" * 5 + b"a\\n" * n)
    said = client.getresponse().read()
print(said.decode())
client.close()
""",
        expects="5 x",
    ),
    Case(
        name="training-log-shipper",
        resembles="the way back of a relayed shell: its commands come from a file, only its output goes out",
        language=Language.PYTHON,
        text="""
import os, subprocess, urllib.parse, http.client
open("train.sh", "w").write("for step in {1..12}; do echo loss $step; sleep 0.2; done")
train = subprocess.Popen(["bash", "train.sh"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
web = http.client.HTTPConnection(urllib.parse.urlsplit(os.environ["WEB"]).netloc)
for line in train.stdout:
    web.request("POST", "/log", line)
    web.getresponse().read()
web.close()
print("shipped", line.decode(), train.wait())
""",
        expects="shipped loss 12",
    ),
    Case(
        name="download-into-consumer",
        resembles="a relay to an interpreter: Python runs a script of its own and reads data",
        language=Language.PYTHON,
        text="""
import os, subprocess, sys, urllib.request
open("count.py", "w").write("import sys\\nprint('lines', sum(1 for _ in sys.stdin))\\n")
with urllib.request.urlopen(os.environ["WEB"] + "/slow/lines.txt") as source:
    consumer = subprocess.Popen([sys.executable, "count.py"], stdin=subprocess.PIPE)
    for line in source:
        consumer.stdin.write(line)
    consumer.stdin.close()
    consumer.wait()
""",
        expects="lines 200",
    ),
    Case(
        name="shell-beside-idle-connection",
        resembles="a relay by pipes: this process has a connection that nothing passes through",
        language=Language.PYTHON,
        text="""
import http.client, os, subprocess
web = http.client.HTTPConnection(os.environ["WEB"].removeprefix("http://"))
web.request("GET", "/data.json")
web.getresponse().read()
shell = subprocess.Popen(["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(shell.communicate("for n in 1 2 3 4 5; do sleep 0.5; echo step $n; done")[0])
web.request("GET", "/data.json")
web.getresponse().read()
web.close()
""",
        expects="step 5",
    ),
    Case(
        name="asyncio-commands-beside-client",
        resembles="an asyncio relay: the client's data stay in this process",
        language=Language.PYTHON,
        text="""
import asyncio, os, urllib.parse

async def fetch(done):
    place = urllib.parse.urlsplit(os.environ["WEB"])
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    while not done.is_set():
        writer.write(b"GET /data.json HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        await reader.readuntil(b"]}")
        await asyncio.sleep(0.1)
    writer.close()
    await writer.wait_closed()

async def main():
    done = asyncio.Event()
    client = asyncio.create_task(fetch(done))
    for n in range(3):
        child = await asyncio.create_subprocess_shell(f"sleep 0.7; echo run {n}", stdout=asyncio.subprocess.PIPE)
        print((await child.communicate())[0].decode())
    done.set()
    await client

asyncio.run(main())
""",
        expects="run 2",
    ),
    Case(
        name="chat-without-shell",
        resembles="a program whose standard streams are a socket: it is no interpreter",
        language=Language.PYTHON,
        text="""
import socket, subprocess, time
near, far = socket.socketpair()
door = socket.create_server(("127.0.0.1", 0))
net = socket.create_connection(door.getsockname())
guest, _ = door.accept()
turn = subprocess.Popen(["tr", "a-z", "A-Z"], stdin=guest, stdout=guest)
guest.close()
net.sendall(b"sum forty-two\\n")
time.sleep(2)
net.shutdown(socket.SHUT_WR)
print(net.recv(100).decode())
turn.wait()
""",
        expects="SUM FORTY-TWO",
    ),
)
