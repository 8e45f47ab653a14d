"""Regular expressions and wildcards: what Python's engine says, in time that the text alone decides."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbsentinel.detect.rules import linear
from nbsentinel.detect.rules.evaluate import Event, compile_node
from nbsentinel.detect.rules.linear import Linear, PatternError
from nbsentinel.detect.rules.pack import Comparison
from nbsentinel.detect.rules.text import fold

CLASSES = ["[ab]", "[^a]", "[^\\W]", ".", "\\w", "\\W", "\\d", "\\D", "\\s", "\\S", "[a-c]", "[^a-b]"]
PLACES = ["^", "$", "\\b", "\\B", "\\A", "\\Z"]
leaves = st.sampled_from(["a", "b", "K", "\\n", "", *CLASSES, *PLACES])
patterns = st.recursive(
    leaves,
    lambda child: (
        st.builds("{}{}".format, child, child)
        | st.builds("(?:{}|{})".format, child, child)
        | st.builds("(?:{})*".format, child)
        | st.builds("({}){{1,3}}".format, child)
        | st.builds("(?:{})+?".format, child)
        | st.builds("(?:{})?".format, child)
        | st.builds("(?i:{})".format, child)
    ),
    max_leaves=6,
)
FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL}


@settings(max_examples=1500, deadline=None)
@given(patterns, st.lists(st.text("abAB\n k_1", max_size=7), min_size=1, max_size=3), st.sets(st.sampled_from("ims")))
def test_the_same_as_python(pattern: str, texts: list[str], flags: set[str]) -> None:
    """For any pattern and text the answer is that of `re.search`, and a text that is met has what is required."""
    wanted = 0
    for flag in flags:
        wanted |= FLAGS[flag]
    engine = Linear(pattern, "".join(sorted(flags)))
    for text in [*texts, *texts]:
        met = re.search(pattern, text, wanted) is not None
        assert engine.search(text) is met
        if met:
            assert all(any(one in fold(text) for one in choice) for choice in engine.required)


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*c", "(.*)*x", "(?:a?){60}a{60}", "(a|b)*a(a|b){12}c", "(.+)+\\1?c"]
)
def test_no_text_takes_long(pattern: str) -> None:
    """Patterns that keep a backtracking engine busy for years are answered at once, or refused."""
    began = time.process_time()
    try:
        assert not Linear(pattern).search("ab" * 8_000 + "a" * 50 + "!")
    except PatternError:
        assert "\\1" in pattern
    assert time.process_time() - began < 20


def test_wildcards_take_no_long_time() -> None:
    """A wildcard pattern whose last part is missing is not tried in every combination."""
    test = compile_node(Comparison("f", "like", "*a*a*a*a*a*a*a*a*b?c"), {})
    began = time.process_time()
    assert not test(Event({"f": "a" * 16_000}))
    assert time.process_time() - began < 20


@settings(max_examples=600, deadline=None)
@given(st.text("ab*?\\.\n", max_size=8), st.text("ab.\n*?\\", max_size=10))
def test_wildcards_mean_what_they_say(pattern: str, text: str) -> None:
    """`*` is any run, `?` any character, and a backslash makes either itself: as a regular expression says it."""
    out, escaped = "", False
    for char in pattern:
        if escaped or char not in "\\*?":
            out, escaped = out + re.escape(char), False
        elif char == "\\":
            escaped = True
        else:
            out += {"*": ".*", "?": "."}[char]
    expected = re.fullmatch(out, text, re.DOTALL) is not None
    assert compile_node(Comparison("f", "like", pattern, True), {})(Event({"f": text})) is expected


@pytest.mark.parametrize("pattern", ["(?=a)", "(?<!a)b", "(a)\\1", "(a", "a{99999}", "(?a)\\w", "(a)(?(1)b|c)"])
def test_what_cannot_be_linear_is_refused(pattern: str) -> None:
    """Look-around, back-references and huge repetitions are refused with a reason, not matched wrongly."""
    with pytest.raises(PatternError) as caught:
        Linear(pattern)
    assert str(caught.value)


def test_what_is_remembered_is_bounded() -> None:
    """A text of many different characters does not fill the memory."""
    engine = Linear("(.){20,}x")
    for begin in range(0x4E00, 0x9E00, 0x100):
        engine.search("".join(map(chr, range(begin, begin + 0x100))))
    assert sum(len(state.next) for state in engine._states.values()) <= linear.REMEMBERED_LIMIT
    assert engine.search("y" * 30 + "x")
