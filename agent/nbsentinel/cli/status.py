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
    from rich.markup import escape
    from rich.table import Table

    facts = Table.grid(padding=(0, 2))
    usage, chain, counters = found["usage"], found["chain"], found["counters"]
    keeper = f"kept by pid {found['keeper_pid']}" if found.get("keeper_pid") else "nobody keeps it"
    facts.add_row("agent", f"{found['state']}, pid {found['pid']} ({keeper}), version {found['version']}")
    facts.add_row("watches", f"{counters['processes']} processes, {found['rules']} rules")
    facts.add_row("found", f"{counters['findings']} findings, {counters['grouped']} repeats counted into them")
    if tests := counters.get("test_alerts"):
        facts.add_row("tests", f"{tests} test alerts made, {counters['test_alerts_refused']} refused")
    facts.add_row("chain", f"{chain['uid']}, {chain['sequence']} signed events")
    facts.add_row("costs", f"{usage['resident_bytes'] / 2**20:.0f} MiB, {usage['cpu_millicores'] / 10:.1f}% of a core")
    state = found.get("rule_state", {})
    suppressed = [f"{item['count']} (filter {item['filter']})" for item in state.get("suppressed", ()) if item["count"]]
    if suppressed:
        facts.add_row("suppressed", escape(", ".join(suppressed)))
    if open_now := found.get("incidents", {}).get("open"):
        facts.add_row("incidents", f"{open_now} open")
    for problem in state.get("problems", ()):
        facts.add_row("[yellow]rules[/]", escape(problem))
    dropped = {name: count for name, count in found["drops"].items() if count}
    facts.add_row("dropped", ", ".join(f"{count} ({name})" for name, count in dropped.items()) or "nothing")
    coverage = Table(title="What is watched", title_justify="left", box=None, header_style="bold")
    for column in ("part", "state", "why"):
        coverage.add_column(column)
    for item in found["coverage"]:
        style = _STYLE.get(item["state"], "")
        coverage.add_row(item["sensor"], f"[{style}]{item['state']}[/]", item["why"] or item.get("detail", ""))
    parts: list[RenderableType] = [facts, "", coverage]
    if found.get("held_back", {}).get("rules"):
        parts += ["", _held_back(found["held_back"])]
    if found.get("sessions"):
        parts += ["", _sessions(found["sessions"])]
    return Group(*parts)


def _held_back(found: dict[str, Any]) -> RenderableType:
    """Return what matched and was not told by itself, by rule."""
    from rich.markup import escape
    from rich.table import Table

    more = found["rule_count"] - len(found["rules"])
    title = "Matched, but not told by itself" + (f" (and {more} rules more)" if more else "")
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    table.add_column("rule")
    columns = {
        "suppressed": "suppressed by filters",
        "grouped": "repeats of a finding",
        "repeated": "told in the same time span",
        "limited": "over the limit",
    }
    for name in columns.values():
        table.add_column(name, justify="right")
    for row in found["rules"]:
        table.add_row(escape(row["rule"]), *(str(row.get(kind) or "") for kind in columns))
    return table


def _sessions(found: list[dict[str, Any]]) -> RenderableType:
    """Return kernels and terminals with what watches each."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Kernels and terminals", title_justify="left", box=None, header_style="bold")
    for column in ("kind", "pid", "notebook or command", "watched by"):
        table.add_column(column, overflow="fold")
    for item in found:
        name = item.get("notebook") or "; ".join(item.get("sessions", ())) or item.get("kernel_id")
        name = name or item.get("command", "")
        by = ", ".join(item["watched_by"])
        shown = by if "guard" in item["watched_by"] else f"[yellow]{by}, no guard[/]"
        kind = f"{item['kind']} {item.get('terminal_name', '')}".rstrip()
        table.add_row(escape(kind), str(item["pid"]), escape(name[:120]), shown)
    return table
