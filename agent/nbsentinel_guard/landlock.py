"""A Landlock domain that only scopes signals (Linux 6.12): what is inside cannot signal, trace or read what is outside.

It handles no files and no ports, so nothing else changes. Whatever is to signal each other must share one domain, and
a domain can only be inherited: so it is entered where everything has one ancestor, the Jupyter server, and only there.
"""

from __future__ import annotations

import ctypes
import os
import struct

from nbsentinel_guard.seccomp import _libc

CREATE_RULESET, RESTRICT_SELF = 444, 446
"""The same numbers on every machine (asm-generic/unistd.h)."""
SCOPE_SIGNAL = 2
_ATTRIBUTES = struct.pack("=QQQ", 0, 0, SCOPE_SIGNAL)


def scope_signals() -> bool:
    """Enter a new domain with this thread and all it starts; return whether the kernel has that.

    Needs no_new_privs. Probed by trying: some kernels claim the version of the interface and lack the scope.
    """
    buffer = ctypes.create_string_buffer(_ATTRIBUTES, len(_ATTRIBUTES))
    ruleset = int(_libc.syscall(ctypes.c_long(CREATE_RULESET), buffer, ctypes.c_size_t(len(_ATTRIBUTES)), 0))
    if ruleset < 0:
        return False
    try:
        return bool(_libc.syscall(ctypes.c_long(RESTRICT_SELF), ctypes.c_int(ruleset), 0) == 0)
    finally:
        os.close(ruleset)
