"""From patterns to what exists now: the files to watch, and the folders in which more of them could appear."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from nbsentinel.sensors.files.catalogue import Pattern, Use, fits, homes, is_glob

FILES_LIMIT, FOLDERS_LIMIT = 1024, 512
"""Most watches; what is left out is told in the coverage."""
BRANCH_LIMIT = 64
"""Most folders that one `*` is followed into."""


class Target(msgspec.Struct, frozen=True):
    """A file that is watched."""

    path: str
    kind: str
    use: Use


class Plan(msgspec.Struct):
    """What to watch now."""

    files: dict[str, Target] = {}
    """By path; the places that persistence uses have a kind of their own beside that of a credential."""
    changes: dict[str, Target] = {}
    folders: dict[str, set[str]] = {}
    """Folders, with the parts of patterns that names in them are compared with."""
    left_out: int = 0


def find_homes() -> tuple[str, ...]:
    """Return the homes of this user that can be looked into."""
    try:
        of_uid = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        of_uid = ""
    others = ["/home/sagemaker-user", "/root"]
    with contextlib.suppress(OSError):
        others += [f"/home/{name}" for name in sorted(os.listdir("/home"))[:BRANCH_LIMIT]]
    chosen = homes(of_uid, os.environ.get("HOME", ""), others)
    return tuple(path for path in chosen if os.access(path, os.R_OK | os.X_OK))


def make_plan(patterns: Iterable[Pattern], where: Iterable[str]) -> Plan:
    """Return what the patterns mean in these homes now."""
    plan = Plan()
    roots = tuple(where)
    for pattern in patterns:
        for root in ("/",) if pattern.is_absolute else roots:
            _follow(plan, pattern, root, 0)
    return plan


def _follow(plan: Plan, pattern: Pattern, folder: str, depth: int) -> None:
    """Go down one part of a pattern: note the folder, and what in it fits."""
    part = pattern.parts[depth]
    last = depth == len(pattern.parts) - 1
    if not (folder == "/" and not is_glob(part)):  # nobody of this user makes something new there
        _note_folder(plan, folder, part)
    for number, name in enumerate(_names(folder, part)):
        path = os.path.join(folder, name)
        if last:
            _note_file(plan, Target(path, pattern.kind, pattern.use))
        elif is_glob(part) and number >= BRANCH_LIMIT:
            plan.left_out += 1
        elif Path(path).is_dir():
            _follow(plan, pattern, path, depth + 1)


def _names(folder: str, part: str) -> Iterator[str]:
    if not is_glob(part):
        if os.path.lexists(os.path.join(folder, part)):
            yield part
        return
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    yield from (name for name in names if fits(name, part))


def _note_folder(plan: Plan, folder: str, part: str) -> None:
    known = plan.folders.get(folder)
    if known is not None:
        known.add(part)
    elif len(plan.folders) < FOLDERS_LIMIT:
        plan.folders[folder] = {part}
    else:
        plan.left_out += 1


def _note_file(plan: Plan, target: Target) -> None:
    table = plan.changes if target.use is Use.CHANGE else plan.files
    if target.path in table or Path(target.path).is_dir():
        return
    if len(plan.files) + len(plan.changes) >= FILES_LIMIT:
        plan.left_out += 1
        return
    table[target.path] = target
