"""The configuration: one TOML file, typed; docs/reference/configuration.md is made from these types."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from nbsentinel.detect.trust import Broker
from nbsentinel.errors import ConfigError
from nbsentinel_guard.launcher import default_run_dir

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_LIMIT = 1 << 20


class AgentSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the agent keeps its things."""

    state_dir: Annotated[
        str, Meta(description="Folder for the spool and the agent's identity; made with mode 0700.")
    ] = ""
    run_dir: Annotated[
        str, Meta(description="Folder for the socket that `status` and `findings` use; made with mode 0700.")
    ] = ""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe lines that go to standard error.")
    ] = "info"
    heartbeat_seconds: Annotated[int, Meta(ge=1, le=3600, description="Seconds between two signed heartbeats.")] = 30


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Files that are watched beside the usual ones."""

    path: Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^(~?/)?[^/~\x00][^\x00]*$")]
    kind: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,39}$")] = "custom"
    changes: bool = False


class SensorsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is watched, and how often."""

    procfs_period_ms: Annotated[int, Meta(ge=50, le=10_000, description="Milliseconds between two looks at /proc.")] = (
        200
    )
    processor_limit_percent: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="Share of a core above which the agent looks at /proc less often, and says so; 0 for never.",
        ),
    ] = 2
    kernels: Annotated[
        bool,
        Meta(
            description="Listen to what kernels report of their cells; they do so where the file that "
            "`nbsentinel guard --startup-file` prints is in IPython's startup folder."
        ),
    ] = True
    queue_limit: Annotated[
        int, Meta(ge=100, le=1_000_000, description="Observations that may wait, for each sensor.")
    ] = 20_000
    files: Annotated[bool, Meta(description="Watch credentials and the places that persistence uses.")] = True
    leases: Annotated[
        bool,
        Meta(
            description="Name the reader of a credential: it waits for milliseconds inside open(). With the guard only."
        ),
    ] = True
    watch: Annotated[
        tuple[Watch, ...],
        Meta(
            description="More files to watch: `path` (`~/x` in every home, or absolute; `*` for a part of one name), "
            "`kind`, and `changes = true` where reading them is nothing to tell."
        ),
    ] = ()


class GuardSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The system-call guard of kernels and terminals that are started through `nbsentinel guard`."""

    enabled: Annotated[bool, Meta(description="Run the guard; without it what lives for milliseconds is not seen.")] = (
        True
    )
    connect: Annotated[
        Literal["auto", "on", "off"],
        Meta(
            description="Whether connections are trapped: `auto` where the kernel can do it without harm (Linux 5.19), "
            "`on` always, `off` never; without it /proc and the kernels' own reports are left."
        ),
    ] = "auto"
    terminals: Annotated[
        bool,
        Meta(
            description="Guard terminals too. What is guarded cannot gain rights: `sudo`, `ping` and `crontab` do not "
            "work there. With `false` they do, and what terminals execute is seen by /proc alone."
        ),
    ] = True
    server: Annotated[
        bool,
        Meta(description="Guard the Jupyter server itself when its extension loads, and with it everything it starts."),
    ] = False


class DetectSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What counts as remote and what is trusted."""

    loopback_is_remote: Annotated[
        bool,
        Meta(
            description="Count peers on this machine as remote. For demos and tests: expect findings on local services."
        ),
    ] = False
    rules: Annotated[str, Meta(description="A rule pack to use instead of the one in the package.")] = ""
    exceptions: Annotated[
        str,
        Meta(
            description="File or folder of your exceptions, Sigma filters with owner, reason and last day. They are in "
            "force once the rule pack was made with them (`nbsentinel rules compile --exceptions`); the agent tells "
            "where it was not."
        ),
    ] = ""
    trusted_broker: Annotated[
        tuple[Broker, ...],
        Meta(
            description="Programs that hold terminals for their users, beside the Jupyter server: `exe` is a glob on "
            "the running file, `argv` are globs on its arguments in order."
        ),
    ] = ()


class FileSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A local copy of what is reported."""

    path: Annotated[str, Meta(description="File for OCSF events, one JSON line each; empty for none.")] = ""


class CollectorSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The collector that events are sent to."""

    url: Annotated[str, Meta(description="Base URL, for example `https://collector.example.com`; empty for none.")] = ""
    token_file: Annotated[
        str,
        Meta(
            description="File with the one-time enrolment token; read again when the collector refuses the one that "
            "followed it."
        ),
    ] = ""
    ca_bundle: Annotated[
        str, Meta(description="PEM file of the certificate authorities to trust; empty for the usual ones.")
    ] = ""
    connect_timeout_seconds: Annotated[int, Meta(ge=1, le=300, description="Longest wait for a connection.")] = 5
    read_timeout_seconds: Annotated[int, Meta(ge=1, le=600, description="Longest wait for an answer.")] = 30
    batch_events: Annotated[int, Meta(ge=1, le=5000, description="Events in one request.")] = 1000


class SpoolSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The durable queue on disk between detection and sinks."""

    max_mebibytes: Annotated[
        int,
        Meta(
            ge=4,
            le=65_536,
            description="Size bound of the waiting events; oldest low severity goes first, and that is signed.",
        ),
    ] = 256


class ReportSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What leaves, and where to."""

    level: Annotated[
        Literal["findings", "context", "all"],
        Meta(
            description="`findings`: findings alone; `context`: with the events of their lineage; `all`: every event."
        ),
    ] = "context"
    file: FileSection = FileSection()
    collector: CollectorSection = CollectorSection()
    spool: SpoolSection = SpoolSection()


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration; every key has a default."""

    agent: AgentSection = AgentSection()
    sensors: SensorsSection = SensorsSection()
    guard: GuardSection = GuardSection()
    detect: DetectSection = DetectSection()
    report: ReportSection = ReportSection()

    @property
    def state_dir(self) -> Path:
        """The state folder, with the default filled in."""
        return Path(self.agent.state_dir or default_state_dir())

    @property
    def run_dir(self) -> Path:
        """The run folder, with the default filled in."""
        return Path(self.agent.run_dir or default_run_dir())


def default_state_dir() -> str:
    """Return where state lives unless told otherwise: XDG_STATE_HOME or ~/.local/state."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return str(Path(base, "nbsentinel"))


def parse(text: str, source: str = "<text>") -> Config:
    """Return the configuration in a TOML text.

    Raises:
        ConfigError: Not TOML, unknown key, wrong type or value; the message names file and key.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{source}: not valid TOML: {error}", hint="See docs/reference/configuration.md for an example."
        ) from error
    try:
        return msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        key = place.rstrip("`").lstrip(".")
        if "unknown field" in message:
            key = ".".join(part for part in (key, message.rpartition("`")[0].rpartition("`")[2]) if part)
            message = "unknown key"
        hint = "`nbsentinel config show` prints every key with its default."
        raise ConfigError(f"{source}: {key or 'top level'}: {message}", hint=hint) from error


def load(path: Path | None) -> Config:
    """Read and check the configuration file; None gives the defaults.

    Raises:
        ConfigError: The file cannot be read, is not valid, or names paths that cannot be used.
    """
    if path is None:
        return Config()
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(
            f"{path}: cannot be read: {reason}", hint="Give the path of a TOML file with --config."
        ) from error
    if len(data) > FILE_LIMIT:
        raise ConfigError(f"{path}: larger than {FILE_LIMIT} bytes", hint="This is hardly a configuration file.")
    config = parse(text, str(path))
    _check_paths(config, str(path))
    return config


def _check_paths(config: Config, source: str) -> None:
    readable = {
        "detect.rules": config.detect.rules,
        "detect.exceptions": config.detect.exceptions,
        "report.collector.ca_bundle": config.report.collector.ca_bundle,
    }
    for key, value in readable.items():
        if value and not os.access(value, os.R_OK):
            raise ConfigError(f"{source}: {key}: {value} cannot be read", hint="Check the path and its permissions.")
    if config.detect.rules and Path(config.detect.rules).is_dir():
        raise ConfigError(
            f"{source}: detect.rules: is a folder",
            hint="`nbsentinel rules compile` makes one file of a folder of rules.",
        )
    url = config.report.collector.url
    if url and not url.startswith(("https://", "http://")):
        raise ConfigError(
            f"{source}: report.collector.url: {url!r} is not an http(s) URL", hint="Begin it with https://"
        )
    if config.report.file.path and Path(config.report.file.path).is_dir():
        raise ConfigError(f"{source}: report.file.path: is a folder", hint="Give the path of a file.")


class Key(msgspec.Struct, frozen=True):
    """One key of the configuration, for people."""

    section: str
    name: str
    type: str
    default: str
    description: str


def all_keys() -> Iterator[Key]:
    """Yield every key with its type, default and meaning, in the order of the file."""
    yield from _section_keys(Config, "")


def _section_keys(struct: type[msgspec.Struct], section: str) -> Iterator[Key]:
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from _section_keys(hint, f"{section}.{field.name}".lstrip("."))
            continue
        inner, *meta = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        bounds = meta[0] if meta else None
        default = field.default if field.default is not msgspec.NODEFAULT else None
        shown = msgspec.json.encode(default).decode()
        yield Key(section, field.name, _type_name(inner, bounds), shown, bounds.description if bounds else "")


def _type_name(hint: Any, meta: Meta | None) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(f'"{value}"' for value in get_args(hint))
    name = {str: "string", int: "integer", bool: "true or false"}.get(hint, "list of tables")
    if meta is not None and meta.ge is not None:
        name += f", {meta.ge} to {meta.le}"
    return name


def example() -> str:
    """Return a TOML file with every key at its default and its meaning as a comment."""
    lines: list[str] = []
    section = None
    for key in all_keys():
        if key.section != section:
            section = key.section
            lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
        lines.append(f"# {key.description} ({key.type})")
        lines.append(
            f"# {key.name} = {key.default}" if key.default in ("null", "[]") else f"{key.name} = {key.default}"
        )
    return "\n".join(lines) + "\n"


def reference() -> str:
    """Return the reference page of the configuration, in Markdown."""
    lines = [
        "# Configuration",
        "",
        "Made from the types in `agent/nbsentinel/config.py` by `nbsentinel config reference`.",
        "",
    ]
    section = None
    for key in all_keys():
        if key.section != section:
            section = key.section
            lines += ["", f"## `[{section}]`", "", "| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        lines.append(f"| `{key.name}` | {key.type} | `{key.default}` | {key.description} |")
    return "\n".join([*lines, "", "## Example", "", "```toml", example().rstrip(), "```", ""])
