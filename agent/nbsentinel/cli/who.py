"""`nbsentinel who PID`: which notebook, cell or terminal a process belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbsentinel.cli.findings import ORIGIN, enrichment, fact_table, process_tree
from nbsentinel.cli.options import json_option, run_dir_option

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command("who")
@run_dir_option
@json_option
@click.argument("pid", type=click.IntRange(1, 2**31 - 1))
def command(run_dir: Path, pid: int, as_json: bool) -> int:
    """Show which notebook, cell or terminal a process belongs to, also one that has ended. Exit code 1: never seen."""
    from nbsentinel.local.client import ask

    found = next((answer["who"] for answer in ask(run_dir, {"request": "who", "pid": pid}) if "who" in answer), None)
    if as_json:
        print(json.dumps(found, sort_keys=True))
    else:
        from rich.console import Console

        Console().print(render(found) if found else f"Process {pid} was never seen, or is forgotten.")
    return 0 if found else 1


def render(found: dict[str, Any]) -> RenderableType:
    """Return what is known of a process, for a terminal."""
    from rich.console import Group
    from rich.markup import escape

    process, event = found["process"], {"enrichments": found["origin"]}
    facts = fact_table()
    state = "runs" if found["live"] else "has ended"
    facts.add_row("process", f"{process['pid']} {escape(process.get('name', ''))} ({state})")
    facts.add_row("file", escape(process.get("file", {}).get("path", "not known")))
    for label, name in ORIGIN:
        if value := enrichment(event, name):
            facts.add_row(label, escape(value))
    return Group(facts, "", process_tree(found))
