"""Acts that only a kernel tells of: calls of an SDK, and files that code in a cell opens itself."""

from __future__ import annotations

from attacks.cases.acts.base import HIGH, Act
from live.programs import Language


def _opens(name: str, text: str, secret: str) -> Act:
    return Act(name, "credential_opened_by_cell", "T1552", Language.PYTHON, f"import os\n{text}", secret=secret)


OPENED = (
    _opens("cell-open", "print(open(os.environ['SECRET']).read())", "aws"),
    _opens("cell-pathlib", "import pathlib; print(pathlib.Path(os.environ['SECRET']).read_text())", ".ssh/id_rsa"),
    _opens("cell-descriptor", "print(os.read(os.open(os.environ['SECRET'], 0), 99).decode())", ".ssh/id_ed25519"),
    _opens(
        "cell-callback",
        "import threading; t = threading.Timer(0, lambda: print(open(os.environ['SECRET']).read())); t.run()",
        "google",
    ),
    _opens("cell-memory-stream", "import io; print(io.FileIO(os.environ['SECRET']).readall().decode())", "snowflake"),
)


def _asks(name: str, rule: str, technique: str, call: str, operation: str, severity: int = 3) -> Act:
    text = f"import boto3\nfor n in range(10):\n    boto3.{call}\n    if not REPEATED: break\nprint('asked it')"
    text = text.replace("REPEATED", str("{n}" in call or "str(n)" in call))
    return Act(name, rule, technique, Language.PYTHON, text, "asked it", f"operation:{operation}", severity=severity)


ASKED = (
    _asks(
        "sdk-access-key",
        "iam_changed_by_code",
        "T1098",
        "client('iam').create_access_key(UserName='x')",
        "CreateAccessKey",
    ),
    _asks(
        "sdk-secrets-listed",
        "secrets_listed_by_code",
        "T1555.006",
        "client('secretsmanager').list_secrets()",
        "ListSecrets",
    ),
    _asks(
        "sdk-presigned-domain",
        "studio_controlled_by_code",
        "T1550.001",
        "client('sagemaker').create_presigned_domain_url(DomainId='d-123456789012', UserProfileName='x')",
        "CreatePresignedDomainUrl",
    ),
    _asks(
        "sdk-user-made",
        "cognito_changed_by_code",
        "T1136.003",
        "client('cognito-idp').admin_create_user(UserPoolId='eu-west-1_x', Username='x')",
        "AdminCreateUser",
    ),
    _asks(
        "sdk-trail-stopped",
        "trail_disabled",
        "T1562.008",
        "client('cloudtrail').stop_logging(Name='x')",
        "StopLogging",
        HIGH,
    ),
    _asks(
        "sdk-many-secrets",
        "many_secrets",
        "T1555.006",
        "client('secretsmanager').get_secret_value(SecretId='s' + str(n))",
        "GetSecretValue",
    ),
    Act(
        "sdk-account-explored",
        "account_explored",
        "T1087.004",
        Language.PYTHON,
        """
import boto3
iam = boto3.client("iam")
iam.list_users(), iam.list_roles(), iam.list_groups(), iam.list_policies(), iam.get_account_summary()
print("asked it")
""",
        "asked it",
        "operation:ListGroups",
    ),
    Act(
        "sdk-signed-by-hand",
        "iam_changed_by_code",
        "T1098",
        Language.PYTHON,
        """
import boto3, os, urllib.request
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
body = "Action=AttachUserPolicy&Version=2010-05-08&UserName=x&PolicyArn=arn"
made = AWSRequest("POST", os.environ["ENDPOINT"] + "/", data=body)
SigV4Auth(boto3.Session().get_credentials(), "iam", "us-east-1").add_auth(made)
urllib.request.urlopen(urllib.request.Request(made.url, data=body.encode(), headers=dict(made.headers))).read()
print("asked it")
""",
        "asked it",
        "operation:AttachUserPolicy",
    ),
)
CELLS: tuple[Act, ...] = (*OPENED, *ASKED)
