"""The account that agent and cases run as: the present user, or uid 1000 without any right where we are root."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

_UID = 1000
_CAGE = Path(__file__).with_name("cage.py")
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_UNREACHABLE = (
    "uid {uid} cannot run {python}: the tests with real processes give up root. `make test` puts the environment where "
    "every user can reach it; otherwise make each folder above it passable (chmod o+x). It said: {why}"
)


class AccountError(Exception):
    """The account cannot be used; the message says what to do."""


class Account(msgspec.Struct, frozen=True):
    """Whom processes run as."""

    uid: int
    prefix: tuple[str, ...]
    """Command that gives up root for good; empty where there is nothing to give up."""
    python: str

    def own(self, *paths: Path) -> None:
        """Hand files or folders to the account."""
        if self.prefix:
            for path in paths:
                os.chown(path, self.uid, self.uid)

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Return a small environment with HOME in a throwaway folder."""
        names = {
            "HOME": str(home),
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "SHELL": "/bin/bash",
            "PYTHON": self.python,
        }
        return {**names, "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1", **more}

    @property
    def has_name(self) -> bool:
        """Whether the user data base knows the account; ssh refuses to run otherwise."""
        try:
            pwd.getpwuid(self.uid)
        except KeyError:
            return False
        return True


@functools.cache
def unprivileged() -> Account:
    """Return the account, tried out.

    Raises:
        AccountError: It cannot run this interpreter with the packages under test.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), (), sys.executable)
    drop = (f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--")
    account = Account(_UID, ("setpriv", *drop), sys.executable)
    trial = [
        *account.prefix,
        account.python,
        "-c",
        f"import nbsentinel, ipykernel, jupyter_server; open({str(_CAGE)!r}).close()",
    ]
    done = subprocess.run(trial, capture_output=True, text=True, cwd="/", stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise AccountError(_UNREACHABLE.format(uid=_UID, python=sys.executable, why=why))
    return account


@functools.cache
def missing(need: str) -> str | None:
    """Return why a program (or `user-name`) that a case needs cannot be had, None where it is there."""
    if need == "user-name":
        return None if unprivileged().has_name else f"uid {unprivileged().uid} has no name in /etc/passwd"
    if need == "ipv6":
        present = "00000000000000000000000000000001" in _read("/proc/net/if_inet6")
        return None if present else "no IPv6 loopback address"
    return None if shutil.which(need, path=PATH) else f"{need} is not installed"


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
