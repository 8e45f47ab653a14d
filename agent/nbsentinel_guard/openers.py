"""Programs that open files with O_NONBLOCK: a lease would make them fail, so they are told apart at their exec.

Found by trying and in their sources. Programs that run in an interpreter are known by the script's name, or by the
script naming the flag.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Set, Tuple

PROGRAMS = (
    "tar", "bsdtar", "star", "pax", "cpio", "bsdcpio", "grep", "egrep", "fgrep", "zgrep", "file", "gzip", "pigz", "xz",
    "lzma", "lz4", "bzip2", "zstd", "zip", "7z", "7za", "7zr", "rsync", "rclone", "restic", "kopia", "bup", "dar",
    "duplicacy", "mc", "mcview", "unison", "diff", "cmp", "git-annex", "clamscan", "freshclam", "aide", "tail",
    "busybox", "toybox", "less", "dd", "shred", "emacs", "tig", "syncthing", "borg",
)  # fmt: skip
SCRIPTS = ("borg", "borgmatic", "duplicity", "rdiff-backup", "attic", "obnam", "bup", "deja-dup", "duplicati")
FOLDERS = ("/bin", "/usr/bin", "/usr/local/bin", "/opt/conda/bin", "/usr/sbin", "/snap/bin")
INTERPRETERS = (b"python", b"pypy", b"perl", b"ruby", b"node", b"php", b"lua", b"tclsh")
FLAG = b"O_NONBLOCK"
SCRIPT_LIMIT = 1 << 18


def inodes(folders: Tuple[str, ...] = FOLDERS) -> Set[Tuple[int, int]]:
    """Return device and inode of the listed programs that exist here."""
    found: Set[Tuple[int, int]] = set()
    for folder in folders:
        for name in PROGRAMS:
            try:
                status = os.stat(os.path.join(folder, name))
            except OSError:
                continue
            found.add((status.st_dev, status.st_ino))
    return found


def is_interpreter(exe: bytes) -> bool:
    """Return whether a file is an interpreter by its name; a renamed one is at worst told EAGAIN once."""
    return exe.rpartition(b"/")[2].startswith(INTERPRETERS)


def names_flag(argv: bytes) -> bool:
    """Return whether arguments hold code that names the flag, or the script of a program that is known to use it."""
    words = argv.split(b"\0")
    script = script_of(words)
    return FLAG in argv or script.rpartition(b"/")[2].decode("ascii", "replace") in SCRIPTS


def script_of(words: List[bytes]) -> bytes:
    """Return the script among an interpreter's arguments, b"" where there is none."""
    for word in words[1:]:
        if word in (b"-c", b"-e", b"-m", b"-"):
            return b""
        if not word.startswith(b"-"):
            return word
    return b""


def script_names_flag(pid: int, argv: bytes) -> bool:
    """Return whether the script that a process runs names the flag; False for what is no ordinary file."""
    script = script_of(argv.split(b"\0"))
    if not script:
        return False
    path = script if script.startswith(b"/") else b"/proc/%d/cwd/%s" % (pid, script)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return False
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and FLAG in os.read(descriptor, SCRIPT_LIMIT)
    except OSError:
        return False
    finally:
        os.close(descriptor)
