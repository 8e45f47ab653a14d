"""Secrets are taken out; ordinary text stays; hostile text costs nothing."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsentinel.report.redact import redact_arguments, redact_text

AWS = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
P = "<redacted:password>"
SECRETS = [
    (f"export AWS_SECRET_ACCESS_KEY={AWS}", AWS),
    (f"aws configure set aws_secret_access_key {AWS}", AWS),
    ("AWS_SESSION_TOKEN=FwoGZXIvYXdzEBYaDH", "FwoGZXIvYXdzEBYaDH"),
    ("curl -H 'Authorization: Bearer abc.def-ghi123456'", "abc.def-ghi"),
    ("git clone https://user:hunter22@example.com/x.git", "hunter22"),
    ("git clone https://glpat-abcdefghijklmnopqrst@example.com/x.git", "glpat-"),
    ("pip install git+https://abcdefghijklmnopqrst@example.com/x.git", "abcdefgh"),
    ("aws configure set aws_secret_access_key wJalrXUtnFEMIxK7MDENGxbPxRfiCYEXAMPLEKEY", "wJalrXUtn"),
    ("aws configure set profile.x.aws_session_token 'FwoGZXIvYXdzEBYaDH'", "FwoGZXIv"),
    ("curl -u admin:hunter2 https://example.com; ls", "hunter2"),
    ("curl -uadmin:hunter2 https://example.com", "hunter2"),
    ("curl -sku 'admin:some hunter2' https://example.com", "hunter2"),
    ("curl 'https://example.com/?a=1&b=2' -suadmin:hunter2", "hunter2"),
    ("curl https://example.com \\\\x0a  --user=admin:hunter2", "hunter2"),
    ("curl https://example.com \\\\x0a-u admin:hunter2", "hunter2"),
    ('bash -c "curl -u \\"admin:some hunter2\\" https://example.com" | sh', "hunter2"),
    ("x=$(/usr/bin/curl -u :hunter2 https://example.com)", "hunter2"),
    ("wget --proxy-user admin:hunter2 https://example.com", "hunter2"),
    ("some-client --user admin:hunter2", "hunter2"),
    ("mysql -u root -phunter2 db", "hunter2"),
    ("mysqldump -p'some hunter2' db | gzip > db.gz", "hunter2"),
    ("mysql -e 'select 1; select 2' -phunter2", "hunter2"),
    ('sudo sh -c "mariadb -p hunter2"', "hunter2"),
    ("sshpass -p hunter2 ssh u@example.com", "hunter2"),
    ("sshpass -v -P assphrase -phunter2 ssh u@example.com", "hunter2"),
    ("docker login -u me -p hunter2 example.com", "hunter2"),
    ("cd x\\x0adocker login -u me -phunter2", "hunter2"),
    ("cd x\\x0acurl -u admin:hunter2 https://example.com\\x0als", "hunter2"),
    ("cd x\\x0asshpass -p hunter2 ssh u@example.com", "hunter2"),
    ("some-client \\\\x0a--user admin:hunter2", "hunter2"),
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
    "docker run -u 1000:1000 --user 1000:100 --user=$(id -u):$(id -g) image",
    "docker run --name mysql -p 3306:3306 -p3306:3306 -p 127.0.0.1:33060:33060 mysql",
    "vault login -path=team",
    "mysql -u root -p < dump.sql; mkdir -p data",
    "mysqladmin --port 3306 -P 3306 status; cp -p a b",
    "chown -R -u a:b x; rsync -u a:b host:/c; id -u; date -u +%H:%M:%S; sort -u",
    "socat -u TCP:192.0.2.1:443 EXEC:sh",
    "sqlmap -u http://example.com/x",
    "some-client --user example.com:8080",
    "curl https://www.example.com?email=someone@example.com -H 'a: b' -o out:put",
    "git clone ssh://APKAEIBAERJR2EXAMPLE@git-codecommit.example.com/x",
    "grep aws_secret_access_key /home/sagemaker-user/.aws/credentials /home/somebody/credentials",
    "apt-get install mysql-client -p x",
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
        (("mysql", "-psecret"), ("mysql", f"-p{P}")),
        (("sshpass", "-p", "secret", "ssh"), ("sshpass", "-p", P, "ssh")),
        (("sshpass", "-p", "a", "ssh", "-p", "22"), ("sshpass", "-p", P, "ssh", "-p", "22")),
        (("docker", "login", "-p", "secret"), ("docker", "login", "-p", P)),
        (("docker", "run", "mysql", "-p", "1:1", "-p1:1"), ("docker", "run", "mysql", "-p", "1:1", "-p1:1")),
        (("curl", "-u", "user:secret"), ("curl", "-u", f"user:{P}")),
        (("sudo", "/bin/curl", "-sku", "user:a secret"), ("sudo", "/bin/curl", "-sku", f"user:{P}")),
        (("curl", "-uuser:a secret"), ("curl", f"-uuser:{P}")),
        (("curl", "https://x/login", "-u", "a:b"), ("curl", "https://x/login", "-u", f"a:{P}")),
        (("curl", "--user=user:a secret"), ("curl", f"--user=user:{P}")),
        (("rsync", "-u", "a:b"), ("rsync", "-u", "a:b")),
        (("aws", "aws_secret_access_key", "a" * 40), ("aws", "aws_secret_access_key", "<redacted:aws-secret>")),
        (("grep", "aws_secret_access_key", "/home/u/credentials"),) * 2,
        (
            ("/bin/sh", "-c", "curl -u admin:hunter2 x; mysql -phunter2; sshpass -p hunter2 ssh y"),
            (
                "/bin/sh",
                "-c",
                f"curl -u admin:{P} x; mysql -p{P}; sshpass -p {P} ssh y",
            ),
        ),
        (("x", "--password", "secret"), ("x", "--password", "<redacted:secret>")),
        (("x", "--password", "--verbose"), ("x", "--password", "--verbose")),
        ((), ()),
    ],
)
def test_neighbouring_arguments(argv: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """A secret that only the argument before it gives away."""
    assert redact_arguments(argv) == expected
    assert redact_arguments(expected) == expected


@given(st.lists(st.sampled_from([*(s for s, _ in SECRETS), *ORDINARY, " ", "'", '"', "=", ":", "token"]), max_size=5))
def test_twice_is_once(parts: list[str]) -> None:
    """What was redacted stays as it is."""
    once = redact_text("".join(parts))
    assert redact_text(once) == once


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "a",
            "a/1A",
            "password",
            "token=",
            "://",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY-----",
            "eyJ",
            "-p ",
            "& ?key=",
        ),
        *("curl ", "curl -u ", "curl -uuuuuuuuuuuu", 'curl -u "a:', "--user ", "--user=", "--user=a:", "https://a"),
        *("mysql ", "mysql -p", 'mysql -p "', "mysql '\" ;", "login \\\\x0a", "sshpass -v ", "sshpass -P sshpass -P "),
        *("sshpass -p ", "secret_access_key ", "session_token AAAAAAAAAAAAAAAAAA.", "\\x0a", "\\"),
    ],
)
def test_hostile_text_is_linear(piece: str) -> None:
    """A megabyte made to be slow is done within seconds: no pattern goes quadratic."""
    begin = time.monotonic()
    redact_text(piece * (1_000_000 // len(piece)))
    assert time.monotonic() - begin < 10
