"""The rule pack: compiled Sigma rules as one versioned JSON file, which is all that the agent loads.

A pack carries its rules' conditions as a tree of tests, so that loading is decoding and nothing is parsed twice.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Literal

import msgspec

from nbsentinel.errors import RuleError
from nbsentinel.events import Technique

FORMAT = 2
"""Version of this file format; another one is refused."""
PACK_LIMIT = 64 * 1024 * 1024


class Comparison(msgspec.Struct, frozen=True, tag="t", omit_defaults=True):
    """One comparison of a field, or of all fields where `field` is None (a keyword).

    `op` says how `value` is meant: a literal (`eq`, `contains`, `startswith`, `endswith`), a pattern of literals and
    wildcards (`like`), a regular expression with flags (`re`), a network (`cidr`), another field (`ref`), a number
    (`num`, `lt`, `lte`, `gt`, `gte`), a part of a time (`minute` to `year`), or `true` and `false` (`exists`, `bool`).
    """

    field: str | None
    op: Literal[
        "eq", "contains", "startswith", "endswith", "like", "re", "cidr", "ref", "num", "lt", "lte", "gt", "gte",
        "null", "exists", "bool", "minute", "hour", "day", "week", "month", "year",
    ]  # fmt: skip
    value: str = ""
    cased: bool = False
    flags: str = ""
    """Of a regular expression: any of `i`, `m`, `s`. Of a field reference: `startswith` or `endswith`."""


class And(msgspec.Struct, frozen=True, tag="and"):
    """All of its items hold."""

    items: tuple[Node, ...]


class Or(msgspec.Struct, frozen=True, tag="or"):
    """At least one of its items holds."""

    items: tuple[Node, ...]


class Not(msgspec.Struct, frozen=True, tag="not"):
    """Its item does not hold."""

    item: Node


Node = Comparison | And | Or | Not


class GroupField(msgspec.Struct, frozen=True):
    """What a correlation groups by: its own name for it, and the fields of rules that call it something else."""

    name: str
    fields: dict[str, str] = {}
    """By rule id."""


class Correlation(msgspec.Struct, frozen=True, kw_only=True):
    """What a correlation rule counts."""

    type: Literal["event_count", "value_count", "temporal", "temporal_ordered"]
    rules: tuple[str, ...]
    """Ids of the rules whose matches it takes, in its own order; they may be correlations."""
    timespan_ms: int
    group_by: tuple[GroupField, ...] = ()
    op: Literal["gte", "gt", "lte", "lt", "eq", "neq"] = "gte"
    count: int = 1
    """Bound of the number of events, of distinct values, or of distinct rules."""
    values: tuple[str, ...] = ()
    """Of value_count: the fields whose distinct values are counted."""
    generate: bool = False
    """Whether the matches of its rules are findings, too."""
    condition: Node | None = None
    """Of temporal, in place of a count: tests that rules, by their ids as fields, were met (`exists`)."""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """A Sigma filter: a rule that it belongs to counts only where its condition holds."""

    id: str
    name: str
    title: str
    condition: Node
    owner: str = ""
    """Who answers for it; set for an admin's exceptions, which have a reason and a last day, too."""
    reason: str = ""
    expires: str = ""
    """The last day, in UTC, as YYYY-MM-DD."""
    source: str = ""


class FailedRule(msgspec.Struct, frozen=True):
    """A rule that cannot be used, and why."""

    file: str
    line: int
    key: str
    """The part of the rule that is wrong, as far as that is known."""
    reason: str
    title: str = ""

    def __str__(self) -> str:
        key = f" {self.key}:" if self.key else ""
        return f"{self.file}:{self.line}:{key} {self.reason}"


Level = Literal["informational", "low", "medium", "high", "critical"]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, ready to be matched and to be shown to people."""

    id: str
    name: str
    title: str
    description: str = ""
    why: str = ""
    """Why a match matters; our own addition to Sigma."""
    level: Level = "medium"
    level_by_surface: dict[str, Level] = {}
    """Where a match is worth more or less: levels by kind of surface (`nbsentinel.context.surface`)."""
    confidence: Literal["", "low", "medium", "high"] = ""
    techniques: tuple[Technique, ...] = ()
    tags: tuple[str, ...] = ()
    false_positives: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    category: str
    """Sigma's logsource category, or `product/service` where a rule has none."""
    conditions: tuple[Node, ...]
    """The rule matches when one of them holds."""
    source: str = ""
    """The file that it was compiled from."""
    correlation: Correlation | None = None
    """What it counts, for a correlation rule; then it has no conditions of its own."""
    reports: bool = True
    """Whether a match is a finding by itself; false for what only correlations take (`generate: false`)."""
    filters: tuple[str, ...] = ()
    """Ids of the filters that may suppress it."""


CORRELATION = "correlation"
"""The category of correlation rules."""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds."""

    format: int
    rules: tuple[Rule, ...]
    filters: tuple[Filter, ...] = ()
    failed: tuple[FailedRule, ...] = ()
    exceptions_sha256: str = ""


class Pack(msgspec.Struct, frozen=True):
    """A loaded pack."""

    rules: tuple[Rule, ...]
    sha256: str
    """Of the file's bytes: says in every heartbeat which rules are in force."""
    filters: tuple[Filter, ...] = ()
    failed: tuple[FailedRule, ...] = ()
    """What could not be compiled with it."""
    exceptions_sha256: str = ""
    """Of the files of exceptions that it was made with; empty for none."""


def encode_pack(
    rules: tuple[Rule, ...],
    filters: tuple[Filter, ...] = (),
    failed: tuple[FailedRule, ...] = (),
    exceptions_sha256: str = "",
) -> bytes:
    """Return the bytes of a pack; the same rules always give the same bytes."""
    content = Content(
        format=FORMAT,
        rules=tuple(sorted(rules, key=lambda rule: (rule.category, rule.id))),
        filters=tuple(sorted(filters, key=lambda item: item.id)),
        failed=failed,
        exceptions_sha256=exceptions_sha256,
    )
    return msgspec.json.format(msgspec.json.encode(content, order="sorted"), indent=1) + b"\n"


def load_pack(data: bytes, source: str = "rule pack") -> Pack:
    """Return the pack in the bytes of a file.

    Raises:
        RuleError: Not a pack, or one of another format.
    """
    hint = "Make it again with `nbsentinel rules compile`."
    if len(data) > PACK_LIMIT:
        raise RuleError(f"{source}: larger than {PACK_LIMIT} bytes", hint=hint)
    try:
        found = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        version = msgspec.json.decode(found.get("format", msgspec.Raw(b"0")), type=int)
        if version != FORMAT:
            raise RuleError(f"{source}: format {version}, but this version reads format {FORMAT}", hint=hint)
        content = msgspec.json.decode(data, type=Content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RuleError(f"{source}: not a rule pack: {error}", hint=hint) from error
    sha256 = hashlib.sha256(data).hexdigest()
    return Pack(content.rules, sha256, content.filters, content.failed, content.exceptions_sha256)


def default_pack() -> Pack:
    """Return the rules that come with the package."""
    data = resources.files("nbsentinel.detect.rules").joinpath("default_pack.json").read_bytes()
    return load_pack(data, "default_pack.json")
