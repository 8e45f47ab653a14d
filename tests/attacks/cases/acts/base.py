"""One act of an attacker that is no shell: a program that really does it and proves it."""

from __future__ import annotations

import msgspec

from live.programs import Language, needed

LOW, MEDIUM, HIGH = 2, 3, 4
"""OCSF severity_id."""
PLACES = {
    "aws": ".aws/cli/cache/{}.json",
    "sso": ".aws/sso/cache/{}.json",
    "ssh": ".ssh/{}.pem",
    "google": ".config/gcloud/legacy_credentials/{}/adc.json",
    "snowflake": ".snowflake/{}.toml",
}
"""Where a home holds any number of credentials of a kind, so that each case has its own."""


class Act(msgspec.Struct, frozen=True):
    """One act.

    In its environment HOME is the home that the agent watches, SECRET a credential there, WEB a web server, HOST and
    PORT a listener, VICTIM a process of somebody else with a secret at ADDRESS, AGENT the agent, PYTHON an interpreter.
    """

    name: str
    rule: str
    """The rule of the catalogue that is meant for it."""
    technique: str
    """Of that rule."""
    language: Language
    text: str
    expects: str = ""
    """Must be in its output; without it what its credential holds."""
    heard: str = ""
    """Must have come to the web server or the listener."""
    secret: str = ""
    """A name in PLACES, or a path in the home."""
    severity: int = MEDIUM
    """How severe a finding about it must be at least."""
    programs: tuple[str, ...] = ()
    """Needed beside the language's own."""
    flags: tuple[str, ...] = ()
    """For the compiler."""
    alone: bool = False
    """Whether it must not run beside others, because nothing but the moment tells who did it."""
    in_cell: bool = False
    """Whether it is run as a cell of a kernel as well."""
    unseen: str = ""
    """Why no agent without rights can see it, where that is so."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Everything without which it cannot run here."""
        return (*needed(self.language), *self.programs)

    @property
    def content(self) -> str:
        """What its credential holds."""
        return f"fake-{self.name}-credential"

    @property
    def proof(self) -> str:
        """What its output must hold."""
        return self.expects or self.content

    @property
    def path(self) -> str:
        """Where its credential is, in the home; empty for none."""
        return PLACES.get(self.secret, self.secret).format(self.name)
