"""Debuggers and tracers on one's own children."""

from guard.programs.case import Case, c, py, sh

PID = (
    (r"process \d+", "process PID"),
    (r"\bpid \d+", "pid PID"),
    (r"0x[0-9a-f]{6,}", "ADDRESS"),
    (r"(Thread|LWP) \d+", r"\1 TID"),
)
_TARGET = """\
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int twice(int x) { return 2 * x; }
int main(int argc, char **argv) {
    int y = twice(21);
    if (argc > 1) { pid_t p = fork(); if (!p) _exit(twice(4)); int s; waitpid(p, &s, 0); y = WEXITSTATUS(s); }
    printf("%d\\n", y);
    return 3;
}
"""


def gdb(name: str, *commands: str, arguments: tuple[str, ...] = ()) -> Case:
    """Return a case of gdb on a small program of ours."""
    options = [word for command in commands for word in ("-ex", command)]
    command = ("gdb", "-q", "-nx", "-batch", "-iex", "set debuginfod enabled off", *options, "--args", "../made/target")
    return Case(
        name=name,
        command=(*command, *arguments),
        needs=("gdb", "cc"),
        source=("target.c", _TARGET),
        build=("cc", "-g", "-O0", "-o", "target", "target.c"),
        varies=PID,
    )


CASES = (
    sh("gdb", "gdb -q -nx -batch -ex run -ex 'info inferiors' /bin/true 2>&1 | grep -c exited", "gdb"),
    gdb("gdb at a breakpoint", "break twice", "run", "backtrace", "print x", "finish", "continue"),
    gdb("gdb with steps", "break main", "run", "next", "next", "info locals", "kill"),
    gdb("gdb that changes a value", "break twice", "run", "set var x = 5", "continue"),
    gdb(
        "gdb that follows a child",
        "set follow-fork-mode child",
        "set detach-on-fork on",
        "break twice if x == 4",
        "run fork > /dev/null",
        "backtrace",
        "continue",
        arguments=("fork",),
    ),
    gdb("gdb that watches forks", "catch fork", "run fork > /dev/null", "continue", "continue", arguments=("fork",)),
    gdb("gdb that watches system calls", "catch syscall exit_group", "run", "continue", "continue"),
    sh(
        "gdb on a running child",
        "sleep 50 & p=$!; until [ \"$(cat /proc/$p/comm)\" = sleep ]; do :; done; gdb -q -nx -batch -p $p -ex 'info inferiors' 2>/dev/null | grep -c 'process '; kill $p; wait $p; echo $?",
        "gdb",
    ),
    sh(
        "gdb through an exec",
        "gdb -q -nx -batch -ex 'catch exec' -ex run -ex continue --args sh -c 'exec true' 2>&1 | grep -c exec",
        "gdb",
    ),
    sh("strace", "strace -f -o /dev/null sh -c 'true; exit 6'; echo $?", "strace"),
    sh(
        "strace of connections",
        "strace -f -e trace=connect -o t bash -c ': < /dev/tcp/127.0.0.1/1' 2>/dev/null; sed 's/^[0-9]* *//; s/connect([0-9]*/connect(N/' t",
        "strace",
    ),
    sh(
        "strace of executions",
        "strace -f -e trace=execve -e signal=none -o t sh -c '/bin/true; /bin/false; /no/such' 2>/dev/null; sed 's/^[0-9]* *//; s/0x[0-9a-f]*/ADDRESS/; s,/\\* .*\\*/,,' t",
        "strace",
    ),
    sh(
        "strace of a signal",
        "strace -f -e trace=none -o t sh -c 'kill -TERM $$'; echo $?; grep -o 'SIGTERM {si_signo=SIGTERM' t; grep -c 'killed by SIGTERM' t",
        "strace",
    ),
    sh(
        "strace of a running child",
        "bash -c 'until grep -q TracerPid:.[1-9] /proc/$$/status; do sleep 0.05; done; exit 5' & p=$!; strace -q -e trace=none -o t -p $p; wait $p; echo $?; grep -c 'exited with 5' t",
        "strace",
    ),
    sh(
        "strace of a fault",
        "strace -e inject=connect:error=ENETDOWN -e trace=connect -o /dev/null python3 -I -S -c 'import socket; print(socket.socket().connect_ex((\"127.0.0.1\", 1)))'",
        "strace",
        "python3",
    ),
    sh("strace in strace", "strace -o /dev/null strace -f -o t true; echo $?", "strace"),
    c(
        "ptrace of a child",
        r"""
        int main(void) {
            int status, stops = 0;
            pid_t child = fork();
            if (!child) { ptrace(PTRACE_TRACEME, 0, 0, 0); raise(SIGSTOP); execl("/bin/sh", "sh", "-c", "exit 7", (char *)0); }
            waitpid(child, &status, 0);
            show("stopped", WSTOPSIG(status));
            ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
            ptrace(PTRACE_CONT, child, 0, 0);
            while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
                stops += status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8);
                ptrace(PTRACE_CONT, child, 0, 0);
            }
            show("execs", stops);
            show("code", WEXITSTATUS(status));
        }
        """,
    ),
    c(
        "ptrace of every system call",
        r"""
        int main(void) {
            int status; long calls = 0;
            pid_t child = fork();
            if (!child) {
                ptrace(PTRACE_TRACEME, 0, 0, 0); raise(SIGSTOP);
                struct sockaddr_in to = local(1);
                connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&to, sizeof to);
                kill(getpid(), 0); getppid();
                _exit(4);
            }
            waitpid(child, &status, 0);
            ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD);
            do { ptrace(PTRACE_SYSCALL, child, 0, 0); waitpid(child, &status, 0); calls++; } while (WIFSTOPPED(status));
            show("stops", calls);
            show("code", WEXITSTATUS(status));
        }
        """,
    ),
    c(
        "attach and read",
        r"""
        static volatile long value = 1234;
        int main(void) {
            pid_t child = fork(); int status; long got = 0;
            if (!child) { value = 99; for (;;) pause(); }
            while (got != 99) {
                struct iovec mine = { &got, sizeof got }, theirs = { (void *)&value, sizeof value };
                if (process_vm_readv(child, &mine, 1, &theirs, 1, 0) < 0) break;
            }
            show("read", got);
            got = 77;
            struct iovec mine = { &got, sizeof got }, theirs = { (void *)&value, sizeof value };
            show("written", process_vm_writev(child, &mine, 1, &theirs, 1, 0));
            show("attach", ptrace(PTRACE_ATTACH, child, 0, 0));
            waitpid(child, &status, 0);
            show("peek", ptrace(PTRACE_PEEKDATA, child, &value, 0));
            show("detach", ptrace(PTRACE_DETACH, child, 0, 0));
            show("seize", ptrace(PTRACE_SEIZE, child, 0, 0));
            kill(child, SIGKILL);
            show("code", code(child));
            show("nobody", ptrace(PTRACE_ATTACH, 4194000, 0, 0));
            show("read of nobody", process_vm_readv(4194000, &mine, 1, &theirs, 1, 0));
        }
        """,
    ),
    c(
        "descriptor out of a child",
        r"""
        int main(void) {
            int pipes[2]; char c = 0;
            pipe(pipes);
            pid_t child = fork();
            if (!child) { int f = open("f", O_RDWR | O_CREAT, 0600); dup2(f, 40); write(40, "x", 1); write(pipes[1], "r", 1); for (;;) pause(); }
            read(pipes[0], &c, 1);
            int p = syscall(SYS_pidfd_open, child, 0);
            int got = syscall(SYS_pidfd_getfd, p, 40, 0);
            show("got", got < 0 ? -1 : 0);
            show("read", pread(got, &c, 1, 0)); printf("%c\n", c);
            show("none", syscall(SYS_pidfd_getfd, p, 99, 0));
            kill(child, SIGKILL); show("code", code(child));
        }
        """,
    ),
    py(
        "traceback of a running child",
        "import faulthandler, signal, subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import faulthandler, signal, sys; faulthandler.register(signal.SIGUSR1, sys.stdout); print(1, flush=True); input()'], stdin=-1, stdout=-1); p.stdout.read(2); p.send_signal(signal.SIGUSR1); print(p.stdout.readline()[:12]); p.communicate(b'x\\n')",
        varies=PID,
    ),
    py(
        "pdb",
        "import subprocess, sys; open('p.py', 'w').write('x = 1\\ny = x + 1\\n'); print(subprocess.run([sys.executable, '-m', 'pdb', 'p.py'], input=b'n\\np x\\nq\\n', stdout=-1).stdout.decode())",
    ),
)
