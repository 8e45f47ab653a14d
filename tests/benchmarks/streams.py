"""Events for the part `sigma`: what an agent saw of ordinary commands, and what rules describe themselves."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import rig

sys.path.insert(0, str(Path(__file__).parents[1]))

from nbsentinel.detect.recorded import from_ocsf
from nbsentinel.detect.rules.pack import Rule
from support.described import described

Event = dict[str, object]
EVENTS, OF_RULES = 100_000, 0.03
SEED = 11


def captured() -> list[Event]:
    """Run ordinary commands under a guarding agent and return their executions as rules see them."""
    with rig.agent('[report]\nlevel = "all"\n') as agent:
        work = agent.folder / "work"
        work.mkdir()
        rig.own(work)
        script = Path(__file__).with_name("programs") / "ordinary.sh"
        subprocess.run(agent.guarded("bash", str(script), str(work)), env=agent.environment, check=True)
        agent.settle(5)
        time.sleep(1)
        lines = agent.report.read_bytes().rpartition(b"\n")[0].splitlines()
    found = [known for line in lines if (known := from_ocsf(json.loads(line))) is not None]
    return [fields for category, fields in found if category == "process_creation"]


def streams(rules: list[Rule]) -> dict[str, list[Event]]:
    """Return the same number of events as they repeat in life, and all different from each other."""
    chance = random.Random(SEED)
    ordinary = captured()
    if len(ordinary) < 300:
        raise SystemExit(f"Only {len(ordinary)} executions were captured: the figures would mean little.")
    repeating, distinct = [], []
    for number in range(EVENTS):
        base = chance.choice(ordinary)
        if chance.random() < OF_RULES:
            base = {**base, **described(chance.choice(rules), chance)}
        repeating.append({**base, "ProcessId": number})
        line = f"{base.get('CommandLine', '')} ../data/{chance.getrandbits(32):08x}.csv"
        distinct.append({**base, "ProcessId": number, "CommandLine": line})
    return {"repeating": repeating, "distinct": distinct}
