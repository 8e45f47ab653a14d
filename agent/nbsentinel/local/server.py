"""The answering side of the socket. It serves a few clients at once, each in a thread, and changes nothing."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from nbsentinel.local.protocol import DEFAULT_FINDINGS, MAX_FINDINGS, REQUEST_LIMIT, peer_of, short_address, socket_path
from nbsentinel.report.spool import Row, Spool

CLIENT_LIMIT = 16
SEND_TIMEOUT_S = 10
FINDING_CLASS = 2004
_Answers = Iterator[bytes]
Drill = Callable[[object, object, int], Iterator[dict[str, object]]]


class LocalServer:
    """Answers on a unix socket that only our own user (and root) may use.

    Args:
        run_dir: Folder of the socket, mode 0700.
        spool: Where findings are read.
        status: Returns the agent's status as a JSON object.
        who: Returns what is known of a pid as a JSON object, None for nothing.
        drill: Makes a test alert of a severity for a pid, with a patience in seconds, and yields what to answer.
    """

    def __init__(
        self,
        run_dir: Path,
        spool: Spool,
        status: Callable[[], dict[str, object]],
        who: Callable[[int], dict[str, object] | None],
        drill: Drill,
    ) -> None:
        self._path = socket_path(run_dir)
        self._spool, self._status, self._who, self._drill = spool, status, who, drill
        self._listener: socket.socket | None = None
        self._news = threading.Condition()
        self._recorded = 0
        self._end = False
        self._clients = threading.BoundedSemaphore(CLIENT_LIMIT)
        self.refused = 0
        """Clients turned away: another user, or too many at once."""

    def start(self) -> None:
        """Listen; an old socket of an agent that is gone is replaced."""
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with short_address(self._path) as address:
            self._listener.bind(address)
        self._path.chmod(0o600)
        self._listener.listen(CLIENT_LIMIT)
        threading.Thread(target=self._accept, name="local-socket", daemon=True).start()

    def recorded(self) -> None:
        """Hear that something new is in the spool."""
        with self._news:
            self._recorded += 1
            self._news.notify_all()

    def stop(self) -> None:
        """Stop listening and let followers go."""
        self._end = True
        self.recorded()
        if self._listener is not None:
            self._listener.close()
            self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._end:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if peer_of(connection).uid not in (0, os.getuid()) or not self._clients.acquire(blocking=False):
                self.refused += 1
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), name="local-client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(SEND_TIMEOUT_S)
                for answer in self._answers(connection):
                    connection.sendall(answer + b"\n")
        except (OSError, sqlite3.ProgrammingError):
            pass  # the client went away, or the agent ends and has closed its spool: nobody is left to tell
        finally:
            self._clients.release()

    def _answers(self, connection: socket.socket) -> _Answers:
        try:
            request = json.loads(connection.makefile("rb").readline(REQUEST_LIMIT))
            kind = request["request"]
        except (ValueError, TypeError, KeyError):
            kind, request = None, {}
        if kind == "status":
            yield _line({"status": self._status()})
            return
        if kind == "who":
            pid = request.get("pid")
            yield _line({"who": self._who(pid) if isinstance(pid, int) and not isinstance(pid, bool) else None})
            return
        if kind == "findings":
            yield from self._findings(request)
            return
        if kind == "test-alert":
            for answer in self._drill(request.get("severity"), request.get("wait"), peer_of(connection).pid):
                if self._end:
                    return
                yield _line(answer) if answer else b""
            yield _line({"end": True})
            return
        yield _line({"error": "unknown request"})

    def _findings(self, request: dict[str, object]) -> _Answers:
        limit, after = request.get("limit"), request.get("after")
        limit = min(MAX_FINDINGS, limit) if isinstance(limit, int) and limit >= 0 else DEFAULT_FINDINGS
        if isinstance(after, int):
            rows = self._spool.after(after, limit, class_uid=FINDING_CLASS)
            cursor = after
        else:
            newest = self._spool.latest(max(1, limit), FINDING_CLASS)
            rows = newest if limit else []
            cursor = newest[-1].id if newest else 0
        while True:
            with self._news:
                seen = self._recorded
            for row in rows:
                cursor = row.id
                yield _finding(row)
            if not request.get("follow") or self._end:
                yield _line({"end": True})
                return
            rows = self._spool.after(cursor, MAX_FINDINGS, class_uid=FINDING_CLASS)
            if not rows:
                yield b""  # an empty line tells whether the client is still there
                with self._news:
                    self._news.wait_for(lambda: self._recorded != seen, timeout=5)  # noqa: B023 - used at once
                rows = self._spool.after(cursor, MAX_FINDINGS, class_uid=FINDING_CLASS)


def _line(value: object) -> bytes:
    return json.dumps(value).encode()


def _finding(row: Row) -> bytes:
    return b'{"finding":{"id":%d,"event":%s}}' % (row.id, row.line)
