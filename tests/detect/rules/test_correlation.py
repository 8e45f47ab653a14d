"""Correlations: compiled from Sigma, equal to a naive reading of the events, bounded, and never a flood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbsentinel.detect.rules import correlate
from nbsentinel.detect.rules.compile import Compiled, compile_paths
from nbsentinel.detect.rules.correlate import Correlator
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import (
    And,
    Comparison,
    Correlation,
    GroupField,
    Node,
    Not,
    Or,
    Rule,
    load_pack,
)
from nbsentinel.detect.rules.windows import Occurrence, new_window
from nbsentinel.events import Millis

BASES = "\n---\n".join(
    f"""title: {name}
name: {name}
id: 00000000-0000-4000-8000-00000000000{number}
logsource: {{category: process_creation}}
detection:
    s: {{CommandLine|contains: {name}}}
    condition: s
"""
    for number, name in enumerate(("fetch", "run", "send"))
)
HEAD = "title: C\nid: 00000000-0000-4000-8000-0000000000ff\nlevel: high\n"


def compiled(folder: Path, *documents: str) -> Compiled:
    path = folder / "rules.yml"
    path.write_text("\n---\n".join([BASES, *documents]))
    return compile_paths([path])


def play(found: Compiled, events: list[tuple[int, dict[str, object]]]) -> list[tuple[int, str, int]]:
    """Return (time, title, count) of every correlation that fires, the windows that are open at the end included."""
    pack = load_pack(found.pack())
    matcher, correlator = Matcher(pack), Correlator(pack.rules)
    fired = []
    for at, fields in events:
        matched = matcher.match("process_creation", fields)
        fired += correlator.observe(Millis(at), matched, fields)
    fired += correlator.advance(None)
    return [(item.at, item.rule.title, item.count) for item in fired]


def command(text: str, **fields: object) -> dict[str, object]:
    return {"Image": f"/bin/{text}-{fields.get('n', '')}", "CommandLine": text, "User": "u", **fields}


def test_event_count_groups_and_slides(tmp_path: Path) -> None:
    """Three events of one user within the span are one match; another user's, or an old one, do not count."""
    rule = HEAD + (
        "correlation:\n    type: event_count\n    rules: [fetch]\n    group-by: [User]\n"
        "    timespan: 10s\n    condition: {gte: 3}\n"
    )
    found = compiled(tmp_path, rule)
    assert found.failed == ()
    events = [
        (0, command("fetch")),
        (4_000, command("fetch")),
        (5_000, command("fetch", User="v")),
        (11_000, command("fetch")),
        (12_000, command("fetch", n=1)),
    ]
    assert play(found, events) == [(12_000, "C", 3)]


def test_a_rule_only_for_a_correlation_is_no_finding(tmp_path: Path) -> None:
    """`generate` decides whether a rule that a correlation takes still reports by itself."""
    text = HEAD + "correlation: {type: temporal, rules: [fetch, run], timespan: 1m%s}\n"
    reports = {rule.name: rule.reports for rule in compiled(tmp_path, text % "").rules}
    assert (reports["fetch"], reports["run"], reports["send"]) == (False, False, True)
    reports = {rule.name: rule.reports for rule in compiled(tmp_path, text % ", generate: true").rules}
    assert (reports["fetch"], reports["run"], reports["send"]) == (True, True, True)


def test_value_count_counts_distinct_values(tmp_path: Path) -> None:
    """The same value again is no further value."""
    rule = HEAD + (
        "correlation:\n    type: value_count\n    rules: fetch\n    timespan: 1m\n    condition: {field: Host, gt: 1}\n"
    )
    events = [(n, command("fetch", Host=host, n=n)) for n, host in enumerate(["a", "a", "b", "b"])]
    assert play(compiled(tmp_path, rule), events) == [(2, "C", 2), (3, "C", 2)]


def test_order_matters_only_where_asked(tmp_path: Path) -> None:
    """`temporal` takes any order, `temporal_ordered` its own; one event never takes two places."""
    kind = HEAD + "correlation: {type: %s, rules: [fetch, run], timespan: 1m}\n"
    backwards = [(1, command("run")), (2, command("fetch"))]
    assert play(compiled(tmp_path, kind % "temporal"), backwards) == [(2, "C", 2)]
    assert play(compiled(tmp_path, kind % "temporal_ordered"), backwards) == []
    assert play(compiled(tmp_path, kind % "temporal_ordered"), [(1, command("fetch run"))]) == []
    assert play(compiled(tmp_path, kind % "temporal_ordered"), [(1, command("fetch")), (2, command("run"))]) != []


