"""Where we run, from metadata of which every field is optional."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsentinel.context.surface import describe, discover

SPACE = {
    "AppType": "JupyterLab",
    "DomainId": "d-abc",
    "SpaceName": "team",
    "ResourceArn": "arn:aws:sagemaker:eu-west-1:123456789012:app/d-abc/team/JupyterLab/default",
    "ResourceName": "default",
    "ExecutionRoleArn": "arn:aws:iam::123456789012:role/studio",
    "AppImageVersion": "4.4.1",
}


def test_studio_space() -> None:
    """A JupyterLab space is known with account, region, domain and space."""
    found = describe(SPACE, {}, None)
    assert found.kind == "studio-jupyterlab"
    assert (found.account, found.region, found.domain, found.space) == ("123456789012", "eu-west-1", "d-abc", "team")


def test_environment_fills_what_metadata_lacks() -> None:
    """Without metadata the environment says what it can."""
    environment = {"AWS_REGION": "us-east-1", "SAGEMAKER_APP_TYPE": "CodeEditor", "SAGEMAKER_SPACE_NAME": "s"}
    found = describe({}, environment, None)
    assert (found.kind, found.region, found.space) == ("studio-code-editor", "us-east-1", "s")


json_values = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())


@given(st.dictionaries(st.sampled_from([*SPACE, "UserProfileName"]), json_values))
def test_any_metadata_is_survived(metadata: dict[str, object]) -> None:
    """Wrong types and nonsense in the metadata are no error."""
    assert describe(metadata, {}, None).hostname


@pytest.mark.parametrize("content", [None, "", "[]", "{", json.dumps(SPACE)])
def test_file_on_disk(tmp_path: Path, content: str | None) -> None:
    """A missing, empty or broken file is no error; a good one is used."""
    path = tmp_path / "resource-metadata.json"
    if content is not None:
        path.write_text(content)
    assert (discover(path).domain == "d-abc") is (content == json.dumps(SPACE))
