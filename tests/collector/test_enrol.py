"""Enrolment: a token is good once; a copy of it gives its thief away."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbsentinel_collector import tokens
from nbsentinel_collector.silence import check

from .conftest import Agent, Collector, problem


def test_token_is_exchanged_for_the_next(collector: Collector) -> None:
    """Each enrolment gives the token for the next one of the same agent."""
    answer = collector.enrol(Agent()).json()
    assert answer["agent_uid"] == "agent-1"
    assert collector.enrol(Agent(), answer["next_token"]).status_code == 200
    problem(collector.enrol(Agent("agent-2"), answer["next_token"]), 403, "foreign-token")


def test_repeated_request(collector: Collector) -> None:
    """The same enrolment again, because the answer was lost, has the same answer and raises nothing."""
    agent, token = Agent(), collector.token()
    assert collector.enrol(agent, token).json() == collector.enrol(agent, token).json()
    assert collector.alarms() == []


def test_token_used_twice(collector: Collector) -> None:
    """A token that was copied is refused the second time, and that is a finding."""
    token = collector.token()
    collector.enrol(Agent(), token)
    problem(collector.enrol(Agent(), token), 409, "token-reused")
    assert collector.alarms() == ["token_reused"]


@pytest.mark.parametrize("same", [True, False])
def test_token_presented_twice_at_once(collector: Collector, monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    """A token that another request spends between reading and spending it is good for the same enrolment alone."""
    token, secret = collector.token(), b"secret"
    now, answers = tokens.now_ms, list[str]()

    def other_first() -> int:
        monkeypatch.setattr(tokens, "now_ms", now)
        answers.append(tokens.use(connection, secret, token, agent_uid="other", fingerprint="a"))
        return now()

    monkeypatch.setattr(tokens, "now_ms", other_first)
    with collector.store.write() as connection:
        if same:
            answers.append(tokens.use(connection, secret, token, agent_uid="one", fingerprint="a"))
        else:
            with pytest.raises(tokens.TokenReusedError) as caught:
                tokens.use(connection, secret, token, agent_uid="one", fingerprint="b")
            assert caught.value.agent_uid == "other"
    assert len(set(answers)) == 1


def test_unknown_and_expired_tokens(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up or old token is refused."""
    problem(collector.enrol(Agent(), "nbs_x"), 403, "unknown-token")
    token = collector.token()
    later = tokens.now_ms() + 2 * tokens.HOUR_MS
    monkeypatch.setattr(tokens, "now_ms", lambda: later)
    problem(collector.enrol(Agent(), token), 403, "expired-token")


def test_tokens_are_not_stored(collector: Collector) -> None:
    """Whoever reads the database learns no token."""
    token = collector.token()
    following = collector.enrol(Agent(), token).json()["next_token"]
    path = Path(collector.config.database.removeprefix("sqlite:///"))
    content = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    assert tokens.digest(token).encode() in content
    assert token.encode() not in content
    assert following.encode() not in content


def test_restart_without_goodbye(collector: Collector) -> None:
    """A new chain of an agent whose last one said no goodbye is a finding, once."""
    first = Agent()
    token = collector.enrol(first).json()["next_token"]
    second = Agent()
    token = collector.enrol(second, token).json()["next_token"]
    assert collector.alarms() == ["restarted_without_goodbye"]
    collector.send([second.own("goodbye")])
    collector.enrol(Agent(), token)
    assert collector.alarms() == ["restarted_without_goodbye"]


def test_orphan_is_marked(collector: Collector) -> None:
    """A chain presented by its successor is marked as vouched for."""
    agent = Agent()
    collector.enrol(agent, orphan=True)
    assert collector.client.get("/v1/keys").json()["chains"][agent.chain.chain_uid]["attested"] == "vouched"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"token": 1, "line": "x"}', 422),
        (b'{"token": "", "line": "x"}', 422),
        (b'{"token": "x", "line": "x", "more": 1}', 422),
        (b'{"token": "x", "line": "x"}', 400),
        (b'{"token": "x", "line": "\\ud800"}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 10_000, 422),
    ],
)
def test_malformed_enrolments(collector: Collector, body: bytes, status: int) -> None:
    """Anything else is a precise refusal."""
    answer = collector.client.post("/v1/enroll", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.json()["type"].startswith("urn:nbsentinel:problem:")
    assert collector.count() == 0


def test_genesis_must_name_the_agent(collector: Collector) -> None:
    """An enrolment without an agent is refused."""
    agent = Agent("")
    problem(collector.enrol(agent), 422, "bad-genesis")


def test_silence(collector: Collector, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not heard for too long without a goodbye is reported once for each silence."""
    from nbsentinel_collector import silence

    assert check(collector.store, 60) == 0
    later = silence.now_ms() + 61_000
    monkeypatch.setattr(silence, "now_ms", lambda: later)
    assert check(collector.store, 60) == 1
    assert check(collector.store, 60) == 0
    collector.send([agent.own("goodbye")])
    assert check(collector.store, 60) == 0
    assert collector.alarms() == ["silent"]
