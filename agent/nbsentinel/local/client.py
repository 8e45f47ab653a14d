"""The asking side of the socket."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbsentinel.errors import AgentUnreachableError
from nbsentinel.local.protocol import peer_of, short_address, socket_path

TIMEOUT_S = 5.0


def _connect(run_dir: Path) -> socket.socket:
    path = socket_path(run_dir)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(TIMEOUT_S)
    try:
        with short_address(path) as address:
            connection.connect(address)
    except OSError as error:
        connection.close()
        reason = (
            "no agent runs here" if isinstance(error, (FileNotFoundError, ConnectionRefusedError)) else error.strerror
        )
        raise AgentUnreachableError(
            f"{path}: {reason}", hint="Start one with `nbsentinel agent`, or name its folder with --run-dir."
        ) from error
    if peer_of(connection).uid not in (0, os.getuid(), path.stat().st_uid):
        connection.close()
        raise AgentUnreachableError(f"{path}: the answering process belongs to another user")
    return connection


def ask(run_dir: Path, request: dict[str, object]) -> Iterator[dict[str, Any]]:
    """Send a request and yield the answers; waits without limit only while following.

    Raises:
        AgentUnreachableError: No agent answers, or it stopped in between.
    """
    connection = _connect(run_dir)
    try:
        connection.sendall(json.dumps(request).encode() + b"\n")
        if request.get("follow"):
            connection.settimeout(None)
        for line in connection.makefile("rb"):
            if not line.strip():
                continue
            answer = json.loads(line)
            if answer.get("end"):
                return
            if "error" in answer:
                raise AgentUnreachableError(f"the agent answered: {answer['error']}", hint="Are both of one version?")
            yield answer
    except (OSError, ValueError) as error:
        raise AgentUnreachableError(f"{run_dir}: the agent stopped answering: {error}") from error
    finally:
        connection.close()


def status(run_dir: Path) -> dict[str, Any]:
    """Return the agent's status.

    Raises:
        AgentUnreachableError: No agent answers.
    """
    for answer in ask(run_dir, {"request": "status"}):
        found = answer.get("status")
        if isinstance(found, dict):
            return found
    raise AgentUnreachableError(f"{run_dir}: the agent closed the connection without an answer")