@pytest.mark.parametrize("late_ms", [1, 150, 1000])
def test_what_is_told_late_has_its_place_in_an_order(tmp_path: Path, late_ms: int) -> None:
    """A sensor that tells a moment later than another does not hide what came first, nor make up what came last."""
    rule = compiled(tmp_path, HEAD + "correlation: {type: temporal_ordered, rules: [fetch, run], timespan: 1m}\n")
    start = 100_000
    assert play(rule, [(start + late_ms, command("run")), (start, command("fetch"))]) == [(start + late_ms, "C", 2)]
    assert play(rule, [(start + late_ms, command("fetch")), (start, command("run"))]) == []
    between = [(start, command("fetch", n=1)), (start + late_ms, command("send")), (start + 1, command("run"))]
    assert play(rule, between) == [(start + 1, "C", 2)]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900), st.sampled_from("abc")), max_size=12, unique_by=lambda e: e[0]))
def test_any_arrival_within_a_second_is_the_order_of_time(events: list[tuple[int, str]]) -> None:
    """However they arrive, a chain that is complete by time has been told, and one that is not has not."""
    correlation = Correlation(type="temporal_ordered", rules=("a", "b", "c"), timespan_ms=500, group_by=())

    def ever_held(arrivals: list[tuple[int, str]]) -> bool:
        window, held = new_window(correlation), False
        for at, rule in arrivals:
            window.add(Occurrence(Millis(at), frozenset({rule}), ""))
            held = held or window.holds()
        return held

    assert ever_held(events) == ever_held(sorted(events))


def test_aliases_join_fields_of_different_names(tmp_path: Path) -> None:
    """What one rule calls Host and another Target is one group."""
    rule = HEAD + (
        "correlation:\n    type: temporal\n    rules: [fetch, run]\n    group-by: [peer]\n    timespan: 1m\n"
        "    aliases:\n        peer: {fetch: Host, run: Target}\n"
    )
    found = compiled(tmp_path, rule)
    assert found.failed == ()
    assert play(found, [(1, command("fetch", Host="a")), (2, command("run", Target="b"))]) == []
    assert play(found, [(1, command("fetch", Host="a")), (2, command("run", Target="a"))]) == [(2, "C", 2)]


def test_correlation_of_correlations(tmp_path: Path) -> None:
    """A correlation takes what another one tells, by its groups."""
    inner = (
        "title: I\nname: inner\ncorrelation:\n    type: event_count\n    rules: [fetch]\n    group-by: [User]\n"
        "    timespan: 1m\n    condition: {gte: 2}\n"
    )
    outer = HEAD + (
        "correlation:\n    type: temporal_ordered\n    rules: [inner, send]\n    group-by: [User]\n    timespan: 1m\n"
    )
    found = compiled(tmp_path, outer, inner)
    assert found.failed == ()
    events = [(1, command("fetch")), (2, command("fetch")), (3, command("send", User="v")), (4, command("send"))]
    assert [title for _, title, _ in play(found, events)] == ["I", "C"]


def test_absence_is_judged_when_the_window_is_over(tmp_path: Path) -> None:
    """`fetch and not send`, and `eq`, cannot be told before the time span has passed."""
    rule = HEAD + "correlation: {type: temporal, condition: fetch and not send, group-by: [User], timespan: 10s}\n"
    found = compiled(tmp_path, rule)
    assert found.failed == ()
    assert play(found, [(0, command("fetch")), (5_000, command("send"))]) == []
    assert play(found, [(0, command("fetch")), (15_000, command("send"))]) == [(0, "C", 1)]
    rule = HEAD + "correlation: {type: event_count, rules: [run], timespan: 10s, condition: {eq: 2}}\n"
    found = compiled(tmp_path, rule)
    assert play(found, [(t, command("run")) for t in (0, 1, 2)]) == []
    assert play(found, [(t, command("run")) for t in (0, 1, 20_000)]) == [(1, "C", 2)]


@pytest.mark.parametrize(
    ("body", "key", "word"),
    [
        ("{type: value_sum, rules: [fetch], timespan: 1m, condition: {field: a, gte: 1}}", "type", "not supported"),
        ("{type: temporal, rules: [fetch, nobody], timespan: 1m}", "rules", "'nobody'"),
        ("{type: event_count, rules: [fetch], timespan: 1x, condition: {gte: 1}}", "timespan", "1x"),
        ("{type: event_count, rules: [fetch], timespan: 1m, condition: {lt: 1}}", "condition", "never"),
        ("{type: event_count, rules: [fetch], timespan: 1m, condition: {gte: 99999}}", "condition", "99999"),
        ("{type: temporal_ordered, condition: fetch or run, timespan: 1m}", "condition", "and"),
        ("{type: temporal, rules: [00000000-0000-4000-8000-0000000000ff], timespan: 1m}", "rules", "circles"),
    ],
)
def test_correlations_that_cannot_be_used(tmp_path: Path, body: str, key: str, word: str) -> None:
    """A wrong correlation is named with line, key and reason; the rules beside it are not affected."""
    found = compiled(tmp_path, f"{HEAD}correlation: {body}\n")
    assert len(found.rules) == 3
    (failed,) = found.failed
    assert (failed.key, failed.title) == (key, "C")
    assert word in failed.reason
    assert failed.line > 20


