"""The configuration: every mistake is one clear line with file and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nbsentinel import config
from nbsentinel.errors import ConfigError
from nbsentinel.startup import load_rules

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("text", "key", "word"),
    [
        ("[agent]\nx = 1", "agent.x", "unknown key"),
        ("y = 1", "y", "unknown key"),
        ("[agent]\nstate_dir = 1", "agent.state_dir", "Expected `str`"),
        ('[detect]\nloopback_is_remote = "yes"', "detect.loopback_is_remote", "Expected `bool`"),
        ("[sensors]\nprocfs_period_ms = 1", "sensors.procfs_period_ms", ">= 50"),
        ('[report]\nlevel = "some"', "report.level", "Invalid enum value"),
        ('[[detect.trusted_broker]]\nargv = ["x"]', "detect.trusted_broker[0]", "missing required field"),
        ('[report.collector]\nurll = "x"', "report.collector.urll", "unknown key"),
        ("[agent", "", "not valid TOML"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, text: str, key: str, word: str) -> None:
    """A wrong key, type, value or syntax is one line with the file and the key."""
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert caught.value.message.startswith(str(path))
    assert key in caught.value.message
    assert word in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        '[detect]\nrules = "/nowhere/pack.json"',
        '[detect]\nrules = "/"',
        '[report.collector]\nca_bundle = "/nowhere/ca.pem"',
        '[report.collector]\nurl = "collector.example.com"',
        '[report.file]\npath = "/"',
    ],
)
def test_paths_and_addresses_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    """A path or address that cannot work is said at the start, not when it is needed."""
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        config.load(path)


def test_rules_that_became_a_folder(tmp_path: Path) -> None:
    """A pack that cannot be read once the configuration was checked is a mistake that names the key, no crash."""
    with pytest.raises(ConfigError, match=rf"detect\.rules: {tmp_path}"):
        load_rules(config.parse(f'[detect]\nrules = "{tmp_path}"'))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * (config.FILE_LIMIT + 1)])
def test_files_that_are_no_configuration(tmp_path: Path, content: bytes) -> None:
    """Binary and oversized files are refused with a line."""
    path = tmp_path / "agent.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        config.load(path)


def test_missing_file() -> None:
    """A file that is not there is named."""
    with pytest.raises(ConfigError, match=r"/nowhere/agent\.toml"):
        config.load(Path("/nowhere/agent.toml"))


def test_example_is_the_default() -> None:
    """The printed example, read back, is the default configuration."""
    assert config.parse(config.example()) == config.Config()


def test_every_key_is_explained() -> None:
    """Each key has a meaning in the reference."""
    assert all(len(key.description) > 10 for key in config.all_keys())


def test_reference_is_up_to_date() -> None:
    """The reference in docs is what the types say: `make docs` writes it."""
    assert (ROOT / "docs/reference/configuration.md").read_text() == config.reference()


def test_trusted_broker() -> None:
    """Brokers are given as tables."""
    text = '[[detect.trusted_broker]]\nexe = "/usr/bin/node*"\nargv = ["*ptyHost*"]\n'
    (broker,) = config.parse(text).detect.trusted_broker
    assert (broker.exe, broker.argv) == ("/usr/bin/node*", ("*ptyHost*",))
    assert re.search("trusted_broker", config.reference())
