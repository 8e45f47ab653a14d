"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nbsentinel_guard.launcher import default_run_dir

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """Add `--config FILE`."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        help="TOML file; without it every key has its default.",
    )(function)


def run_dir_option(function: F) -> F:
    """Add `--run-dir DIR`."""
    return click.option(
        "--run-dir",
        type=click.Path(path_type=Path),
        default=lambda: Path(default_run_dir()),
        show_default="$XDG_RUNTIME_DIR/nbsentinel, else nbsentinel-UID in the temporary folder",
        help="The agent's run folder.",
    )(function)


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)
