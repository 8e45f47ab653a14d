"""`make bench`: what the agent costs and how fast it is, beside a peer in the same run where there is one.

Figures go to the screen and to build/bench.json. Nothing here fails on a slow machine: goals are printed beside what
was measured. Parts are run by their names, `-h` lists them; `run.py recall DIR` compares rule sets on recorded cases,
which takes arguments of its own (`recall -h`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import completeness
import credentials
import idle
import ingest
import kernels
import latency
import matching
import overhead
import recall


class Figure(NamedTuple):
    """One measured figure and its goal."""

    name: str
    measured: float
    unit: str
    goal: float
    at_most: bool = True

    @property
    def is_met(self) -> bool:
        """Whether the goal is met."""
        return self.measured <= self.goal if self.at_most else self.measured >= self.goal


PARTS: dict[str, Callable[[], list[tuple]]] = {
    "idle": idle.measure,
    "latency": latency.measure,
    "collector": ingest.measure,
    "overhead": overhead.measure,
    "completeness": completeness.measure,
    "files": credentials.measure,
    "kernels": kernels.measure,
    "sigma": matching.measure,
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="run.py", description="Measure what the agent costs and how fast it is.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of: {', '.join(PARTS)}; all without any")
    names = parser.parse_args(arguments).parts or list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    figures = [Figure(*row) for name in names for row in PARTS[name]()]
    width = max(len(figure.name) for figure in figures)
    print(f"\n{'figure':{width}}  {'measured':>12}  {'goal':>12}")
    for figure in figures:
        sign = "<=" if figure.at_most else ">="
        mark = "" if figure.is_met else "  NOT MET"
        print(f"{figure.name:{width}}  {figure.measured:>12.2f}  {sign} {figure.goal:>9.2f} {figure.unit}{mark}")
    out = Path("build/bench.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps([{**figure._asdict(), "met": figure.is_met} for figure in figures], indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["recall"]:
        recall.main(sys.argv[2:])
    else:
        main(sys.argv[1:])
