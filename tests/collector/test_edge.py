"""The HTTP edge: bounds, problems, authorisation; never a 5xx, nothing stored by a refused request."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbsentinel.errors import ConfigError
from nbsentinel_collector.config import EXAMPLE, CollectorConfig, load

from .conftest import NDJSON, Agent, Collector, problem


def post(collector: Collector, body: bytes, **headers: str) -> int:
    answer = collector.client.post("/v1/events", content=body, headers={**NDJSON, **headers})
    if answer.status_code != 200:
        assert answer.headers["Content-Type"] == "application/problem+json"
    return answer.status_code


def test_bounds(tmp_path: Path) -> None:
    """Bodies are bounded as sent, as decoded and by lines."""
    collector = Collector(tmp_path, max_body_bytes=2000, max_decoded_bytes=4000, max_lines=3)
    gz = {"Content-Encoding": "gzip"}
    try:
        assert post(collector, b"x" * 2001) == 413
        assert post(collector, gzip.compress(b"x" * 1_000_000), **gz) == 413
        assert post(collector, b"{}\n" * 4) == 413
    finally:
        collector.close()


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"\n", {}, 400),
        (b"{}\n\n{}", {}, 400),
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"{}", {"Content-Encoding": "br"}, 415),
        (b"not gzip", {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b"{}")[:-3], {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b"{}") + b"x", {"Content-Encoding": "gzip"}, 400),
        (b"\xff\xfe\n", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b'{"a":1e400}', {}, 400),
        (b'{"a":NaN}', {}, 400),
        (b'{"a":1,"a":1}', {}, 400),
        (b"x" * 300_000, {}, 413),
    ],
)
def test_malformed_bodies(collector: Collector, body: bytes, headers: dict[str, str], status: int) -> None:
    """Each kind of nonsense has its own 4xx with a problem body."""
    assert post(collector, body, **headers) == status
    assert collector.count() == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=10), children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_refused_politely(collector: Collector, body: bytes) -> None:
    """Arbitrary bytes and JSON: a 4xx, nothing stored."""
    assert 400 <= post(collector, body) < 500
    answer = collector.client.post("/v1/enroll", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert collector.count() == 0


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_mutation_of_a_good_line_is_refused(collector: Collector, data: st.DataObject) -> None:
    """A good line with any byte replaced is a 4xx, and the good one is still accepted after it."""
    agent = Agent(f"agent-{data.draw(st.integers(0, 10**9))}")
    collector.enrol(agent)
    (line,) = agent.write(1)
    place = data.draw(st.integers(0, 999_999)) * len(line) // 1_000_000
    changed = line[:place] + bytes([line[place] ^ data.draw(st.integers(1, 255))]) + line[place + 1 :]
    assert 400 <= post(collector, changed) < 500
    assert collector.send([line]).json()["accepted"] == 1


@pytest.mark.parametrize("path", ["/v1/findings", "/v1/agents", "/v1/events", "/v1/keys", "/v1/heads", "/metrics"])
def test_reading_needs_the_token(tmp_path: Path, path: str) -> None:
    """With a read token, nothing is told without it; health is."""
    collector = Collector(tmp_path, read_token="secret")
    try:
        problem(collector.client.get(path), 401, "unauthorized")
        assert collector.client.get(path, headers={"Authorization": "Bearer secret"}).status_code == 200
        assert collector.client.get("/healthz").status_code == 200
    finally:
        collector.close()


def test_unknown_places_and_parameters(collector: Collector) -> None:
    """The framework's own refusals are problems too."""
    problem(collector.client.get("/nowhere"), 404, "not-found")
    problem(collector.client.put("/v1/events"), 405, "method-not-allowed")
    problem(collector.client.get("/v1/findings", params={"limit": 0}), 422, "malformed")
    problem(collector.client.get("/v1/findings", params={"after": "x"}), 422, "malformed")


def test_pages_and_filters(collector: Collector, agent: Agent) -> None:
    """Findings come in pages, by severity and by agent."""
    collector.send([*agent.write(3, severity=2), *agent.write(3, severity=4)])
    get = collector.client.get
    first = get("/v1/findings", params={"limit": 4}).json()
    second = get("/v1/findings", params={"limit": 4, "after": first["next"]}).json()
    assert [len(page["findings"]) for page in (first, second)] == [4, 2]
    assert all(item["verified"] for item in first["findings"])
    assert len(get("/v1/findings", params={"min_severity": 3}).json()["findings"]) == 3
    assert get("/v1/findings", params={"agent": "nobody"}).json()["findings"] == []


def test_agents_and_metrics(collector: Collector, agent: Agent) -> None:
    """An agent is shown with its chain, head and coverage; figures are for Prometheus."""
    collector.send([agent.own("heartbeat", coverage=[{"sensor": "procfs", "state": "active", "why": ""}])])
    (shown,) = collector.client.get("/v1/agents").json()["agents"]
    assert (shown["agent_uid"], shown["state"]) == ("agent-1", "live")
    assert shown["coverage"][0]["sensor"] == "procfs"
    assert shown["chains"][0]["head"]["sequence"] == 2
    text = collector.client.get("/metrics").text
    assert "nbsentinel_events_accepted_total 1.0" in text
    assert 'nbsentinel_agents{state="live"} 1.0' in text


def test_example_is_valid(tmp_path: Path) -> None:
    """The printed example is the default configuration."""
    path = tmp_path / "collector.toml"
    path.write_text(EXAMPLE)
    assert load(path) == CollectorConfig(database=f"sqlite:///{tmp_path}/collector.db")


@pytest.mark.parametrize(
    "text", ["", "[collector]\nx = 1", "[collector]\nport = 0", "[other]", "[", '[collector]\ntls_key = "x"']
)
def test_wrong_configuration(tmp_path: Path, text: str) -> None:
    """A mistake is one line with file and key."""
    path = tmp_path / "collector.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
