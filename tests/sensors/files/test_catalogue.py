"""Which files are watched: what fits, what exists, what appears later."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsentinel.sensors.files.catalogue import BUILT_IN, Pattern, Use, configured, fits, homes
from nbsentinel.sensors.files.places import BRANCH_LIMIT, FOLDERS_LIMIT, Plan, find_homes, make_plan

names = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=12)


def made(home: Path, *paths: str) -> None:
    for path in paths:
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text("x")


def plan_of(home: Path) -> Plan:
    return make_plan([pattern for pattern in BUILT_IN if not pattern.is_absolute], [str(home)])


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (".aws/credentials", "aws"),
        (".aws/sso/cache/0123.json", "aws"),
        (".ssh/id_ed25519_sk", "ssh"),
        (".config/gcloud/legacy_credentials/a@b/adc.json", "google"),
        (".azure/msal_token_cache.bin", "azure"),
        (".docker/config.json", "docker"),
        (".kube/config", "kubernetes"),
        (".netrc", "netrc"),
        (".pgpass", "database"),
        (".git-credentials", "git"),
        (".env", "environment"),
        ("project/.env", "environment"),
        ("server.pem", "key"),
        ("project/server.key", "key"),
        ("my-service-account-1.json", "service-account"),
        (".cache/huggingface/token", "huggingface"),
        (".kaggle/kaggle.json", "kaggle"),
        (".config/gh/hosts.yml", "github"),
        (".jupyter/jupyter_cookie_secret", "jupyter"),
        (".local/share/jupyter/runtime/kernel-1.json", "jupyter-runtime"),
    ],
)
def test_credentials_and_their_kinds(tmp_path: Path, path: str, kind: str) -> None:
    """Each credential that threats are known for is watched for every open, under its kind."""
    made(tmp_path, path)
    assert plan_of(tmp_path).files[str(tmp_path / path)].kind == kind


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (".bashrc", "persistence-shell"),
        (".local/lib/python3.12/site-packages/x.pth", "persistence-python"),
        (".local/lib/python3.9/site-packages/usercustomize.py", "persistence-python"),
        (".ipython/profile_default/startup/00.py", "persistence-python"),
        (".jupyter/jupyter_server_config.py", "persistence-jupyter"),
        (".local/share/jupyter/kernels/mine/kernel.json", "persistence-jupyter"),
        (".ssh/authorized_keys", "persistence-ssh"),
        ("project/.git/hooks/pre-commit", "persistence-git"),
        (".local/bin/ls", "persistence-program"),
        ("sagemaker-code-editor-server-data/data/User/settings.json", "persistence-editor"),
        (".bash_history", "history"),
    ],
)
def test_places_of_persistence(tmp_path: Path, path: str, kind: str) -> None:
    """Each place that persistence uses is watched for changes, and its folder for what appears in it."""
    made(tmp_path, path)
    plan = plan_of(tmp_path)
    assert plan.changes[str(tmp_path / path)].kind == kind
    assert str((tmp_path / path).parent) in plan.folders


def test_what_does_not_exist_is_waited_for(tmp_path: Path) -> None:
    """The deepest folder that exists is watched for the next name on the way to each file."""
    (tmp_path / ".config").mkdir()
    plan = plan_of(tmp_path)
    assert plan.files == {}
    assert ".aws" in plan.folders[str(tmp_path)]
    assert {"gcloud", "gh", "rclone"} <= plan.folders[str(tmp_path / ".config")]


def test_folders_are_bounded(tmp_path: Path) -> None:
    """A home with thousands of folders is not watched without end, and what is left out is counted."""
    for number in range(BRANCH_LIMIT * 3):
        (tmp_path / f"project{number:04}").mkdir()
    plan = plan_of(tmp_path)
    assert len(plan.folders) <= FOLDERS_LIMIT
    assert plan.left_out > 0


@given(st.sets(names, max_size=20))
def test_any_names(found: set[str]) -> None:
    """A pattern fits whole names only: the part before and after a `*` must be there."""
    for name in found:
        assert fits(name, name) or "*" in name or "[" in name
        assert fits(name + ".pem", "*.pem")
        assert not fits(name + ".pem.txt", "*.pem")


@given(st.text(max_size=10), st.text(max_size=10), st.lists(st.text(max_size=10), max_size=4))
def test_homes_are_absolute_and_told_once(of_uid: str, own: str, others: list[str]) -> None:
    """Whatever HOME and the user data base say, homes are absolute folders, each once, HOME first."""
    found = homes(of_uid, own, others)
    assert len(found) == len(set(found))
    assert all(home.startswith("/") and not home.endswith("/") for home in found)
    if own.rstrip("/").startswith("/"):
        assert found[0] == own.rstrip("/")


def test_own_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HOME is looked at, whatever the user data base says."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_homes()[0] == str(tmp_path)


def test_configured_paths(tmp_path: Path) -> None:
    """A path of the configuration is one in each home, or an absolute one, with the kind that it names."""
    made(tmp_path, "secrets/a.token")
    patterns = [configured("~/secrets/*.token", "vault"), configured(str(tmp_path / "secrets/a.token"), "")]
    plan = make_plan(patterns, [str(tmp_path)])
    assert plan.files[str(tmp_path / "secrets/a.token")].kind == "vault"
    assert configured("~/x", "", changes=True) == Pattern("custom", "x", Use.CHANGE)


def test_no_pattern_goes_around_the_bounds() -> None:
    """No built-in pattern has an empty part, goes upwards, or would follow every folder of the root."""
    for pattern in BUILT_IN:
        assert all(part and part != ".." for part in pattern.parts), pattern
        assert not (pattern.is_absolute and "*" in pattern.parts[0]), pattern
