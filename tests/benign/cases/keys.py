"""Use of one's own credentials by what they are for, and of AWS with fake keys against a service on loopback."""

from __future__ import annotations

from benign.cases.base import Case
from live.programs import Language

CASES = (
    Case(
        name="aws-identity-once",
        resembles="questions about the account: one",
        language=Language.BASH,
        text="$PYTHON $AWS sts get-caller-identity && $PYTHON $AWS s3 list-buckets",
        expects="done: ListBuckets",
    ),
    Case(
        name="aws-secret-of-project",
        resembles="reading secrets: the one that the project needs",
        language=Language.BASH,
        text="$PYTHON $AWS secretsmanager get-secret-value --secret-id project/database",
        expects="done: GetSecretValue",
    ),
    Case(
        name="boto3-script",
        resembles="copies to a bucket: the project's own",
        language=Language.PYTHON,
        text="""
import boto3, io
s3 = boto3.client("s3")
for n in range(5):
    s3.put_object(Bucket="project", Key=f"part-{n}", Body=b"1,2\\n" * 100)
s3.upload_fileobj(io.BytesIO(b"model"), "project", "model.bin")
print("objects", s3.list_objects_v2(Bucket="project")["KeyCount"])
""",
        expects="objects 0",
    ),
    Case(
        name="boto3-cells",
        resembles="calls from a notebook: reading, invoking, looking at one's own domain",
        language=Language.CELLS,
        text="""
import boto3
print(boto3.client("sts").get_caller_identity()["Account"])
# %%
print(boto3.client("s3").list_objects_v2(Bucket="project")["KeyCount"])
# %%
boto3.client("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"1,2")
boto3.client("secretsmanager").get_secret_value(SecretId="project/database")
print("asked")
""",
        expects="asked",
    ),
    Case(
        name="boto3-profile",
        resembles="reading the credentials of AWS: by its SDK",
        language=Language.PYTHON,
        text="""
import boto3, os
for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
    del os.environ[name]
session = boto3.Session(profile_name="default")
print("key", session.get_credentials().access_key[:4], session.client("sts").get_caller_identity()["Account"])
""",
        expects="key AKIA 1",
    ),
    Case(
        name="ssh-key-made",
        resembles="reading private keys: by ssh-keygen",
        language=Language.BASH,
        programs=("ssh-keygen",),
        text="ssh-keygen -q -t ed25519 -N '' -f k && ssh-keygen -lf k.pub && ssh-keygen -y -f k",
        expects="ssh-ed25519",
    ),
    Case(
        name="ssh-settings-shown",
        resembles="reading what is in .ssh: by ssh itself",
        language=Language.BASH,
        programs=("ssh", "user-name"),
        text="ssh -F ~/.ssh/config -G gpu-host | grep ^hostname",
        expects="hostname 192.0.2.7",
    ),
    Case(
        name="git-asks-its-store",
        resembles="reading the credentials of git: by git",
        language=Language.BASH,
        programs=("git",),
        text="printf 'protocol=https\\nhost=git.example.com\\n\\n' | git -c credential.helper=store credential fill",
        expects="username=me",
    ),
    Case(
        name="curl-with-netrc",
        resembles="reading .netrc, then a connection: by curl, as it is asked to",
        language=Language.BASH,
        programs=("curl",),
        text="curl -fsS -n $WEB/lines.txt | tail -n 1",
        expects="line 199",
    ),
    Case(
        name="requests-with-netrc",
        resembles="reading .netrc, then a connection: by the library that every client uses",
        language=Language.PYTHON,
        text="import os, requests; print(requests.get(os.environ['WEB'] + '/lines.txt').text)",
        expects="line 199",
    ),
    Case(
        name="hub-token-used",
        resembles="reading a token, then a connection: as the hub's library does",
        language=Language.PYTHON,
        text="""
import os, pathlib, urllib.request
token = pathlib.Path(os.environ["HOME"], ".cache/huggingface/token").read_text()
asked = urllib.request.Request(os.environ["WEB"] + "/data.json", headers={"Authorization": "Bearer " + token})
print("bytes", len(urllib.request.urlopen(asked).read()) > 100)
""",
        expects="bytes True",
    ),
    Case(
        name="dotenv-loaded",
        resembles="reading a file of secrets: the project's own, by the project",
        language=Language.PYTHON,
        text="""
import os, pathlib
pathlib.Path(os.environ["HOME"], "app").mkdir(exist_ok=True)
path = pathlib.Path(os.environ["HOME"], "app", ".env")
path.write_text("MODE=test\\n")
print(dict(line.split("=") for line in path.read_text().split())["MODE"])
""",
        expects="test",
    ),
)
