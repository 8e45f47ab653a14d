"""Record what one agent reports of attacks and of ordinary work, case by case, so that rule sets can be compared on it.

A recording is one file of the agent's lines per case, `DIR/attacks/GROUP/CASE.ndjson` or `DIR/benign/...`, with nothing
of other cases or of the machine in it. Its first line is no event: it says what the case is and whether it proved
itself. `nbsentinel rules replay` reads such a file as it is.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

import attacks
import attacks.cases
import attacks.loops
from attacks.cases import acts, bash, binds, c, languages, netcat, notebooks, python
from attacks.cases.acts import abusing, executing, memory, reading, staying, taking
from attacks.cases.base import Case as Shell
from attacks.loops import Loop
from attacks.stage import stage
from benign import cases as benign
from benign.cases.base import Case as Work
from kernel import aws
from live.account import Account, unprivileged
from live.agent import LiveAgent, live_agent
from live.campaign import Named, lacking, workspace
from live.home import furnish
from live.orders import hand_out
from live.programs import prepare, turn
from live.shells import Speech, control
from live.web import web_server
from live.work import work

HEADER = "recorded_case"
"""The category of the first line, which no rule is on."""
SETTLE_S = 3.0
"""Time from the end of a case in which something about it may still be reported."""
Event = dict[str, Any]


class Job(msgspec.Struct, frozen=True):
    """One case and where its recording belongs."""

    kind: str
    """`attacks` or `benign`."""
    group: str
    case: Named
    suite: Suite
    """What runs it."""

    @property
    def place(self) -> str:
        """The recording's path below the folder, without its ending."""
        return f"{self.kind}/{self.group}/{self.case.name}"


class Happened(msgspec.Struct, frozen=True):
    """What became of a case."""

    proved: bool
    pids: frozenset[int]
    said: str


class Playing(msgspec.Struct, frozen=True):
    """A suite that is set up: its agent, and what runs a case in a folder of its own."""

    agent: LiveAgent
    play: Callable[[Job, Path], Happened]


Suite = Callable[[Account, Path, Sequence[Job], bool], AbstractContextManager[Playing]]
"""Sets up what some cases need, in a folder, with or without the guard; its agent reports at level `all`."""


@contextmanager
def _common(account: Account, folder: Path, _chosen: Sequence[Job], guarded: bool) -> Iterator[Playing]:
    """Set up the suite of shells, loops and ordinary work: an agent that knows the broker of one case, a web server."""
    from benign.test_benign import BROKER

    more = f'[report]\nlevel = "all"\n{BROKER}'
    with web_server() as web, live_agent(account, folder / "agent", more) as agent:

        def play(job: Job, place: Path) -> Happened:
            case: Any = job.case
            command = prepare(account, place, case.language, case.text, getattr(case, "flags", ()))
            command = agent.guarded(command) if guarded else command
            with turn(case.language):
                return _play(account, case, place, command, web)

        yield Playing(agent, play)


def _play(account: Account, case: Shell | Loop | Work, place: Path, command: list[str], web: str) -> Happened:
    if isinstance(case, Work):
        worked = work(account, place, command, {"WEB": web}, case.expects)
        return Happened(worked.done, worked.pids, worked.said)
    if isinstance(case, Loop) and case.polls:
        done = hand_out(account, place, command)
    else:
        speech = case.speech if isinstance(case, Shell) else Speech.SH
        done = control(account, place, command, case.transport, speech)
    return Happened(done.proved, done.pids, done.said)


@contextmanager
def _acts(account: Account, folder: Path, chosen: Sequence[Job], guarded: bool) -> Iterator[Playing]:
    """Set up the suite of acts beside shells, which is always guarded."""
    some = [job.case for job in chosen if isinstance(job.case, acts.Act)]
    with stage(account, folder, some) as made:

        def play(job: Job, _place: Path) -> Happened:
            assert isinstance(job.case, acts.Act)
            done = made.play(job.case)
            return Happened(done.done, done.pids, done.said)

        yield Playing(made.agent, play)


