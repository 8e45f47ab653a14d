"""The reference page describes what is really written, and its verifier works."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature

from attest.writing import edited, plain_event, resigned, session
from nbsentinel.attest import canonical
from nbsentinel.attest.keys import SigningKey
from nbsentinel.attest.verify import Reason

PAGE = (Path(__file__).parents[2] / "docs/reference/attestation.md").read_text()
REFUSALS = (ValueError, KeyError, TypeError, InvalidSignature)


def blocks(language: str) -> list[str]:
    """Return the code blocks of the page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def verify_chain() -> Callable[..., Any]:
    """Return the verifier that the page prints."""
    (source,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(source, "attestation.md", "exec"), names)
    function: Callable[..., Any] = names["verify_chain"]
    return function


def test_printed_verifier_accepts_what_is_written(verify_chain: Callable[..., Any]) -> None:
    """The page's verifier follows a real chain over several keys to its head."""
    written = session(12, rotate_at=(2, 7))
    head = written.head()
    found = verify_chain(written.lines, written.chain.genesis_key.jwk())
    assert (head.chain_uid, head.fingerprint, head.signature_sha256) == found


def test_printed_verifier_refuses_what_was_bent(verify_chain: Callable[..., Any]) -> None:
    """It raises for an altered, removed, copied, moved, reformatted and re-signed event and for another first key."""
    written = session(8, rotate_at=(2,))
    lines, key = written.lines, written.chain.genesis_key.jwk()
    thief = SigningKey.generate()
    bent = [
        [*lines[:5], edited(lines[5], lambda event: event.update(message="x")), *lines[6:]],
        [*lines[:5], resigned(lines[5], thief, lambda event: None), *lines[6:]],
        [*lines[:5], *lines[6:]],
        [*lines[:5], lines[4], *lines[5:]],
        [*lines[:4], lines[5], lines[4], *lines[6:]],
        [*lines[:5], lines[5] + b" ", *lines[6:]],
        [edited(line, lambda e: e["attestation_list"][0]["signatures"][0].update(created_time=1)) for line in lines],
    ]
    for attempt in bent:
        with pytest.raises(REFUSALS):
            verify_chain(attempt, key)
    with pytest.raises(REFUSALS):
        verify_chain(lines, thief.jwk())


def members(value: object) -> object:
    """Return a value with its leaves replaced by their types."""
    if isinstance(value, dict):
        return {name: members(child) for name, child in value.items()}
    if isinstance(value, list):
        return [members(child) for child in value]
    return type(value).__name__


def test_printed_attestation_is_a_real_one() -> None:
    """The sample on the page has exactly the members of a written attestation, with the same constants."""
    sample = json.loads(blocks("json")[0])
    written = canonical.decode(session(1, rotate_at=()).lines[1])
    assert members(sample["attestation_list"]) == members(written["attestation_list"])
    mine, theirs = (event["attestation_list"][0]["fingerprint"] for event in (sample, written))
    assert {**theirs, "value": ""} == {**mine, "value": ""}
    assert set(sample["metadata"]) < set(written["metadata"])


def test_every_reason_is_explained() -> None:
    """Each reason that a verifier gives is in the page's table."""
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE))
    assert {reason.value for reason in Reason} <= explained
    assert all(reason.meaning for reason in Reason)


def test_limits_on_the_page() -> None:
    """The printed limits are those in force."""
    assert f"{canonical.LINE_LIMIT:,} bytes" in PAGE
    assert f"at most {canonical.DEPTH_LIMIT} levels" in PAGE
    assert session(1).chain.seal(plain_event(n=2**53 - 1))
