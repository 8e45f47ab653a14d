"""Compiled programs that go to the kernel in ways of their own: vfork, clone, raw calls, static and musl builds."""

import platform

from guard.programs.case import Case, c

_ALL_WAYS = r"""
static void *work(void *unused) {
    struct sockaddr_in to = local(1);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    show("connect", connect(s, (void *)&to, sizeof to));
    close(s);
    return unused;
}
int main(int argc, char **argv) {
    if (argc > 1) { puts(argv[1]); return 5; }
    work(0);
#ifdef THREADS
    for (int i = 0; i < 20; i++) { pthread_t t; pthread_create(&t, 0, work, 0); pthread_join(t, 0); }
#endif
    char *again[] = { argv[0], "again", 0 };
    pid_t child = vfork();
    if (!child) { execv(argv[0], again); _exit(1); }
    show("vfork", code(child));
    child = fork();
    if (!child) { execv(argv[0], again); _exit(1); }
    show("fork", code(child));
    int started = posix_spawn(&child, argv[0], 0, 0, again, environ), ended = code(child);
    show("posix_spawn", started);
    show("code", ended);
    show("system", WEXITSTATUS(system("exit 3")));
    FILE *f = popen("echo piped", "r"); char line[20] = ""; fgets(line, 20, f);
    show(line, WEXITSTATUS(pclose(f)));
    return 0;
}
"""
_MUSL = _ALL_WAYS.replace("strerrorname_np", "strerror")


def musl(name: str, *flags: str) -> Case:
    """Return the program built with musl, which has no strerrorname_np."""
    case = c(name, _MUSL, *flags, compiler="musl-gcc")
    assert case.source
    text = case.source[1].replace("strerrorname_np", "strerror").replace("#include <linux/", "//#include <linux/")
    return Case(name=name, command=case.command, needs=case.needs, source=("program.c", text), build=case.build)


