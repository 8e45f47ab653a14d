"""`nbsentinel findings`: what was found on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbsentinel.cli import incidents
from nbsentinel.cli.options import json_option, run_dir_option
from nbsentinel.report import incidents as reported

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

ORIGIN = (("belongs to", "origin"), ("notebook", "notebook"), ("open on it", "sessions"), ("cell", "cell"))
"""What is shown of where a process belongs: label and enrichment."""


@click.command("findings")
@run_dir_option
@json_option
@click.option("--follow", is_flag=True, help="Keep showing new findings until interrupted.")
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(0, 1000), help="Newest findings to begin with."
)
def command(run_dir: Path, as_json: bool, follow: bool, limit: int) -> None:
    """Show what was found on this machine, newest last; what belongs together as one incident with its steps."""
    from nbsentinel.local.client import ask

    answers = ask(run_dir, {"request": "findings", "limit": limit, "follow": follow})
    events = (answer["finding"]["event"] for answer in answers if "finding" in answer)
    if as_json:
        for event in events:
            print(json.dumps(event, sort_keys=True), flush=True)
        return
    _show(events if follow else (reported.shown(group) for group in reported.by_incident(events)))


def _show(events: Iterator[dict[str, Any]]) -> None:
    from rich.console import Console

    console = Console()
    shown = 0
    for event in events:
        console.print(render(event))
        shown += 1
    if not shown:
        console.print("Nothing was found.")


def process_tree(evidence: dict[str, Any], root: int | None = None) -> RenderableType:
    """Return the lineage of the evidence's process as a tree, the oldest ancestor on top.

    Args:
        evidence: One of a finding's evidences.
        root: The pid of the kernel or terminal: what is above its parent is left out.
    """
    from rich.markup import escape
    from rich.tree import Tree

    line = []
    process: dict[str, Any] | None = evidence["process"]
    while process:
        line.append(process)
        process = process.get("parent_process")
    pids = [item.get("pid") for item in line]
    if root in pids:
        line = line[: pids.index(root) + 2]
    line.reverse()
    top = tree = Tree(_label(line[0], escape), guide_style="dim")
    for depth, item in enumerate(line[1:], 2):
        label = _label(item, escape)
        tree = tree.add(f"[bold red]{label}[/]" if depth == len(line) else label)
    return top


def _label(process: dict[str, Any], escape: Any) -> str:
    command = str(process.get("cmd_line") or process.get("name") or "?")
    return f"[dim]{process.get('pid')}[/] {escape(command if len(command) <= 150 else command[:149] + '…')}"


def enrichment(event: dict[str, Any], name: str) -> str:
    """Return the value of a named enrichment, or an empty string."""
    for item in event.get("enrichments", ()):
        if item.get("name") == name:
            return str(item.get("value", ""))
    return ""


def _origin_pid(event: dict[str, Any]) -> int | None:
    """Return the pid of the kernel or terminal that a finding belongs to, if it is known."""
    for item in event.get("enrichments", ()):
        if item.get("name") == "origin" and item["data"].get("kind") in ("kernel", "terminal"):
            pid = item["data"].get("pid")
            return pid if isinstance(pid, int) else None
    return None


def fact_table() -> Table:
    """Return an empty table of facts: a bold name, and a text that is folded."""
    from rich.table import Table

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    return facts


def render(event: dict[str, Any]) -> RenderableType:
    """Return one finding for a terminal: what, why, where, how it is known, what to do, and its incident's steps."""
    from rich.console import Group
    from rich.markup import escape
    from rich.panel import Panel

    info, evidence = event["finding_info"], event["evidences"][0]
    style = incidents.STYLES.get(event["severity_id"], "")
    facts = fact_table()
    facts.add_row("what", escape(info["title"]))
    facts.add_row("why it matters", escape(info.get("desc", "")))
    facts.add_row("how sure", event.get("confidence", ""))
    if whole := incidents.summary(event):
        facts.add_row("incident", escape(whole))
    for label, name in (
        ("severity", "severity"),
        ("file", "TargetFilename"),
        ("file was", "FileOperation"),
        ("kind", "CredentialKind"),
        ("done to", "Target"),
        ("in detail", "Detail"),
        ("call", "SystemCall"),
        ("bytes flow", "RelayPath"),
        ("could be", "CandidateCommandLine"),
        *ORIGIN,
    ):
        if value := enrichment(event, name):
            facts.add_row(label, escape(value))
    techniques = [(a.get("sub_technique") or a["technique"]) for a in info.get("attacks", ())]
    facts.add_row("ATT&CK", ", ".join(f"{t['uid']} {t.get('name', '')}" for t in techniques))
    if advice := event.get("remediation", {}).get("desc"):
        facts.add_row("what to do", escape(advice))
    title = f"[{style}]{event['severity'].upper()}[/] {incidents.moment(event['time'])}"
    parts: list[RenderableType] = [facts]
    if evidence["process"].get("pid"):  # 0: nobody is known to have done it
        parts += ["", process_tree(evidence, _origin_pid(event))]
    if (steps := incidents.steps(event)) is not None:
        parts += ["", steps]
    return Panel(
        Group(*parts),
        title=title,
        title_align="left",
        border_style=style,
    )
