"""Let a program do its work in a cage, and say whether it really did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from live.account import Account
from live.caged import Caged

LIFE_S = 60.0
"""The longest life of a program, unless told otherwise."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one program."""

    done: bool
    """It ended with exit code 0 and said what it should."""
    pids: frozenset[int]
    said: str
    """Its output, for the message of a failed test."""
    started: float
    """Seconds since the epoch."""
    ended: float
    """Seconds since the epoch."""


def work(
    account: Account,
    folder: Path,
    command: list[str],
    environment: Mapping[str, str],
    expects: str,
    *,
    life_s: float = LIFE_S,
) -> Done:
    """Run a program until it ends and compare its output."""
    with Caged(account, folder, command, environment, life_s) as caged:
        code = caged.wait(life_s)
    said = caged.output()
    return Done(
        done=code == 0 and expects in said.replace("\r", ""),
        pids=caged.pids(),
        said=f"exit code {code}\n{said}",
        started=caged.started,
        ended=time.time(),
    )
