"""A collector in memory of this process, and agents that write chains for it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from nbsentinel.attest.chain import Chain
from nbsentinel.attest.keys import SigningKey
from nbsentinel_collector.app import create_app
from nbsentinel_collector.config import CollectorConfig
from nbsentinel_collector.store import Store, now_ms
from nbsentinel_collector.tokens import issue

_numbers = itertools.count()
NDJSON = {"Content-Type": "application/x-ndjson"}


class Agent:
    """Writes one chain, as an agent does."""

    def __init__(self, agent_uid: str = "agent-1") -> None:
        self.uid = agent_uid
        self.chain = Chain(f"chain-{next(_numbers)}", SigningKey.generate(), now=now_ms)
        self.genesis = self.own("enrol", key=self.chain.genesis_key.jwk(), agent_uid=agent_uid)
        self.lines: list[bytes] = [self.genesis]

    def own(self, what: str, **details: object) -> bytes:
        """Seal an event about the agent."""
        event = {
            "class_uid": 6002,
            "severity_id": 1,
            "time": now_ms(),
            "type_uid": 600299,
            "unmapped": {"nbsentinel": {"what": what, **details}},
        }
        return self.chain.seal(event).line

    def write(self, count: int, *, severity: int = 4) -> list[bytes]:
        """Seal findings."""
        made = []
        for _ in range(count):
            info = {"uid": f"f{next(_numbers)}", "analytic": {"uid": "r", "name": "rule"}}
            event = {"class_uid": 2004, "severity_id": severity, "time": now_ms(), "finding_info": info}
            made.append(self.chain.seal(event).line)
        self.lines += made
        return made

    def rotate(self) -> bytes:
        """Seal a rotation of keys."""
        line = self.chain.rotate({"class_uid": 6002, "severity_id": 1, "time": now_ms()}).line
        self.lines.append(line)
        return line


class Collector:
    """The application with a client."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.config = CollectorConfig(database=f"sqlite:///{folder}/collector.db", **settings)
        self.store = Store(self.config.database)
        self.client = TestClient(create_app(self.config, self.store), raise_server_exceptions=True)
        self.client.__enter__()

    def close(self) -> None:
        self.client.__exit__(None, None, None)
        self.store.close()

    def token(self) -> str:
        return issue(self.store, hours=1)

    def enrol(self, agent: Agent, token: str | None = None, **more: object) -> httpx.Response:
        body = {"token": token or self.token(), "line": agent.genesis.decode(), **more}
        return self.client.post("/v1/enroll", json=body)

    def send(self, lines: list[bytes], headers: dict[str, str] | None = None) -> httpx.Response:
        return self.client.post("/v1/events", content=b"\n".join(lines) + b"\n", headers={**NDJSON, **(headers or {})})

    def count(self) -> int:
        return len([line for line in self.client.get("/v1/events").content.splitlines() if line])

    def alarms(self) -> list[str]:
        found = self.client.get("/v1/findings", params={"limit": 1000}).json()["findings"]
        return [item["event"]["finding_info"]["analytic"]["name"] for item in found if item["source"] == "collector"]


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    made = Collector(tmp_path)
    yield made
    made.close()


@pytest.fixture
def agent(collector: Collector) -> Agent:
    """An agent that is enrolled."""
    made = Agent()
    assert collector.enrol(made).status_code == 200
    return made


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem of this kind, and return its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = json.loads(answer.content)
    assert body["type"] == f"urn:nbsentinel:problem:{code}"
    assert body["status"] == status
    assert {"title", "detail"} <= body.keys()
    assert isinstance(body, dict)
    return body
