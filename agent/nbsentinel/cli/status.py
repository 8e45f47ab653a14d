"""`nbsentinel status`: whether the agent runs and what it can see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbsentinel.cli.options import json_option, run_dir_option

if TYPE_CHECKING:
    from rich.console import RenderableType

_NOT_READY = 3
_STYLE = {"active": "green", "degraded": "yellow", "unavailable": "red"}


@click.command("status")
@run_dir_option
@json_option
def command(run_dir: Path, as_json: bool) -> int:
    """Show whether the agent runs and what it can see. Exit code 0: ready; 3: not running or not ready yet."""
    from nbsentinel.local.client import status

    found = status(run_dir)
    if as_json:
        print(json.dumps(found, sort_keys=True))
    else:
        from rich.console import Console

        Console().print(render(found))
    return 0 if found.get("state") == "ready" else _NOT_READY


def render(found: dict[str, Any]) -> RenderableType:
    """Return the status as a few short tables."""
    from rich.console import Group
    from rich.table import Table

    facts = Table.grid(padding=(0, 2))
    usage, chain, counters = found["usage"], found["chain"], found["counters"]
    facts.add_row("agent", f"{found['state']}, pid {found['pid']}, version {found['version']}")
    facts.add_row("watches", f"{counters['processes']} processes, {found['rules']} rules")
    facts.add_row("found", f"{counters['findings']} findings, {counters['grouped']} repeats counted into them")
    facts.add_row("chain", f"{chain['uid']}, {chain['sequence']} signed events")
    facts.add_row("costs", f"{usage['resident_bytes'] / 2**20:.0f} MiB, {usage['cpu_millicores'] / 10:.1f}% of a core")
    dropped = {name: count for name, count in found["drops"].items() if count}
    facts.add_row("dropped", ", ".join(f"{count} ({name})" for name, count in dropped.items()) or "nothing")
    coverage = Table(title="What is watched", title_justify="left", box=None, header_style="bold")
    for column in ("part", "state", "why"):
        coverage.add_column(column)
    for item in found["coverage"]:
        style = _STYLE.get(item["state"], "")
        coverage.add_row(item["sensor"], f"[{style}]{item['state']}[/]", item["why"])
    return Group(facts, "", coverage)
