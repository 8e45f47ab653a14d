"""Filters, exceptions and placeholders: what they change, that they are counted, and when they are ignored."""

from __future__ import annotations

from datetime import date, datetime, timezone
from pathlib import Path

import msgspec
import pytest

from nbsentinel.detect.rules.compile import Compiled, compile_paths, read_placeholders
from nbsentinel.detect.rules.exceptions import digest
from nbsentinel.detect.rules.inforce import RulesInForce
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import Comparison, Filter, Pack, load_pack
from nbsentinel.errors import RuleError
from nbsentinel.events import Millis

RULE = """title: Netcat
name: netcat
id: 11111111-1111-4111-8111-111111111111
logsource: {category: process_creation, product: linux}
detection:
    s: {Image|endswith: /nc}
    condition: s
"""
OTHER = RULE.replace("netcat", "socat").replace("11111111-1", "22222222-1").replace("/nc", "/socat")
FILTER = """title: Backup
name: backup
id: 33333333-1111-4111-8111-111111111111
logsource: {category: process_creation}
filter:
    rules: %s
    backup: {User: backup}
    condition: not backup
"""
OWNED = FILTER + "nbsentinel: {owner: ops@example.com, reason: nightly copy, expires: %s}\n"
NC, SOCAT = {"Image": "/bin/nc", "User": "backup"}, {"Image": "/bin/socat", "User": "backup"}


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "rules.yml").write_text(f"{RULE}\n---\n{OTHER}")
    return folder


def with_exception(rules: Path, text: str, today: str = "2026-06-01") -> Compiled:
    path = rules.parent / "exceptions"
    path.mkdir(exist_ok=True)
    (path / "e.yml").write_text(text)
    return compile_paths([rules], exceptions=path, today=date.fromisoformat(today))


def day(text: str) -> Millis:
    return Millis(int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp() * 1000))


def names(matcher: Matcher, event: dict[str, object]) -> list[str]:
    return [rule.name for rule in matcher.match("process_creation", event)]


@pytest.mark.parametrize(
    ("named", "suppressed"),
    [
        ("[netcat]", {"/bin/nc"}),
        ("[11111111-1111-4111-8111-111111111111]", {"/bin/nc"}),
        ("any", {"/bin/nc", "/bin/socat"}),
    ],
)
def test_filters_suppress_and_count(rules: Path, named: str, suppressed: set[str]) -> None:
    """A filter takes matches of the rules that it names, or of all of its logsource, and each is counted."""
    (rules / "filter.yml").write_text(FILTER % named)
    compiled = compile_paths([rules])
    assert compiled.failed == ()
    matcher = Matcher(load_pack(compiled.pack()))
    for event in (NC, SOCAT):
        assert bool(names(matcher, event)) is (event["Image"] not in suppressed)
        assert names(matcher, {**event, "User": "eve"}) != []
    assert matcher.suppressed == {"33333333-1111-4111-8111-111111111111": len(suppressed)}


@pytest.mark.parametrize(
    ("text", "key", "word"),
    [
        (FILTER % "[nobody]", "rules", "'nobody'"),
        ((FILTER % "[netcat]").replace("process_creation", "file_event"), "logsource", "another logsource"),
        ((FILTER % "any").replace("process_creation", "file_event"), "logsource", "does nothing"),
        ((FILTER % "any").replace("condition: not backup", "other: {f: g}"), "filter", "condition"),
    ],
)
def test_filters_that_do_nothing_are_told(rules: Path, text: str, key: str, word: str) -> None:
    """A filter that belongs to no rule, or has no condition, is named with its line; the rules are not affected."""
    (rules / "filter.yml").write_text(text)
    compiled = compile_paths([rules])
    (failed,) = compiled.failed
    assert (failed.key, failed.title) == (key, "Backup")
    assert word in failed.reason
    assert len(compiled.rules) == 2
    assert names(Matcher(load_pack(compiled.pack())), NC) == ["netcat"]


def test_exceptions_end_on_their_last_day(rules: Path) -> None:
    """An exception holds through its last day, by the clock of the agent, and its end is told once."""
    compiled = with_exception(rules, OWNED % ("[netcat]", "2026-06-30"))
    assert compiled.failed == ()
    pack = load_pack(compiled.pack())
    state = RulesInForce(pack, "", day("2026-06-30T23:59:59"))
    assert state.problems == []
    assert names(state.matcher, NC) == []
    (told,) = state.check(day("2026-07-01T00:00:00"))
    assert "backup" in told
    assert "ops@example.com" in told
    assert "2026-06-30" in told
    assert state.check(day("2026-07-02T00:00:00")) == []
    assert names(state.matcher, NC) == ["netcat"]
    assert state.problems == [told]
    assert state.vitals()["suppressed"] == [{"filter": "33333333-1111-4111-8111-111111111111", "count": 1}]


