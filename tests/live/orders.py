"""A remote operator who waits to be asked: a web server that hands out orders and takes the answers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from live.account import Account
from live.caged import Caged
from live.shells import LIFE_S, Outcome

ROUNDS = 4
"""Orders that are given, each another command."""
CONTACT_S, HOLD_S = 20.0, 1.0
_COMMANDS = ("echo t$(({a}+{b}))e", "expr {a} + {b}", "printf 't%de' $(({a}+{b}))", "true; echo $(({a}+{b}))")


class _Desk:
    """Orders given and answers taken."""

    def __init__(self) -> None:
        self.given, self.proved = 0, 0
        self.expected = b""
        self.said: list[bytes] = []

    def order(self) -> bytes:
        """Return the next order once the last was answered, nothing before."""
        if self.expected or self.given == ROUNDS:
            return b""
        a, b = random.randrange(10_000, 1_000_000), random.randrange(10_000, 1_000_000)
        self.expected = str(a + b).encode()
        self.given += 1
        return _COMMANDS[(self.given - 1) % len(_COMMANDS)].format(a=a, b=b).encode()

    def answer(self, body: bytes) -> None:
        """Take an answer."""
        self.said.append(body)
        if self.expected and self.expected in body:
            self.proved += 1
            self.expected = b""


@contextmanager
def _web(desk: _Desk) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(desk.order())

        def do_POST(self) -> None:
            desk.answer(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(b"")

        def _send(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hand_out(account: Account, folder: Path, command: list[str]) -> Outcome:
    """Run a program that asks for orders, give it a few, and end it."""
    desk = _Desk()
    with _web(desk) as place, Caged(account, folder, command, {"WEB": place}, LIFE_S) as caged:
        deadline = time.time() + CONTACT_S
        while desk.proved < ROUNDS and time.time() < deadline and caged.running:
            time.sleep(0.05)
        time.sleep(HOLD_S)
        output = caged.output()
    return Outcome(
        proved=desk.proved == ROUNDS,
        pids=caged.pids(),
        contact_s=None,
        said=f"{desk.proved} of {ROUNDS}: {desk.said}\n--\n{output}",
        ended=time.time(),
    )
