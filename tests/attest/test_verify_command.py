"""`nbsentinel verify`: what a person and a program are told, and the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attest.writing import Session, edited, own_event, plain_event, session
from nbsentinel.attest.canonical import LINE_LIMIT
from nbsentinel.attest.verify import MAX_PROBLEMS
from nbsentinel.cli import run


class Files:
    """An export with its keys and heads on disk."""

    def __init__(self, folder: Path, *written: Session, lines: list[bytes] | None = None) -> None:
        self.export, self.keys, self.heads = folder / "export.ndjson", folder / "keys.json", folder / "heads.json"
        content = [line for one in written for line in one.lines] if lines is None else lines
        self.export.write_bytes(b"".join(line + b"\n" for line in content))
        trusted = {one.chain.chain_uid: {"jwk": one.chain.genesis_key.jwk(), "agent_uid": "a"} for one in written}
        self.keys.write_text(json.dumps({"chains": trusted, "collector": "test"}))
        heads = {
            head.chain_uid: {name: getattr(head, name) for name in head.__struct_fields__}
            for head in map(Session.head, written)
        }
        self.heads.write_text(json.dumps({"chains": heads}))

    def verify(self, *options: str, heads: bool = True) -> int:
        """Run the command and return its exit code."""
        more = ["--heads", str(self.heads)] if heads else []
        return run(["verify", str(self.export), "--keys", str(self.keys), *more, *options])


def test_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole export says verified, with a table of its chains, and exits 0."""
    monkeypatch.setenv("COLUMNS", "160")
    first, second = session(9, rotate_at=(7,)), session(2, chain_uid="session-2")
    first.state_drop(first.range(4, 6))
    first.add(own_event("goodbye"))
    assert Files(tmp_path, first, second, lines=[*first.without(4, 6), *second.lines]).verify() == 0
    shown = capsys.readouterr().out
    for expected in ("session-1", "session-2", "4 to 6", "goodbye", "open", "checked", "2023-11-14", "22:13:20"):
        assert expected in shown
    assert first.chain.genesis_key.thumbprint[:8] in shown
    assert "Verified: 12 events of 2 chains in 12 lines." in shown
    assert "cut off" not in shown


def test_without_heads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without heads a cut file verifies, and the report says what it cannot tell."""
    written = session(4)
    files = Files(tmp_path, written, lines=written.lines[:3])
    assert files.verify(heads=False) == 0
    assert "cannot be told" in capsys.readouterr().out
    assert files.verify() == 1
    assert "truncated" in capsys.readouterr().out


def test_problems_for_a_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each problem is shown with line, event, reason and what it means; the exit code is 1."""
    monkeypatch.setenv("COLUMNS", "200")
    written = session(8, rotate_at=())
    lines = [
        *written.lines[:2],
        edited(written.lines[2], lambda e: e.update(message="x")),
        *written.lines[4:],
        b"no event",
    ]
    assert Files(tmp_path, written, lines=lines).verify() == 1
    shown = capsys.readouterr().out
    assert "line 3, event 3 of chain session-1: changed" in shown
    assert "altered after it was signed" in shown
    assert "line 4, event 3 of chain session-1: gap: events 3 to 4 are missing before this line" in shown
    assert "line 9: not-canonical" in shown
    assert "Not verified: 3 problems; 7 events in 9 lines do verify." in shown


