"""A shell for a remote peer: a program that finds its operator in the environment, as HOST, PORT and PORT2."""

from __future__ import annotations

import msgspec

from live.channels import Transport
from live.programs import Language, needed
from live.shells import Speech


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One shell."""

    name: str
    language: Language
    text: str
    transport: Transport = Transport.TCP
    speech: Speech = Speech.SH
    programs: tuple[str, ...] = ()
    """Needed beside the language's own."""
    flags: tuple[str, ...] = ()
    """For the compiler."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Everything without which it cannot run here."""
        return (*needed(self.language), *(("ipv6",) if self.transport is Transport.TCP6 else ()), *self.programs)