_BARE = (
    c(
        "program without a library",
        r"""
        static long sys(long n, long a, long b, long c) {
            long r;
            __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
            return r;
        }
        __attribute__((force_align_arg_pointer)) void _start(void) {
            static char *args[] = { "/bin/echo", "from nowhere", 0 };
            sys(1, 1, (long)"bare\n", 5);
            if (sys(57, 0, 0, 0) == 0) { sys(59, (long)args[0], (long)args, 0); sys(60, 1, 0, 0); }
            sys(61, -1, 0, 0);
            sys(60, 11, 0, 0);
        }
        """,
        "-static",
        "-nostdlib",
        "-fno-stack-protector",
    ),
)
CASES = (
    c("dynamic program", _ALL_WAYS),
    c("static program", _ALL_WAYS, "-static"),
    c("static program at any address", _ALL_WAYS, "-static-pie"),
    c("program at a fixed address", _ALL_WAYS, "-no-pie"),
    c("program with threads", _ALL_WAYS, "-pthread", "-DTHREADS"),
    c("static program with threads", _ALL_WAYS, "-static", "-pthread", "-DTHREADS"),
    musl("musl program", "-static"),
    musl("musl program with threads", "-static", "-DTHREADS"),
    musl("dynamic musl program"),
    *(_BARE if platform.machine() == "x86_64" else ()),
    c(
        "empty list of arguments",
        r"""
        int main(int argc, char **argv) {
            if (argc < 2) { printf("%d <%s>\n", argc, argv[0]); return 0; }
            char *none[] = { 0 };
            execve("/proc/self/exe", none, none);
            perror("execve");
        }
        """,
        arguments=("first",),
    ),
    c(
        "execve with bad pointers",
        r"""
        int main(void) {
            char *args[] = { "true", 0 }, *bad[] = { "true", (char *)8, 0 };
            show("path", execve((char *)8, args, args + 1));
            show("arguments", execve("/bin/true", (char **)8, args + 1));
            show("one argument", execve("/bin/true", bad, args + 1));
            show("environment", execve("/bin/true", args, bad));
            show("empty path", execve("", args, args + 1));
            char longer[5000]; memset(longer, 'a', 4999); longer[4999] = 0;
            show("long path", execve(longer, args, args + 1));
            show("no arguments at all", execve("/bin/true", 0, 0));
        }
        """,
    ),
    c(
        "execveat",
        r"""
        int main(void) {
            char *args[] = { "sh", "-c", "exit 9", 0 }, *none[] = { 0 };
            int folder = open("/bin", O_PATH | O_DIRECTORY), file = open("/bin/sh", O_PATH | O_CLOEXEC);
            pid_t p = fork();
            if (!p) { syscall(SYS_execveat, folder, "sh", args, none, 0); _exit(1); }
            show("in a folder", code(p));
            p = fork();
            if (!p) { syscall(SYS_execveat, file, "", args, none, AT_EMPTY_PATH); _exit(1); }
            show("of a descriptor", code(p));
            show("no flag", syscall(SYS_execveat, file, "", args, none, 0));
            show("bad flag", syscall(SYS_execveat, file, "", args, none, 0x8000));
            show("no such", syscall(SYS_execveat, folder, "no-such", args, none, 0));
            show("link", syscall(SYS_execveat, AT_FDCWD, "/proc/self/exe", args, none, AT_SYMLINK_NOFOLLOW));
            show("bad descriptor", syscall(SYS_execveat, 77, "sh", args, none, 0));
        }
        """,
    ),
    c(
        "script by descriptor",
        r"""
        int main(void) {
            int f = open("s", O_RDWR | O_CREAT, 0700);
            write(f, "#!/bin/sh\necho script; exit 4\n", 30); close(f);
            char *args[] = { "s", 0 }, *none[] = { 0 };
            pid_t p = fork();
            if (!p) { fexecve(open("s", O_RDONLY), args, none); _exit(1); }
            show("kept", code(p));
            f = open("s", O_RDONLY | O_CLOEXEC);
            show("closed", fexecve(f, args, none));
        }
        """,
    ),
    c(
        "exec by a thread that is not the first",
        r"""
        static void *work(void *path) { execl(path, "sh", "-c", "[ $$ = $WAS ] && echo same; exit 6", (char *)0); perror("exec"); return 0; }
        int main(void) {
            pthread_t t[9]; char was[20]; sprintf(was, "%d", getpid()); setenv("WAS", was, 1);
            pthread_create(&t[0], 0, work, "/no/such"); pthread_join(t[0], 0);
            pthread_create(&t[1], 0, work, "/bin/sh");
            for (;;) pause();
        }
        """,
        "-pthread",
    ),
    c(
        "two threads that exec at once",
        r"""
        static pthread_barrier_t both;
        static void *work(void *unused) { pthread_barrier_wait(&both); execl("/bin/sh", "sh", "-c", "exit 6", (char *)0); return unused; }
        int main(void) {
            int n = 0;
            for (int i = 0; i < 30; i++) {
                pid_t p = fork();
                if (!p) { pthread_t t; pthread_barrier_init(&both, 0, 3); pthread_create(&t, 0, work, 0); pthread_create(&t, 0, work, 0); work(0); }
                n += code(p) == 6;
            }
            show("right", n);
        }
        """,
        "-pthread",
    ),
    c(
        "threads and forks together",
        r"""
        static void *work(void *count) {
            for (int i = 0; i < 25; i++) {
                pid_t p;
                char *args[] = { "sh", "-c", "exit 3", 0 };
                if (posix_spawn(&p, "/bin/sh", 0, 0, args, environ) == 0 && code(p) == 3) __atomic_fetch_add((int *)count, 1, __ATOMIC_SEQ_CST);
                struct sockaddr_in to = local(1); int s = socket(AF_INET, SOCK_STREAM, 0);
                if (connect(s, (void *)&to, sizeof to) < 0 && errno == ECONNREFUSED) __atomic_fetch_add((int *)count, 1, __ATOMIC_SEQ_CST);
                close(s);
            }
            return 0;
        }
        int main(void) {
            int count = 0; pthread_t t[8];
            for (int i = 0; i < 8; i++) pthread_create(&t[i], 0, work, &count);
            for (int i = 0; i < 8; i++) pthread_join(t[i], 0);
            show("right", count);
        }
        """,
        "-pthread",
    ),
    c(
        "vfork whose child ends at once",
        r"""
        int main(void) {
            int n = 0;
            for (int i = 0; i < 200; i++) { pid_t p = vfork(); if (!p) _exit(i % 100); n += code(p) == i % 100; }
            show("right", n);
            for (int i = 0; i < 50; i++) { pid_t p = vfork(); if (!p) { execl("/no/such", "x", (char *)0); _exit(44); } n += code(p) == 44; }
            show("right", n);
        }
        """,
    ),
    c(
        "clone with shared memory and descriptors",
        r"""
        static int value;
        static int work(void *unused) { value = 7; close(9); return 3; }
        int main(void) {
            char *stack = malloc(65536); dup2(1, 9);
            show("code", code(clone(work, stack + 65536, CLONE_VM | CLONE_FILES | SIGCHLD, 0)));
            show("value", value);
            show("closed", fcntl(9, F_GETFD));
            show("too many", clone(work, stack + 65536, CLONE_THREAD, 0));
        }
        """,
    ),
    c(
        "child of a child, taken over",
        r"""
        int main(void) {
            prctl(PR_SET_CHILD_SUBREAPER, 1);
            pid_t p = fork();
            if (!p) { if (!fork()) { usleep(100000); execl("/bin/sh", "sh", "-c", "exit 8", (char *)0); } _exit(0); }
            show("child", code(p));
            int status; wait(&status);
            show("grandchild", WEXITSTATUS(status));
            show("no more", wait(0));
        }
        """,
    ),
    c(
        "not dumpable",
        r"""
        int main(void) {
            show("is", prctl(PR_GET_DUMPABLE));
            show("set", prctl(PR_SET_DUMPABLE, 0));
            show("is", prctl(PR_GET_DUMPABLE));
            show("wrong", prctl(PR_SET_DUMPABLE, 5));
            struct sockaddr_in to = local(1);
            show("connect", connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&to, sizeof to));
            show("own memory", open("/proc/self/mem", O_RDONLY) < 0 ? -1 : 0);
            show("system", WEXITSTATUS(system("exit 4")));
            pid_t p = fork();
            if (!p) execl("/bin/sh", "sh", "-c", "exit 5", (char *)0);
            show("child", code(p));
        }
        """,
    ),
    c(
        "other settings of a process",
        r"""
        int main(void) {
            char name[16];
            show("name", prctl(PR_SET_NAME, "renamed")); prctl(PR_GET_NAME, name); puts(name);
            show("slack", prctl(PR_SET_TIMERSLACK, 1000)); show("slack", prctl(PR_GET_TIMERSLACK));
            show("keep", prctl(PR_SET_KEEPCAPS, 0));
            show("death", prctl(PR_SET_PDEATHSIG, SIGTERM));
            show("tracer", prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY));
            show("unknown", prctl(9999, 0));
            show("user", setuid(getuid())); show("group", setgid(getgid()));
            show("other user", getuid() ? setuid(getuid() + 1) : -1);
        }
        """,
    ),
    c(
        "filter of its own",
        r"""
        int main(void) {
            struct sock_filter f[] = {
                { BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr) },
                { BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_getppid },
                { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | ENOTNAM },
                { BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_connect },
                { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EUCLEAN },
                { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW },
            };
            struct sock_fprog p = { 6, f };
            struct sockaddr_in to = local(1);
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            show("install", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p));
            show("getppid", syscall(SYS_getppid));
            show("connect", connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&to, sizeof to));
            show("system", WEXITSTATUS(system("exit 4")));
            f[2].k = f[4].k = SECCOMP_RET_KILL_PROCESS;
            pid_t child = fork();
            if (!child) { syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p); connect(0, 0, 0); _exit(1); }
            show("killed", code(child));
            child = fork();
            if (!child) { prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); syscall(SYS_getpid); _exit(1); }
            show("strict", code(child));
        }
        """,
    ),
    c(
        "namespaces",
        r"""
        int main(void) {
            pid_t p = fork();
            if (!p) _exit(unshare(CLONE_NEWUSER) ? errno : 0);
            show("user", code(p));
            p = fork();
            if (!p) _exit(unshare(CLONE_NEWNS) ? errno : 0);
            show("mounts", code(p));
            show("files", unshare(CLONE_FILES | CLONE_FS));
            show("wrong", unshare(0x1));
            show("own", setns(open("/proc/self/ns/uts", O_RDONLY), CLONE_NEWUTS));
            show("no descriptor", setns(-1, 0));
            show("mount", syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, 0));
            show("unmount", syscall(SYS_umount2, "/no/such", 0));
            show("root", chroot("/"));
        }
        """,
    ),
    c(
        "times and timers",
        r"""
        static volatile int n;
        static void on(int s) { n++; }
        int main(void) {
            timer_t t; struct sigaction a = { .sa_handler = on, .sa_flags = SA_RESTART }; sigaction(SIGRTMIN, &a, 0);
            struct sigevent e = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN };
            struct itimerspec i = { { 0, 2000000 }, { 0, 2000000 } };
            timer_create(CLOCK_MONOTONIC, &e, &t); timer_settime(t, 0, &i, 0);
            int right = 0;
            for (int k = 0; k < 100; k++) right += WEXITSTATUS(system("exit 3")) == 3;
            timer_delete(t);
            show("right", right); show("came", n > 0);
        }
        """,
        "-lrt",
    ),
    c(
        "many signals in a queue",
        r"""
        static volatile int n;
        static void on(int s, siginfo_t *i, void *u) { n += i->si_value.sival_int; }
        int main(void) {
            struct sigaction a = { .sa_sigaction = on, .sa_flags = SA_SIGINFO }; sigaction(SIGRTMIN + 1, &a, 0);
            sigset_t s; sigemptyset(&s); sigaddset(&s, SIGRTMIN + 1); sigprocmask(SIG_BLOCK, &s, 0);
            for (int k = 0; k < 100; k++) sigqueue(getpid(), SIGRTMIN + 1, (union sigval){ .sival_int = k });
            sigprocmask(SIG_UNBLOCK, &s, 0);
            show("sum", n);
            show("thread", syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), 0));
            show("other thread", syscall(SYS_tgkill, getpid(), 1, SIGTERM));
            show("tkill", syscall(SYS_tkill, syscall(SYS_gettid), SIGCONT));
            show("group", kill(0, SIGCONT)); show("nobody", kill(4194000, SIGTERM));
        }
        """,
    ),
    c(
        "restart after a handler",
        r"""
        static void on(int s) {}
        int main(void) {
            struct sigaction a = { .sa_handler = on, .sa_flags = SA_RESTART }; sigaction(SIGALRM, &a, 0);
            int pipes[2]; char b; pipe(pipes);
            if (!fork()) { usleep(400000); write(pipes[1], "x", 1); _exit(0); }
            alarm(0); ualarm(100000, 0);
            show("read", read(pipes[0], &b, 1));
            wait(0);
            a.sa_flags = 0; sigaction(SIGALRM, &a, 0); ualarm(100000, 0);
            show("interrupted", read(pipes[0], &b, 1));
        }
        """,
    ),
    c(
        "constructors and exit handlers",
        r"""
        __attribute__((constructor)) static void first(void) { puts("first"); }
        __attribute__((destructor)) static void last(void) { puts("last"); }
        int main(void) { atexit((void (*)(void))fflush); puts("main"); return 2; }
        """,
    ),
)
