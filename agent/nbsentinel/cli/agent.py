"""`nbsentinel agent`: run the agent in the foreground."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from nbsentinel.cli.options import config_option
from nbsentinel.logs import operator_log


@click.command("agent")
@config_option
def command(config_path: Path | None) -> None:
    """Run the agent in the foreground until SIGTERM or Ctrl-C.

    It watches, detects, signs and delivers; its own lines go to standard error as JSON.
    """
    from nbsentinel.agent import Agent
    from nbsentinel.config import load

    config = load(config_path)
    agent = Agent(config, operator_log(config.agent.log_level))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    # Whoever started us may close the terminal: that is not a reason to stop watching.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    agent.run()
    sys.stderr.flush()