@contextmanager
def _ordinary(account: Account, folder: Path, _chosen: Sequence[Job], guarded: bool) -> Iterator[Playing]:
    """Set up the suite of ordinary days in a home full of credentials, which is always guarded."""
    from benign.test_ordinary import HOME

    home, tool = folder / "agent", folder / "ask.py"
    with web_server() as web, aws.endpoint() as cloud, live_agent(account, home, '[report]\nlevel = "all"\n') as agent:
        furnish(account, agent, home, HOME)
        shutil.copy(Path(attacks.__path__[0]) / "aws", tool)
        variables = {**aws.environment(cloud), "WEB": web, "AWS": str(tool), "HOME": str(home)}

        def play(job: Job, place: Path) -> Happened:
            case = job.case
            assert isinstance(case, Work)
            command = agent.guarded(prepare(account, place, case.language, case.text))
            done = work(account, place, command, variables, case.expects)
            return Happened(done.done, done.pids, done.said)

        yield Playing(agent, play)


def jobs() -> list[Job]:
    """Return every case of the suites, grouped by the module that it stands in."""
    shells = (bash, binds, c, languages, netcat, notebooks, python)
    others = (abusing, executing, memory, reading, staying, taking)
    found = [Job("attacks", _group(module), case, _common) for module in shells for case in module.CASES]
    found += [Job("attacks", "loops", case, _common) for case in attacks.loops.ALL]
    found += [
        Job("attacks", _group(module), act, _acts)
        for module in others
        for act in (*getattr(module, "NAMED", ()), *module.CASES)
    ]
    for module in (benign.notebooks, benign.command_line, benign.terminals, benign.processes, benign.loops):
        found += [Job("benign", _group(module), case, _common) for case in module.CASES]
    for module in (benign.projects, benign.data, benign.keys):
        found += [Job("benign", _group(module), case, _ordinary) for case in module.CASES]
    return found


def _group(module: object) -> str:
    return str(getattr(module, "__name__", "")).rpartition(".")[2]


def about(event: Event, pids: frozenset[int]) -> bool:
    """Return whether an event is about one of the processes, or about one that descends from them.

    What nobody is known to have done is about those who could have done it.
    """
    processes = [event.get("process"), event.get("actor", {}).get("process")]
    processes += [evidence.get("process") for evidence in event.get("evidences", ())]
    while processes:
        process = processes.pop()
        if process:
            if process.get("pid") in pids:
                return True
            processes.append(process.get("parent_process"))
    candidates = [
        one.partition(":")[0] for one in event.get("unmapped", {}).get("nbsentinel", {}).get("candidates", ())
    ]
    candidates += [
        one["value"].partition("@")[0] for one in event.get("enrichments", ()) if one["name"] == "CandidateRoot"
    ]
    return any(int(one) in pids for one in candidates)


def record(folder: Path, chosen: Iterable[Job], *, guarded: bool, say: Callable[[str], None]) -> int:
    """Run cases one by one, each suite before one agent, and keep what it reports; return how many proved themselves.

    Args:
        folder: Where recordings go; those of the same cases are replaced.
        chosen: The cases.
        guarded: Whether they run under the guard, where every execution and connection is seen.
        say: Takes a line about each.
    """
    account, proved = unprivileged(), 0
    for suite, some in _by_suite(chosen, say).items():
        with workspace(account) as place, suite(account, place, some, guarded) as playing:
            for number, job in enumerate(some):
                # Its own name is in its path: what is registered as trusted goes by that.
                apart = place / str(number)
                apart.mkdir()
                happened, events = _run(playing, apart / job.case.name, job)
                proved += happened.proved
                _write(folder / f"{job.place}.ndjson", job, happened, events, guarded=guarded)
                word = "recorded" if happened.proved else f"did not prove itself: {happened.said[-300:]}"
                say(f"{job.place}: {word}, {len(events)} events")
    return proved


def _by_suite(chosen: Iterable[Job], say: Callable[[str], None]) -> dict[Suite, list[Job]]:
    """Return the cases that can be run here by what runs them; say of the others why not."""
    found: dict[Suite, list[Job]] = {}
    for job in chosen:
        if (reason := lacking(job.case)) is not None:
            say(f"{job.place}: not recorded: {reason}")
        else:
            found.setdefault(job.suite, []).append(job)
    return found


def _run(playing: Playing, place: Path, job: Job) -> tuple[Happened, list[Event]]:
    before = len(playing.agent.events())
    happened = playing.play(job, place)
    time.sleep(SETTLE_S)
    return happened, [event for event in playing.agent.events()[before:] if about(event, happened.pids)]


def _write(path: Path, job: Job, happened: Happened, events: Iterable[Event], *, guarded: bool) -> None:
    header = {"category": HEADER, "name": job.case.name, "group": job.group, "kind": job.kind}
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{**header, "proved": happened.proved, "guarded": guarded}, *events]
    path.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
