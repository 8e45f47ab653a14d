"""`nbsentinel collector`: receive, verify and store what agents send."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nbsentinel.errors import NbsentinelError

if TYPE_CHECKING:
    from nbsentinel_collector.config import CollectorConfig

CONFIG = click.option("--config", "config_path", type=click.Path(path_type=Path), help="The collector's TOML file.")


def _load(config_path: Path | None) -> CollectorConfig:
    _need_extra()
    from nbsentinel_collector.config import load

    if config_path is None:
        raise click.UsageError("give the collector's TOML file with --config")
    return load(config_path)


def _need_extra() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import sqlalchemy  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise NbsentinelError(
            f"the collector needs {error.name}", hint="pip install 'nbsentinel[collector]'"
        ) from error


@contextmanager
def _database(config: CollectorConfig) -> Iterator[None]:
    """Translate what a database says that cannot be used."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise NbsentinelError(
            f"{make_url(config.database).render_as_string(hide_password=True)}: {reason}",
            hint="Check `database` in the collector's configuration: its folder, its server, its permissions.",
        ) from error


@click.group("collector", invoke_without_command=True)
@CONFIG
@click.pass_context
def command(context: click.Context, config_path: Path | None) -> None:
    """Receive, verify and store what agents send. Without a subcommand: serve until SIGTERM or Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    config = _load(config_path)
    from nbsentinel_collector.server import serve

    with _database(config):
        serve(config)


@command.command("token")
@CONFIG
@click.option("--note", default="", help="What the token is for; kept with it.")
@click.option("--ttl", "hours", type=click.IntRange(1, 8760), help="Hours that it is good; default: token_hours.")
def token(config_path: Path | None, note: str, hours: int | None) -> None:
    """Print a new one-time enrolment token."""
    config = _load(config_path)
    from nbsentinel_collector.store import Store
    from nbsentinel_collector.tokens import issue

    with _database(config):
        store = Store(config.database)
        try:
            click.echo(issue(store, hours=hours or config.token_hours, note=note))
        finally:
            store.close()


@command.command("config-example")
def config_example() -> None:
    """Print an example of the collector's configuration."""
    _need_extra()
    from nbsentinel_collector.config import EXAMPLE

    click.echo(EXAMPLE, nl=False)
