"""The attacker's end on loopback, a service that plays AWS, and somebody else's process with a secret in memory."""

from __future__ import annotations

import re
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from live.account import Account
from live.agent import LiveAgent
from live.programs import Language, prepare

_TEXT = "ran what was fetched"
_CONTENT = {
    "/run.sh": f"echo {_TEXT}\n".encode(),
    "/run.py": f"print({_TEXT!r})\n".encode(),
    "/run.pl": f"print '{_TEXT}';\n".encode(),
    "/program": Path("/bin/echo").read_bytes(),
    "/secret": b"fake-answer-of-the-service",
}
_SENT_S = 5.0


class Heard:
    """What came to the attacker, from whatever connection."""

    def __init__(self) -> None:
        self._data = b""
        self._changed = threading.Condition()

    def add(self, data: bytes) -> None:
        """Keep what came."""
        with self._changed:
            self._data += data
            self._changed.notify_all()

    def wait(self, text: str) -> bool:
        """Return whether a text has come, after a while at most."""
        with self._changed:
            return self._changed.wait_for(lambda: text.encode() in self._data, _SENT_S)


class _Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    heard: Heard

    def _answer(self, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def do_GET(self) -> None:
        """Serve what is to be executed."""
        self._answer(_CONTENT.get(self.path, b"nothing"))

    def do_POST(self) -> None:
        """Take an upload, or a call of an API."""
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size + 2)[:-2]
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        if action := re.match(rb"Action=(\w+)", body):
            name = action[1].decode()
            self.heard.add(f"operation:{name}\n".encode())
            self._answer(f"<{name}Response><{name}Result/></{name}Response>".encode(), "text/xml")
        elif target:
            self.heard.add(f"operation:{target}\n".encode())
            self._answer(b"{}", "application/x-amz-json-1.1")
        else:
            self.heard.add(body)
            self._answer(b"got %d\n" % len(body))

    do_PUT = do_POST  # noqa: N815 - the base class finds methods by this name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        """Say nothing."""


class _Sink(socketserver.BaseRequestHandler):
    heard: Heard

    def handle(self) -> None:
        """Take everything until the other side ends."""
        while data := self.request.recv(65536):
            self.heard.add(data)


class _WebServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """Let clients end as they like."""


class _SinkServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """Let clients end as they like."""


class Peer:
    """Where acts connect to."""

    def __init__(self, web: str, port: int, heard: Heard) -> None:
        self.web, self.port, self.heard = web, port, heard

    def environment(self) -> dict[str, str]:
        """Return the variables by which an act finds it."""
        return {"WEB": self.web, "HOST": "127.0.0.1", "PORT": str(self.port)}


@contextmanager
def peer() -> Iterator[Peer]:
    """Serve for the time of a module."""
    heard = Heard()
    web = _WebServer(("127.0.0.1", 0), type("Web", (_Web,), {"heard": heard}))
    sink = _SinkServer(("127.0.0.1", 0), type("Sink", (_Sink,), {"heard": heard}))
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in (web, sink)]
    for thread in threads:
        thread.start()
    try:
        yield Peer(f"http://127.0.0.1:{web.server_port}", sink.server_address[1], heard)
    finally:
        for server, thread in zip((web, sink), threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


_VICTIM = """
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static char held[128] = "secret-of-the-victim";

int main(void) {
    int file = open("held", O_RDWR | O_CREAT, 0600);
    write(file, held, strlen(held));
    dup2(file, 60);
    prctl(PR_SET_PTRACER, -1L, 0, 0, 0);
    printf("%d %p\\n", getpid(), (void *)held);
    fflush(stdout);
    for (;;) usleep(50000);
}
"""


@contextmanager
def victim(account: Account, folder: Path, agent: LiveAgent) -> Iterator[dict[str, str]]:
    """Run a process with a secret that belongs to no act; yield the variables that name it."""
    command = agent.guarded(prepare(account, folder / "victim", Language.C, _VICTIM))
    with subprocess.Popen(
        [*account.prefix, *command],
        env=account.environment(folder),
        cwd=folder / "victim",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid, address = process.stdout.readline().split()
        try:
            yield {"VICTIM": pid, "ADDRESS": address}
        finally:
            process.kill()
