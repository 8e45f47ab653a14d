"""`nbsentinel guard`: run a command under the system-call guard.

The entry point hands this command to the launcher before click is imported; this file is what help shows, and what
runs where somebody calls the command line as a library.
"""

from __future__ import annotations

import click

from nbsentinel_guard import launcher


@click.command("guard", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--run-dir", metavar="DIR", help="The agent's run folder; the same default as the agent's.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def command(run_dir: str | None, command: tuple[str, ...]) -> None:
    """Run COMMAND under the system-call guard: what it and its children execute and connect to is seen.

    Where that is not possible COMMAND runs unguarded, and one line on standard error says so.
    """
    option = ["--run-dir", run_dir] if run_dir else []
    raise SystemExit(launcher.main([*option, "--", *command]))
