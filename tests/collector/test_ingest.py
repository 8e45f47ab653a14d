"""Taking events in: verified before they are stored, once, in order, all or nothing."""

from __future__ import annotations

import gzip
import threading

import pytest

from .conftest import Agent, Collector, problem


def test_signed_bytes_are_stored_as_they_came(collector: Collector, agent: Agent) -> None:
    """An export is byte for byte what the agent signed."""
    lines = agent.write(5)
    answer = collector.send(lines)
    assert answer.json() == {"accepted": 5, "duplicates": 0, "heads": {agent.chain.chain_uid: 6}}
    exported = collector.client.get("/v1/events", params={"chain_uid": agent.chain.chain_uid}).content
    assert exported.splitlines() == agent.lines


def test_gzip(collector: Collector, agent: Agent) -> None:
    """A compressed body is the same as a plain one."""
    body = gzip.compress(b"\n".join(agent.write(50)))
    answer = collector.client.post(
        "/v1/events", content=body, headers={"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
    )
    assert answer.json()["accepted"] == 50


def test_again_is_no_harm(collector: Collector, agent: Agent) -> None:
    """The same lines again are counted and not stored twice, alone or mixed with new ones."""
    first, second = agent.write(3), agent.write(2)
    collector.send(first)
    assert collector.send([*first, *second]).json() == {
        "accepted": 2,
        "duplicates": 3,
        "heads": {agent.chain.chain_uid: 6},
    }
    assert collector.send([agent.genesis]).json()["duplicates"] == 1
    assert collector.count() == 6


def test_key_rotations_within_and_between_batches(collector: Collector, agent: Agent) -> None:
    """A chain is followed through its keys, wherever a batch ends."""
    lines = [*agent.write(2), agent.rotate(), *agent.write(2), agent.rotate()]
    assert collector.send(lines).status_code == 200
    assert collector.send(agent.write(2)).status_code == 200
    assert collector.count() == 9


def test_missing_events(collector: Collector, agent: Agent) -> None:
    """A gap is refused with the number that is expected."""
    lines = agent.write(5)
    body = problem(collector.send(lines[2:]), 409, "gap")
    assert (body["chain_uid"], body["expected_sequence"], body["line"]) == (agent.chain.chain_uid, 2, 1)
    assert collector.count() == 1


@pytest.mark.parametrize("place", [0, 2, 4])
def test_one_bad_line_keeps_the_batch_out(collector: Collector, agent: Agent, place: int) -> None:
    """A changed byte anywhere in a batch: nothing of it is stored, and the line is named."""
    lines = agent.write(5)
    lines[place] = lines[place].replace(b'"severity_id":4', b'"severity_id":1')
    assert problem(collector.send(lines), 400, "changed")["line"] == place + 1
    assert collector.count() == 1


def test_two_writers_with_one_key(collector: Collector, agent: Agent) -> None:
    """Another validly signed event in a known place is a fork: refused, and a finding of the collector."""
    import copy

    twin = copy.copy(agent.chain)
    lines = agent.write(3)
    collector.send(lines)
    other = twin.seal({"class_uid": 2004, "severity_id": 1, "time": 1}).line
    problem(collector.send([other]), 409, "fork")
    problem(collector.send([other]), 409, "fork")
    assert collector.alarms() == ["fork"]
    assert collector.count() == 4


def test_forged_event_in_a_known_place(collector: Collector, agent: Agent) -> None:
    """Somebody without the key cannot raise a fork."""
    collector.send(agent.write(1))
    stranger = Agent()
    stranger.chain.chain_uid = agent.chain.chain_uid
    forged = stranger.write(1)[0]
    problem(collector.send([forged]), 400, "bad-signature")
    assert collector.alarms() == []


def test_unknown_chain(collector: Collector) -> None:
    """A chain that never enrolled is told so."""
    stranger = Agent()
    body = problem(collector.send(stranger.write(1)), 403, "unknown-chain")
    assert body["chain_uid"] == stranger.chain.chain_uid


def test_several_chains_in_one_batch(collector: Collector, agent: Agent) -> None:
    """Lines of several chains may be mixed."""
    other = Agent("agent-2")
    collector.enrol(other)
    one, two = agent.write(2), other.write(2)
    assert collector.send([one[0], two[0], one[1], two[1]]).json()["accepted"] == 4


def test_same_batch_from_eight_at_once(collector: Collector, agent: Agent) -> None:
    """However many send the same lines at the same moment, each is stored once."""
    lines = agent.write(40)
    answers: list[int] = []

    def send() -> None:
        answers.append(collector.send(lines).status_code)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    assert collector.count() == 41


def test_pruned_events(collector: Collector, agent: Agent) -> None:
    """A declared hole is crossed and closed by the agent's signed statement; without one it becomes a finding."""
    from nbsentinel.attest import canonical
    from nbsentinel.attest.attestation import parts, signature_sha256

    lines = agent.write(6)
    gone = [parts(canonical.decode(line)) for line in lines[1:3]]
    across = {"Nbsentinel-Across-Gap": "1"}
    assert collector.send([lines[0], *lines[3:]], across).status_code == 200
    statement = {
        "first": gone[0].sequence,
        "last": gone[1].sequence,
        "prev_fingerprint": gone[0].prev_fingerprint,
        "last_fingerprint": gone[1].fingerprint,
        "last_signature_sha256": signature_sha256(gone[1].signature),
        "counts": {"4": 2},
    }
    collector.send([agent.own("dropped", ranges=[statement]), agent.own("heartbeat")])
    assert collector.alarms() == []
    more = agent.write(3)
    collector.send([more[0], more[2], agent.own("heartbeat")], across)
    assert collector.alarms() == ["events_missing"]
