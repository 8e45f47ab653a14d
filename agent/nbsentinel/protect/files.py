"""Whether our own files are what they were: program, rules, configuration.

Contents are hashed once; after that a look costs one `stat` a file, and a few files a look. Only what looks different
is read again. A file is known by its path: where a link points to another file than before, the content decides.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import msgspec

PACKAGES = ("nbsentinel", "nbsentinel_guard", "nbsentinel_kernel")
AT_ONCE = 64
"""Files in one look: about 0.1 ms."""
READ_LIMIT = 64 << 20
GONE, UNREADABLE, TOO_LARGE = "gone", "not readable", "too large to be read"
_GONE_ERRORS = (errno.ENOENT, errno.ENOTDIR)
_OWN_TROUBLE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EINTR)
"""Errors that say something of us or the machine, not of the file."""
_Look = tuple[int, ...]


class Change(msgspec.Struct, frozen=True):
    """A file that is not what it was."""

    path: str
    detail: str


class Files:
    """The files and what is known of them.

    Args:
        paths: Which files; what is not there at first is watched as well.
        before: Contents by path that an earlier agent under the same keeper knew.
    """

    def __init__(self, paths: Iterable[str], before: Mapping[str, str]) -> None:
        self._paths = list(dict.fromkeys(paths))
        self._before = before
        self._looks: dict[str, _Look | None] = {}
        self.contents: dict[str, str] = {}
        """SHA-256 by path, or one of the words for what has none."""
        self.taken = False
        """Whether the first pass is done; until then nothing is compared."""
        self._turn = 0

    @property
    def known(self) -> Mapping[str, str]:
        """Contents by path that the next agent should know: until the first pass is done, those of the one before."""
        return self.contents if self.taken else self._before

    def take(self) -> list[Change]:
        """Read every file once; return what differs from what an earlier agent knew. May run in another thread."""
        changes = []
        for path in self._paths:
            look, content = read(path)
            self._looks[path], self.contents[path] = look, content
            known = self._before.get(path)
            if known is not None and known != content:
                changes.append(_change(path, known, content))
        self.taken = True
        return changes

    def look(self, most: int = AT_ONCE) -> list[Change]:
        """Compare the next few files and return what changed since it was last reported."""
        if not self.taken or not self._paths:
            return []
        changes = []
        for _ in range(min(most, len(self._paths))):
            path = self._paths[self._turn % len(self._paths)]
            self._turn += 1
            try:
                if _look(path) == self._looks[path]:
                    continue
                self._looks[path], content = read(path)
            except OSError:
                continue  # our own trouble: another check tells of it
            if content != self.contents[path]:
                changes.append(_change(path, self.contents[path], content))
                self.contents[path] = content
        return changes


def _change(path: str, before: str, now: str) -> Change:
    return Change(path, f"was {_short(before)}, is {_short(now)}")


def _short(content: str) -> str:
    return content if " " in content or content == GONE else f"sha256 {content}"


def _look(path: str) -> _Look | None:
    try:
        return _facts(os.stat(path))
    except OSError as error:
        if error.errno in _OWN_TROUBLE:
            raise
        return None


def _facts(found: os.stat_result) -> _Look:
    # ctime as well: unlike mtime nobody without privilege can set it back.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read(path: str) -> tuple[_Look | None, str]:
    """Return (what stat says, content) of a file; the content is a hash or a word for what cannot be read.

    Raises:
        OSError: The trouble is ours, not the file's: no descriptor, no memory.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno in _OWN_TROUBLE:
            raise
        return _look(path), GONE if error.errno in _GONE_ERRORS else UNREADABLE
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return _facts(found), UNREADABLE
        if found.st_size > READ_LIMIT:
            return _facts(found), TOO_LARGE
        digest = hashlib.sha256()
        while part := os.read(descriptor, 1 << 20):
            digest.update(part)
        return _facts(found), digest.hexdigest()
    finally:
        os.close(descriptor)


def program_files() -> Iterator[str]:
    """Yield the files of our packages, compiled ones included, and the interpreter."""
    yield os.path.realpath(sys.executable)
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        for folder in found.submodule_search_locations or () if found else ():
            # A bound, should somebody point a package at a whole disk.
            yield from sorted(str(path) for path in islice(Path(folder).rglob("*"), 10_000) if path.is_file())
