"""`nbsentinel demo`: see the main job done, end to end."""

from __future__ import annotations

import importlib.util
import json
import time
from typing import TYPE_CHECKING, Any

import click

from nbsentinel.cli.options import json_option
from nbsentinel.errors import NbsentinelError

if TYPE_CHECKING:
    from rich.console import Console

_NEEDED = ("fastapi", "sqlalchemy", "uvicorn", "ipykernel", "jupyter_client")


@click.command("demo")
@json_option
def command(as_json: bool) -> int:
    """Run a harmless reverse shell in a real notebook cell and watch it being caught.

    A collector, an agent and a kernel are started on loopback and ended again. Exit code 0 only if every step happened.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise NbsentinelError(f"the demo needs {', '.join(missing)}", hint="pip install 'nbsentinel[demo]'")
    from nbsentinel.demo.script import play
    from nbsentinel.demo.stage import DemoError, Stage

    show = _print_json if as_json else _Screen().show
    began = time.monotonic()
    with Stage() as stage:
        try:
            for step, value in play(stage):
                show(step, value)
        except DemoError as error:
            for log in stage.logs():
                click.echo(log, err=True)
            click.echo(f"nbsentinel: {error.message}", err=True)
            return 1
    show("end", f"All of it really happened, in {time.monotonic() - began:.1f} s. Everything was cleaned up.")
    return 0


def _print_json(step: str, value: object) -> None:
    print(json.dumps({"step": step, "value": value}), flush=True)


class _Screen:
    """Shows the steps on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console: Console = Console()

    def show(self, step: str, value: Any) -> None:
        """Print one step."""
        getattr(self, f"_{step}")(value)

    def _begin(self, value: str) -> None:
        self.console.print(f"[dim]… starting {value}[/]")

    def _done(self, value: str) -> None:
        self.console.print(f"[green]✓[/] {value}")

    def _status(self, value: dict[str, Any]) -> None:
        parts = ", ".join(f"{item['sensor']} {item['state']}" for item in value["coverage"])
        self.console.print(f"  [dim]coverage: {parts}; rules: {value['rules']}[/]")

    def _cell(self, value: str) -> None:
        from rich.panel import Panel
        from rich.syntax import Syntax

        self.console.print(Panel(Syntax(value, "python"), title="In [1]: a cell of demo.ipynb", title_align="left"))

    def _finding(self, value: dict[str, Any]) -> None:
        from nbsentinel.cli.findings import render

        self.console.print(render(value))

    def _verify(self, value: str) -> None:
        from rich.text import Text

        self.console.print("[bold]$ nbsentinel verify export.ndjson --keys keys.json --heads heads.json[/]")
        self.console.print(Text(value.rstrip()))

    def _tamper(self, value: str) -> None:
        self.console.print(f"[yellow]✎[/] somebody edits the collector's database: {value}")

    def _end(self, value: str) -> None:
        self.console.print(f"[bold green]{value}[/]")
