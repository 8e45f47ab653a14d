"""A network namespace of one's own, with the addresses of metadata services on loopback and an answer at each.

Run as a program inside it: `python -I apart.py ADDRESS...` serves port 80, and 3333 as a pool, until its end.
"""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from live.account import Account

_ANSWER = b"fake-answer-of-the-service"


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer whatever is asked."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(_ANSWER)

    do_POST = do_PUT = do_GET  # noqa: N815 - the base class finds methods by this name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


def _pool() -> None:
    with socket.create_server(("203.0.113.9", 3333)) as door:
        while True:
            guest, _ = door.accept()
            guest.recv(1000)
            guest.sendall(_ANSWER)
            guest.close()


def _serve(addresses: list[str]) -> None:
    for words in ("link set lo up", *(f"addr add {address} dev lo" for address in addresses)):
        subprocess.run(["ip", *words.split()], check=True)
    server = _Server(("::", 80), _Answers)
    threading.Thread(target=_pool, daemon=True).start()
    print("ready", flush=True)
    server.serve_forever()


@contextmanager
def apart(account: Account, addresses: tuple[str, ...]) -> Iterator[Account]:
    """Yield the account in a namespace of its own, as the same user and without rights there either."""
    new = ("unshare", "--user", "--map-current-user", "--net", "--keep-caps")
    command = [*account.prefix, *new, account.python, "-I", __file__, *addresses]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd="/") as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        there = ("nsenter", f"--target={server.pid}", "--user", "--net", "--preserve-credentials", "--")
        try:
            yield type(account)(account.uid, (*account.prefix, *there), account.python)
        finally:
            server.kill()


def refused(account: Account) -> str:
    """Return why this user cannot have such a namespace, an empty text where it can."""
    trial = [*account.prefix, "unshare", "--user", "--map-current-user", "--net", "--keep-caps", "true"]
    if not Path("/proc/net/if_inet6").exists():
        return "no IPv6 here"
    return subprocess.run(trial, capture_output=True, text=True, cwd="/").stderr.strip()


if __name__ == "__main__":
    _serve(sys.argv[1:])
