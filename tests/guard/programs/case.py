"""A program whose behaviour must not change under the guard, and short ways to write one down."""

from __future__ import annotations

import inspect
import sys

import msgspec

JOB = (r"(line \d+:) +\d+ ", r"\1 PID ")
"""bash names the pid of a job that a signal has ended."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A program, what it needs, and the little in its output that differs from run to run by its nature.

    It runs in a fresh, empty folder. Its output must not depend on time.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Programs without which it is skipped."""
    source: tuple[str, str] | None = None
    """Name and text of a file in the folder `../made`."""
    build: tuple[str, ...] = ()
    """Run once, unguarded, in the folder `../made`."""
    before: tuple[str, ...] = ()
    """Comes before the guard: sets what the program inherits and executes the rest of its arguments."""
    varies: tuple[tuple[str, str], ...] = ()
    """Patterns and what takes the place of what they match, in output and errors."""
    seconds: float = 120.0
    """A generous limit of its run time."""


def sh(name: str, script: str, *needs: str, varies: tuple[tuple[str, str], ...] = ()) -> Case:
    """Return a case of bash."""
    return Case(name=name, command=("bash", "-c", inspect.cleandoc(script)), needs=needs, varies=varies)


def py(name: str, script: str, *needs: str, varies: tuple[tuple[str, str], ...] = ()) -> Case:
    """Return a case of Python."""
    return Case(name=name, command=(sys.executable, "-c", inspect.cleandoc(script)), needs=needs, varies=varies)


def c(
    name: str,
    text: str,
    *flags: str,
    arguments: tuple[str, ...] = (),
    compiler: str = "cc",
    needs: tuple[str, ...] = (),
) -> Case:
    """Return a case of a compiled C program."""
    return Case(
        name=name,
        command=("../made/program", *arguments),
        needs=(compiler, *needs),
        source=("program.c", _C_HEAD + inspect.cleandoc(text) + "\n"),
        build=(compiler, "-w", "-O1", "-o", "program", "program.c", *flags),
    )


def inherits(name: str, before: str, script: str, *needs: str) -> Case:
    """Return a case whose surroundings are set by a Python program; `go()` in it becomes the guarded program."""
    head = (
        "import os, signal, sys\n"
        "def go(): os.execvp(sys.argv[1], sys.argv[1:])\n"
        # Python itself ignores these two, which nobody else does.
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL); signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
    )
    command = (sys.executable, "-I", "-S", "-c", head + inspect.cleandoc(before) + "\ngo()")
    return Case(name=name, command=("/bin/bash", "-c", inspect.cleandoc(script)), before=command, needs=needs)


_C_HEAD = """\
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
extern char **environ;
static void show(const char *what, long result) {
    printf("%s: %ld %s\\n", what, result, result < 0 ? strerrorname_np(errno) : "");
    fflush(stdout);
}
static struct sockaddr_in local(int port) {
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}
static int code(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}
"""
