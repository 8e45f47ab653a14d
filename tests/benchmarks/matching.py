"""How fast rules are matched, beside pySigma's SQLite backend and sigma-rule-matcher on the same events in one run.

The rules are the public ones for Linux, where a copy lies beside the checkout or NBSENTINEL_SIGMA_DATA says so. Every
event is handed over as a dictionary of fields, one by one, as the agent does; what is not streaming says so. Rounds of
all contestants are interleaved, and the median of each is told. Each works in one thread; time is what the processor
spent on it, so that what else runs on the machine counts for nobody.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import streams

from nbsentinel.detect.rules.compile import compile_paths
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import Pack, load_pack

DATA = Path(os.environ.get("NBSENTINEL_SIGMA_DATA") or Path(__file__).parents[3] / "shared" / "data")
ROUNDS = 3
FEW = 2_000
"""Events for the contestant that takes a second for a few hundred."""
CATEGORY = "process_creation"
MEMORY = """
import gc, sys
from nbsentinel.detect.rules.pack import load_pack
from nbsentinel.detect.rules import matcher
def private():
    gc.collect()
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
data = open(sys.argv[1], "rb").read()
before = private()
kept = matcher.Matcher(load_pack(data))
print(private() - before)
"""


def measure() -> list[tuple]:
    """Return the figures of the part `sigma`."""
    folder = DATA / "sigma-linux" / CATEGORY
    if not folder.is_dir():
        print(f"sigma: no rules in {folder}; set NBSENTINEL_SIGMA_DATA")
        return []
    import peers

    compiled = compile_paths([folder])
    pack = load_pack(compiled.pack())
    events = streams.streams(list(pack.rules))
    parsed = peers.read(folder)
    fields = sorted({name for event in events["distinct"] for name in event} | _fields_of(pack))
    sqlite = peers.Sqlite(parsed, fields)
    other = peers.Evaluator(parsed, events["distinct"][0])
    print(f"sigma: {len(pack.rules)} rules, {len(events['distinct'])} events, {other.unsupported} rules that")
    print("       sigma-rule-matcher cannot use; it gets fewer events")
    contestants: dict[str, Callable[[], tuple[int, peers.Pairs]]] = {
        "nbsentinel, all events distinct": lambda: _ours(pack, events["distinct"]),
        "nbsentinel, events as they repeat": lambda: _ours(pack, events["repeating"]),
        "SQLite, streaming": lambda: (len(events["distinct"]), sqlite.stream(events["distinct"])),
        "SQLite, batch": lambda: (len(events["distinct"]), sqlite.batch(events["distinct"])),
        "sigma-rule-matcher": lambda: (FEW, other.stream(events["distinct"][:FEW])),
    }
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    met: dict[str, peers.Pairs] = {}
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            began = time.process_time()
            count, met[name] = run()
            speeds[name].append(count / (time.process_time() - began))
    median = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        print(f"  {name:34} {median[name]:>10,.0f} events/s  ({', '.join(f'{v:,.0f}' for v in values)})")
    different = _compare(pack, events["distinct"], met["nbsentinel, all events distinct"], met["SQLite, batch"])
    ours, repeated = median["nbsentinel, all events distinct"], median["nbsentinel, events as they repeat"]
    share = 100 * len({number for number, _ in met["nbsentinel, all events distinct"]}) / len(events["distinct"])
    return [
        ("sigma: events/s, all distinct", ours, "1/s", 100_000, False),
        ("sigma: events/s, as they repeat", repeated, "1/s", 100_000, False),
        (
            "sigma: times SQLite streaming",
            ours / median["SQLite, streaming"],
            "x",
            5,
            False,
        ),
        (
            "sigma: times SQLite batch",
            ours / median["SQLite, batch"],
            "x",
            1,
            False,
        ),
        ("sigma: events that meet a rule", share, "%", 2, False),
        ("sigma: matches that differ from SQLite", different, "", 0),
        ("sigma: memory of the loaded pack", _memory(compiled.pack()), "MiB", 10),
    ]


def _ours(pack: Pack, events: list[streams.Event]) -> tuple[int, set[tuple[int, str]]]:
    """Match with a matcher that remembers nothing yet."""
    match = Matcher(pack).match
    found = set()
    for number, event in enumerate(events):
        for rule in match(CATEGORY, event):
            found.add((number, rule.id))
    return len(events), found


def _fields_of(pack: Pack) -> set[str]:
    from nbsentinel.detect.rules.index import fields_of

    return set(fields_of(condition for rule in pack.rules for condition in rule.conditions))


def _compare(pack: Pack, events: list[streams.Event], ours: set[tuple[int, str]], theirs: set[tuple[int, str]]) -> int:
    """Print each rule on which the two do not agree, with an event; return how many matches that are."""
    titles = {rule.id: rule.title for rule in pack.rules}
    for name, pairs in (("ours alone", ours - theirs), ("SQLite's alone", theirs - ours)):
        for uid, count in Counter(uid for _, uid in pairs).most_common():
            number = next(number for number, found in sorted(pairs) if found == uid)
            print(f"  {name}: {count} x {titles[uid]}: {events[number]}")
    return len(ours ^ theirs)


def _memory(data: bytes) -> float:
    """Return what loading a pack and building its matcher adds to a process, in MiB."""
    path = Path("build") / "pack.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024
