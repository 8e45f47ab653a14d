"""Programs and situations, by topic, that must not notice the guard."""

from types import ModuleType

from msgspec.structs import replace

from guard.programs import (
    compiled,
    debuggers,
    execution,
    inherited,
    installs,
    languages,
    many,
    network,
    priorities,
    python,
    shell,
    signals,
    tools,
)
from guard.programs.case import Case

_TOPICS = (
    shell,
    execution,
    inherited,
    signals,
    python,
    priorities,
    network,
    compiled,
    languages,
    tools,
    installs,
    debuggers,
    many,
)


def _named(topic: ModuleType, case: Case) -> Case:
    return replace(case, name=f"{topic.__name__.rpartition('.')[2]}: {case.name}")


CASES: tuple[Case, ...] = tuple(_named(topic, case) for topic in _TOPICS for case in topic.CASES)
"""All of them; each name begins with its topic."""
