"""Ordinary work that resembles a remote shell: a program that ends by itself, with exit code 0 and a known output."""

from __future__ import annotations

import msgspec

from live.programs import Language, needed


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One look-alike. WEB in its environment is the URL of a web server on this machine, PYTHON an interpreter."""

    name: str
    resembles: str
    """The attack that it could be taken for, and why it is none."""
    language: Language
    text: str
    expects: str
    """Must be in its output."""
    programs: tuple[str, ...] = ()
    """Needed beside the language's own."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Everything without which it cannot run here."""
        return (*needed(self.language), *self.programs)
