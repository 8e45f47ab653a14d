"""Opens and the names of openers find each other, whatever comes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nbsentinel.sensors.files.opens import CREDIT_S, WAIT_S, Opens, Repeats

events = st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60)


@given(events)
def test_every_open_is_named_or_told(happened: list[tuple[bool, str]]) -> None:
    """Within a moment, as many opens remain unnamed as there were more opens than names, for each path."""
    opens = Opens()
    for is_open, path in happened:
        (opens.opened if is_open else opens.named)(path, 1.0)
    left = [path for _, path in opens.unnamed(1.0 + WAIT_S)]
    for path in "abc":
        difference = sum(1 if is_open else -1 for is_open, where in happened if where == path)
        assert left.count(path) == max(0, difference) or left.count(path) > difference
        assert left.count(path) <= sum(is_open for is_open, where in happened if where == path)


def test_name_before_open() -> None:
    """The usual order: the lessor names, then the opener goes on."""
    opens = Opens()
    opens.named("a", 1.0)
    opens.opened("a", 1.01)
    assert opens.unnamed(9.0) == []


def test_open_before_name() -> None:
    """Whoever held the file is named a moment after its open."""
    opens = Opens()
    opens.opened("a", 1.0)
    assert opens.unnamed(1.0 + WAIT_S / 2) == []
    opens.named("a", 1.05)
    assert opens.unnamed(9.0) == []


def test_an_old_name_hides_no_later_open() -> None:
    """A name whose open was told together with another is forgotten, and cannot hide somebody else."""
    opens = Opens()
    opens.named("a", 1.0)
    opens.opened("a", 1.0 + CREDIT_S + 0.01)
    assert opens.unnamed(9.0) == [(1.0 + CREDIT_S + 0.01, "a")]


def test_too_many_opens_are_counted() -> None:
    """Opens beyond the bound are given up, and that is counted."""
    opens = Opens()
    for number in range(5000):
        opens.opened(str(number), 1.0)
    assert len(opens.unnamed(9.0)) + opens.forgotten == 5000
    assert opens.forgotten > 0


def test_repeats_are_counted() -> None:
    """The same thing is let through once in a while; what is not let through is counted."""
    repeats = Repeats(1.0)
    assert [repeats.is_new("a", now) for now in (0.0, 0.5, 0.9, 1.0, 1.5)] == [True, False, False, True, False]
    assert repeats.count == 3
