"""`nbsentinel rules`: compile, check, list, explain and replay detection rules."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nbsentinel.cli.options import json_option
from nbsentinel.detect.rules.pack import FailedRule, Pack, Rule, default_pack, load_pack
from nbsentinel.detect.rules.pages import LEVELS, MADE, pages, tactics_of
from nbsentinel.errors import RuleError

if TYPE_CHECKING:
    from rich.table import Table

    from nbsentinel.detect.rules.compile import Compiled

PATHS = click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
RULES = click.option(
    "--rules", type=click.Path(path_type=Path), help="Rule pack or folder; without it the package's own rules."
)
F = TypeVar("F", bound=Callable[..., Any])


def compiling(function: F) -> F:
    """Add the options of everything that compiles."""
    exceptions = click.option(
        "--exceptions",
        type=click.Path(path_type=Path),
        help="File or folder of exceptions: Sigma filters with owner, reason and last day.",
    )
    placeholders = click.option(
        "--placeholders",
        type=click.Path(path_type=Path, dir_okay=False),
        help="YAML file of names and values for the modifier `expand`.",
    )
    return exceptions(placeholders(function))


@click.group("rules")
def command() -> None:
    """Compile, check, list, explain and replay detection rules."""


def _compile(paths: Sequence[Path], exceptions: Path | None, placeholders: Path | None) -> Compiled:
    """Compile rules, without paths the package's own."""
    try:
        from nbsentinel.detect.rules.compile import compile_paths, read_placeholders
    except ImportError as error:
        raise RuleError(f"compiling rules needs {error.name}", hint="pip install 'nbsentinel[rules]'") from error
    values = read_placeholders(placeholders) if placeholders else {}
    today = datetime.now(timezone.utc).date()
    with _chosen(paths) as chosen:
        return compile_paths(chosen, exceptions=exceptions, placeholders=values, today=today)


@contextmanager
def _chosen(paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """Yield the paths, without any that of the package's own rules."""
    with resources.as_file(resources.files("nbsentinel.detect.rules").joinpath("catalogue")) as catalogue:
        yield paths or [catalogue]


def _failures(failed: Iterable[FailedRule]) -> list[dict[str, object]]:
    return [{"file": f.file, "line": f.line, "key": f.key, "reason": f.reason, "title": f.title} for f in failed]


def _print_failures(failed: Iterable[FailedRule]) -> None:
    for item in failed:
        click.echo(str(item), err=True)


@command.command("compile")
@PATHS
@compiling
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File for the pack."
)
def compile_rules(paths: tuple[Path, ...], exceptions: Path | None, placeholders: Path | None, output: Path) -> int:
    """Compile Sigma rules into a rule pack; without PATHS the package's own rules, for example with exceptions.

    Exit code 1 if one could not be compiled; the others are in the pack, which names it to the agent.
    """
    compiled = _compile(paths, exceptions, placeholders)
    _print_failures(compiled.failed)
    try:
        output.write_bytes(compiled.pack())
    except OSError as error:
        raise RuleError(f"{output}: {error.strerror}", hint="Choose another file with --output.") from error
    filters = f", {len(compiled.filters)} filters" if compiled.filters else ""
    click.echo(f"{len(compiled.rules)} rules{filters} in {output}, {len(compiled.failed)} failed")
    return 1 if compiled.failed else 0


@command.command("lint")
@PATHS
@compiling
@json_option
def lint(paths: tuple[Path, ...], exceptions: Path | None, placeholders: Path | None, as_json: bool) -> int:
    """Check Sigma rules, filters and exceptions. Exit code 1 if one cannot be used or is over."""
    compiled = _compile(paths, exceptions, placeholders)
    silent = [rule.name for rule in compiled.rules if not rule.reports]
    if as_json:
        found = {
            "rules": len(compiled.rules),
            "filters": len(compiled.filters),
            "only_for_correlations": silent,
            "failed": _failures(compiled.failed),
        }
        print(json.dumps(found))
        return 1 if compiled.failed else 0
    _print_failures(compiled.failed)
    for name in silent:
        click.echo(f"{name}: no finding by itself, a correlation takes it (`generate: true` there makes it one)")
    filters = f" and {len(compiled.filters)} filters" if compiled.filters else ""
    click.echo(f"{len(compiled.rules)} rules{filters} are fine, {len(compiled.failed)} cannot be used")
    return 1 if compiled.failed else 0


