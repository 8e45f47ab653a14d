"""Tells the agent which notebooks, consoles and terminals the server has: the server alone knows their present names.

A look every few seconds, in the server's own loop: a few attributes and the list of sessions that its pages ask for as
well. Nothing here waits for the agent, walks /proc or touches a file of the user's.
"""

from __future__ import annotations

import json
import posixpath
import time

from nbsentinel_jupyter.link import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from jupyter_server.serverapp import ServerApp

VERSION = 1
LOOK_S = 3.0
AGAIN_S = 60.0
"""How often what has not changed is told again: an agent that has lost it knows it after that."""
MESSAGE_LIMIT = 30_000
"""Bytes of a message; the agent takes a little more. What does not fit is counted in it."""
PATH_LIMIT, NAME_LIMIT = 1024, 128


class Teller:
    """Tells the agent, now and then, as long as the server runs.

    Args:
        server: The server.
        run_dir: Folder of the agent's sockets.
    """

    def __init__(self, server: ServerApp, run_dir: str) -> None:
        self._server, self._link = server, Link(run_dir)
        self._told: tuple[int, bytes] = (0, b"")
        self._told_at = 0.0
        self._complained = False

    def start(self) -> None:
        """Look for the first time soon, when the server's loop runs."""
        self._server.io_loop.call_later(LOOK_S, self._turn)

    async def _turn(self) -> None:
        try:
            await self.look()
        except Exception as error:  # noqa: BLE001 - whatever another version of the server does, it works as ever
            if not self._complained:
                self._complained = True
                self._server.log.debug("nbsentinel: sessions are not told: %s: %s", type(error).__name__, error)
        finally:
            self._server.io_loop.call_later(LOOK_S, self._turn)

    async def look(self) -> None:
        """Tell the agent what there is, if there is one and it does not know."""
        settings = self._server.web_app.settings
        pids, terminals = kernel_pids(settings.get("kernel_manager")), terminal_pids(settings.get("terminal_manager"))
        if not (pids or terminals or self._told[1]) or not self._link.reach():
            return
        listed: Sequence[Mapping[str, Any]] = ()
        if pids:  # kernels elsewhere (a gateway) have no process here, and would be asked over the network
            listed = await settings["session_manager"].list_sessions()
        root = str(getattr(settings.get("kernel_manager"), "root_dir", "") or "")
        content = message(kernels(listed, pids, root), terminals)
        now = time.monotonic()
        if self._told == (self._link.connections, content) and now - self._told_at < AGAIN_S:
            return
        if self._link.send(content):
            self._told, self._told_at = (self._link.connections, content), now


def kernel_pids(manager: Any) -> dict[str, int]:
    """Return the kernels that have a process on this machine, by id."""
    found = {}
    for kernel_id in list(manager.list_kernel_ids()) if manager is not None else ():
        pid = getattr(getattr(manager.get_kernel(kernel_id), "provisioner", None), "pid", None)
        if isinstance(pid, int) and pid > 0:
            found[str(kernel_id)] = pid
    return found


def terminal_pids(manager: Any) -> list[tuple[int, str]]:
    """Return the first process of each terminal, with the terminal's name."""
    found = []
    for name, terminal in list((getattr(manager, "terminals", None) or {}).items()):
        pid = getattr(getattr(terminal, "ptyproc", None), "pid", None)
        if isinstance(pid, int) and pid > 0:
            found.append((pid, str(name)[:NAME_LIMIT]))
    return found


def kernels(
    listed: Sequence[Mapping[str, Any]], pids: Mapping[str, int], root: str
) -> list[tuple[int, list[tuple[str, str, str]]]]:
    """Return each kernel's pid with kind, path and name of everything that is open on it, notebooks first.

    Args:
        listed: The server's sessions.
        pids: The kernels of this machine.
        root: The server's root folder; a session's path is relative to it, but that of a console is no file.
    """
    by_pid: dict[int, list[tuple[str, str, str]]] = {pid: [] for pid in pids.values()}
    for session in listed:
        pid = pids.get(str((session.get("kernel") or {}).get("id")))
        if pid is None:
            continue
        kind, path = str(session.get("type") or "")[:NAME_LIMIT], str(session.get("path") or "")
        if kind in ("notebook", "file") and root.startswith("/"):
            path = posixpath.join(root, path.lstrip("/"))
        by_pid[pid].append((kind, path[:PATH_LIMIT], str(session.get("name") or "")[:NAME_LIMIT]))
    return [(pid, sorted(opened, key=lambda one: one[0] != "notebook")) for pid, opened in by_pid.items()]


def message(
    kernels: Sequence[tuple[int, Sequence[tuple[str, str, str]]]], terminals: Sequence[tuple[int, str]]
) -> bytes:
    """Return the message for the agent: kind, messages dropped, time and thread (not used), version, and what there is.

    Terminals go first, because they are short; what does not fit is counted.
    """
    room, left_out = MESSAGE_LIMIT - 200, 0
    told: tuple[list[Any], list[Any]] = ([], [])
    for place, rows in ((1, terminals), (0, kernels)):
        for row in rows:
            room -= len(_encode(row)) + 1
            if room > 0:
                told[place].append(row)
            else:
                left_out += 1
    return _encode(["sessions", 0, 0, 0, VERSION, *told, left_out])


def _encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
