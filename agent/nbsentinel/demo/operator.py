"""The attacker's side of the demonstration: waits for a shell, runs one harmless command in it, hangs up."""

from __future__ import annotations

import secrets
import socket
import threading

ACCEPT_S = 20.0
ANSWER_S = 10.0


class Operator:
    """Listens on loopback and proves that a shell really answers: by a sum that cannot be an echo."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(ACCEPT_S)
        self.port: int = self._listener.getsockname()[1]
        self.answered = threading.Event()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._converse, name="operator", daemon=True)
        self._thread.start()

    def _converse(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        one, two = secrets.randbelow(10**6), secrets.randbelow(10**6)
        with connection:
            connection.settimeout(ANSWER_S)
            connection.sendall(f"echo sum-$(({one}+{two}))-end\n".encode())
            wanted, seen = f"sum-{one + two}-end".encode(), b""
            try:
                while wanted not in seen and (data := connection.recv(4096)):
                    seen += data
            except TimeoutError:
                return
            if wanted in seen:
                self.answered.set()
            self._leave.wait(ACCEPT_S)

    def hang_up(self) -> None:
        """End the shell's connection and stop listening."""
        self._leave.set()
        self._listener.close()
        self._thread.join(2)
