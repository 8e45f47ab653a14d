"""Which files are worth telling of when a kernel opens them."""

from __future__ import annotations

import os

WATCHED = " ".join(
    (
        ".aws/credentials .aws/config .aws/cli/cache/* .aws/sso/cache/* .ssh/* id_rsa id_ed25519 id_ecdsa",
        "authorized_keys .netrc .git-credentials .pgpass .pypirc .npmrc .docker/config.json .kube/config",
        ".databrickscfg .snowsql/config gcloud/application_default_credentials.json gcloud/credentials.db",
        ".azure/accessTokens.json .azure/msal_token_cache.json huggingface/token .huggingface/token",
        ".kaggle/kaggle.json .snowflake/* adc.json gh/hosts.yml rclone/rclone.conf credentials.tfrc.json",
        "wandb/settings huggingface/stored_tokens .my.cnf metadata/resource-metadata.json .bashrc",
        ".bash_profile .profile .zshrc",
        "profile_default/startup/* /proc/environ /proc/mem",
    )
).split()
"""Until the agent names others: `name`, `folder/name`, `folder/*`, `/proc/name`. Folders are ends of paths."""


class Watch:
    """Tells whether a path is watched: `names` and `ends` sort out nearly all, `resolve` decides on the rest."""

    def __init__(self, entries: list[str]) -> None:
        self.choose(entries)
        self._here: str | None = None

    def choose(self, entries: list[str]) -> None:
        """Watch these files from now on."""
        self._wanted: dict[str, tuple[str, ...]] = {}
        """By last part of the path: the folders that it must be in, "/" before each; "" for any."""
        folders, processes = [], set()
        for entry in entries:
            folder, slash, name = entry.rpartition("/")
            if entry.startswith("/proc/"):
                processes.add(name)
            elif name == "*":
                folders.append("/" + folder)
            else:
                self._wanted[name] = (*self._wanted.get(name, ()), slash + folder)
        self._folders, self._processes = tuple(folders), frozenset(processes)
        self.names = frozenset(self._wanted) | self._processes
        last = {folder.rpartition("/")[2] for folder in folders}
        self.ends = (*("/" + folder for folder in last), *(folder for folder in last if folder[:1] == "."), "/", ".")
        """Ends of folders' paths that have to be looked at: watched ones, and those that are not written plainly."""

    def resolve(self, path: str) -> str:
        """Return the whole path of a watched file, "" for any other."""
        if path[:1] != "/":
            if self._here is None:
                self._here = os.getcwd()
            if "/" not in path and path not in self.names and not self._here.endswith(self._folders):
                return ""
            path = self._here + "/" + path
        path = os.path.normpath(path)
        folder, _, name = path.rpartition("/")
        wanted = self._wanted.get(name, ())
        if folder.endswith(self._folders) or (wanted and folder.endswith(wanted)):
            return path
        return path if name in self._processes and path.startswith("/proc/") else ""

    def moved(self) -> None:
        """Hear that the working folder changes."""
        self._here = None