def test_a_flood_is_told_once(tmp_path: Path) -> None:
    """A group that goes on is one match in a time span, and one more for each other program; the rest is counted."""
    rule = HEAD + "correlation: {type: event_count, rules: [fetch], timespan: 1m, condition: {gte: 2}}\n"
    pack = load_pack(compiled(tmp_path, rule).pack())
    base = next(r for r in pack.rules if r.name == "fetch")
    correlator = Correlator(pack.rules)
    images = ["/bin/a"] * 50 + ["/bin/b"] * 50
    fired = [correlator.observe(Millis(n), (base,), {"Image": image}) for n, image in enumerate(images)]
    assert sum(map(len, fired)) == 2
    assert correlator.counters["repeated"] == 97
    assert correlator.observe(Millis(60_050), (base,), {"Image": "/bin/a"})


def test_what_is_kept_is_bounded() -> None:
    """However many groups and events come, no more is kept than the bound, and what was given up is counted."""
    rules = (base_rule("a"), correlation_rule(type="event_count", rules=("a",), count=900, group=("f",)))
    correlator = Correlator(rules, entries=2_000)
    for n in range(5_000):
        correlator.observe(Millis(n), rules[:1], {"f": str(n)})
    assert len(correlator) <= 2_000
    assert correlator.counters["evicted_groups"] > 4_000
    for n in range(5_000):
        correlator.observe(Millis(n), rules[:1], {"f": "same"})
    assert len(correlator) <= 2_000
    assert correlator.counters["given_up_entries"] > 0
    assert correlator.observe(Millis(5_000), rules[:1], {}) == []
    assert correlator.counters["ungrouped"] == 1


def test_a_clock_that_is_set_back_does_not_blind(tmp_path: Path) -> None:
    """An event that is a little late counts; after a big step back the group begins again."""
    rules = (base_rule("a"), correlation_rule(type="event_count", rules=("a",), count=2))
    correlator = Correlator(rules)
    assert correlator.observe(Millis(1_000_000), rules[:1], {}) == []
    assert len(correlator.observe(Millis(1_000_000 - 5_000), rules[:1], {})) == 1
    assert correlator.observe(Millis(1_000), rules[:1], {}) == []
    assert correlator.counters["restarted"] == 1
    assert len(correlator.observe(Millis(1_001), rules[:1], {})) == 1


def base_rule(uid: str) -> Rule:
    return Rule(id=uid, name=uid, title=uid, category="c", conditions=())


def correlation_rule(*, group: tuple[str, ...] = (), span: int = 60_000, **values: object) -> Rule:
    inner = Correlation(timespan_ms=span, group_by=tuple(GroupField(name) for name in group), **values)  # type: ignore[arg-type]
    return Rule(id="C", name="C", title="C", category="correlation", conditions=(), correlation=inner)


SPAN = 5
Happened = tuple[int, frozenset[str], str, str]
happenings = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.frozensets(st.sampled_from("abc"), min_size=1),
        st.sampled_from("xy"),
        st.sampled_from("pqr"),
    ),
    max_size=14,
).map(lambda steps: [(sum(s[0] for s in steps[: n + 1]), *step[1:]) for n, step in enumerate(steps)])
presence = st.recursive(
    st.sampled_from("abc").map(lambda uid: Comparison(uid, "exists", "true")),
    lambda child: (
        st.builds(And, st.lists(child, min_size=1, max_size=2).map(tuple))
        | st.builds(Or, st.lists(child, min_size=1, max_size=2).map(tuple))
    ),
    max_leaves=4,
)
COMPARE: dict[str, Callable[[int, int], bool]] = {
    "gte": int.__ge__, "gt": int.__gt__, "lte": int.__le__, "lt": int.__lt__, "eq": int.__eq__, "neq": int.__ne__,
}  # fmt: skip


def naive_holds(correlation: Correlation, window: list[Happened]) -> bool:
    """Say whether the events of one window meet a condition, by looking at all of them."""
    met = {uid for event in window for uid in event[1]}
    if correlation.type == "temporal_ordered":
        reached = 0
        for event in window:
            if reached < len(correlation.rules) and correlation.rules[reached] in event[1]:
                reached += 1
        return reached == len(correlation.rules)
    if correlation.condition is not None:
        return naive_presence(correlation.condition, met)
    count = {
        "event_count": len(window),
        "value_count": len({event[3] for event in window}),
        "temporal": len(met),
    }[correlation.type]
    return COMPARE[correlation.op](count, correlation.count)


