"""`nbsentinel verify`: is an export what the agents wrote, all of it, in order? Offline, with only trusted keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import click

from nbsentinel.cli.options import json_option
from nbsentinel.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from nbsentinel.attest.outcome import ChainOutcome, Problem, Report

_T = TypeVar("_T")
_FILE = click.Path(path_type=Path)


@click.command("verify")
@click.argument("file", type=click.File("rb"))
@click.option("--keys", type=_FILE, required=True, help="Trusted keys: GET /v1/keys of the collector.")
@click.option("--heads", type=_FILE, help="Last heads that the collector saw; without them a cut end cannot be told.")
@json_option
def command(file: BinaryIO, keys: Path, heads: Path | None, as_json: bool) -> None:
    """Check an export of signed events offline.

    FILE holds one event a line (NDJSON), of any number of chains; `-` is standard input. Exit code 0: all verifies;
    1: something does not; 2: a file cannot be read or holds no event.
    """
    from nbsentinel.attest.verify import TrustedKeys, heads_from_json, verify_export

    trusted = _load(keys, TrustedKeys.from_json)
    seen = _load(heads, heads_from_json) if heads is not None else None
    try:
        report = verify_export(_lines(file), trusted, seen)
    except OSError as error:
        raise ConfigError(f"{file.name}: cannot be read: {error.strerror}") from error
    if not report.lines and report.verified:
        raise ConfigError(f"{file.name}: holds no event", hint="There is nothing to verify. Was the export complete?")
    try:
        if as_json:
            _print_json(report)
        else:
            _show(report)
    finally:
        if not report.verified:  # also to a reader that went away: `| head` must not make it verify
            raise click.exceptions.Exit(1)


def _load(path: Path, parse: Callable[[bytes], _T]) -> _T:
    from nbsentinel.attest.keys import KeyFormatError

    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except KeyFormatError as error:
        raise ConfigError(f"{path}: {error.message}", hint="The collector serves this file.") from error


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield lines, of an overlong one no more than what shows that it is too long."""
    from nbsentinel.attest.canonical import LINE_LIMIT

    most = LINE_LIMIT + 2
    while line := file.readline(most):
        yield line
        while len(line) == most and not line.endswith(b"\n"):
            line = file.readline(most)


def _print_json(report: Report) -> None:
    import msgspec

    print(
        msgspec.json.format(msgspec.json.encode({"verified": report.verified, **_members(report)}), indent=2).decode()
    )


def _members(report: Report) -> dict[str, object]:
    import msgspec

    return msgspec.structs.asdict(report)


def _show(report: Report) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if report.chains:
        console.print(_chains(report.chains))
    for problem in report.problems:
        console.print(_problem(problem))
    if report.problem_count > len(report.problems):
        console.print(f"... and {report.problem_count - len(report.problems)} more problems that are not listed.")
    _conclude(report, console)


def _conclude(report: Report, console: Console) -> None:
    if report.verified:
        console.print(
            f"[bold green]Verified[/]: {report.events} events of {len(report.chains)} chains in {report.lines} lines."
        )
    else:
        console.print(
            f"[bold red]Not verified[/]: {report.problem_count} problems; "
            f"{report.events} events in {report.lines} lines do verify."
        )
    if not report.heads_given:
        console.print("Without --heads it cannot be told whether the end of a chain was cut off.", style="yellow")


def _chains(chains: tuple[ChainOutcome, ...]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(title="Chains", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("chain", overflow="fold")
    table.add_column("events", justify="right", no_wrap=True)
    table.add_column("refused", justify="right", no_wrap=True)
    for name in ("from (UTC)", "to (UTC)", "keys", "dropped", "end"):
        table.add_column(name, overflow="fold", no_wrap=name != "dropped")
    for chain in chains:
        dropped = (f"{run.first} to {run.last}" if run.last > run.first else f"{run.first}" for run in chain.pruned)
        table.add_row(
            _plain(chain.chain_uid),
            str(chain.events),
            str(chain.refused),
            _time(chain.first_time),
            _time(chain.last_time),
            "\n".join(thumbprint[:8] for thumbprint in chain.keys[:3]) + _more(len(chain.keys) - 3),
            ", ".join(dropped) or "none",
            chain.ending.value + ("\nchecked" if chain.end_checked else ""),
        )
    return table


def _more(count: int) -> str:
    return f"\nand {count} more" if count > 0 else ""


def _problem(problem: Problem) -> RenderableType:
    from rich.text import Text

    if problem.line is None:
        where = "file"
    elif problem.last_line is None:
        where = f"line {problem.line}"
    else:
        where = f"line {problem.line} to {problem.last_line} ({problem.count} lines)"
    claim = "" if problem.sequence is None else f", event {problem.sequence}"
    chain = "" if problem.chain_uid is None else f" of chain {_plain(problem.chain_uid)}"
    return Text.assemble(
        (f"{where}{claim}{chain}", "bold"),
        ": ",
        (problem.reason.value, "bold red"),
        f": {_plain(problem.message)}\n  {problem.meaning}",
    )


def _plain(text: str) -> str:
    """Return text from the file so that it cannot steer the terminal."""
    from nbsentinel.text import visible

    return visible(text.encode("utf-8", "surrogatepass"), 400)


def _time(millis: int | None) -> str:
    from datetime import datetime, timezone

    if millis is None:
        return "unknown"
    try:
        return datetime.fromtimestamp(millis / 1000, tz=timezone.utc).strftime("%Y-%m-%d\n%H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return f"{millis} ms"
