"""Which files are watched, and what each is. Pure: patterns and kinds, no look at the disk.

A pattern is relative to every home of this user, or absolute. A `*` stands for a part of one name, never for a folder's
depth, so the number of folders to watch stays bounded.
"""

from __future__ import annotations

import fnmatch
from enum import Enum

import msgspec


class Use(str, Enum):
    """What counts as touching a file."""

    READ = "read"
    """Every open: a credential. A lease names who opens it."""
    OBSERVE = "observe"
    """Every open, without a lease: its own programs open it too often."""
    CHANGE = "change"
    """Changes alone: a place that persistence uses, which is read all day."""


class Pattern(msgspec.Struct, frozen=True):
    """Files of one kind."""

    kind: str
    path: str
    """Relative to a home, or absolute."""
    use: Use

    @property
    def parts(self) -> tuple[str, ...]:
        """The names along the path."""
        return tuple(self.path.strip("/").split("/"))

    @property
    def is_absolute(self) -> bool:
        """Whether it stands for one place, not for one in each home."""
        return self.path.startswith("/")


_CREDENTIALS = {
    "aws": ".aws/credentials .aws/config .aws/cli/cache/*.json .aws/sso/cache/*.json",
    "ssh": ".ssh/id_rsa .ssh/id_dsa .ssh/id_ecdsa .ssh/id_ecdsa_sk .ssh/id_ed25519 .ssh/id_ed25519_sk .ssh/*.pem "
    ".ssh/config .ssh/known_hosts .ssh/authorized_keys",
    "google": ".config/gcloud/credentials.db .config/gcloud/access_tokens.db "
    ".config/gcloud/application_default_credentials.json .config/gcloud/legacy_credentials/*/adc.json",
    "azure": ".azure/accessTokens.json .azure/azureProfile.json .azure/msal_token_cache.json "
    ".azure/msal_token_cache.bin .azure/service_principal_entries.json .azure/credentials",
    "docker": ".docker/config.json .dockercfg",
    "kubernetes": ".kube/config /var/run/secrets/kubernetes.io/serviceaccount/token "
    "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
    "netrc": ".netrc",
    "database": ".pgpass .my.cnf",
    "git": ".git-credentials .config/git/credentials",
    "npm": ".npmrc",
    "pypi": ".pypirc .config/pip/pip.conf .condarc",
    "environment": ".env */.env",
    "key": "*.pem *.key *.p12 */*.pem */*.key */*.p12",
    "service-account": "*service-account*.json *client_secret*.json */*service-account*.json */*client_secret*.json",
    "huggingface": ".cache/huggingface/token .cache/huggingface/stored_tokens .huggingface/token",
    "kaggle": ".kaggle/kaggle.json",
    "wandb": ".config/wandb/settings",
    "databricks": ".databrickscfg",
    "snowflake": ".snowflake/*",
    "github": ".config/gh/hosts.yml",
    "rclone": ".config/rclone/rclone.conf",
    "terraform": ".terraform.d/credentials.tfrc.json .terraformrc",
    "mlflow": ".mlflow/credentials",
    "model-api": ".config/openai .config/openai/* .cohere .cohere/* .anthropic .anthropic/*",
    "jupyter": ".jupyter/jupyter_cookie_secret .local/share/jupyter/runtime/jupyter_cookie_secret "
    ".local/share/jupyter/notebook_secret",
}
_OBSERVED = {
    "jupyter-runtime": ".local/share/jupyter/runtime/*.json",
    "sagemaker-metadata": "/opt/ml/metadata/resource-metadata.json",
}
_CHANGES = {
    "persistence-shell": ".bashrc .profile .bash_profile .bash_login .bash_logout .zshrc .zshenv .zprofile .zlogin "
    ".kshrc .config/fish/config.fish .xprofile .config/autostart/*.desktop .config/systemd/user/*",
    "persistence-python": ".local/lib/python3.*/site-packages/*.pth "
    ".local/lib/python3.*/site-packages/usercustomize.py .local/lib/python3.*/site-packages/sitecustomize.py "
    ".ipython/profile_default/ipython_config.py .ipython/profile_default/ipython_kernel_config.py "
    ".ipython/profile_default/startup/*",
    "persistence-jupyter": ".jupyter/*.py .jupyter/*.json .jupyter/jupyter_server_config.d/* "
    ".jupyter/jupyter_notebook_config.d/* .local/share/jupyter/kernels/*/kernel.json "
    ".local/share/jupyter/labextensions/* .jupyter/labconfig/*",
    "persistence-ssh": ".ssh/authorized_keys .ssh/config .ssh/rc .ssh/environment",
    "persistence-git": ".gitconfig .config/git/config .config/git/hooks/* */.git/hooks/* */*/.git/hooks/* "
    "*/.git/config",
    "persistence-program": ".local/bin/* bin/*",
    "persistence-editor": "sagemaker-code-editor-server-data/extensions/* "
    "sagemaker-code-editor-server-data/data/User/* sagemaker-code-editor-server-data/data/Machine/* .kiro/* .claude/* "
    ".agent/*",
    "persistence-cron": "/var/spool/cron/crontabs/* /etc/cron.d/*",
    "persistence-loader": "/etc/ld.so.preload /etc/environment /etc/profile.d/*",
    "history": ".bash_history .zsh_history .python_history .local/share/fish/fish_history",
}
MINE = "custom"
"""The kind of paths from the configuration that name none."""


def _patterns(table: dict[str, str], use: Use) -> list[Pattern]:
    return [Pattern(kind, path, use) for kind, paths in table.items() for path in paths.split()]


BUILT_IN = (
    *_patterns(_CREDENTIALS, Use.READ),
    *_patterns(_OBSERVED, Use.OBSERVE),
    *_patterns(_CHANGES, Use.CHANGE),
)
"""What is watched without any configuration; of two that fit, the first tells the kind."""


def configured(path: str, kind: str, *, changes: bool = False) -> Pattern:
    """Return a pattern of the configuration: `~/x`, `x` (both in every home) or `/x`."""
    return Pattern(kind or MINE, path.removeprefix("~/"), Use.CHANGE if changes else Use.READ)


def is_glob(part: str) -> bool:
    """Return whether a name stands for several."""
    return "*" in part


def fits(name: str, part: str) -> bool:
    """Return whether a name is meant by one part of a pattern; `*` alone does not mean hidden files in a home."""
    return fnmatch.fnmatchcase(name, part) if is_glob(part) else name == part


def homes(of_uid: str, own: str, others: list[str]) -> tuple[str, ...]:
    """Return the homes to look at, each once, the likeliest first.

    Args:
        of_uid: What the user data base says; empty for nothing.
        own: HOME.
        others: Further folders that could be homes and can be listed, such as those in /home.
    """
    found = dict.fromkeys(path.rstrip("/") for path in (own, of_uid, *others) if path.startswith("/"))
    return tuple(path for path in found if path)
