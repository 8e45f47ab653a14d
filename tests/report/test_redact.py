"""Secrets are taken out; ordinary text stays; hostile text costs nothing."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsentinel.report.redact import redact_arguments, redact_text

AWS = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SECRETS = [
    (f"export AWS_SECRET_ACCESS_KEY={AWS}", AWS),
    (f"aws configure set aws_secret_access_key {AWS}", AWS),
    ("AWS_SESSION_TOKEN=FwoGZXIvYXdzEBYaDH", "FwoGZXIvYXdzEBYaDH"),
    ("curl -H 'Authorization: Bearer abc.def-ghi123456'", "abc.def-ghi"),
    ("git clone https://user:hunter22@example.com/x.git", "hunter22"),
    ("wget 'https://b.s3.amazonaws.com/k?X-Amz-Signature=0123abcd&x=1'", "0123abcd"),
    ("curl -T x 'https://storage.googleapis.com/b/k?a=1&X-Goog-Signature=0123abcd'", "0123abcd"),
    ("http://localhost:8888/?token=deadbeef", "deadbeef"),
    ("psql PGPASSWORD=opensesame", "opensesame"),
    ("x --password opensesame", "opensesame"),
    ("x --api-key=opensesame", "opensesame"),
    ("huggingface-cli login --token hf_abcdefghijklmnopqrstuv", "hf_abcdefgh"),
    ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefgh"),
    ("sk-abcdefghijklmnopqrstuvwxyz", "sk-abcdefgh"),
    ("xoxb-1234567890-abcdef", "xoxb-1234567890"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sig", "eyJzdWIi"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEpA\n-----END RSA PRIVATE KEY-----", "MIIEpA"),
]
ORDINARY = [
    "python -m ipykernel_launcher -f /home/user/.local/share/jupyter/runtime/kernel-8f2a.json",
    "python train.py --epochs 10 --token-limit 512 --max_tokens 128",
    "pip install -r requirements.txt --no-cache-dir",
    "git commit -m 'use the token bucket'",
    "ls -la /opt/conda/lib/python3.12/site-packages",
    "aws s3 sync s3://bucket/prefix ./data --exclude '*.tmp'",
    "conda create -n env python=3.12",
    "bash -c 'for i in 1 2 3; do echo $i; done'",
    "curl -sSL https://example.com/data.csv -o data.csv",
    "ssh-keygen -t ed25519 -f id",
    "tar czf backup.tar.gz project/",
    "sha256sum 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "/home/user/a/very/long/path/Without/Any/Secret0/inside/of/it/at/all",
    "SELECT count(*) FROM users",
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_secrets_go(text: str, secret: str) -> None:
    """Each kind of secret is replaced by a mark that says what it was."""
    assert secret not in redact_text(text)
    assert "<redacted:" in redact_text(text)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    """Commands without secrets are not touched."""
    assert redact_text(text) == text


def test_access_key_id_stays_recognisable() -> None:
    """The id of an access key keeps its ends: a SOC must be able to find it."""
    assert redact_text("AKIAIOSFODNN7EXAMPLE") == "AKIA…MPLE"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("mysql", "-psecret"), ("mysql", "-p<redacted:password>")),
        (("sshpass", "-p", "secret", "ssh"), ("sshpass", "-p", "<redacted:password>", "ssh")),
        (("curl", "-u", "user:secret"), ("curl", "-u", "user:<redacted:password>")),
        (("x", "--password", "secret"), ("x", "--password", "<redacted:secret>")),
        (("x", "--password", "--verbose"), ("x", "--password", "--verbose")),
        ((), ()),
    ],
)
def test_neighbouring_arguments(argv: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """A secret that only the argument before it gives away."""
    assert redact_arguments(argv) == expected


@given(st.lists(st.sampled_from([*(s for s, _ in SECRETS), *ORDINARY, " ", "'", '"', "=", ":", "token"]), max_size=5))
def test_twice_is_once(parts: list[str]) -> None:
    """What was redacted stays as it is."""
    once = redact_text("".join(parts))
    assert redact_text(once) == once


@pytest.mark.parametrize(
    "piece",
    ["a", "a/1A", "password", "token=", "://", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "eyJ", "-p ", "& ?key="],
)
def test_hostile_text_is_linear(piece: str) -> None:
    """A megabyte made to be slow is done within seconds: no pattern goes quadratic."""
    begin = time.monotonic()
    redact_text(piece * (1_000_000 // len(piece)))
    assert time.monotonic() - begin < 10
