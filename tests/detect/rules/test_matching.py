"""What Sigma's words mean: each modifier, wildcards, conditions; and an index that never loses a match."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbsentinel.detect.rules import index
from nbsentinel.detect.rules.compile import compile_paths
from nbsentinel.detect.rules.evaluate import Event, compile_node
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import And, Comparison, Node, Not, Or, Pack, Rule

SIGMAS = "\N{GREEK CAPITAL LETTER SIGMA}\N{GREEK SMALL LETTER SIGMA}\N{GREEK SMALL LETTER FINAL SIGMA}"
HEAD = "title: T\nid: 11111111-1111-4111-8111-111111111111\nlogsource:\n    category: process_creation\ndetection:\n"


def matches(folder: Path, detection: str, **fields: object) -> bool:
    """Compile a rule with this detection and say whether an event meets it."""
    path = folder / "rule.yml"
    path.write_text(HEAD + "".join(f"    {line}\n" for line in detection.strip("\n").splitlines()))
    compiled = compile_paths([path])
    assert compiled.failed == (), compiled.failed
    return bool(Matcher(Pack(compiled.rules, "")).match("process_creation", fields))


@pytest.mark.parametrize(
    ("item", "value", "expected"),
    [
        ("f: AbC", "abc", True),
        ("f: abc", "abcd", False),
        ("f|contains: B", "abc", True),
        ("f|startswith: AB", "abc", True),
        ("f|endswith: BC", "abc", True),
        ("f|endswith: ab", "abc", False),
        ("f|contains|all: [a, c]", "abc", True),
        ("f|contains|all: [a, x]", "abc", False),
        ("f: [x, abc]", "abc", True),
        ("f: a*c", "abbbc", True),
        ("f: a?c", "abc", True),
        ("f: a?c", "abbc", False),
        (r"f: a\*c", "a*c", True),
        (r"f: a\*c", "abc", False),
        (r"f|contains: '\\'", "a\\b", True),
        ("f|cased: Abc", "abc", False),
        ("f|contains|cased: Bc", "aBc", True),
        ("f|re: ^a.c$", "abc", True),
        ("f|re: A.C", "abc", False),
        ("f|re|i: A.C", "abc", True),
        ("f|cidr: 10.0.0.0/8", "10.1.2.3", True),
        ("f|cidr: 10.0.0.0/8", "11.1.2.3", False),
        ("f|cidr: fd00::/8", "fd00:ec2::254", True),
        ("f|cidr: 10.0.0.0/8", "nonsense", False),
        ("f|exists: true", "x", True),
        ("f|exists: false", "x", False),
        ("f|lt: 5", 4, True),
        ("f|lte: 5", 5, True),
        ("f|gt: 5", "6", True),
        ("f|gte: 5", 4, False),
        ("f: 5", 5, True),
        ("f: 5", "5", True),
        ("f: true", True, True),
        ("f: true", False, False),
        ("f: null", None, True),
        ("f: null", "x", False),
        ("f|windash|contains: ' -e'", "nc /e", True),
        ("f|base64offset|contains: secret", "eHNlY3JldA==", True),
        ("f|base64: abc", "YWJj", True),
        ("f|wide|base64offset|contains: ab", "YQBiAA", True),
        ("f: ''", "", True),
        ("f|contains: İ", "x İ y", True),
        ("f|contains: [a, b]", ("zzz", "b"), True),
        ("f|neq: abc", "abd", True),
        ("f|hour: 3", "2026-01-02T03:04:05Z", True),
        ("f|hour: 3", "2026-01-02T04:04:05+01:00", True),
        ("f|hour: 3", "some day", False),
        ("f|minute: 4", 1_767_323_045_000, True),
        ("f|day: 2", "2026-01-02 03:04:05", True),
        ("f|month: 1", "2026-02-02", False),
        ("f|year: 2026", "2026-02-02", True),
        ("f|week: 1", "2026-01-02", True),
        ("f|hour: 3", 10**30, False),
        ("f|lt: 5", "no number", False),
        ("f: 5", "x", False),
        ("f|utf16le|base64offset|contains: ab", "YQBiAA", True),
        ("f|utf16be|base64: ab", "AGEAYg==", True),
        ("f|re|m: ^b$", "a\nb", True),
        ("f|re: a.b", "a\nb", False),
        ("f|re|s: a.b", "a\nb", True),
        ("f|contains|windash: -x", "run \N{EN DASH}x", True),
        ("f|startswith|all: [a, ab]", "abc", True),
        ("f|exists: true", None, True),
        ("f: '*'", "", True),
        ("f: '?'", "", False),
        ("f: ab*ba", "aba", False),
        ("f: ab*ba", "abba", True),
        (f"f|contains: a{SIGMAS[0]}", f"A{SIGMAS[0]}B", True),
        (f"f|contains|cased: A{SIGMAS[0]}", f"A{SIGMAS[0]}B", True),
        (f"f|endswith: {SIGMAS[1]}", f"A{SIGMAS[0]}", True),
    ],
)
def test_values(tmp_path: Path, item: str, value: object, expected: bool) -> None:
    """One field, one modifier, one value."""
    assert matches(tmp_path, f"s:\n    {item}\ncondition: s", f=value) is expected


def test_field_references(tmp_path: Path) -> None:
    """A field compared with another field."""
    detection = "s:\n    f|fieldref: g\ncondition: s"
    assert matches(tmp_path, detection, f="A", g="a")
    assert not matches(tmp_path, detection, f="a", g="b")
    for modifier, met, not_met in (("startswith", "ab", "ba"), ("endswith", "ba", "ab")):
        detection = f"s:\n    f|fieldref|{modifier}: g\ncondition: s"
        assert matches(tmp_path, detection, f=met, g="A")
        assert not matches(tmp_path, detection, f=not_met, g="A")


@pytest.mark.parametrize(
    ("condition", "fields", "expected"),
    [
        ("a and b", {"f": "1", "g": "2"}, True),
        ("a and not b", {"f": "1", "g": "2"}, False),
        ("a or b", {"g": "2"}, True),
        ("not (a or b)", {}, True),
        ("1 of sel*", {"h": "3"}, True),
        ("all of sel*", {"h": "3"}, False),
        ("1 of them", {"f": "1"}, True),
        ("all of them", {"f": "1", "g": "2", "h": "3", "i": "4"}, True),
        ("(a or b) and not 1 of sel*", {"f": "1"}, True),
    ],
)
def test_conditions(tmp_path: Path, condition: str, fields: dict[str, object], expected: bool) -> None:
    """Selections joined in every way."""
    detection = f"a:\n    f: 1\nb:\n    g: 2\nsel1:\n    h: 3\nsel2:\n    i: 4\ncondition: {condition}"
    assert matches(tmp_path, detection, **fields) is expected


def test_lists_of_maps_and_keywords(tmp_path: Path) -> None:
    """Maps in a list are alternatives; keywords stand anywhere in any field."""
    assert matches(tmp_path, "s:\n    - f: a\n      g: b\n    - h: c\ncondition: s", h="c")
    assert not matches(tmp_path, "s:\n    - f: a\n      g: b\n    - h: c\ncondition: s", f="a")
    assert matches(tmp_path, "k:\n    - Secret\n    - 'x*z'\ncondition: k", any="the secret one")
    assert matches(tmp_path, "k:\n    - 'x*z'\ncondition: k", any="xyyz")


@pytest.mark.parametrize(
    ("text", "key", "word"),
    [
        ("title: T\nlogsource:\n  category: c\ndetection:\n  s:\n    f|nope: x\n  condition: s\n", "detection", "nope"),
        ("title: T\nlogsource:\n  category: c\ndetection:\n  s:\n    f: x\n  condition: q\n", "", "q"),
        (
            "title: T\nlogsource:\n  category: c\ndetection:\n  s:\n    f|expand: '%x%'\n  condition: s\n",
            "f",
            "no value",
        ),
        ("title: T\ncorrelation:\n  type: event_count\n", "", ""),
        (
            "title: T\ncorrelation:\n  type: nope\n  rules: [x]\n  timespan: 1m\n  condition: {gte: 1}\n",
            "type",
            "'nope' is no valid",
        ),
        ("title: [", "", "cannot be read"),
        ("- just\n- a list\n", "", "mapping"),
        (HEAD + "  s:\n    f|re: '('\n  condition: s\n", "", ""),
    ],
)
def test_rules_that_cannot_be_used(tmp_path: Path, text: str, key: str, word: str) -> None:
    """A wrong rule is named with file, line and reason; the others still load."""
    (tmp_path / "bad.yml").write_text(text)
    (tmp_path / "good.yml").write_text(HEAD + "    s:\n        f: x\n    condition: s\n")
    compiled = compile_paths([tmp_path])
    assert len(compiled.rules) == 1
    (failed,) = compiled.failed
    assert failed.file.endswith("bad.yml")
    assert failed.line >= 1
    assert word in failed.reason
    if key:
        assert failed.key == key


values = st.one_of(
    st.sampled_from(["", "a", "ab", "b/sh", "/bin/sh", "sh", "SH", "xsh", "10.0.0.1", "*", "a*b", "true"]),
    st.text("aSs*?\\\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}\N{KELVIN SIGN}k\0\1" + SIGMAS, max_size=4),
)
patterns = ["b+/", "^a", "(a|b)b$", "[sS]h", "a?b", "(?:sh){2}", "", "[^a]b", "x|sh", "a{0}b", "S.", "(a|)*"]
tests = st.one_of(
    st.builds(
        Comparison,
        st.sampled_from(["f", "g"]),
        st.sampled_from(["eq", "contains", "startswith", "endswith", "like", "exists", "null"]),
        values,
        st.booleans(),
    ),
    st.builds(
        Comparison,
        st.sampled_from(["f", "g"]),
        st.just("re"),
        st.sampled_from(patterns),
        st.just(True),
        st.sampled_from(["", "i"]),
    ),
    st.builds(Comparison, st.sampled_from(["f", "g"]), st.just("bool"), st.sampled_from(["true", "false"])),
    st.builds(Comparison, st.just(None), st.just("contains"), values),
)
nodes = st.recursive(
    tests,
    lambda child: (
        st.builds(Not, child)
        | st.builds(And, st.lists(child, min_size=1, max_size=3).map(tuple))
        | st.builds(Or, st.lists(child, min_size=1, max_size=3).map(tuple))
    ),
    max_leaves=8,
)
events = st.dictionaries(
    st.sampled_from(["f", "g"]),
    st.none() | st.booleans() | st.integers(0, 20) | values | st.lists(values, max_size=2).map(tuple),
)


@pytest.mark.parametrize("automata", [True, False])
@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(conditions=st.lists(nodes, min_size=1, max_size=6), samples=st.lists(events, min_size=1, max_size=6))
def test_index_loses_nothing(
    conditions: list[Node], samples: list[dict[str, object]], automata: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any rules and events, the indexed matcher says what evaluating every rule says; without the library, too."""
    monkeypatch.setattr(index, "HAS_AUTOMATA", automata and index.HAS_AUTOMATA)
    rules = tuple(
        Rule(id=str(n), name="r", title="t", category="c", conditions=(node,)) for n, node in enumerate(conditions)
    )
    matcher = Matcher(Pack(rules, ""))
    for fields in [*samples, *samples]:
        expected = [rule.id for rule in rules if compile_node(rule.conditions[0], {})(Event(fields))]
        assert [rule.id for rule in matcher.match("c", fields)] == expected


def test_memory_of_texts_is_bounded() -> None:
    """However many different events come, a bounded number is remembered, and long ones are not."""
    rule = Rule(id="1", name="r", title="t", category="c", conditions=(Comparison("f", "contains", "secret"),))
    found = index.Index([(rule, rule.conditions[0])])
    for n in range(10_000):
        found.candidates({"f": f"text {n}"})
        found.candidates({"f": f"{'x' * index.REMEMBERED_LENGTH}{n}"})
    kept = [*found._young, *found._old]
    assert 0 < len(kept) <= 2 * index.REMEMBERED_LIMIT
    assert max(map(len, kept)) <= index.REMEMBERED_LENGTH
    assert found.candidates({"f": "text 9999"}) == ()
    assert found.remembered == 1


def test_rules_that_share_a_literal_are_all_found() -> None:
    """A literal leads to every rule that needs it, also where one of them was found already."""
    either = Or((Comparison("f", "contains", "first"), Comparison("f", "contains", "second")))
    conditions = (either, Comparison("f", "contains", "second"))
    found = index.Index([(number, condition) for number, condition in enumerate(conditions)])
    assert found.candidates({"f": "first second"}) == (0, 1)
    assert found.candidates({"f": "first"}) == (0,)
