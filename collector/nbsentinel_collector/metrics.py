"""What the collector counts, for Prometheus."""

from __future__ import annotations

from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from nbsentinel_collector import queries
from nbsentinel_collector.store import Store


class Metrics:
    """Counters of one collector process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.accepted = Counter("nbsentinel_events_accepted", "Events verified and stored", registry=self.registry)
        self.duplicates = Counter("nbsentinel_events_duplicate", "Events received again", registry=self.registry)
        self.refused = Counter("nbsentinel_requests_refused", "Requests refused", ["reason"], registry=self.registry)
        self.enrolled = Counter("nbsentinel_enrolments", "Enrolments accepted", registry=self.registry)
        self.seconds = Histogram(
            "nbsentinel_ingest_seconds", "Time to verify and store a batch", registry=self.registry
        )
        self.agents = Gauge("nbsentinel_agents", "Agents by state", ["state"], registry=self.registry)

    def render(self, store: Store, silence_seconds: int) -> bytes:
        """Return all figures in Prometheus's text format."""
        states = Tally(str(agent["state"]) for agent in queries.agents(store, silence_seconds=silence_seconds))
        for state in ("live", "silent", "stopped"):
            self.agents.labels(state).set(states.get(state, 0))
        return generate_latest(self.registry)