def _load(rules: Path | None, exceptions: Path | None = None, placeholders: Path | None = None) -> Pack:
    """Return a pack from a pack file, a folder of Sigma rules, or the package."""
    if rules is None and exceptions is None:
        return default_pack()
    if rules is None or rules.is_dir() or rules.suffix in (".yml", ".yaml"):
        return load_pack(_compile([rules] if rules else [], exceptions, placeholders).pack())
    if exceptions or placeholders:
        raise RuleError(f"{rules}: is compiled already", hint="Give the folder of rules, or leave the options away.")
    try:
        return load_pack(rules.read_bytes(), str(rules))
    except OSError as error:
        raise RuleError(f"{rules}: {error.strerror}", hint="Give a rule pack or a folder of Sigma rules.") from error


@command.command("list")
@RULES
@click.option("--tactic", help="Only rules of an ATT&CK tactic, by name or id: `persistence`, TA0003.")
@click.option("--level", type=click.Choice(LEVELS), help="Only rules of at least this level.")
@click.option("--category", help="Only rules on this category of events.")
@json_option
def list_rules(rules: Path | None, tactic: str | None, level: str | None, category: str | None, as_json: bool) -> None:
    """List rules, and the filters that a pack has. What is `counted` is no finding by itself: correlations take it."""
    pack = _load(rules)
    chosen = [rule for rule in pack.rules if _fits(rule, tactic, level, category)]
    if as_json:
        print(json.dumps([_summary(rule) for rule in chosen]))
        return
    from rich.console import Console

    console = Console()
    console.print(_rule_table(chosen, console.width) if chosen else "No such rules.")
    for item in pack.filters:
        owner = f", {item.owner} until {item.expires}: {item.reason}" if item.owner else ""
        console.print(f"filter {item.name}: {item.title}{owner}", markup=False, highlight=False)
    for failed in pack.failed:
        console.print(f"cannot be used: {failed}", markup=False, highlight=False)


def _fits(rule: Rule, tactic: str | None, level: str | None, category: str | None) -> bool:
    if level and LEVELS.index(rule.level) > LEVELS.index(level):
        return False
    if category and rule.category != category:
        return False
    wanted = tactic.lower().replace("-", " ").replace("_", " ") if tactic else ""
    return not wanted or any(wanted in (name.lower(), uid.lower()) for uid, name in tactics_of(rule))


