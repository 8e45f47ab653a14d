"""Calls of AWS APIs from a real kernel, against an endpoint on loopback: what is told, once, and what never."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel import aws
from kernel.harness import KEY, Kernel, Listener, kernel, listener

HASH = hmac.new(bytes.fromhex(KEY), b"access-key:" + aws.KEY_ID.encode(), hashlib.sha256).hexdigest()[:32]
OWN_SIGNATURE = """
import boto3, os, urllib.request
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

def signed(service, data, **headers):
    made = AWSRequest("POST", os.environ["ENDPOINT"] + "/", data=data, headers=headers)
    SigV4Auth(boto3.Session().get_credentials(), service, "eu-west-1").add_auth(made)
    asked = urllib.request.Request(made.url, data=data.encode(), headers=dict(made.headers))
    return len(urllib.request.urlopen(asked).read())

"""
PRESIGNED = """
import boto3, urllib.request
from botocore.config import Config
client = boto3.client("s3", config=Config(signature_version={version!r}, s3={{"addressing_style": "path"}}))
url = client.generate_presigned_url("get_object", Params={{"Bucket": "b1", "Key": "a-private-key-name"}})
urllib.request.urlopen(url).close()
"""
S3 = "import boto3; s3 = boto3.client('s3'); "
CALLS: dict[str, tuple[str, list[tuple[str, str, dict[str, str], str]]]] = {
    "json": (
        "import boto3; r = boto3.client('secretsmanager').get_secret_value(SecretId='prod/db')",
        [("secretsmanager", "GetSecretValue", {"SecretId": "prod/db"}, "botocore")],
    ),
    "query": ("r = boto3.client('sts').get_caller_identity()", [("sts", "GetCallerIdentity", {}, "botocore")]),
    "s3": (
        (
            f"{S3}s3.list_buckets(); s3.put_object(Bucket='b1', Key='a-private-key-name', Body=b'object-body');"
            "s3.list_objects_v2(Bucket='b1', Prefix='a-private-key-name')"
        ),
        [
            ("s3", "ListBuckets", {}, "botocore"),
            ("s3", "PutObject", {"Bucket": "b1"}, "botocore"),
            ("s3", "ListObjectsV2", {"Bucket": "b1"}, "botocore"),
        ],
    ),
    "s3 in threads of its own": (
        f"import io; {S3}s3.upload_fileobj(io.BytesIO(b'object-body'), 'b1', 'a-private-key-name')",
        [("s3", "PutObject", {"Bucket": "b1"}, "botocore")],
    ),
    "rest": (
        "r = boto3.client('sagemaker-runtime').invoke_endpoint(EndpointName='e1', Body=b'object-body')",
        [("sagemaker", "InvokeEndpoint", {"EndpointName": "e1"}, "botocore")],
    ),
    "a role": (
        "r = boto3.client('sts').assume_role(RoleArn='arn:aws:iam::123456789012:role/x', RoleSessionName='abc')",
        [("sts", "AssumeRole", {"RoleArn": "arn:aws:iam::123456789012:role/x"}, "botocore")],
    ),
    "signed without botocore's client, named in the body": (
        f"{OWN_SIGNATURE}signed('sts', 'Action=GetCallerIdentity&Version=2011-06-15')",
        [("sts", "GetCallerIdentity", {}, "http.client")],
    ),
    "signed without botocore's client, named in a header": (
        OWN_SIGNATURE + "signed('secretsmanager', '{}', **{'X-Amz-Target': 'secretsmanager.ListSecrets'})",
        [("secretsmanager", "ListSecrets", {}, "http.client")],
    ),
    "an address that was signed": (
        PRESIGNED.format(version="s3v4"),
        [("s3", "GetObject", {"Bucket": "b1"}, "http.client")],
    ),
    "an address that was signed the old way": (
        PRESIGNED.format(version="s3"),
        [("s3", "GetObject", {"Bucket": "b1"}, "http.client")],
    ),
    "requests that are no calls": (
        "import os, urllib.request; urllib.request.urlopen(os.environ['ENDPOINT']).close()",
        [],
    ),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kernel, Listener]]:
    folder = tmp_path_factory.mktemp("calls")
    with (
        aws.endpoint() as url,
        listener(folder / "run") as heard,
        kernel(folder / "home", folder / "run", **aws.environment(url)) as running,
    ):
        running.run("import boto3")
        yield running, heard


@pytest.mark.parametrize("name", CALLS)
def test_each_call_is_told_once_with_its_cell(told: tuple[Kernel, Listener], name: str) -> None:
    """Service, operation, names, key hash and request id of each call; once, although two hooks see it."""
    running, heard = told
    code, expected = CALLS[name]
    outcome = running.run(code)
    assert outcome.status == "ok", outcome.text

    def calls() -> list[list[Any]]:
        return [call for call in heard.of("api") if call[12] == outcome.message_id]

    assert heard.wait(lambda: [c for c in heard.of("cell") if c[4:6] == ["stop", outcome.message_id]])
    assert expected == [(call[4], call[5], call[8], call[11]) for call in calls()]
    assert all(call[9] == HASH for call in calls())
    for call in calls():
        assert call[10] == (aws.REQUEST_ID if call[11] == "botocore" else "")
        assert call[7].startswith("127.0.0.1:")
        assert call[6] in ("eu-west-1", "")


def test_no_secret_is_told(told: tuple[Kernel, Listener]) -> None:
    """Whatever was called: no key, token, signature, body, answer or object's name was in any message."""
    running, heard = told
    for code, _ in CALLS.values():
        assert running.run(code).status == "ok"
    assert heard.wait(lambda: len(heard.of("api")) >= 12)
    everything = "\n".join(json.dumps(one.content) for one in list(heard.told))
    assert aws.leaked(everything) == []


def test_a_call_without_an_answer_is_told(told: tuple[Kernel, Listener]) -> None:
    """A service that cannot be reached, and a cell that is interrupted while it waits for one."""
    running, heard = told
    refused = running.run(
        "boto3.client('sts', endpoint_url='http://127.0.0.1:1', config=__import__('botocore.config').config.Config("
        "retries={'total_max_attempts': 1})).get_caller_identity()"
    )
    assert refused.status == "error"
    assert heard.wait(lambda: [c for c in heard.of("api") if c[12] == refused.message_id])
    hangs = (
        "import os, socket, threading\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "threading.Timer(0.5, os.kill, [os.getpid(), 2]).start()\n"
        "boto3.client('sts', endpoint_url='http://127.0.0.1:%d' % server.getsockname()[1]).get_caller_identity()"
    )
    interrupted = running.run(hangs)
    assert interrupted.text.endswith("KeyboardInterrupt")
    assert heard.wait(lambda: [c for c in heard.of("api") if c[12] == interrupted.message_id])
    (call,) = [c for c in heard.of("api") if c[12] == interrupted.message_id]
    assert (call[4], call[5], call[9], call[10]) == ("sts", "GetCallerIdentity", HASH, "")


def test_botocore_answers_as_ever(told: tuple[Kernel, Listener], tmp_path: Path) -> None:
    """Our hooks change neither an answer nor an error of botocore."""
    running, _ = told
    code = (
        "import boto3; c = boto3.client('secretsmanager'); print(c.get_secret_value(SecretId='x')['SecretString'])\n"
        "try: c.get_secret_value()\nexcept Exception as error: print(type(error).__name__, error)"
    )
    with aws.endpoint() as url, kernel(tmp_path / "home", None, **aws.environment(url)) as plain:
        assert running.run(code).text == plain.run(code).text
