"""An incident on a terminal: its steps in time order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbsentinel.report.incidents import CLOSE

if TYPE_CHECKING:
    from rich.table import Table

Event = dict[str, Any]
STYLES = {1: "dim", 2: "cyan", 3: "yellow", 4: "bold red", 5: "bold white on red"}
"""How a severity looks."""


def summary(event: Event) -> str:
    """Return what is to be said of the whole incident in one line, empty where an event says nothing of it."""
    info, incident = event["finding_info"], event.get("unmapped", {}).get("nbsentinel", {}).get("incident")
    if not incident:
        return ""
    count, steps = event["count"], info["related_events_count"]
    parts = [f"{incident['severity'].lower()}, risk {event['risk_score']} of 100"]
    parts += [f"{steps} steps"] if steps > 1 else []
    parts += [f"{count} hits"] if count > 1 else []
    parts += [f"closed: {event['status_detail']}"] if event["activity_id"] == CLOSE else []
    return ", ".join(parts)


def steps(event: Event) -> Table | None:
    """Return the steps of an incident in time order, or None where there is one alone."""
    from rich.markup import escape
    from rich.table import Table

    info = event["finding_info"]
    listed = sorted(info.get("related_events", ()), key=lambda step: int(step["first_seen_time"]))
    if len(listed) < 2:
        return None
    missing = info["related_events_count"] - len(listed)
    title = "Steps" + (f" ({missing} of {info['related_events_count']} left out)" if missing else "")
    table = Table(title=title, title_justify="left", box=None, header_style="bold", expand=False)
    for column in ("", "what", "process", "where"):
        table.add_column(column, overflow="fold")
    for step in listed:
        tags = {tag["name"]: tag["value"] for tag in step.get("tags", ())}
        style = STYLES.get(step["severity_id"], "")
        again = f" ({step['count']} times, last {moment(step['last_seen_time'])})" if step["count"] > 1 else ""
        what = f"[{style}]{step['severity'].lower()}[/] {escape(step['title'])}{again}"
        if tags.get("evidence"):
            what += f"\n[dim]{escape(tags['evidence'])}[/]"
        process = f"[dim]{tags.get('process', '?').partition(':')[0]}[/] {escape(tags.get('command', ''))}"
        table.add_row(moment(step["first_seen_time"]), what, process, escape(tags.get("place", "")))
    return table


def moment(milliseconds: int) -> str:
    """Return the time of day here."""
    from datetime import datetime, timezone

    return datetime.fromtimestamp(milliseconds / 1000, tz=timezone.utc).astimezone().strftime("%H:%M:%S")