def test_many_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One cause over many lines is one problem with its range of lines, and what is not listed is counted."""
    monkeypatch.setenv("COLUMNS", "200")
    written = session(9, rotate_at=(3,))
    written.add(plain_event(time=2**53 - 1))
    lines = [*written.without(5, 5), *[b"rubbish"] * MAX_PROBLEMS]
    assert Files(tmp_path, written, lines=lines).verify() == 1
    shown = capsys.readouterr().out
    assert "line 5 to 10 (6 lines), event 6 of chain session-1: gap" in shown
    assert "... and 1 more problems that are not listed." in shown


def test_times_and_dropped_events_of_any_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A time that no calendar has, a single dropped event and a chain without a verified event are shown as such."""
    written, lost = session(5, rotate_at=()), session(1, chain_uid="lost")
    written.state_drop(written.range(4, 4))
    written.add(plain_event(time=2**53 - 1))
    bad = edited(lost.lines[0], lambda event: event.update(message="x"))
    assert Files(tmp_path, written, lost, lines=[*written.without(4, 4), bad]).verify(heads=False) == 1
    shown = capsys.readouterr().out
    assert "9007199254740991 ms" in shown
    assert "unknown" in shown


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets the whole report."""
    written = session(4)
    files = Files(tmp_path, written)
    assert files.verify("--json") == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {"verified": True, "lines": 5, "events": 5, "problems": [], "heads_given": True}.items() <= report.items()
    assert report["chains"][0]["head"]["sequence"] == 5
    assert report["chains"][0]["ending"] == "open"
    files.export.write_bytes(files.export.read_bytes() + written.lines[1])
    assert files.verify("--json") == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert {"reason": "duplicated", "line": 6, "sequence": 2, "chain_uid": "session-1"}.items() <= problem.items()
    assert problem["meaning"]


def test_terminal_is_not_steered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an attacker writes into a line reaches the terminal neither as an escape sequence nor as markup."""
    written = session(1)
    hostile = edited(written.lines[1], lambda e: e["attestation_list"][0].update({"\x1b[2J[bold]": 1}))
    thief = edited(written.lines[1], lambda e: e["attestation_list"][0].update(authority_uid="\x1b]0;x\x07"))
    assert Files(tmp_path, written, lines=[written.lines[0], hostile, thief]).verify() == 1
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "\x1b]0" not in shown
    assert "[bold]" in shown


def test_overlong_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An endless line is one problem, and the line numbers behind it are right."""
    written = session(2, rotate_at=())
    lines = [written.lines[0], b"x" * (3 * LINE_LIMIT), written.lines[1], b"y" * (LINE_LIMIT + 1), written.lines[2]]
    assert Files(tmp_path, written, lines=lines).verify("--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert [(problem["reason"], problem["line"]) for problem in report["problems"]] == [
        ("not-canonical", 2),
        ("not-canonical", 4),
    ]
    assert (report["lines"], report["events"]) == (5, 3)


@pytest.mark.parametrize("keys", [b"", b"[]", b'{"chains":{"a":{"jwk":{}}}}', b'{"chains":{"a":1}}', b"\xff", None])
def test_unusable_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: bytes | None) -> None:
    """A keys or heads file that is missing or not of its form is named, with exit code 2."""
    for name in ("keys", "heads"):
        files = Files(tmp_path, session(1))
        path: Path = getattr(files, name)
        path.unlink() if keys is None else path.write_bytes(keys)
        assert files.verify() == 2
        assert f"{name}.json" in capsys.readouterr().err


def test_head_of_another_chain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A heads file in which a head names another chain is refused."""
    files = Files(tmp_path, session(1))
    files.heads.write_text(files.heads.read_text().replace('"chain_uid": "session-1"', '"chain_uid": "other"'))
    assert files.verify() == 2
    assert "another chain" in capsys.readouterr().err


def test_unreadable_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An export that is missing, a folder or empty exits 2 and says so; empty with a head it is cut off."""
    files = Files(tmp_path, session(1), lines=[])
    assert files.verify(heads=False) == 2
    assert "holds no event" in capsys.readouterr().err
    assert files.verify() == 1
    files.export.unlink()
    assert files.verify() == 2
    files.export.mkdir()
    assert files.verify() == 2
    capsys.readouterr()


def test_standard_input(tmp_path: Path) -> None:
    """The export may come through a pipe."""
    files = Files(tmp_path, session(3))
    call = [sys.executable, "-m", "nbsentinel", "verify", "-", "--keys", str(files.keys), "--json"]
    done = subprocess.run(call, input=files.export.read_bytes(), capture_output=True, check=True)
    assert json.loads(done.stdout)["events"] == 4


def loaded_by(code: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter has loaded after some code."""
    script = f"{code}; import sys; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout.split()
    )


def test_nothing_heavy_is_imported() -> None:
    """The command is listed without rich and cryptography, and attest needs nothing of the agent but its errors."""
    assert not {"rich", "cryptography"} & loaded_by("import nbsentinel.cli.verify")
    own = {
        name for name in loaded_by("import nbsentinel.attest.verify, nbsentinel.attest.chain") if "nbsentinel" in name
    }
    assert {name for name in own if not name.startswith("nbsentinel.attest")} == {"nbsentinel", "nbsentinel.errors"}
