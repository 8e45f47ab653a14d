"""The guard's first law: a program behaves under it exactly as without it. Exit code and output are compared."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from guard.comparison import Outcome, Workshop, missing
from guard.harness import Guard, guard
from guard.programs import CASES
from guard.programs.case import Case
from nbsentinel_guard import abi

pytestmark = pytest.mark.skipif(abi.machine() is None, reason="no table of system calls for this machine")

WORKERS = 4
"""Many cases wait more than they work."""
Pair = tuple[Outcome, Outcome]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory):
    with guard(tmp_path_factory.mktemp("g") / "run") as found:
        yield found


@pytest.fixture(scope="module")
def compared(
    request: pytest.FixtureRequest, running: Guard, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Case], Pair]]:
    """Run the chosen cases, a few at a time; return what gives (without, with) for one of them."""
    folder = tmp_path_factory.mktemp("cases")

    def compare(number: int, case: Case) -> Pair:
        own = folder / str(number)
        own.mkdir()
        workshop = Workshop(own, folder / "cache")
        workshop.prepare(case)
        plain, inside = workshop.run(case, None), workshop.run(case, running)
        if plain == inside:
            return plain, inside
        # A race of the program's own may turn out otherwise once; what the guard does to it shows again.
        again = [(workshop.run(case, None), workshop.run(case, running)) for _ in range(2)]
        print(f"{case.name} differed: {plain} without, {inside} with the guard")
        return next((pair for pair in again if pair[0] != pair[1]), again[0])

    chosen = [item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")]
    with ThreadPoolExecutor(WORKERS) as pool:
        futures: dict[str, Future[Pair]] = {
            case.name: pool.submit(compare, number, case)
            for number, case in enumerate(chosen)
            if isinstance(case, Case) and not missing(case)
        }
        yield lambda case: futures[case.name].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_as_without(compared: Callable[[Case], Pair], case: Case) -> None:
    """Exit code, output and errors are those of the unguarded program."""
    if lacking := missing(case):
        pytest.skip(f"not installed: {', '.join(lacking)}")
    plain, inside = compared(case)
    assert inside == plain


@pytest.mark.parametrize(
    "name", ["static program", "static program with threads", "musl program", "go program, static"]
)
def test_compiled_programs_are_seen(running: Guard, tmp_path: Path, name: str) -> None:
    """A program without a shared library behaves as ever and is told all the same, each time that it is executed."""
    case = next(case for case in CASES if case.name.endswith(": " + name))
    if lacking := missing(case):
        pytest.skip(f"not installed: {', '.join(lacking)}")
    workshop = Workshop(tmp_path, tmp_path / "cache")
    workshop.prepare(case)
    assert workshop.run(case, running).code == workshop.run(case, None).code
    own = os.fsdecode(Path(workshop.environment["MADE"], Path(case.command[0]).name).resolve())
    executions = 1 if name.startswith("go") else 4
    assert running.wait(lambda: sum(e["exe"] == own for e in running.of_kind("exec")) >= executions)


def test_no_failure_of_the_guard(running: Guard) -> None:
    """The guard has met nothing that it did not expect so far, whatever order tests come in."""
    assert not running.of_kind("failure")


def test_names_of_cases() -> None:
    """Each case has a name of its own, so that a failure points at one."""
    names = Counter(case.name for case in CASES)
    assert max(names.values()) == 1
    assert len(names) >= 80
