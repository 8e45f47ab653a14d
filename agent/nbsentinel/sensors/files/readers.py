"""Whether whoever reads a credential is that kind's own tool: by the file that runs and the code that it runs.

A name proves nothing, so a tool is a program that an ordinary user's code did not put there: owned by root in a system
folder, or a script in an environment's `bin` that runs under that very environment's interpreter and whose package is
installed there. Code of the user that uses an SDK in its own process is neither proven nor excluded: not known.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

SYSTEM = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/libexec", "/usr/local/bin", "/usr/local/aws-cli")
_INTERPRETER = re.compile(r"^(python|pypy)[0-9.]*$")


class Tool(msgspec.Struct, frozen=True):
    """A program whose business one kind of credential is."""

    programs: frozenset[str]
    """Names of native programs, and of scripts in an environment's bin."""
    packages: frozenset[str] = frozenset()
    """Python packages whose scripts or modules (`python -m`) these are."""


def _tool(programs: str, packages: str = "") -> Tool:
    return Tool(frozenset(programs.split()), frozenset(packages.split()))


_SSH = "ssh ssh-add ssh-agent ssh-keygen ssh-copy-id ssh-keyscan scp sftp sshd sshd-session sftp-server ssh-keysign"
_GIT = "git git-credential-store git-remote-https git-remote-http git-lfs"
_AWS = "aws aws_completer ecs-cli eksctl sam copilot session-manager-plugin docker-credential-ecr-login"
OWN: dict[str, Tool] = {
    "aws": _tool(_AWS, "awscli samcli awsebcli"),
    "ssh": _tool(f"{_SSH} git rsync mosh autossh"),
    "google": _tool("gcloud gsutil bq", "gsutil"),
    "azure": _tool("az azcopy", "azure"),
    "docker": _tool("docker dockerd docker-compose docker-buildx podman buildah skopeo"),
    "kubernetes": _tool("kubectl helm k9s eksctl kustomize"),
    "netrc": _tool(f"{_GIT} curl wget ftp pip pip3 conda mamba wandb", "pip conda wandb"),
    "database": _tool("psql pg_dump pg_restore mysql mysqldump mariadb mariadb-dump"),
    "git": _tool(_GIT),
    "npm": _tool("npm npx node yarn pnpm"),
    "pypi": _tool("pip pip3 twine uv poetry conda mamba micromamba flit hatch", "pip twine uv poetry conda flit hatch"),
    "huggingface": _tool("hf huggingface-cli", "huggingface_hub"),
    "kaggle": _tool("kaggle", "kaggle"),
    "wandb": _tool("wandb wb", "wandb"),
    "databricks": _tool("databricks dbx", "databricks_cli databricks"),
    "snowflake": _tool("snow snowsql", "snowflake"),
    "github": _tool("gh"),
    "rclone": _tool("rclone"),
    "terraform": _tool("terraform tofu"),
    "mlflow": _tool("mlflow", "mlflow"),
    "jupyter": _tool(
        "jupyter jupyter-lab jupyter-notebook jupyter-server jupyterhub-singleuser",
        "jupyterlab notebook jupyter_server",
    ),
    "jupyter-runtime": _tool(
        "jupyter jupyter-lab jupyter-notebook jupyter-server jupyter-nbconvert jupyter-execute papermill",
        "jupyterlab notebook jupyter_server ipykernel_launcher ipykernel nbconvert papermill jupyter_client",
    ),
}  # fmt: skip


class Facts(msgspec.Struct, frozen=True):
    """What the disk says of a running program; see `look`."""

    exe: str
    """The file that runs."""
    by_root: bool
    """Whether it belongs to root and only root can write to it."""
    script: str = ""
    """With an interpreter: the real path of the script, empty for none."""
    script_by_root: bool = False
    module: str = ""
    """With an interpreter: what `-m` names."""
    inline: bool = False
    """With an interpreter: whether its code comes from the command line or standard input."""
    installed: frozenset[str] = frozenset()
    """Which of the packages asked for are installed for this interpreter."""


