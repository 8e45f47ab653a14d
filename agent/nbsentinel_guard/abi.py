"""Numbers of the kernel's interface: system calls by machine, flags, ioctls, sizes (include/uapi/linux)."""

from __future__ import annotations

import errno
import os

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_NOTIF_SIZES = 3
FLAG_TSYNC = 1 << 0
FLAG_SPEC_ALLOW = 1 << 2
FLAG_NEW_LISTENER = 1 << 3
FLAG_TSYNC_ESRCH = 1 << 4
FLAG_WAIT_KILLABLE_RECV = 1 << 5

RET_KILL_PROCESS = 0x80000000
RET_ERRNO = 0x00050000
RET_USER_NOTIF = 0x7FC00000
RET_ALLOW = 0x7FFF0000

NOTIF_RECV = 0xC0502100
NOTIF_SEND = 0xC0182101
NOTIF_ID_VALID = 0x40082102
NOTIF_SET_FLAGS = 0x40082104
SYNC_WAKE_UP = 1
CONTINUE = 1
NOTIF_SIZE = 80
RESPONSE_SIZE = 24

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38
PR_SET_PTRACER = 0x59616D61
ARCH_SET_FS = 0x1002
MSG_FASTOPEN = 0x20000000
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
PRIO_USER = 2
IOPRIO_WHO_USER = 3

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000

_X86_64 = {
    "connect": 42,
    "sendto": 44,
    "sendmsg": 46,
    "listen": 50,
    "execve": 59,
    "kill": 62,
    "ptrace": 101,
    "setpriority": 141,
    "sched_setparam": 142,
    "sched_setscheduler": 144,
    "prctl": 157,
    "arch_prctl": 158,
    "mount": 165,
    "tkill": 200,
    "sched_setaffinity": 203,
    "set_tid_address": 218,
    "tgkill": 234,
    "ioprio_set": 251,
    "unshare": 272,
    "prlimit64": 302,
    "sendmmsg": 307,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "sched_setattr": 314,
    "seccomp": 317,
    "memfd_create": 319,
    "execveat": 322,
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "pidfd_getfd": 438,
}
_AARCH64 = {
    "ioprio_set": 30,
    "mount": 40,
    "set_tid_address": 96,
    "unshare": 97,
    "ptrace": 117,
    "sched_setparam": 118,
    "sched_setscheduler": 119,
    "sched_setaffinity": 122,
    "kill": 129,
    "tkill": 130,
    "tgkill": 131,
    "setpriority": 140,
    "prctl": 167,
    "listen": 201,
    "connect": 203,
    "sendto": 206,
    "sendmsg": 211,
    "execve": 221,
    "prlimit64": 261,
    "setns": 268,
    "sendmmsg": 269,
    "process_vm_readv": 270,
    "process_vm_writev": 271,
    "sched_setattr": 274,
    "seccomp": 277,
    "memfd_create": 279,
    "execveat": 281,
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "pidfd_getfd": 438,
}
CALLS = {"x86_64": _X86_64, "aarch64": _AARCH64}


_NAME = os.uname().machine


def machine() -> str | None:
    """Return the name of this machine's architecture as `CALLS` has it, or None where we have no table."""
    return _NAME if _NAME in CALLS else None


def word(number: int) -> int:
    """Return a native call as struct seccomp_data begins with it: the number, and the architecture above it."""
    return number | AUDIT_ARCH[_NAME] << 32


def calls() -> dict[str, int]:
    """Return this machine's system calls by name.

    Raises:
        OSError: We have no table for it.
    """
    name = machine()
    if name is None:
        raise OSError(errno.ENOSYS, "no table of system calls for this machine")
    return CALLS[name]
