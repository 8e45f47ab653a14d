"""The same acts as cells of a kernel that reports: the finding must name the cell."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks.cases.acts import ALL, Act
from attacks.cases.acts.cells import CELLS
from attacks.stage import LAST_REPORT_S, Stage, stage
from kernel.harness import Kernel, Outcome, kernel
from live.account import Account
from live.agent import Reported
from live.campaign import lacking
from live.programs import Language

ACTS = (*(act for act in ALL if act.in_cell), *CELLS)
each_act = pytest.mark.parametrize("case", ACTS, ids=lambda act: act.name)
_PLACE = """
import os, pathlib
folder = pathlib.Path({folder!r})
folder.mkdir(exist_ok=True)
os.chdir(folder)
os.environ.update({variables})
"""
PAUSE_S = 0.25
"""Time between two cells: of cells that follow each other at once the kernel's word alone tells which one it was."""
SECOND_TRIES = 0.1
"""The share of the acts that may need a second try."""
Outcomes = dict[str, tuple[Outcome, float]]


@pytest.fixture(scope="module")
def place(account: Account, folder: Path) -> Iterator[Stage]:
    """The one agent of this module, and what is around it."""
    with stage(account, folder, ACTS) as made:
        yield made


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, folder: Path, place: Stage) -> Outcomes:
    """What came of each chosen act, and when it was over: one after the other in one notebook, with two tries."""
    items = [item for item in request.session.items if item.parent is request.node and hasattr(item, "callspec")]
    mine = [item.callspec.params["case"] for item in items]
    more = place.environment(ACTS[0])
    with kernel(place.home, place.home / "run", None, **more) as running:
        some = [act for act in ACTS if act in mine and lacking(act) is None]
        found = {act.name: _run(running, folder, place, act) for act in some}
        missed = [act for act in some if _finding(place, act, found[act.name][1]) is None]
        print(f"not reported at first: {', '.join(act.name for act in missed) or 'none'}")
        assert len(missed) <= max(1, SECOND_TRIES * len(some))
        return found | {act.name: _run(running, folder, place, act) for act in missed}


def _run(running: Kernel, folder: Path, place: Stage, act: Act) -> tuple[Outcome, float]:
    variables = json.dumps(place.environment(act))
    running.run(_PLACE.format(folder=str(folder / f"cell-{act.name}"), variables=variables))
    time.sleep(PAUSE_S)
    text = act.text.strip("\n")
    outcome = running.run(f"%%bash\n{text}" if act.language is Language.BASH else text, act.name)
    return outcome, time.time()


def _finding(place: Stage, act: Act, over: float) -> Reported | None:
    while True:
        for found in place.agent.findings():
            here = f"id {act.name} " in found.fields.get("cell", "")
            if (
                here
                and found.severity >= act.severity
                and any(one.startswith(act.technique) for one in found.techniques)
            ):
                return found
        if time.time() > over + LAST_REPORT_S:
            return None
        time.sleep(0.1)


def _of(act: Act, outcomes: Outcomes) -> tuple[Outcome, float]:
    if (reason := lacking(act)) is not None:
        pytest.skip(reason)
    return outcomes[act.name]


@each_act
def test_act_is_real(case: Act, outcomes: Outcomes, place: Stage) -> None:
    """The act takes place in the cell: its output and the other end show it."""
    outcome, _ = _of(case, outcomes)
    assert case.proof in outcome.text, outcome
    assert place.peer.heard.wait(case.heard)


@each_act
def test_the_cell_is_reported(case: Act, outcomes: Outcomes, place: Stage) -> None:
    """It is a finding that names this cell, with the technique that the rule names."""
    _, over = _of(case, outcomes)
    finding = _finding(place, case, over)
    near = [found for found in place.agent.findings() if over - 5 < found.at < over + LAST_REPORT_S]
    assert finding is not None, f"no finding names the cell; near it: {near}"
