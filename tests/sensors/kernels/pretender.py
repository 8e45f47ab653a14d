"""Looks like a kernel to the agent and sends what its standard input says: run as `pretender.py SOCKET -f FILE.json`.

Each line is Python that makes bytes to send, or `child: ...` to send it from a forked child, or `again:` for another
connection. It answers each line once with what came of it.
"""

import os
import socket
import sys


def connection() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.connect(sys.argv[1])
    return made


def send(own: socket.socket, message: bytes) -> str:
    try:
        own.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError as error:
        return type(error).__name__
    return "sent"


connections = [connection()]
print("ready", flush=True)
for line in sys.stdin:
    how, _, code = line.rpartition(": ")
    if how == "again":
        connections.append(connection())
        print("connected", flush=True)
        continue
    made = eval(code)
    told = ""
    for message in made if isinstance(made, list) else [made]:
        if how == "child":
            pid = os.fork()
            if pid == 0:
                send(connections[-1], message)
                os._exit(0)
            os.waitpid(pid, 0)
        else:
            told = send(connections[-1], message)
    print(told, flush=True)
