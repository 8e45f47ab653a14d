"""What Sigma's words mean: each modifier, wildcards, conditions; and an index that never loses a match."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbsentinel.detect.rules.compile import compile_paths
from nbsentinel.detect.rules.evaluate import Event, compile_node
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import And, Comparison, Node, Not, Or, Pack, Rule

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
        ("title: T\ncorrelation:\n  type: event_count\n", "correlation", "not supported"),
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


values = st.sampled_from(["", "a", "ab", "b/sh", "/bin/sh", "sh", "SH", "xsh", "10.0.0.1", "*", "a*b"])
tests = st.builds(
    Comparison,
    st.sampled_from(["f", "g"]),
    st.sampled_from(["eq", "contains", "startswith", "endswith", "like", "exists", "null"]),
    values,
    st.booleans(),
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
events = st.dictionaries(st.sampled_from(["f", "g"]), st.none() | values | st.lists(values, max_size=2).map(tuple))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(nodes, min_size=1, max_size=6), st.lists(events, min_size=1, max_size=6))
def test_index_loses_nothing(conditions: list[Node], samples: list[dict[str, object]]) -> None:
    """For any rules and events, the indexed matcher says what evaluating every rule says."""
    rules = tuple(
        Rule(id=str(n), name="r", title="t", category="c", conditions=(node,)) for n, node in enumerate(conditions)
    )
    matcher = Matcher(Pack(rules, ""))
    for fields in samples:
        expected = [rule.id for rule in rules if compile_node(rule.conditions[0], {})(Event(fields))]
        assert [rule.id for rule in matcher.match("c", fields)] == expected
