"""How much of the attacks each rule set tells, and how often it cries wolf, on the same recorded events.

    python tests/benchmarks/run.py recall DIR --record          # run the cases and keep what an agent reports of them
    python tests/benchmarks/run.py recall DIR --sigma FOLDER    # compare rule sets on it

A rule set is replayed with the engine of `nbsentinel rules replay`. Two things are concluded while events happen and
cannot be replayed from them: that a process is controlled from afar, and what joins processes. They stand in the
recordings as the findings that were reported, so ours is what was reported; replaying our rules over the same lines is
shown beside it. Public rules get the same events without our findings, which nobody else would have.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from nbsentinel.detect.recorded import DETECTION_FINDING, event_time, from_ocsf
from nbsentinel.detect.rules.compile import compile_paths
from nbsentinel.detect.rules.pack import Pack, default_pack, load_pack
from nbsentinel.detect.rules.replay import Recorded, play
from nbsentinel.events import Millis

DATA = Path(os.environ.get("NBSENTINEL_SIGMA_DATA") or Path(__file__).parents[3] / "shared" / "data")
LEVELS = ("informational", "low", "medium", "high", "critical")
LOUD = LEVELS.index("medium")
KINDS = ("attacks", "benign")
_TOLD = (1, 2)
"""OCSF activity_id of a finding that says something new: Create, Update."""
LIVE, REPLAYED, PUBLIC, BOTH = "nbsentinel", "its rules replayed", "SigmaHQ", "both"
_PAGE = """\
# Recall and false alarms

Made by `python tests/benchmarks/run.py recall DIR --record`, then `... recall DIR --sigma FOLDER --page FILE`.

{cases} cases of `tests/attacks` and `tests/benign` ran one by one before one agent, as an ordinary user, {guarded} of
them under the guard; {events:,} events about their processes were kept (`[report] level = "all"`).{unproved} An attack
is told, and ordinary work is a false alarm, where a rule of level medium or above says anything about it.

- **nbsentinel**: the findings that the agent reported while the case ran. That a process is controlled from afar, and
  what joins processes, is concluded then and cannot be replayed from events: a case counts because it was reported.
