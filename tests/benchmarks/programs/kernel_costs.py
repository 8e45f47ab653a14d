"""Two kernels, one with us and one without, asked in turn; prints nanoseconds of each as JSON.

Run as `kernel_costs.py FOLDER RUN_DIR ROUNDS`, by the agent's user.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from kernel.harness import Kernel

SETUP = """
import os, socket, sys, threading, time, types
def turns(count, work, clock=time.perf_counter_ns):
    begun = clock()
    for _ in range(count): work()
    return (clock() - begun) / count
def opens():
    os.close(os.open('/proc/self/stat', 0))
def opens_text():
    open('/proc/self/stat').close()
def connects(s=None):
    s = socket.socket(); s.connect_ex(('127.0.0.1', 1)); s.close()
def hooks(count):
    '''Calls what IPython calls around a cell, in a thread where no cell runs.'''
    events, found = get_ipython().events.callbacks, []
    before = [f for f in events['pre_run_cell'] if getattr(f, '__module__', '').startswith('nbsentinel')]
    after = [f for f in events['post_run_cell'] if getattr(f, '__module__', '').startswith('nbsentinel')]
    info = types.SimpleNamespace(raw_cell='x = 1\\n' * 20, store_history=True, cell_id=None)
    result = types.SimpleNamespace(success=True)
    def run():
        for _ in range(count // 20):
            begun = time.perf_counter_ns()
            for _ in range(20):
                for f in before: f(info)
                for f in after: f(result)
            found.append((time.perf_counter_ns() - begun) / 20)
            time.sleep(0.02)
    thread = threading.Thread(target=run); thread.start(); thread.join()
    return sorted(found)[len(found) // 2]
"""
WORKS = {
    "an event that nobody wants": "turns(200_000, lambda: sys.audit('nobody.wants', 1))",
    "open, the event alone": "turns(200_000, lambda: sys.audit('open', '/usr/lib/python3/a.py', 'r', 0))",
    "os.open of a file": "turns(20_000, opens)",
    "open() of a file": "turns(10_000, opens_text)",
    "a connection": "turns(50, connects)",
    "a connection, processor time": "turns(50, connects, time.thread_time_ns)",
    "hooks around a cell": "hooks(200)",
}
CELLS = 60


def round_trips(kernel: Kernel) -> float:
    begun = time.perf_counter_ns()
    for _ in range(CELLS):
        kernel.run("pass")
    return (time.perf_counter_ns() - begun) / CELLS


def main(folder: Path, run_dir: Path, rounds: int) -> None:
    kernels = {"ours": Kernel(folder / "ours", run_dir), "plain": Kernel(folder / "plain", None)}
    found: dict[str, dict[str, list[float]]] = {}
    try:
        for kernel in kernels.values():
            kernel.run(SETUP)
        for number in range(rounds):
            for name in sorted(kernels, reverse=bool(number % 2)):
                kernel = kernels[name]
                for work, code in WORKS.items():
                    found.setdefault(work, {}).setdefault(name, []).append(float(kernel.run(code).text))
                    time.sleep(0.3)
                found.setdefault("round trip of a cell", {}).setdefault(name, []).append(round_trips(kernel))
                time.sleep(0.5)
    finally:
        for kernel in kernels.values():
            kernel.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
