"""Who may have opened a file where nobody saw it: by when programs started, and what their arguments name.

Nothing is read of a process; only what an argument names is looked up on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from nbsentinel.events import Millis, Process, ProcessKey
from nbsentinel_guard.openers import is_interpreter

CLOCK_MS = 50
"""How much too late the start of a process may seem: the kernel gives it in hundredths of a second."""
FRESH_MS = 1_000
"""A program that reads a credential and ends does so within a second of its start; imports take most of that."""


def names(process: Process, path: str) -> bool | None:
    """Return whether the arguments of a process name a file, or a folder above it; None where they name nothing."""
    base = process.cwd or "/"
    words = [part for argument in process.argv[1:] for part in {argument, argument.rpartition("=")[2]}]
    named = {os.path.normpath(os.path.join(base, word)) for word in words if word and not word.startswith("-")}
    existing = [name for name in named if os.path.lexists(name)]
    return any(is_within(path, name) for name in existing) if existing else None


def may_mean(process: Process, path: str) -> bool:
    """Return whether a program that opens without blocking may have opened a file, by its arguments and folder.

    `tail -f` of a log has nothing to do with a credential; what a script opens its arguments need not say.
    """
    if is_interpreter(os.fsencode(process.exe or "")):
        return True
    said = names(process, path)
    return is_within(path, process.cwd or "/") if said is None else said  # `grep -r word` without a folder


def is_within(path: str, name: str) -> bool:
    """Return whether a path, or what it leads to, is a file or folder or below it."""
    return any(place == name or place.startswith(name.rstrip("/") + "/") for place in (path, os.path.realpath(path)))


def by_timing(processes: Iterable[Process], path: str, at: Millis) -> ProcessKey | None:
    """Return the only program that had just started when a file was opened, None where none or several had.

    A shell and the program that it started are one: the program. Of several, one whose arguments name the file is it.

    Args:
        processes: Those of this user that lived then.
        path: The file.
        at: When it was opened.
    """
    fresh = [one for one in processes if at - FRESH_MS <= one.started <= at + CLOCK_MS]
    parents = {one.parent for one in fresh}
    last = [one for one in fresh if one.key not in parents]
    naming = [one for one in last if names(one, path)]
    found = naming or last
    return found[0].key if len(found) == 1 else None
