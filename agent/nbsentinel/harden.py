"""Making the agent harder to look into."""

from __future__ import annotations

import ctypes

PR_SET_DUMPABLE = 4
"""include/uapi/linux/prctl.h; with 0 no process of the same user may trace us, read our memory or our descriptors."""


def forbid_dumps() -> bool:
    """Make this process not dumpable, so that its signing key stays in its memory; return whether that worked.

    From then on even we cannot read our own environ or io under /proc. An execve resets it.
    """
    return bool(ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
