"""`nbsentinel agent`: run the agent in the foreground."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from nbsentinel.cli.options import config_option
from nbsentinel.harden import ignore_signals
from nbsentinel.logs import operator_log
from nbsentinel.protect.keeper import Bond


@click.command("agent")
@config_option
@click.pass_obj
def command(bond: Bond | None, config_path: Path | None) -> int:
    """Run the agent in the foreground until SIGTERM or Ctrl-C.

    It watches, detects, signs and delivers; its own lines go to standard error as JSON. The process that you start is
    its keeper: a small parent that resumes the agent when it is stopped and starts it again when it is killed.
    """
    from nbsentinel.agent import Agent
    from nbsentinel.config import load
    from nbsentinel.protect import testament

    before = testament.left(bond.estate) if bond else None
    # As the keeper began: a configuration that was changed since is reported, and in force after a real restart.
    config = before.config if before else load(config_path)
    agent = Agent(config, operator_log(config.agent.log_level), bond=bond, source=config_path)
    ignore_signals(but=(signal.SIGTERM, signal.SIGINT))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: agent.asked(number))
    # Whoever started us may close the terminal: that is not a reason to stop watching.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    code = agent.run()
    sys.stderr.flush()
    return code
