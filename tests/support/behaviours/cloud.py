"""What is asked of AWS, by code and by command, each with an ordinary act that resembles it."""

from __future__ import annotations

from support.behaviours.acts import API, PROCESS, Row, asked, ran

CLOUD: list[Row] = [
    ("iam_changed_by_code", API, asked("iam", "CreateAccessKey"), asked("iam", "GetRole")),
    ("iam_changed_by_command", PROCESS, ran("aws --region x iam attach-role-policy"), ran("aws iam get-role")),
    ("secrets_listed_by_code", API, asked("secretsmanager", "ListSecrets"), asked("secretsmanager", "GetSecretValue")),
    ("secrets_listed_by_code", API, asked("ssm", "GetParametersByPath"), asked("ssm", "GetParameter")),
    (
        "secrets_listed_by_command",
        PROCESS,
        ran("python3 /opt/conda/bin/aws secretsmanager list-secrets"),
        ran("python3 /opt/conda/bin/aws secretsmanager get-secret-value --secret-id x"),
    ),
    ("secret_read_by_code", API, asked("ssm", "GetParameters"), asked("s3", "GetObject")),
    ("secret_read_by_command", PROCESS, ran("aws ssm get-parameter --name x"), ran("aws ssm list-commands")),
    (
        "studio_controlled_by_code",
        API,
        asked("sagemaker", "CreatePresignedDomainUrl"),
        asked("sagemaker", "DescribeDomain"),
    ),
    (
        "studio_controlled_by_command",
        PROCESS,
        ran("aws sagemaker update-user-profile --domain-id d"),
        ran("aws sagemaker describe-user-profile --domain-id d"),
    ),
    ("cognito_changed_by_code", API, asked("cognito-idp", "AdminCreateUser"), asked("cognito-idp", "ListUsers")),
    (
        "cognito_changed_by_command",
        PROCESS,
        ran("aws cognito-identity create-identity-pool"),
        ran("aws cognito-idp help"),
    ),
    ("role_assumed_by_code", API, asked("sts", "AssumeRole"), asked("sts", "GetCallerIdentity")),
    ("role_assumed_by_command", PROCESS, ran("aws sts assume-role --role-arn x"), ran("aws sts get-caller-identity")),
    ("job_with_code_made_by_code", API, asked("sagemaker", "CreateTrainingJob"), asked("sagemaker", "InvokeEndpoint")),
    ("job_with_code_made_by_command", PROCESS, ran("aws ec2 run-instances"), ran("aws ec2 describe-instances")),
    ("trail_disabled", API, asked("cloudtrail", "StopLogging"), asked("cloudtrail", "LookupEvents")),
    (
        "trail_disabled_by_command",
        PROCESS,
        ran("aws cloudtrail delete-trail --name x"),
        ran("aws cloudtrail lookup-events"),
    ),
]
