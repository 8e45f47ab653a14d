"""Acts beside shells, by tactic: see `base.Act`."""

from attacks.cases.acts import abusing, executing, memory, reading, staying, taking
from attacks.cases.acts.base import Act

ACTS: tuple[tuple[Act, ...], ...] = (
    reading.CASES,
    taking.NAMED,
    taking.CASES,
    staying.CASES,
    memory.CASES,
    executing.CASES,
    abusing.CASES,
)
"""Each group is over before the next begins: programs of one make it harder to say who read in another."""
ALL: tuple[Act, ...] = tuple(act for group in ACTS for act in group)

__all__ = ["ACTS", "ALL", "Act"]
