"""The collector's configuration: one TOML file, typed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from nbsentinel.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MEBIBYTE = 1 << 20


class CollectorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[collector]`."""

    host: str = "127.0.0.1"
    """Address to listen on. Beyond this machine, set a certificate or put a TLS proxy in front."""
    port: Annotated[int, Meta(ge=1, le=65535)] = 8460
    database: str = "sqlite:///collector.db"
    """SQLAlchemy URL; a relative SQLite path is relative to the configuration file."""
    id: Annotated[str, Meta(min_length=1, max_length=128)] = "collector"
    """The collector's own name."""
    read_token: str = ""
    """Bearer token that GET requests must present; empty for none (only sensible on loopback)."""
    tls_certificate: str = ""
    tls_key: str = ""
    max_body_bytes: Annotated[int, Meta(ge=1024, le=256 * MEBIBYTE)] = 8 * MEBIBYTE
    """Longest body as sent."""
    max_decoded_bytes: Annotated[int, Meta(ge=1024, le=1024 * MEBIBYTE)] = 32 * MEBIBYTE
    """Longest body after decompression."""
    max_lines: Annotated[int, Meta(ge=1, le=100_000)] = 5_000
    silence_seconds: Annotated[int, Meta(ge=2, le=86_400)] = 95
    """An agent that said no goodbye and was not heard for this long is silent: three heartbeats and some slack."""
    token_hours: Annotated[int, Meta(ge=1, le=8_760)] = 72
    """How long a new enrolment token is good."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    collector: CollectorConfig


def load(path: Path) -> CollectorConfig:
    """Read and check a configuration file.

    Raises:
        ConfigError: It cannot be read, a key is unknown or of the wrong type, or names what is not there; names file
            and key.
    """
    hint = "`nbsentinel collector config-example` prints one."
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}", hint=hint
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}", hint=hint) from error
    try:
        config = msgspec.convert(content, _File).collector
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise ConfigError(f"{path}: {place.strip('`.') or 'collector'}: {message}", hint=hint) from error
    if bool(config.tls_certificate) != bool(config.tls_key):
        raise ConfigError(f"{path}: collector: tls_certificate and tls_key belong together", hint=hint)
    for key in ("tls_certificate", "tls_key"):
        name = getattr(config, key)
        if name and not (Path(name).is_file() and os.access(name, os.R_OK)):
            raise ConfigError(f"{path}: {key}: {name} cannot be read", hint="Give the path of a PEM file.")
    _check_database(config.database, path)
    return msgspec.structs.replace(config, database=_absolute(config.database, path.parent))


def _check_database(url: str, path: Path) -> None:
    """Check what can be told of a database without opening it; the URL may hold a password and is not shown."""
    example = '"sqlite:///collector.db", "postgresql+psycopg://user@host/name"'
    try:
        make_url(url).get_dialect().import_dbapi()
    except (ArgumentError, ValueError) as error:
        raise ConfigError(
            f"{path}: database: is no URL of a known kind of database", hint=f"Give an SQLAlchemy URL: {example}."
        ) from error
    except ImportError as error:
        raise ConfigError(
            f"{path}: database: needs {error.name}", hint=f"Install it, or name a driver that is there: {example}."
        ) from error


def _absolute(url: str, folder: Path) -> str:
    prefix = "sqlite:///"
    if url.startswith(prefix) and not url.startswith(prefix + "/") and ":memory:" not in url:
        return prefix + str((folder / url.removeprefix(prefix)).resolve())
    return url


EXAMPLE = """\
[collector]
host = "127.0.0.1"
port = 8460
# SQLAlchemy URL; a relative SQLite path is relative to this file.
database = "sqlite:///collector.db"
id = "collector"
# Bearer token for GET requests; empty for none.
read_token = ""
# PEM files; without them put a TLS proxy in front of anything but loopback.
tls_certificate = ""
tls_key = ""
# Seconds without an event after which an agent that said no goodbye counts as silent.
silence_seconds = 95
# Hours that a new enrolment token is good.
token_hours = 72
"""
