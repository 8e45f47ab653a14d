"""The governor of the agent's own rate."""

from __future__ import annotations

from nbsentinel.usage import Governor


def minutes(governor: Governor, start: int, shares: list[float]) -> list[int]:
    """Feed whole minutes with these shares of a core in percent; return the factor after each."""
    found = []
    cpu = 0.0
    governor.step(start * 60.0, cpu)
    for number, share in enumerate(shares, start + 1):
        cpu += 0.6 * share
        governor.step(number * 60.0, cpu)
        found.append(governor.factor)
    return found


def test_slows_down_and_recovers() -> None:
    """Each minute above the limit doubles; five minutes below half of it bring the usual rate back."""
    governor = Governor(2)
    assert minutes(governor, 0, [1.9, 3, 3, 1.5, 0.5, 0.5, 0.5, 0.5, 0.5]) == [1, 2, 4, 4, 4, 4, 4, 4, 1]


def test_one_busy_minute_begins_the_calm_anew() -> None:
    """Calm has to be in a row."""
    assert minutes(Governor(2), 0, [3, *[0.5] * 4, 1.5, *[0.5] * 5]) == [2] * 10 + [1]


def test_never_without_a_limit() -> None:
    """0 switches it off."""
    assert minutes(Governor(0), 0, [50, 50]) == [1, 1]


def test_a_minute_has_to_be_whole() -> None:
    """A burst of seconds is not judged."""
    governor = Governor(2)
    assert not governor.step(0, 0)
    assert not governor.step(30, 30)
    assert governor.factor == 1
