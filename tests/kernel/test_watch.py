"""Which paths are watched, decided without a kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbsentinel_kernel.watch import WATCHED, Watch

HOME = "/home/u"
YES = (
    f"{HOME}/.aws/credentials",
    f"{HOME}/.ssh/anything",
    f"{HOME}/.ssh/./id_new",
    f"{HOME}/.ssh//id_new",
    f"{HOME}/.aws/sso/../sso/cache/x.json",
    f"{HOME}/.netrc",
    "/elsewhere/id_rsa",
    "/proc/1/environ",
    f"{HOME}/.ipython/profile_default/startup/99.py",
    "/opt/ml/metadata/resource-metadata.json",
)
NO = (
    f"{HOME}/project/credentials",
    f"{HOME}/project/config.json",
    f"{HOME}/project.ssh/x",
    f"{HOME}/startup/x.py",
    "/tmp/environ",
    "/proc/1/stat",
    f"{HOME}/.netrc.bak",
    f"{HOME}/data./x",
    "",
    "/",
)


def passes(watch: Watch, path: str) -> bool:
    """Say what the hook says before it calls anything."""
    folder, _, name = path.rpartition("/")
    return not folder or name in watch.names or folder.endswith(watch.ends)


@pytest.mark.parametrize("path", YES)
def test_watched(path: str) -> None:
    """Credential and start-up files are watched, in any home folder and however the path is written."""
    watch = Watch(WATCHED)
    assert passes(watch, path)
    assert watch.resolve(path) == os.path.normpath(path)


@pytest.mark.parametrize("path", NO)
def test_not_watched(path: str) -> None:
    """Files of the same name elsewhere are not."""
    assert Watch(WATCHED).resolve(path) == ""


def test_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name counts by the working folder, which is asked again after it has moved."""
    watch = Watch(WATCHED)
    (tmp_path / ".ssh").mkdir()
    monkeypatch.chdir(tmp_path)
    assert watch.resolve("key") == ""
    monkeypatch.chdir(tmp_path / ".ssh")
    assert watch.resolve("key") == "", "nobody has said that it moved"
    watch.moved()
    assert watch.resolve("key") == str(tmp_path / ".ssh" / "key")
    assert watch.resolve("../.netrc") == str(tmp_path / ".netrc")


def test_most_files_cost_nothing() -> None:
    """Files that programs open all day are let through before anything is called."""
    watch = Watch(WATCHED)
    for path in ("/usr/lib/python3/a.py", "/usr/lib/x.so.1", f"{HOME}/data/part-1.parquet", "data/a.csv"):
        assert not passes(watch, path), path
