/* Makes each call that the guard traps once, and prints what came of it; the same guarded and not, but for the last. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *what, long result) {
    printf("%s %ld %s\n", what, result, result < 0 ? strerror(errno) : "");
    errno = 0;
}

int main(int argc, char **argv) {
    char buffer[8] = "x";
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9) };
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    for (int turn = 0; turn < 3; turn++)
        say("sendto", sendto(udp, buffer, 1, 0, (void *)&to, sizeof to));
    int tcp = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_port = htons(3);
    say("fast open", sendto(tcp, buffer, 1, MSG_FASTOPEN, (void *)&to, sizeof to));
    struct iovec part = { buffer, 1 };
    struct msghdr message = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1 };
    to.sin_port = htons(4);
    say("fast open by message", sendmsg(socket(AF_INET, SOCK_STREAM, 0), &message, MSG_FASTOPEN));
    say("listen", listen(socket(AF_INET, SOCK_STREAM, 0), 1));
    say("memfd", memfd_create("some-name", 0) > 0);
    pid_t child = fork();
    if (child == 0) { pause(); _exit(0); }
    say("seize", ptrace(PTRACE_SEIZE, child, 0, 0));
    struct iovec here = { buffer, 8 }, there = { &to, 8 };
    say("read memory", process_vm_readv(child, &here, 1, &there, 1, 0));
    say("write memory", process_vm_writev(child, &here, 1, &there, 1, 0));
    int descriptor = syscall(434, child, 0);
    say("take descriptor", syscall(438, descriptor, 1, 0) > 0);
    kill(child, 9);
    waitpid(child, 0, 0);
    say("limits of another", prlimit(1, RLIMIT_NOFILE, 0, (struct rlimit *)malloc(64)));
    say("set namespace", setns(open("/proc/self/ns/uts", O_RDONLY), 0));
    say("mount", mount("source", "/mnt", "tmpfs", 0, 0));
    say("unshare", unshare(CLONE_FILES));
    struct addrinfo *found = 0;
    getaddrinfo("host.nbsentinel.test", "80", 0, &found);
    say("hide", prctl(PR_SET_DUMPABLE, 0));
    if (argc > 1) {
        printf("refused:\n");
        say("io_uring", syscall(425, 1, 0));
#ifdef __x86_64__
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
        printf("int 0x80 %ld\n", result);
#endif
        say("everybody's priority", setpriority(PRIO_USER, 0, 5));
    }
    fflush(stdout);
    return 7;
}
