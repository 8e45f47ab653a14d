"""Rule files that somebody broke: each ends as rules or as a reason with a line, never as an exception."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nbsentinel.detect.rules.compile import compile_paths
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import load_pack

CORRELATION = """title: C
correlation:
    type: temporal
    rules: [a]
    timespan: 1m
    group-by: [x]
    aliases:
        x: {a: b}
    condition: {gte: 1}
"""
FILTER = """title: F
logsource:
    category: process_creation
filter:
    rules: any
    s:
        a: b
    condition: not s
nbsentinel:
    owner: a
    reason: b
    expires: 2030-01-01
"""
RULE = """title: R
logsource:
    category: process_creation
level: high
tags: [attack.t1059]
detection:
    s:
        Image|endswith: [/nc, /x]
        CommandLine|re: a+
    condition: s
"""
OURS = [
    path.read_text() for path in sorted(Path(str(resources.files("nbsentinel.detect.rules"))).glob("catalogue/*.yml"))
]
JUNK = ["null", "[]", "{}", "-1", "'*'", "'%x%'", "1e999", "!!python/object:os.system x", "&a [*a]", "2020-99-99"]
JUNK += ["a: b: c", "\0", "- x", "|", "yes", "~", "[[[[1]]]]", "{a: {b: {c: d}}}", "999999999999999999999"]


def broken(text: str, changes: list[tuple[int, int, str]]) -> str:
    lines = text.splitlines()
    for place, kind, junk in changes:
        at = place % len(lines)
        key, colon, _ = lines[at].partition(":")
        if kind == 0 and len(lines) > 1:
            del lines[at]
        elif kind == 1 and colon:
            lines[at] = f"{key}: {junk}"
        elif kind == 2:
            lines[at] = lines[at][: place % (len(lines[at]) + 1)]
        else:
            lines.insert(at, lines[place * 7 % len(lines)])
    return "\n".join(lines)


changed = st.builds(
    broken,
    st.sampled_from([CORRELATION, FILTER, RULE, *OURS]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), st.sampled_from(JUNK)), min_size=1, max_size=3),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(changed)
@example("title: F\nlogsource: {category: c}\nfilter: yes\n")
@example("title: C\ncorrelation: &a [*a]\n")
@example("title: R\nlogsource: {category: c}\ndetection: &a [*a]\n")
def test_nothing_breaks_the_compiler(tmp_path: Path, text: str) -> None:
    """Whatever a file says, what it gives can be loaded and matched, and what it does not give has a reason."""
    path = tmp_path / "x.yml"
    path.write_text(text)
    for exceptions in (None, path):
        compiled = compile_paths([path], exceptions=exceptions)
        assert all(failed.reason and failed.line >= 1 for failed in compiled.failed)
        assert compiled.rules or compiled.filters or compiled.failed or not text.strip()
        matcher = Matcher(load_pack(compiled.pack()))
        assert matcher.failed == []
        matcher.match("process_creation", {"Image": "/bin/nc", "CommandLine": "nc -e x"})