def is_interpreter(exe: str) -> bool:
    """Return whether a program runs Python code."""
    return _INTERPRETER.match(os.path.basename(exe)) is not None


def judge(kind: str, facts: Facts) -> bool | None:
    """Return whether the reader is this kind's own tool; None where that is not known. Pure."""
    tool = OWN.get(kind)
    if not facts.exe:
        return None
    if tool is None:
        return None if is_interpreter(facts.exe) else False
    name = os.path.basename(facts.exe)
    if not is_interpreter(facts.exe):
        return name in tool.programs and facts.by_root and facts.exe.startswith(SYSTEM)
    if facts.module:
        package = facts.module.partition(".")[0]
        return (package in tool.packages and package in facts.installed) or None
    if facts.script:
        if os.path.basename(facts.script) not in tool.programs:
            return None
        beside = posixpath.dirname(facts.script) == posixpath.dirname(facts.exe)
        return (facts.script_by_root and facts.script.startswith(SYSTEM)) or (
            beside and bool(tool.packages & facts.installed)
        )
    return None


def look(kind: str, exe: str, argv: tuple[str, ...], cwd: str | None) -> Facts:
    """Return what the disk says of a program that reads a credential of this kind."""
    exe = exe.removesuffix(" (deleted)")
    facts = Facts(exe=exe, by_root=_by_root(exe))
    if not is_interpreter(exe):
        return facts
    script, module, inline = _code_of(argv)
    path = os.path.realpath(os.path.join(cwd or "/", script)) if script else ""
    # A virtual environment's interpreter is a link: its packages are beside the link, not beside the file.
    bin_folder = posixpath.dirname(argv[0]) if argv and argv[0].startswith("/") else posixpath.dirname(exe)
    tool = OWN.get(kind)
    packages = frozenset(p for p in (tool.packages if tool else ()) if _is_installed(posixpath.dirname(bin_folder), p))
    beside = bool(path) and posixpath.dirname(path) == os.path.realpath(bin_folder)
    return Facts(
        exe=os.path.join(posixpath.dirname(path), os.path.basename(exe)) if beside else exe,
        by_root=facts.by_root,
        script=path,
        script_by_root=bool(path) and _by_root(path),
        module=module,
        inline=inline,
        installed=packages,
    )


def _code_of(argv: tuple[str, ...]) -> tuple[str, str, bool]:
    """Return (script, module, whether the code is on the command line) of a Python command line."""
    rest = list(argv[1:])
    while rest:
        word = rest.pop(0)
        if word.startswith("-m"):
            return "", word[2:] or (rest[0] if rest else ""), False
        if word.startswith("-c") or word == "-":
            return "", "", True
        if word in ("-W", "-X"):
            rest[:1] = []
        elif word.startswith("-") and "c" in word[1:] and not word.startswith("--"):
            return "", "", True
        elif not word.startswith("-"):
            return word, "", False
    return "", "", True


def _by_root(path: str, stat: Callable[[str], os.stat_result] = os.stat) -> bool:
    try:
        found = stat(path)
    except (OSError, ValueError):
        return False
    return found.st_uid == 0 and not found.st_mode & 0o022


def _is_installed(prefix: str, package: str) -> bool:
    """Return whether an environment has a package, by the folders that interpreters use."""
    roots = [os.path.join(prefix, "lib"), os.path.join(prefix, "lib64")]
    for root in roots:
        try:
            versions = [name for name in os.listdir(root) if name.startswith(("python3", "pypy3"))]
        except OSError:
            continue
        for version in versions:
            for place in ("site-packages", "dist-packages"):
                base = os.path.join(root, version, place, package)
                if Path(base, "__init__.py").is_file() or Path(base + ".py").is_file():
                    return True
    return False
