"""A reader is a kind's own tool by what it is, never by its name alone."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from nbsentinel.sensors.files import readers
from nbsentinel.sensors.files.readers import Facts


def facts(exe: str, **more: object) -> Facts:
    return Facts(exe=exe, by_root=bool(more.pop("by_root", True)), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "found", "expected"),
    [
        ("ssh", facts("/usr/bin/ssh"), True),
        ("ssh", facts("/usr/bin/cat"), False),
        ("ssh", facts("/home/u/bin/ssh"), False),
        ("ssh", facts("/usr/bin/ssh", by_root=False), False),
        ("git", facts("/usr/bin/git"), True),
        ("aws", facts("/usr/bin/git"), False),
        ("docker", facts("/usr/bin/docker"), True),
        ("kubernetes", facts("/usr/local/bin/kubectl"), True),
        ("github", facts("/usr/bin/gh"), True),
        ("rclone", facts("/usr/bin/rclone"), True),
        ("rclone", facts("/tmp/rclone"), False),
        ("aws", facts("/usr/bin/python3.11"), None),
        ("aws", facts("/opt/conda/bin/python3.12", inline=True), None),
        ("key", facts("/usr/bin/python3.11"), None),
        ("key", facts("/usr/bin/cat"), False),
        ("aws", facts("/opt/conda/bin/python3.12", script="/opt/conda/bin/aws", installed=frozenset({"awscli"})), True),
        ("aws", facts("/opt/conda/bin/python3.12", script="/opt/conda/bin/aws"), False),
        ("aws", facts("/opt/conda/bin/python3.12", script="/tmp/aws", installed=frozenset({"awscli"})), False),
        ("aws", facts("/opt/conda/bin/python3.12", script="/tmp/steal.py", installed=frozenset({"awscli"})), None),
        ("aws", facts("/usr/bin/python3.11", module="awscli", installed=frozenset({"awscli"})), True),
        ("aws", facts("/usr/bin/python3.11", module="awscli"), None),
        ("pypi", facts("/usr/bin/python3.11", module="pip", installed=frozenset({"pip"})), True),
        ("aws", facts(""), None),
    ],
)
def test_judgement(kind: str, found: Facts, expected: bool | None) -> None:
    """Own tools are told from others by file, owner and installed package; code of a user's own is not known."""
    assert readers.judge(kind, found) is expected


def test_a_renamed_program_is_no_tool(tmp_path: Path) -> None:
    """A copy of cat that is called ssh is not ssh."""
    fake = tmp_path / "ssh"
    shutil.copy("/bin/cat", fake)
    assert readers.judge("ssh", readers.look("ssh", str(fake), (str(fake),), "/")) is False


@pytest.mark.skipif(not os.path.exists("/usr/bin/git"), reason="no git here")
def test_the_real_program_is_a_tool() -> None:
    """The installed git is git, also for its own credentials."""
    exe = os.path.realpath("/usr/bin/git")
    assert readers.judge("git", readers.look("git", exe, ("git", "fetch"), "/")) is True


def environment(folder: Path, package: str) -> Path:
    """Make something that looks like a virtual environment."""
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    site = folder / "lib" / "python3.11" / "site-packages" / package
    site.mkdir(parents=True)
    (site / "__init__.py").write_text("")
    return folder / "bin"


def test_a_script_of_an_environment(tmp_path: Path) -> None:
    """A script in an environment's bin, run by that environment's interpreter, with its package, is the tool."""
    bin_folder = environment(tmp_path, "awscli")
    (bin_folder / "aws").write_text("")
    argv = (str(bin_folder / "python3"), str(bin_folder / "aws"), "s3", "ls")
    exe = os.path.realpath(sys.executable)
    assert readers.judge("aws", readers.look("aws", exe, argv, "/")) is True
    elsewhere = tmp_path / "aws"
    elsewhere.write_text("")
    assert not readers.judge("aws", readers.look("aws", exe, (argv[0], str(elsewhere)), "/"))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("python", "-m", "awscli", "s3"), ("", "awscli", False)),
        (("python", "-I", "-S", "-mpip", "install"), ("", "pip", False)),
        (("python", "-c", "open('x')"), ("", "", True)),
        (("python", "-Ic", "open('x')"), ("", "", True)),
        (("python", "-W", "ignore", "a.py", "-m", "awscli"), ("a.py", "", False)),
        (("python",), ("", "", True)),
    ],
)
def test_code_of_a_command_line(argv: tuple[str, ...], expected: tuple[str, str, bool]) -> None:
    """What an interpreter runs is found as the interpreter itself finds it."""
    assert readers._code_of(argv) == expected
