"""Which interpreter a program is, by the name of its file: all that is left of one that has ended."""

from __future__ import annotations

import functools
import os

_NAMES = {
    "sh": "shell",
    "bash": "shell",
    "rbash": "shell",
    "dash": "shell",
    "ash": "shell",
    "zsh": "shell",
    "ksh": "shell",
    "ksh93": "shell",
    "mksh": "shell",
    "pdksh": "shell",
    "fish": "shell",
    "csh": "shell",
    "tcsh": "shell",
    "yash": "shell",
    "pwsh": "shell",
    "busybox": "busybox",
    "toybox": "busybox",
    "node": "node",
    "nodejs": "node",
    "php": "php",
    "lua": "lua",
    "tclsh": "tcl",
    "perl": "perl",
    "ruby": "ruby",
    "irb": "ruby",
    "julia": "julia",
    "R": "r",
}
_PREFIXES = (
    "python",
    "pypy",
    "perl5",
    "php",
    "lua",
    "luajit",
    "tclsh",
    "ruby",
    "busybox",
    "bash",
    "zsh",
    "ksh",
    "node",
)


@functools.lru_cache(maxsize=4096)
def by_name(path: str | None) -> str | None:
    """Return the interpreter that a path's last part names, or None."""
    if not path:
        return None
    name = os.path.basename(path.removesuffix(" (deleted)"))
    if name in _NAMES:
        return _NAMES[name]
    for prefix in _PREFIXES:
        rest = name.removeprefix(prefix)
        if rest != name and all(char in "0123456789.-" for char in rest):
            kind = {"pypy": "python", "perl5": "perl", "luajit": "lua", "tclsh": "tcl"}.get(prefix, prefix)
            return _NAMES.get(kind, kind)
    return None
