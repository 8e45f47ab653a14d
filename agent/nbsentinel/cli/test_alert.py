"""`nbsentinel test-alert`: whether an alert of this agent arrives."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from nbsentinel.cli.options import json_option, run_dir_option
from nbsentinel.errors import AgentUnreachableError, AlertRefusedError

SEVERITIES = ("informational", "low", "medium", "high", "critical")


@click.command("test-alert")
@run_dir_option
@json_option
@click.option(
    "--severity",
    type=click.Choice(SEVERITIES),
    default="informational",
    show_default=True,
    help="A higher one may wake somebody: choose it to test just that.",
)
@click.option(
    "--wait", default=30, show_default=True, type=click.IntRange(1, 120), help="Seconds to wait for all sinks."
)
def command(run_dir: Path, as_json: bool, severity: str, wait: int) -> int:
    """Send a marked test alert through everything that a finding goes through, and wait for each sink's word.

    Exit code 0: every sink has confirmed it; 1: one did not, or there is none; 3: no agent answers; 4: the agent
    refuses, because the last test was less than 10 s ago or its disk takes nothing.
    """
    from nbsentinel.local.client import ask

    answers = ask(run_dir, {"request": "test-alert", "severity": severity, "wait": wait})
    alert, deliveries = _read(answers, quiet=as_json)
    confirmed = bool(deliveries) and all("ms" in delivery for delivery in deliveries)
    if as_json:
        print(json.dumps({**alert, "deliveries": deliveries, "confirmed": confirmed}, sort_keys=True))
    elif not alert["sinks"]:
        print("No sink is configured: nobody beyond this machine hears of anything. See [report] in the configuration.")
    return 0 if confirmed else 1


def _read(answers: Iterable[dict[str, Any]], *, quiet: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the alert and the sinks' words; print them as they come.

    Raises:
        AlertRefusedError: The agent makes none.
        AgentUnreachableError: It ended in between.
    """
    alert: dict[str, Any] = {}
    deliveries: list[dict[str, Any]] = []
    for answer in answers:
        if "refused" in answer:
            raise AlertRefusedError(f"no test alert: {answer['refused']}", hint="`nbsentinel status` says how it is.")
        if "test_alert" in answer:
            alert = answer["test_alert"]
            if not quiet:
                print(
                    f"Test alert {alert['uid']} ({alert['severity']}) is event {alert['sequence']} of chain"
                    f" {alert['chain']}, signed and on disk after {alert['recorded_ms']} ms",
                    flush=True,
                )
        if "delivery" in answer:
            delivery = answer["delivery"]
            deliveries.append(delivery)
            word = f"confirmed after {delivery['ms']} ms" if "ms" in delivery else f"not confirmed: {delivery['why']}"
            if not quiet:
                print(f"  {delivery['sink']:<12} {word}", flush=True)
    if not alert or len(deliveries) < len(alert["sinks"]):
        raise AgentUnreachableError("the agent ended before every sink had its word", hint="Start it and ask again.")
    return alert, deliveries