def _rule_table(rules: Sequence[Rule], width: int) -> Table:
    """Return a table that fits 100 columns: the name in one piece, and below it what people call the rule."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    widths = {
        "rule": max(len(rule.name) for rule in rules),
        "level": len("critical"),
        "category": max(len("category"), *(len(rule.category) for rule in rules)),
    }
    left = width - sum(widths.values()) - 2 * len(widths)
    for column, wide in {**widths, "ATT&CK": max(len("T1059.004"), left)}.items():
        table.add_column(column, width=wide)
    for rule in rules:
        level = "info" if rule.level == "informational" else rule.level
        attacks = "\n".join(f"{t.uid} {t.tactic}" for t in rule.techniques)
        name = Text.assemble((rule.name, "bold"), f"\n{rule.title}")
        table.add_row(name, level if rule.reports else "counted", rule.category, Text(attacks))
    return table


def _summary(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "name": rule.name,
        "title": rule.title,
        "level": rule.level,
        "level_by_surface": rule.level_by_surface,
        "category": rule.category,
        "tactics": [name for _, name in tactics_of(rule)],
        "techniques": [technique.uid for technique in rule.techniques],
        "reports": rule.reports,
        "filters": list(rule.filters),
    }


@command.command("replay")
@RULES
@compiling
@click.option(
    "--events", required=True, type=click.Path(path_type=Path), help="File of OCSF events or flat Sigma fields."
)
@json_option
def replay(rules: Path | None, exceptions: Path | None, placeholders: Path | None, events: Path, as_json: bool) -> None:
    """Show which rules and correlations fire on recorded events, how often, and what filters suppressed."""
    from nbsentinel.detect.rules.replay import play, read_events

    pack = _load(rules, exceptions, placeholders)
    prepared = list(read_events(events))
    found = play(pack, prepared, now=int(time.time() * 1000))
    if as_json:
        answer = {
            "events": len(prepared),
            "seconds": found.seconds,
            "matches": found.matches,
            "suppressed": found.suppressed,
            "correlations": found.correlations,
            "failed_rules": _failures(pack.failed),
        }
        print(json.dumps(answer))
        return
    from rich.console import Console
    from rich.table import Table

    by_id = {rule.id: rule for rule in pack.rules}
    table = Table(box=None, header_style="bold")
    for column in ("matches", "level", "category", "rule"):
        table.add_column(column, overflow="fold")
    for uid, count in sorted(found.matches.items(), key=lambda item: (-item[1], item[0])):
        rule = by_id[uid]
        table.add_row(str(count), rule.level if rule.reports else "no finding", rule.category, rule.title)
    console = Console()
    console.print(table)
    names = {item.id: item.name for item in pack.filters}
    for uid, count in found.suppressed.items():
        console.print(f"{count} suppressed by filter {names[uid]}", markup=False, highlight=False)
    kept = {name: count for name, count in found.correlations.items() if count}
    if kept:
        console.print(f"correlations: {', '.join(f'{count} {name}' for name, count in kept.items())}")
    console.print(f"{len(prepared)} events in {found.seconds:.3f} s, {len(pack.failed)} rules could not be used")


@command.command("pages")
@PATHS
@compiling
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder.")
def write_pages(paths: tuple[Path, ...], exceptions: Path | None, placeholders: Path | None, output: Path) -> int:
    """Write a page for each rule and an index by tactic, in Markdown; without PATHS of the package's own rules.

    Pages of rules that are gone are removed; files that this command did not make are left alone, and it does not
    replace them. Exit code 1 if a rule could not be compiled, which then has no page.
    """
    from nbsentinel.detect.rules.sources import detections

    compiled = _compile(paths, exceptions, placeholders)
    _print_failures(compiled.failed)
    with _chosen(paths) as chosen:
        made = pages(compiled.rules, detections(chosen), reference="" if paths else "../reference")
    try:
        removed = _replace_pages(output, made)
    except OSError as error:
        raise RuleError(f"{error.filename}: {error.strerror}", hint="Choose another folder with --output.") from error
    gone = f", {removed} of rules that are gone removed" if removed else ""
    click.echo(f"{len(made)} pages in {output}{gone}, {len(compiled.failed)} rules failed")
    return 1 if compiled.failed else 0


def _replace_pages(folder: Path, made: Mapping[str, str]) -> int:
    """Write pages into a folder and remove those that were made before and are not among them; return how many.

    Raises:
        OSError: A file cannot be written.
        RuleError: A file that somebody else wrote has the name of a page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name: path for path in folder.glob("*.md")}
    ours = {name for name, path in there.items() if path.read_text(errors="replace").startswith(MADE)}
    if foreign := sorted(made.keys() & (there.keys() - ours)):
        raise RuleError(f"{there[foreign[0]]}: is no page of rules", hint="Choose an empty folder with --output.")
    for name, text in made.items():
        (folder / name).write_text(text)
    gone = ours - made.keys()
    for name in gone:
        there[name].unlink()
    return len(gone)
