"""Compiling Sigma rules: pySigma parses and validates, we turn its conditions into a pack's tree.

Needs the extra `rules`. A rule that cannot be compiled is returned with file, line, key and reason; the others are not
affected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path

import msgspec
import yaml

from nbsentinel.detect.rules.conditions import Placeholders
from nbsentinel.detect.rules.documents import Base, Correlated, Document, Filtering, read_document
from nbsentinel.detect.rules.exceptions import FILE_LIMIT, digest, rule_files
from nbsentinel.detect.rules.link import link
from nbsentinel.detect.rules.pack import FailedRule, Filter, Rule, encode_pack
from nbsentinel.errors import RuleError


class Compiled(msgspec.Struct, frozen=True):
    """The outcome for a set of files."""

    rules: tuple[Rule, ...]
    failed: tuple[FailedRule, ...]
    filters: tuple[Filter, ...] = ()
    exceptions_sha256: str = ""

    def pack(self) -> bytes:
        """Return the bytes of a pack with all that could be compiled, and what could not."""
        return encode_pack(self.rules, self.filters, self.failed, self.exceptions_sha256)


def compile_paths(
    paths: Iterable[Path],
    *,
    exceptions: Path | None = None,
    placeholders: Placeholders | None = None,
    today: date | None = None,
) -> Compiled:
    """Compile every `.yml` and `.yaml` file among or below the paths.

    Args:
        paths: Files and folders.
        exceptions: File or folder of the admin's exceptions: Sigma filters with an owner, a reason and a last day.
        placeholders: Values for the modifier `expand`.
        today: The day that exceptions must not be over on; None to take them all.

    Raises:
        RuleError: A path does not exist, or none of them holds a rule file.
    """
    documents: list[Document] = []
    failed: list[FailedRule] = []

    def take(path: Path, *, exception: bool) -> None:
        for outcome in _read_file(path, placeholders or {}, exception=exception):
            if isinstance(outcome, FailedRule):
                failed.append(outcome)
            elif isinstance(outcome, Filtering) and (over := outcome.over(today)) is not None:
                failed.append(over)
            else:
                documents.append(outcome)

    files = list(rule_files(paths))
    if not files:
        raise RuleError("no rule files (*.yml) there", hint="Give a folder of Sigma rules.")
    for path in files:
        take(path, exception=False)
    for path in rule_files([exceptions]) if exceptions else ():
        take(path, exception=True)
    rules, filters, unlinked = link(_unique(documents, failed))
    sha256 = digest(exceptions) if exceptions else ""
    return Compiled(rules, (*failed, *unlinked), filters, sha256)


def _unique(documents: list[Document], failed: list[FailedRule]) -> list[Document]:
    """Return the documents without those whose id was there before."""
    seen: dict[str, Document] = {}
    for document in documents:
        known = seen.setdefault(document.id, document)
        if known is not document:
            failed.append(document.fail("id", f"the id {document.id} is that of {known.source} too"))
    return list(seen.values())


def _read_file(path: Path, placeholders: Placeholders, *, exception: bool) -> Iterator[Document | FailedRule]:
    """Yield the documents of one YAML file, each compiled or with the reason why not."""
    try:
        text = _read_text(path)
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        contents = list(yaml.safe_load_all(text))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = " ".join(str(error).split())[:300]
        yield FailedRule(str(path), mark.line + 1 if mark else 1, "", f"cannot be read: {reason}")
        return
    for number, (node, content) in enumerate(zip(nodes, contents, strict=True)):
        if content is None:
            continue
        found = read_document(path, number, node, content, placeholders, exception=exception)
        if exception and isinstance(found, (Base, Correlated)):
            yield found.fail("detection", "a rule among the exceptions; only filters belong here")
        else:
            yield found


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(FILE_LIMIT + 1)
    if len(data) > FILE_LIMIT:
        raise ValueError(f"larger than {FILE_LIMIT} bytes")
    return data.decode()


def read_placeholders(path: Path) -> Mapping[str, tuple[str, ...]]:
    """Return the values for `expand` in a YAML file: each name with a text or a list of texts.

    Raises:
        RuleError: It cannot be read, or is something else.
    """
    hint = "Write each name with its values, for example `admins: [root, ops]`."
    try:
        found = yaml.safe_load(_read_text(path))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RuleError(f"{path}: cannot be read: {' '.join(str(error).split())[:300]}", hint=hint) from error
    if not isinstance(found, dict):
        raise RuleError(f"{path}: not a mapping of names to values", hint=hint)
    values: dict[str, tuple[str, ...]] = {}
    for name, given in found.items():
        items = given if isinstance(given, list) else [given]
        if not items or not all(isinstance(item, (str, int, float)) for item in items):
            raise RuleError(f"{path}: {name}: neither a text nor a list of texts", hint=hint)
        values[str(name).strip("%")] = tuple(str(item) for item in items)
    return values
