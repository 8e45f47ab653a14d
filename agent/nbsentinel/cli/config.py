"""`nbsentinel config`: check, show and explain the configuration."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nbsentinel import config as configuration
from nbsentinel.cli.options import config_option, json_option


@click.group("config")
def command() -> None:
    """Check, show and explain the configuration."""


@command.command("check")
@config_option
@json_option
def check(config_path: Path | None, as_json: bool) -> None:
    """Check a configuration file. Exit code 0: usable; 2: not, with file and key."""
    configuration.load(config_path)
    name = str(config_path) if config_path else "the defaults"
    print(json.dumps({"valid": True, "file": name}) if as_json else f"{name}: valid")


@command.command("show")
@config_option
@json_option
def show(config_path: Path | None, as_json: bool) -> None:
    """Show every key with the value in force."""
    import msgspec

    values = msgspec.to_builtins(configuration.load(config_path))
    if as_json:
        print(json.dumps(values, sort_keys=True))
        return
    for key in configuration.all_keys():
        value = values
        for part in [*key.section.split("."), key.name]:
            value = value[part]
        print(f"{key.section}.{key.name} = {json.dumps(value)}")


@command.command("example")
def example() -> None:
    """Print a file with every key at its default and its meaning as a comment."""
    print(configuration.example(), end="")


@command.command("reference")
def reference() -> None:
    """Print the reference page of the configuration."""
    print(configuration.reference(), end="")