def naive_presence(node: Node, met: set[str]) -> bool:
    if isinstance(node, Comparison):
        return node.field in met
    if isinstance(node, Not):
        return not naive_presence(node.item, met)
    return (all if isinstance(node, And) else any)(naive_presence(item, met) for item in node.items)


def relevant(correlation: Correlation, event: Happened) -> bool:
    return bool(event[1] & set(correlation.rules))


def cut(correlation: Correlation, event: Happened) -> Happened:
    return (event[0], event[1] & set(correlation.rules), *event[2:])


def naive(correlation: Correlation, events: list[Happened], *, slides: bool) -> list[int]:
    """Return the positions of the events at which a correlation fires, by the definition alone."""
    fired = []
    for group in "xy":
        own = [(n, cut(correlation, e)) for n, e in enumerate(events) if e[2] == group and relevant(correlation, e)]
        if slides:
            for last, (n, event) in enumerate(own):
                window = [e for _, e in own[: last + 1] if e[0] >= event[0] - SPAN]
                # An order is met by the event that completes it.
                if correlation.type == "temporal_ordered" and not naive_ends(correlation, window):
                    continue
                if naive_holds(correlation, window):
                    fired.append(n)
            continue
        rest = own
        while rest:
            window = [item for item in rest if item[1][0] <= rest[0][1][0] + SPAN]
            if naive_holds(correlation, [e for _, e in window]):
                fired.append(window[-1][0])
            rest = rest[len(window) :]
    return sorted(fired)


def naive_ends(correlation: Correlation, window: list[Happened]) -> bool:
    return correlation.rules[-1] in window[-1][1] and (
        len(correlation.rules) == 1
        or naive_holds(
            Correlation(type="temporal_ordered", rules=correlation.rules[:-1], timespan_ms=SPAN), window[:-1]
        )
    )


def fires(correlation: Correlation, events: list[Happened]) -> list[int]:
    rule = Rule(id="C", name="C", title="C", category="correlation", conditions=(), correlation=correlation)
    bases = {uid: base_rule(uid) for uid in "abc"}
    correlator = Correlator((*bases.values(), rule))
    fired = []
    for n, (at, met, group, value) in enumerate(events):
        fields = {"g": group, "v": value, "Image": str(n)}
        fired += correlator.observe(Millis(at), [bases[uid] for uid in sorted(met)], fields, n)
    return sorted(item.token for item in fired + correlator.advance(None))


@settings(max_examples=400, deadline=None)
@given(
    happenings,
    st.sampled_from(["event_count", "value_count", "temporal"]),
    st.sampled_from(["gte", "gt", "lte", "lt", "eq", "neq"]),
    st.integers(1, 4),
    st.sampled_from([("a",), ("a", "b"), ("a", "b", "c")]),
)
def test_counts_equal_the_naive_reading(
    events: list[Happened], kind: str, op: str, count: int, rules: tuple[str, ...]
) -> None:
    """Counts of events, values and rules fire where looking at all events of the window says so."""
    values = ("v",) if kind == "value_count" else ()
    correlation = Correlation(
        type=kind, rules=rules, timespan_ms=SPAN, group_by=(GroupField("g"),), op=op, count=count, values=values
    )  # type: ignore[arg-type]
    assert fires(correlation, events) == naive(correlation, events, slides=op in ("gte", "gt"))


@settings(max_examples=400, deadline=None)
@given(happenings, st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple))
def test_orders_equal_the_naive_reading(events: list[Happened], rules: tuple[str, ...]) -> None:
    """An order fires at each event that completes it within the time span."""
    correlation = Correlation(type="temporal_ordered", rules=rules, timespan_ms=SPAN, group_by=(GroupField("g"),))
    assert fires(correlation, events) == naive(correlation, events, slides=True)


@settings(max_examples=400, deadline=None)
@given(happenings, presence, st.booleans())
def test_conditions_equal_the_naive_reading(events: list[Happened], condition: Node, negated: bool) -> None:
    """Written conditions over rules hold where looking at all events of the window says so."""
    node = Not(condition) if negated else condition
    correlation = Correlation(
        type="temporal", rules=("a", "b", "c"), timespan_ms=SPAN, group_by=(GroupField("g"),), condition=node
    )
    assert fires(correlation, events) == naive(correlation, events, slides=not negated)


def test_long_values_are_kept_short() -> None:
    """A value of any length costs no more than a hash."""
    assert len(correlate._short("x" * 100_000)) <= correlate.TEXT_LIMIT
