"""Two inotify instances: one for credentials alone, which nothing else can overflow, and one for everything else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from nbsentinel.sensors.files.catalogue import fits
from nbsentinel.sensors.files.places import Plan, Target
from nbsentinel_guard import inotify

# Closes only keep two opens apart, which the kernel would tell as one if nothing came between.
_OPENS = inotify.OPEN | inotify.MODIFY | inotify.ATTRIB | inotify.CLOSE_WRITE | inotify.CLOSE_NOWRITE
_CHANGES = inotify.MODIFY | inotify.ATTRIB
_FOLDER = inotify.CREATE | inotify.MOVED_TO | inotify.MOVED_FROM | inotify.DELETE | inotify.ONLY_FOLDER


class Happening(msgspec.Struct, frozen=True):
    """One event: about a watched file, or about a name in a watched folder that some pattern fits."""

    path: str
    mask: int
    in_folder: bool
    about_changes: bool
    """With a file: whether it was seen by the watch for changes."""


class Watches:
    """What is watched now.

    Raises:
        OSError: inotify is not to be had.
    """

    def __init__(self) -> None:
        self.credentials, self.places = inotify.Inotify(), inotify.Inotify()
        self._of_path: dict[tuple[bool, str], int] = {}
        self._opens: dict[int, str] = {}
        self._changes: dict[int, str] = {}
        self._folders: dict[int, str] = {}
        self._plan = Plan()
        self.refused = 0
        """Files and folders that the kernel lets nobody of this user watch, or not any more."""

    @property
    def count(self) -> int:
        """How many watches there are."""
        return len(self._opens) + len(self._changes) + len(self._folders)

    def apply(self, plan: Plan) -> tuple[list[Target], list[Target]]:
        """Watch what a plan asks for; return the files that are new, and those that are not watched any more."""
        before = {(False, p): t for p, t in self._plan.files.items()}
        before |= {(True, p): t for p, t in self._plan.changes.items()}
        now = {(False, p): t for p, t in plan.files.items()} | {(True, p): t for p, t in plan.changes.items()}
        self.refused = 0
        for folder in plan.folders:
            if folder not in self._plan.folders or folder not in self._folders.values():
                self._watch_folder(folder)
        for folder in self._plan.folders.keys() - plan.folders.keys():
            for number in [number for number, path in self._folders.items() if path == folder]:
                self.places.remove(number)
                del self._folders[number]
        for key in before.keys() - now.keys():
            self._forget(key)
        for key in now.keys() - before.keys():
            self.renew(key[1], about_changes=key[0])
        self._plan = plan
        return [now[key] for key in now.keys() - before.keys()], [before[key] for key in before.keys() - now.keys()]

    def _watch_folder(self, folder: str) -> None:
        try:
            self._folders[self.places.add(os.fsencode(folder), _FOLDER)] = folder
        except OSError:
            self.refused += 1

    def renew(self, path: str, *, about_changes: bool) -> None:
        """Watch the file that a path stands for now."""
        self._forget((about_changes, path))
        instance, table = (self.places, self._changes) if about_changes else (self.credentials, self._opens)
        try:
            number = instance.add(os.fsencode(path), _CHANGES if about_changes else _OPENS)
        except OSError:
            self.refused += 1
            return
        table[number] = path
        self._of_path[about_changes, path] = number

    def _forget(self, key: tuple[bool, str]) -> None:
        number = self._of_path.pop(key, -1)
        table = self._changes if key[0] else self._opens
        if table.get(number) == key[1]:
            del table[number]
            (self.places if key[0] else self.credentials).remove(number)

    def read(self, instance: inotify.Inotify) -> Iterator[Happening | None]:
        """Yield what waits at an instance; None where the kernel had to drop events."""
        about_changes = instance is self.places
        table = self._changes if about_changes else self._opens
        for number, mask, name in instance.read():
            if mask & inotify.OVERFLOW:
                yield None
            elif about_changes and number in self._folders and name:
                folder, text = self._folders[number], os.fsdecode(name)
                if any(fits(text, part) for part in self._plan.folders.get(folder, ())):
                    yield Happening(os.path.join(folder, text), mask, in_folder=True, about_changes=True)
            elif number in table:
                yield Happening(table[number], mask, in_folder=False, about_changes=about_changes)
            if mask & inotify.IGNORED:
                self._folders.pop(number, None) if about_changes else None
                table.pop(number, None)

    def close(self) -> None:
        """Let go of everything."""
        self.credentials.close()
        self.places.close()
