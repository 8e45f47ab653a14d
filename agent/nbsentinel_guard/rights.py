"""One line for the person at the terminal when a program cannot have the rights that its file would give it."""

from __future__ import annotations

import os

from nbsentinel_guard import evidence

TEXT = (
    b"nbsentinel: %s has no special rights here: what runs under the guard cannot gain any (no_new_privs). "
    b"To use it, open a terminal outside the guard: [guard] terminals = false.\n"
)


def explain(pid: int, exe: bytes, stream: bytes, kernel: int) -> None:
    """Write the line to a program's standard error, if a person reads it there.

    That is a terminal, or the pipe that a kernel was given, which shows in the cell. All other pipes are left alone:
    programs read them. Never blocks.

    Args:
        pid: The program, which waits.
        exe: Its file.
        stream: What its descriptor 2 refers to.
        kernel: The kernel that it belongs to, 0 for none.
    """
    if stream.startswith(b"pipe:"):
        if not kernel or stream != evidence.link(b"/proc/%d/fd/2" % kernel):
            return
    elif not stream.startswith(b"/dev/pts/"):
        return
    try:
        descriptor = os.open(b"/proc/%d/fd/2" % pid, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(descriptor, TEXT % exe.rpartition(b"/")[2])
    except OSError:
        pass
    finally:
        os.close(descriptor)
