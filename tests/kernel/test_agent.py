"""Kernels and a running agent: what they tell is signed, and coverage says which ones tell nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kernel import aws
from kernel.harness import kernel
from live.account import Account
from live.agent import LiveAgent, live_agent


def wait(condition: Callable[[], object], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def row(agent: LiveAgent) -> dict[str, str]:
    found: dict[str, str] = next(item for item in agent.status()["coverage"] if item["sensor"] == "kernels")
    return found


def told(agent: LiveAgent, message_id: str) -> dict[str, dict[str, Any]]:
    """Return what a kernel told of a cell, by what it is about: the cell's end, an audit event, an API's operation."""
    found = [(event, event["unmapped"]["nbsentinel"]) for event in agent.events() if "unmapped" in event]
    return {
        own.get("cell") or own.get("audit_event") or event["api"]["operation"]: event
        for event, own in found
        if own.get("message_id") == message_id
    }


def test_what_kernels_tell_is_signed(account: Account, folder: Path) -> None:
    """A cell, what it did and its API call stand in the report with the kernel's process; a mute kernel in coverage."""
    settings = '[report]\nlevel = "all"\n[guard]\nenabled = false\n'
    with aws.endpoint() as url, live_agent(account, folder / "agent", settings) as agent:
        assert row(agent)["state"] == "active", "the self-test went through a child and the socket"
        run_dir = folder / "agent" / "run"
        with (
            kernel(folder / "home", run_dir, **aws.environment(url)) as running,
            kernel(folder / "mute", None) as mute,
        ):
            outcome = running.run(
                "import boto3, os; os.system('true'); r = boto3.client('s3').list_buckets()", "the-cell"
            )
            assert outcome.status == "ok"
            wanted = {"start", "stop", "os.system", "socket.connect", "ListBuckets"}
            wait(lambda: wanted <= told(agent, outcome.message_id).keys())
            by_what = told(agent, outcome.message_id)
            assert wanted <= by_what.keys()
            assert by_what["start"]["unmapped"]["nbsentinel"]["cell_id"] == "the-cell"
            assert by_what["start"]["process"]["pid"] == running.pid
            call = by_what["ListBuckets"]
            assert (call["class_uid"], call["activity_id"], call["actor"]["process"]["pid"]) == (6003, 2, running.pid)
            calls = [event["api"]["operation"] for event in agent.events() if event["class_uid"] == 6003]
            assert calls == ["ListBuckets"]
            # The agent tells of every program of the machine, and one that is not ours may carry a signed address.
            lines = (folder / "agent" / "report.ndjson").read_text().splitlines()
            of_kernel = [line for line in lines if f'"pid":{running.pid},' in line.replace(" ", "")]
            assert len(of_kernel) >= len(wanted)
            assert aws.leaked("\n".join(of_kernel)) == []
            assert wait(lambda: f"[{mute.pid}]" in row(agent)["why"], 30)
            assert row(agent)["state"] == "degraded"
            assert "1 kernel reporting" in row(agent)["detail"]
            assert agent.status()["drops"]["kernels_untold"] == 0
