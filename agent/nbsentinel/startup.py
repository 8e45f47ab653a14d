"""What an agent needs before it can run: its folders, its rules, its own name."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from nbsentinel.attest import canonical
from nbsentinel.config import Config
from nbsentinel.context.surface import Surface
from nbsentinel.detect.rules.exceptions import rule_files
from nbsentinel.detect.rules.pack import Pack, default_pack, load_pack
from nbsentinel.errors import ConfigError, NbsentinelError
from nbsentinel.events import Millis, ProcessKey
from nbsentinel.report import incidents
from nbsentinel.report.spool import Spool
from nbsentinel.sensors.procfs import reader

FINDING, FINDINGS = 2004, 500
"""How many of the newest findings are looked through for incidents that were left open."""
LOCK_S = 2.0
"""Time that an agent before us, whose keeper was killed, may take to be gone."""


def lock(folder: Path) -> int:
    """Make a private folder and take its lock, so that two agents never share it.

    Raises:
        NbsentinelError: It cannot be made or is another user's, or another agent keeps it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise NbsentinelError(f"{folder}: belongs to another user", hint="Choose another folder in [agent].")
        folder.chmod(0o700)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise NbsentinelError(f"{folder}: {error.strerror}", hint="Set [agent] state_dir and run_dir.") from error
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            os.close(descriptor)
            raise NbsentinelError(f"{folder}: another agent uses it", hint="`nbsentinel status` shows it.") from error
        return descriptor


def own_key() -> ProcessKey:
    """Return this very process."""
    found = reader.stat(os.getpid())
    return found.key if found else ProcessKey(os.getpid(), 0)


def load_rules(config: Config) -> Pack:
    """Return the rule pack that the configuration names, else the one in the package.

    Raises:
        ConfigError: It cannot be read.
        RuleError: It is no rule pack.
    """
    path = config.detect.rules
    if not path:
        return default_pack()
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"detect.rules: {path}: {error.strerror}", hint="Give a pack that `nbsentinel rules compile` wrote."
        ) from error
    return load_pack(content, path)


def exception_files(config: Config) -> list[str]:
    """Return the files of exceptions that the configuration names, as far as they are there."""
    path = Path(config.detect.exceptions)
    return [str(file) for file in rule_files([path])] if config.detect.exceptions and path.exists() else []


def surface_fields(surface: Surface) -> dict[str, str]:
    """Return what is known of the surface, as JSON wants it."""
    fields = {name: getattr(surface, name) for name in surface.__struct_fields__}
    return {name: value for name, value in fields.items() if isinstance(value, str) and value}


def closings(spool: Spool, now: Millis) -> list[incidents.Event]:
    """Return the events that close the incidents which the agents before this one left open.

    Raises:
        ValueError, KeyError, TypeError: Somebody wrote something into the spool that no agent would.
    """
    events = [canonical.decode(row.line) for row in spool.latest(FINDINGS, FINDING)]
    return [incidents.closing(group, now) for group in incidents.left_open(events)]