def test_exceptions_that_are_over_are_left_out(rules: Path) -> None:
    """An exception that is over when it is compiled is ignored, and reported with its line."""
    compiled = with_exception(rules, OWNED % ("[netcat]", "2026-05-31"))
    (failed,) = compiled.failed
    assert (failed.key, failed.line > 5) == ("expires", True)
    assert "expired on 2026-05-31" in failed.reason
    state = RulesInForce(load_pack(compiled.pack()), "", day("2026-06-01"))
    assert names(state.matcher, NC) == ["netcat"]
    assert "expired" in state.problems[0]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (FILTER % "[netcat]", "`owner`"),
        ((OWNED % ("[netcat]", "2027-01-01")).replace("reason: nightly copy", "reason: ''"), "`reason`"),
        ((OWNED % ("[netcat]", "2027-01-01")).replace(", expires: 2027-01-01", ""), "`expires`"),
        (OWNED % ("[netcat]", "some day"), "date"),
        (RULE.replace("11111111-1", "44444444-1"), "only filters"),
    ],
)
def test_incomplete_exceptions_are_ignored(rules: Path, text: str, word: str) -> None:
    """Without owner, reason and last day nothing is excepted, and the agent says so."""
    compiled = with_exception(rules, text)
    (failed,) = compiled.failed
    assert word in failed.reason
    state = RulesInForce(load_pack(compiled.pack()), "", day("2026-06-01"))
    assert names(state.matcher, NC) == ["netcat"]
    assert word in state.problems[0]


def test_exceptions_that_are_not_in_the_pack_are_told(rules: Path) -> None:
    """The agent says so where the exceptions of the configuration are not those that its rules were made with."""
    folder = str(rules.parent / "exceptions")
    compiled = with_exception(rules, OWNED % ("[netcat]", "2027-01-01"))
    pack, now = load_pack(compiled.pack()), day("2026-06-01")
    assert RulesInForce(pack, folder, now).problems == []
    assert "no exceptions" in RulesInForce(load_pack(compile_paths([rules]).pack()), folder, now).problems[0]
    with Path(folder, "e.yml").open("a") as file:
        file.write("# another reason\n")
    assert "changed" in RulesInForce(pack, folder, now).problems[0]
    assert "cannot be read" in RulesInForce(pack, f"{folder}/nothing", now).problems[0]
    Path(folder, "huge.yml").write_bytes(b"#" * (1 << 21))
    assert "larger than" in RulesInForce(pack, folder, now).problems[0]
    Path(folder, "huge.yml").unlink()
    assert digest(Path(folder)) != compiled.exceptions_sha256


def test_failed_rules_travel_in_the_pack(rules: Path) -> None:
    """What could not be compiled is known to the agent with file, line, key and reason."""
    (rules / "bad.yml").write_text(
        "title: Bad\nlogsource: {category: c}\ndetection:\n  s:\n    f|nope: x\n  condition: s\n"
    )
    pack = load_pack(compile_paths([rules]).pack())
    (problem,) = RulesInForce(pack, "", day("2026-06-01")).problems
    assert "bad.yml:3: detection:" in problem
    assert "nope" in problem


def test_a_pack_that_something_else_wrote(rules: Path) -> None:
    """A condition that cannot be matched is named, and neither the other rules nor the agent are affected."""
    pack = load_pack(compile_paths([rules]).pack())
    wrong = [Comparison("f", "re", "(?=x)"), Comparison("f", "cidr", "x"), Comparison("f", "gt", "x")]
    more = [msgspec.structs.replace(pack.rules[0], id=str(n), conditions=(item,)) for n, item in enumerate(wrong)]
    blind = Filter(id="b", name="b", title="b", condition=wrong[0])
    both = [msgspec.structs.replace(rule, filters=("b",)) for rule in pack.rules]
    state = RulesInForce(Pack((*more, *both), "", (blind,)), "", day("2026-06-01"))
    assert names(state.matcher, NC) == ["netcat"]
    assert sum("cannot be matched" in problem for problem in state.problems) == 4


def test_placeholders(rules: Path, tmp_path: Path) -> None:
    """`expand` takes its values from a file, with their wildcards; in an expression they are plain text."""
    (rules / "p.yml").write_text(
        "title: P\nname: p\nlogsource: {category: process_creation}\ndetection:\n"
        "    a: {User|expand: '%admins%'}\n    b: {Image|re|expand: '^/opt/%tools%/[a-z]+$'}\n    condition: a or b\n"
    )
    (failed,) = compile_paths([rules]).failed
    assert failed.key == "User"
    assert "%admins% has no value" in failed.reason
    values = tmp_path / "values.yml"
    values.write_text("admins: [root, 'ops*']\ntools: a.b\n")
    compiled = compile_paths([rules], placeholders=read_placeholders(values))
    assert compiled.failed == ()
    matcher = Matcher(Pack(compiled.rules, ""))
    assert names(matcher, {"User": "root"}) == names(matcher, {"User": "ops-1"}) == ["p"]
    assert names(matcher, {"Image": "/opt/a.b/x"}) == ["p"]
    assert names(matcher, {"Image": "/opt/axb/x", "User": "eve"}) == []


@pytest.mark.parametrize("text", ["- a list\n", "a: {b: c}\n", "a: []\n", "a: [", "a: [[x]]\n"])
def test_placeholders_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    """A file of something else is refused with its name."""
    path = tmp_path / "values.yml"
    path.write_text(text)
    with pytest.raises(RuleError, match=r"values\.yml"):
        read_placeholders(path)
