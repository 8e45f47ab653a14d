"""Which interpreter a file really is, judged by its contents: a shell stays a shell under any name.

Names are a hint for speed; a file with another name is searched for strings that every build of an interpreter
carries. A file that merely contains those strings is rare (editors of a shell's kind), and the verdict only ever
widens what dataflow looks at.
"""

from __future__ import annotations

import os
from collections import OrderedDict

from nbsentinel.context.programs import by_name

READ_LIMIT = 6 * 1024 * 1024
"""Larger than any shell's binary and libpython-free python; node and java are known by markers in the first part."""
_CACHE_SIZE = 512

_SHELL_WORDS = (b"getopts", b"readonly", b"ulimit", b"umask", b"unset", b"PS1", b"PS2", b"IFS", b"PS4", b"HISTFILE")
_SHELL_QUORUM = 7
"""dash and busybox carry 9 of the words, bash, zsh and ksh all ten; GNU make 5, vim, git and perl 3."""
_MARKERS = (
    ("busybox", b"BusyBox v"),
    ("python", b"Py_BytesMain"),
    ("perl", b"PERL5LIB"),
    ("ruby", b"RUBYLIB"),
    ("node", b"NODE_OPTIONS"),
    ("php", b"PHP_INI_SCAN_DIR"),
    ("lua", b"LUA_INIT"),
    ("tcl", b"tcl_rcFileName"),
    ("shell", b"__fish_"),
)


def by_content(data: bytes) -> str | None:
    """Return the interpreter that the bytes of an executable belong to, or None."""
    if not data.startswith(b"\x7fELF"):
        return None
    for kind, marker in _MARKERS:
        if marker in data:
            return kind
    if sum(word + b"\0" in data or word + b"=" in data for word in _SHELL_WORDS) >= _SHELL_QUORUM:
        return "shell"
    return None


class ImageCache:
    """Judges running files once per (device, inode, size, modification time)."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, int, int, int], str | None] = OrderedDict()

    def kind(self, pid: int, path: str | None) -> str | None:
        """Return the interpreter that a process runs, or None; reads the running file, deleted or not.

        A name that says so is believed without a look: pretending to be a shell gains nothing.
        """
        named = by_name(path)
        if named is not None:
            return named
        link = f"/proc/{pid}/exe"
        try:
            fd = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            info = os.fstat(fd)
            identity = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
            if identity in self._known:
                self._known.move_to_end(identity)
                return self._known[identity]
            kind = by_content(_read(fd))
        except OSError:
            return None
        finally:
            os.close(fd)
        self._known[identity] = kind
        while len(self._known) > _CACHE_SIZE:
            self._known.popitem(last=False)
        return kind


def _read(fd: int) -> bytes:
    chunks, left = [], READ_LIMIT
    while left > 0 and (chunk := os.read(fd, min(left, 1 << 20))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)
