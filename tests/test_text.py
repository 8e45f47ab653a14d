"""From the attacker's bytes to text, once."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from nbsentinel.text import COMMAND_LIMIT, MAX_SAFE_INTEGER, arguments, json_safe, visible


@given(st.binary(max_size=400), st.integers(2, 300))
def test_any_bytes_become_bounded_printable_text(raw: bytes, limit: int) -> None:
    """Whatever the bytes, the text is bounded, encodes as UTF-8 and steers no terminal."""
    text = visible(raw, limit)
    assert len(text) <= limit
    text.encode()
    assert all(unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp") for char in text)
    assert not set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f") & set(text)


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=100))
def test_plain_text_stays_as_it_is(text: str) -> None:
    """Printable ASCII, backslashes included, is not changed."""
    assert visible(text.encode(), 200) == text


@given(st.binary(max_size=2000))
def test_arguments_survive_anything(block: bytes) -> None:
    """Any argument block gives text arguments and the true length."""
    found = arguments(block)
    assert found.length == len(block)
    json.dumps(found.argv).encode()


def test_long_arguments_are_cut_and_fingerprinted() -> None:
    """Where something is cut, the length and the hash of the whole are kept."""
    block = b"x\0" * COMMAND_LIMIT
    found = arguments(block)
    assert found.length == len(block)
    assert found.sha256 is not None
    assert len(found.sha256) == 64
    assert arguments(b"ls\0-l\0") == (("ls", "-l"), 6, None)


@given(
    st.recursive(
        st.integers() | st.booleans() | st.text(max_size=5), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_integers_stay_exact_in_json(value: object) -> None:
    """No integer leaves that a JSON reader with doubles would change."""

    def check(item: object) -> None:
        if isinstance(item, dict):
            for child in item.values():
                check(child)
        elif isinstance(item, list):
            for child in item:
                check(child)
        elif isinstance(item, int) and not isinstance(item, bool):
            assert abs(item) <= MAX_SAFE_INTEGER

    check(json_safe(value))
