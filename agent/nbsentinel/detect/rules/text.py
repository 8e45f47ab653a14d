"""How text is compared when case does not count: the same for rules, index and regular expressions."""

from __future__ import annotations


def fold(text: str) -> str:
    """Return a text lowered, letter by letter: what a part of a text folds to is part of what the whole folds to.

    Python lowers a sigma by what stands beside it; here it is the same letter everywhere.
    """
    return (
        text.lower()
        if text.isascii()
        else text.lower().replace("\N{GREEK SMALL LETTER FINAL SIGMA}", "\N{GREEK SMALL LETTER SIGMA}")
    )


def fold_char(char: str) -> str:
    """Return one character lowered, or as it is where lowering makes several of it."""
    lowered = fold(char)
    return lowered if len(lowered) == 1 else char
