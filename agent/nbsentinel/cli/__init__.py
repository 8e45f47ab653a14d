"""The command line: one file per command, loaded only when it is used.

Exit codes: 0 done, 1 the answer is no (something does not verify, a demo step did not happen), 2 wrong usage or
configuration, 3 no agent answers, 4 something outside refused (disk, collector, permissions), 130 interrupted. A reader
that went away (`| head`) is no failure.
"""

from __future__ import annotations

import os
import select
import sys
from importlib import import_module
from typing import Any

import click

from nbsentinel import __version__
from nbsentinel.errors import AgentUnreachableError, ConfigError, NbsentinelError, RuleError, VerificationError

COMMANDS = {
    "agent": "Run the agent in the foreground.",
    "guard": "Run a command under the system-call guard.",
    "status": "Show whether the agent runs and what it can see.",
    "findings": "Show what was found on this machine.",
    "who": "Show which notebook, cell or terminal a process belongs to.",
    "test-alert": "Send a marked test alert through every sink and wait for each one's word.",
    "verify": "Check an export of signed events offline.",
    "rules": "Compile, check, list, explain and replay detection rules.",
    "config": "Check, show and explain the configuration.",
    "collector": "Run the collector that receives and verifies events.",
    "demo": "See a reverse shell in a notebook cell detected, signed, delivered and verified.",
}
_STDOUT = 1
EXIT_USAGE, EXIT_UNREACHABLE, EXIT_REFUSED, EXIT_INTERRUPTED = 2, 3, 4, 130


class _Commands(click.Group):
    """Finds a command's file when it is called, so that each command imports only what it needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found = import_module(f"nbsentinel.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(found, click.Command)
        return found

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the command line; help and version are printed already here."""
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError:
            if not _is_unread():
                raise
            raise click.exceptions.Exit(0) from None

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a reader that has had enough is no failure, whatever click and rich make of it."""
        answer: object = 0
        try:
            try:
                answer = super().invoke(ctx)
            except click.exceptions.Exit as done:
                answer = done.exit_code
            print(end="", flush=True)  # does nothing where there is no standard output at all
        except BrokenPipeError:
            if not _is_unread():
                raise
        except SystemExit as done:
            if not isinstance(done.__context__, BrokenPipeError):
                raise
        return answer

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _is_unread() -> bool:
    """Return whether standard output is a pipe that nobody reads any more; if so, what is left for it goes nowhere."""
    output = select.poll()
    output.register(_STDOUT, 0)
    if not any(state & select.POLLERR for _, state in output.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDOUT)
    os.close(nowhere)
    return True


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="nbsentinel")
def cli() -> None:
    """Runtime sentinel for SageMaker Studio and JupyterLab.

    Sees reverse shells without a privilege, says which notebook opened them, and proves what it saw.
    """


def exit_code(error: NbsentinelError) -> int:
    """Return the exit code that belongs to an error."""
    if isinstance(error, (ConfigError, RuleError)):
        return EXIT_USAGE
    if isinstance(error, AgentUnreachableError):
        return EXIT_UNREACHABLE
    if isinstance(error, VerificationError):
        return 1
    return EXIT_REFUSED


def run(arguments: list[str] | None = None, *, bond: object = None) -> int:
    """Run the command line and return its exit code; errors become one line and a next step on standard error.

    Args:
        arguments: The command line without the program's name; None for the process's own.
        bond: An agent's connection with its keeper, from `nbsentinel.protect.keeper.keep`.
    """
    try:
        result = cli.main(args=arguments, prog_name="nbsentinel", standalone_mode=False, obj=bond)
    except NbsentinelError as error:
        print(f"nbsentinel: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return exit_code(error)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return EXIT_USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return result if isinstance(result, int) else 0