- **its rules replayed**: the same rules over the recorded lines, with the engine of `nbsentinel rules replay`.
  Conclusions are read from the recorded findings; rules on fields that no line carries ([rules](rules.md#fields)) do
  not match.
- **SigmaHQ**: the public rules for Linux, {public} compiled, {on_ours} of them on processes, files and connections; the
  others wait for logs that a notebook does not have. They get the same events, without our findings. The programs of
  cases stand in a temporary folder, which some of these rules take for a sign by itself.
- **both**: the first and the third together.

{tables}{missed}
Who wrote the cases wrote the rules, too, for mechanisms that command lines do not show. The table says what each rule
set can see of these cases, not how often they happen. SigmaHQ's rules are made for whole machines and for analysts who
tune them.
"""
Event = dict[str, Any]


class Case(NamedTuple):
    """One recording."""

    kind: str
    group: str
    name: str
    proved: bool
    guarded: bool
    events: tuple[Event, ...]


class Alarm(NamedTuple):
    """Something that a rule set says of a case."""

    level: int
    """Its place in LEVELS."""
    rule: str


Judge = Callable[[Case], set[Alarm]]


def read(folder: Path) -> list[Case]:
    """Return the recordings below a folder.

    Raises:
        SystemExit: There is none, or a file is no recording.
    """
    found = [_read(path) for kind in KINDS for path in sorted((folder / kind).glob("*/*.ndjson"))]
    if not found:
        raise SystemExit(f"{folder}: no recordings (attacks/GROUP/CASE.ndjson, benign/...); make them with --record")
    return found


def _read(path: Path) -> Case:
    try:
        header, *events = (json.loads(line) for line in path.read_bytes().splitlines())
        about = {name: header[name] for name in ("kind", "group", "name", "proved", "guarded")}
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path}: no recording: {type(error).__name__}: {error}") from error
    return Case(**about, events=tuple(events))


def reported(case: Case) -> set[Alarm]:
    """Return the findings that the agent reported while the case ran."""
    findings = (e for e in case.events if e["class_uid"] == DETECTION_FINDING and e["activity_id"] in _TOLD)
    return {Alarm(event["severity_id"] - 1, event["finding_info"]["analytic"]["name"]) for event in findings}


def replaying(pack: Pack, *, findings: bool) -> Judge:
    """Return what says which rules of a pack a recording meets, correlations among them.

    Args:
        pack: The rules.
        findings: Whether what our findings tell is an event too.
    """
    rules = {rule.id: rule for rule in pack.rules if rule.reports}

    def judge(case: Case) -> set[Alarm]:
        matches = play(pack, list(_events(case.events, findings=findings)), now=int(time.time() * 1000)).matches
        met = (rules[uid] for uid in matches if uid in rules)
        return {Alarm(LEVELS.index(rule.level), rule.title) for rule in met}

    return judge


def _events(events: Iterable[Event], *, findings: bool) -> Iterator[Recorded]:
    at = 0
    for event in events:
        at = event_time(event) or at
        if findings or event["class_uid"] != DETECTION_FINDING:
            known = from_ocsf(event)
            if known is not None:
                yield Recorded(*known, Millis(at))


class Table(NamedTuple):
    """What every rule set says of every case."""

    cases: list[Case]
    """Those that proved themselves."""
    unproved: int
    said: dict[str, dict[str, set[Alarm]]]
    """By rule set, then by kind, group and name."""

    def loud(self, rule_set: str, case: Case) -> set[Alarm]:
        """Return the alarms of medium level or above."""
        return {alarm for alarm in self.said[rule_set][_key(case)] if alarm.level >= LOUD}


def _key(case: Case) -> str:
    return f"{case.kind}/{case.group}/{case.name}"


def compare(cases: Sequence[Case], judges: dict[str, Judge]) -> Table:
    """Put every case before every rule set; what did not prove itself counts for nobody."""
    proved = [case for case in cases if case.proved]
    said = {name: {_key(case): judge(case) for case in proved} for name, judge in judges.items()}
    if LIVE in said and PUBLIC in said:
        said[BOTH] = {key: said[LIVE][key] | said[PUBLIC][key] for key in said[LIVE]}
    return Table(proved, len(cases) - len(proved), said)


def render(table: Table) -> str:
    """Return the tables in Markdown: recall by group, false alarms, and who raised them."""
    sets = list(table.said)
    attacks = [case for case in table.cases if case.kind == "attacks"]
    benign = [case for case in table.cases if case.kind == "benign"]
    lines = [_row(["attacks", "cases", *sets]), _row(["---"] * (len(sets) + 2))]
    for group in [*sorted({case.group for case in attacks}), None]:
        some = [case for case in attacks if group in (None, case.group)]
        told = [sum(bool(table.loud(name, case)) for case in some) for name in sets]
        shares = [f"{count} ({100 * count / len(some):.0f}%)" if some else "0" for count in told]
        lines.append(_row([group or "**all**", str(len(some)), *shares]))
    lines += ["", _row(["ordinary work", "cases", *sets]), _row(["---"] * (len(sets) + 2))]
    for group in [*sorted({case.group for case in benign}), None]:
        some = [case for case in benign if group in (None, case.group)]
        counts = [sum(bool(table.loud(name, case)) for case in some) for name in sets]
        lines.append(_row([group or "**all**", str(len(some)), *map(str, counts)]))
    return "\n".join([*lines, "", *_loudest(table, sets, benign)]).rstrip() + "\n"


def _loudest(table: Table, sets: Iterable[str], benign: Iterable[Case]) -> Iterator[str]:
    for name in sets:
        rules = Counter(alarm.rule for case in benign for alarm in table.loud(name, case))
        if rules and name != BOTH:
            told = ", ".join(f"{rule} ({count})" for rule, count in sorted(rules.items(), key=lambda i: (-i[1], i[0])))
            yield f"False alarms of {name}, by rule and number of cases: {told}."
            yield ""


def missed(table: Table) -> list[str]:
    """Return the attacks that were not reported at medium level or above, with what was said of them."""
    found = []
    for case in table.cases:
        if case.kind == "attacks" and LIVE in table.said and not table.loud(LIVE, case):
            quiet = sorted(alarm.rule for alarm in table.said[LIVE][_key(case)])
            found.append(f"{case.group}/{case.name}: {', '.join(quiet) or 'nothing'}")
    return found


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page(table: Table, public: Pack) -> str:
    """Return the page of the documentation."""
    on_ours = sum(rule.category in ("process_creation", "file_event", "network_connection") for rule in public.rules)
    return _PAGE.format(
        cases=len(table.cases),
        guarded=sum(case.guarded for case in table.cases),
        events=sum(len(case.events) for case in table.cases),
        unproved=f" {table.unproved} did not prove themselves and are left out." if table.unproved else "",
        public=len(public.rules),
        on_ours=on_ours,
        tables=render(table),
        missed=_missed_section(table),
    )


def _missed_section(table: Table) -> str:
    lines = missed(table)
    if not lines:
        return ""
    head = "Attacks that nbsentinel did not report at medium level, with the rules that reported them at a lower one:"
    return "\n".join(["", head, "", *(f"- {line}" for line in lines)]) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Run the part `recall`."""
    parser = argparse.ArgumentParser(prog="run.py recall", description="Compare rule sets on recorded cases.")
    parser.add_argument("folder", type=Path, help="folder of recordings")
    parser.add_argument("--record", action="store_true", help="run the cases first and record them there")
    parser.add_argument("--only", default="*", help="with --record: a pattern on attacks/GROUP/CASE or benign/...")
    parser.add_argument("--every", type=int, default=1, help="with --record: each Nth of these cases")
    parser.add_argument("--unguarded", action="store_true", help="with --record: without the guard")
    parser.add_argument("--sigma", type=Path, default=DATA / "sigma-linux", help="folder of public rules")
    parser.add_argument("--page", type=Path, help="write the page of the documentation there")
    chosen = parser.parse_args(arguments)
    if chosen.record:
        _record(chosen.folder, chosen.only, chosen.every, guarded=not chosen.unguarded)
    judges: dict[str, Judge] = {LIVE: reported, REPLAYED: replaying(default_pack(), findings=True)}
    public = Pack((), "")
    if chosen.sigma.is_dir():
        public = load_pack(compile_paths([chosen.sigma]).pack())
        judges[PUBLIC] = replaying(public, findings=False)
    else:
        print(f"recall: no rules in {chosen.sigma}; ours alone")
    table = compare(read(chosen.folder), judges)
    print(render(table))
    print(f"{len(table.cases)} cases, {table.unproved} that did not prove themselves left out")
    for line in missed(table):
        print(f"missed: {line}")
    if chosen.page:
        chosen.page.write_text(page(table, public))


def _record(folder: Path, pattern: str, every: int, *, guarded: bool) -> None:
    from live.recording import jobs, record

    fitting = [job for job in jobs() if fnmatch.fnmatchcase(job.place, pattern)]
    some = fitting[:: max(1, every)]
    print(f"recall: {len(some)} cases, one by one")
    record(folder, some, guarded=guarded, say=lambda line: print(f"  {line}", flush=True))
