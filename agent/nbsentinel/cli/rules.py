"""`nbsentinel rules`: compile, check, list and replay detection rules."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbsentinel.cli.options import json_option
from nbsentinel.detect.rules.pack import Pack, default_pack, encode_pack, load_pack
from nbsentinel.errors import RuleError

if TYPE_CHECKING:
    from nbsentinel.detect.rules.compile import Compiled

PATHS = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.group("rules")
def command() -> None:
    """Compile, check, list and replay detection rules."""


def _compile(paths: tuple[Path, ...] | list[Path]) -> Compiled:
    try:
        from nbsentinel.detect.rules.compile import compile_paths
    except ImportError as error:
        raise RuleError(f"compiling rules needs {error.name}", hint="pip install 'nbsentinel[rules]'") from error
    return compile_paths(paths)


def _failures(compiled: Compiled) -> list[dict[str, object]]:
    return [
        {"file": f.file, "line": f.line, "key": f.key, "reason": f.reason, "title": f.title} for f in compiled.failed
    ]


def _print_failures(compiled: Compiled) -> None:
    for failed in compiled.failed:
        key = f" {failed.key}:" if failed.key else ""
        click.echo(f"{failed.file}:{failed.line}:{key} {failed.reason}", err=True)


@command.command("compile")
@PATHS
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File for the pack."
)
def compile_rules(paths: tuple[Path, ...], output: Path) -> int:
    """Compile Sigma rules into a rule pack. Exit code 1 if a rule could not be compiled; the others are in the pack."""
    compiled = _compile(paths)
    _print_failures(compiled)
    output.write_bytes(encode_pack(compiled.rules))
    click.echo(f"{len(compiled.rules)} rules in {output}, {len(compiled.failed)} failed")
    return 1 if compiled.failed else 0


@command.command("lint")
@PATHS
@json_option
def lint(paths: tuple[Path, ...], as_json: bool) -> int:
    """Check Sigma rules. Exit code 1 if one cannot be used."""
    compiled = _compile(paths)
    if as_json:
        print(json.dumps({"rules": len(compiled.rules), "failed": _failures(compiled)}))
    else:
        _print_failures(compiled)
        click.echo(f"{len(compiled.rules)} rules are fine, {len(compiled.failed)} cannot be used")
    return 1 if compiled.failed else 0


def _load(rules: Path | None) -> tuple[Pack, list[dict[str, object]]]:
    """Return a pack from a pack file, a folder of Sigma rules, or the package; and the rules that failed."""
    if rules is None:
        return default_pack(), []
    if rules.is_dir() or rules.suffix in (".yml", ".yaml"):
        compiled = _compile([rules])
        return load_pack(encode_pack(compiled.rules)), _failures(compiled)
    try:
        return load_pack(rules.read_bytes(), str(rules)), []
    except OSError as error:
        raise RuleError(f"{rules}: {error.strerror}", hint="Give a rule pack or a folder of Sigma rules.") from error


@command.command("list")
@click.option(
    "--rules", type=click.Path(path_type=Path), help="Rule pack or folder; without it the package's own rules."
)
@json_option
def list_rules(rules: Path | None, as_json: bool) -> None:
    """List rules."""
    pack, _ = _load(rules)
    if as_json:
        print(json.dumps([_summary(rule) for rule in pack.rules]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("name", "level", "category", "ATT&CK", "title"):
        table.add_column(column, overflow="fold")
    for rule in pack.rules:
        table.add_row(rule.name, rule.level, rule.category, " ".join(t.uid for t in rule.techniques), rule.title)
    Console().print(table)


def _summary(rule: Any) -> dict[str, object]:
    return {
        "id": rule.id,
        "name": rule.name,
        "title": rule.title,
        "level": rule.level,
        "category": rule.category,
        "techniques": [technique.uid for technique in rule.techniques],
    }


@command.command("replay")
@click.option(
    "--rules", type=click.Path(path_type=Path), help="Rule pack or folder; without it the package's own rules."
)
@click.option(
    "--events", required=True, type=click.Path(path_type=Path), help="File of OCSF events or flat Sigma fields."
)
@json_option
def replay(rules: Path | None, events: Path, as_json: bool) -> None:
    """Show which rules fire on recorded events, and how often."""
    from nbsentinel.detect.rules.matcher import Matcher

    pack, failed = _load(rules)
    matcher = Matcher(pack)
    prepared = list(_read_events(events))
    matches: dict[str, int] = {}
    began = time.perf_counter()
    for category, fields in prepared:
        for rule in matcher.match(category, fields):
            matches[rule.id] = matches.get(rule.id, 0) + 1
    seconds = time.perf_counter() - began
    if as_json:
        print(json.dumps({"events": len(prepared), "seconds": seconds, "matches": matches, "failed_rules": failed}))
        return
    from rich.console import Console
    from rich.table import Table

    titles = {rule.id: (rule.level, rule.title) for rule in pack.rules}
    table = Table(box=None, header_style="bold")
    for column in ("matches", "level", "rule"):
        table.add_column(column, overflow="fold")
    for uid, count in sorted(matches.items(), key=lambda item: -item[1]):
        table.add_row(str(count), *titles[uid])
    console = Console()
    console.print(table)
    console.print(f"{len(prepared)} events in {seconds:.3f} s, {len(failed)} rules could not be used")


def _read_events(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    from nbsentinel.detect.fields import from_ocsf

    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                event = _event(path, number, line)
                if "class_uid" not in event:
                    yield str(event["category"]), event
                elif (known := from_ocsf(event)) is not None:
                    yield known
    except OSError as error:
        raise RuleError(f"{path}: {error.strerror}", hint="Give a file of events, one JSON object a line.") from error


def _event(path: Path, number: int, line: bytes) -> dict[str, object]:
    hint = 'A line is an OCSF event or a flat object of Sigma fields with "category".'
    try:
        event = json.loads(line)
    except ValueError as error:
        raise RuleError(f"{path}:{number}: not JSON: {error}", hint=hint) from error
    if not isinstance(event, dict) or not ("class_uid" in event or isinstance(event.get("category"), str)):
        raise RuleError(f"{path}:{number}: neither class_uid nor category", hint=hint)
    return event
