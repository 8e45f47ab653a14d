"""Events a second that the collector verifies and stores, beside raw P-256 verification in the same run."""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from pathlib import Path

from nbsentinel.attest.chain import Chain
from nbsentinel.attest.keys import SigningKey
from nbsentinel_collector import enrol, ingest, tokens
from nbsentinel_collector.store import Store, now_ms

ROUNDS = 7
BATCH = 1000
"""An agent's default for one request."""
PAYLOAD = "x" * 1500


def _event(**more: object) -> dict[str, object]:
    base = {"class_uid": 2004, "severity_id": 4, "time": now_ms(), "message": PAYLOAD, "type_uid": 200401}
    return {**base, **more}


def measure() -> list[tuple]:
    """Return the rates and their ratio, as medians of interleaved rounds."""
    key = SigningKey.generate()
    digest = hashlib.sha256(b"event").digest()
    signature = key.sign(digest)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{Path(folder)}/collector.db")
        chain = Chain("bench", SigningKey.generate(), now=now_ms)
        own = {"what": "enrol", "key": chain.genesis_key.jwk(), "agent_uid": "bench"}
        genesis = chain.seal(_event(class_uid=6002, unmapped={"nbsentinel": own})).line
        request = enrol.Request(tokens.issue(store, hours=1), genesis.decode())
        enrol.enrol(store, store.secret(), request)
        verified, stored = [], []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            for _ in range(BATCH):
                key.public.verify(digest, signature)
            verified.append(BATCH / (time.perf_counter() - begin))
            lines = [chain.seal(_event()).line for _ in range(BATCH)]
            begin = time.perf_counter()
            ingest.ingest(store, lines)
            stored.append(BATCH / (time.perf_counter() - begin))
        store.close()
    raw, ours = statistics.median(verified), statistics.median(stored)
    print(f"collector: {ROUNDS} rounds of {BATCH} events of {len(lines[0])} bytes; raw verification {raw:.0f}/s")
    return [
        ("collector, events verified and stored", ours, "events/s", raw / 2, False),
        ("collector, share of the raw verification rate", ours / raw, "", 0.5, False),
    ]
