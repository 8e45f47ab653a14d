"""The surface we run on: which account, domain, space and app, as far as files and environment tell."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import msgspec

RESOURCE_METADATA = Path("/opt/ml/metadata/resource-metadata.json")
"""Read-only mount in SageMaker apps; every field is optional."""
_FILE_LIMIT = 65536
_ENVIRONMENT = {
    "account": "AWS_ACCOUNT_ID",
    "region": "AWS_REGION",
    "space": "SAGEMAKER_SPACE_NAME",
    "app_type": "SAGEMAKER_APP_TYPE",
}
_CONTAINER_MARKS = ("docker", "containerd", "kubepods", "libpod", "lxc", "ecs")


KINDS = ("studio-jupyterlab", "studio-code-editor", "studio-classic", "notebook-instance", "other")
"""What `Surface.kind` may be."""
STUDIO = "studio"
"""How all kinds of Studio begin."""


class Surface(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the agent runs; a field is None where nothing says so."""

    kind: str = "other"
    """One of `KINDS`."""
    hostname: str = ""
    system: str = ""
    account: str | None = None
    region: str | None = None
    domain: str | None = None
    space: str | None = None
    user_profile: str | None = None
    app_type: str | None = None
    app_name: str | None = None
    image_version: str | None = None
    resource_arn: str | None = None
    role_arn: str | None = None
    container: str | None = None
    """The container runtime's mark in our cgroup path or file system, where there is one."""


_KINDS = {
    "jupyterlab": "studio-jupyterlab",
    "codeeditor": "studio-code-editor",
    "jupyterserver": "studio-classic",
    "kernelgateway": "studio-classic",
}


def _text(value: object) -> str | None:
    return value[:512] if isinstance(value, str) and value else None


def describe(metadata: Mapping[str, object], environment: Mapping[str, str], container: str | None) -> Surface:
    """Return the surface that metadata and environment describe; pure.

    Args:
        metadata: The content of resource-metadata.json, or an empty mapping.
        environment: The agent's own environment.
        container: The container's mark, from `container_mark`.
    """
    arn = _text(metadata.get("ResourceArn"))
    parts = (arn or "").split(":")
    from_arn = {"region": parts[3], "account": parts[4]} if len(parts) > 5 else {}
    app_type = _text(metadata.get("AppType")) or environment.get(_ENVIRONMENT["app_type"])
    kind = _KINDS.get((app_type or "").lower(), "other")
    if kind == "other" and arn and ":notebook-instance/" in arn:
        kind = "notebook-instance"
    region = from_arn.get("region") or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    return Surface(
        kind=kind,
        hostname=platform.node() or "unknown",
        system=f"{platform.system()} {platform.release()}",
        account=from_arn.get("account") or environment.get(_ENVIRONMENT["account"]),
        region=region,
        domain=_text(metadata.get("DomainId")),
        space=_text(metadata.get("SpaceName")) or environment.get(_ENVIRONMENT["space"]),
        user_profile=_text(metadata.get("UserProfileName")),
        app_type=app_type,
        app_name=_text(metadata.get("ResourceName")),
        image_version=_text(metadata.get("AppImageVersion")),
        resource_arn=arn,
        role_arn=_text(metadata.get("ExecutionRoleArn")),
        container=container,
    )


def container_mark() -> str | None:
    """Return what tells that we run in a container, or None."""
    for path, mark in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if Path(path).exists():
            return mark
    try:
        control_group = Path("/proc/self/cgroup").read_text(errors="replace")
    except OSError:
        return None
    return next((mark for mark in _CONTAINER_MARKS if mark in control_group), None)


def discover(metadata_file: Path = RESOURCE_METADATA) -> Surface:
    """Read the metadata file and environment of this machine; missing or broken ones are no error."""
    try:
        with metadata_file.open("rb") as file:
            content = json.loads(file.read(_FILE_LIMIT))
    except (OSError, ValueError):
        content = {}
    return describe(content if isinstance(content, dict) else {}, os.environ, container_mark())
