"""Reverse, bind and relay shells, each of which proves itself: see `base.Case`."""

from attacks.cases import bash, binds, c, languages, netcat, notebooks, python
from attacks.cases.base import Case

ALL: tuple[Case, ...] = (
    *bash.CASES,
    *python.CASES,
    *c.CASES,
    *binds.CASES,
    *languages.CASES,
    *netcat.CASES,
    *notebooks.CASES,
)

__all__ = ["ALL", "Case"]
