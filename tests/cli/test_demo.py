"""The demonstration, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def test_demo_really_happens() -> None:
    """Every step happens, in order, within a minute; nothing is left behind."""
    before = set(Path(tempfile.gettempdir()).glob("nbsentinel-demo-*"))
    result = subprocess.run(
        [sys.executable, "-m", "nbsentinel", "demo", "--json"], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    steps = [json.loads(line) for line in result.stdout.splitlines()]
    finding = next(step["value"] for step in steps if step["step"] == "finding")
    assert finding["finding_info"]["analytic"]["name"] == "reverse_shell_direct"
    assert finding["severity_id"] == 4
    lineage = finding["evidences"][0]["process"]
    assert "ipykernel" in json.dumps(lineage["parent_process"])
    verified = [step["value"] for step in steps if step["step"] == "verify"]
    assert "Not verified" not in verified[0]
    assert "changed" in verified[1]
    assert set(Path(tempfile.gettempdir()).glob("nbsentinel-demo-*")) == before


def test_demo_says_what_it_lacks(tmp_path: Path) -> None:
    """Without its packages the demo is refused with the command that installs them."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nf = u.find_spec\n"
        "u.find_spec = lambda n, p=None: None if n == 'uvicorn' else f(n, p)\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "nbsentinel", "demo"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == 4
    assert "uvicorn" in result.stderr
    assert "pip install" in result.stderr
