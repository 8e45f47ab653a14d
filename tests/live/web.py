"""A small web server that look-alikes talk to: keeps connections open, and can take its time."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PIECES = 20
_PIECE_S = 0.1


def _archive() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for number in range(5):
            entry = tarfile.TarInfo(f"part-{number}.csv")
            entry.size = 20_000
            archive.addfile(entry, io.BytesIO(b"0123456789" * 2_000))
    return data.getvalue()


CONTENT = {
    "/data.json": json.dumps({"rows": 100, "names": ["a"] * 500}).encode(),
    "/data.tar": _archive(),
    "/lines.txt": b"".join(b"line %d\n" % number for number in range(200)),
    "/setup.sh": b"echo from setup\n" * 10,
}


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send a file; below /slow it takes two seconds."""
        slow = self.path.startswith("/slow/")
        body = CONTENT["/" + self.path.rpartition("/")[2]]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        size = len(body) // _PIECES + 1
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            if slow:
                time.sleep(_PIECE_S)

    def do_POST(self) -> None:
        """Take a body of known length or in chunks, and say how many bytes came."""
        size = 0
        if self.headers.get("Transfer-Encoding") == "chunked":
            while chunk := int(self.rfile.readline(), 16):
                size += len(self.rfile.read(chunk + 2)) - 2
            self.rfile.readline()
        else:
            size = len(self.rfile.read(int(self.headers["Content-Length"])))
        body = b"got %d\n" % size
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST  # noqa: N815 - the base class finds methods by this name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""


@contextmanager
def web_server() -> Iterator[str]:
    """Yield the base URL of a running server."""
    with _Server(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever, name="web")
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
