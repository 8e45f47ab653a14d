"""Reads of credentials by programs that have no business with them: languages, system calls and detours."""

from __future__ import annotations

from attacks.cases.acts.base import Act
from live.programs import Language

_RULE, _TECHNIQUE = "credential_read_by_foreign_program", "T1552"
_C = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char data[512];

static void show(int file) {
    long size = read(file, data, sizeof data);
    if (size > 0) write(1, data, size);
}
"""


def _c(name: str, body: str, secret: str = "aws", flags: tuple[str, ...] = ()) -> Act:
    return Act(name, _RULE, _TECHNIQUE, Language.C, f"{_C}\nint main(void) {{\n{body}\n}}", secret=secret, flags=flags)


def _read(name: str, language: Language, text: str, secret: str = "aws", *programs: str) -> Act:
    return Act(name, _RULE, _TECHNIQUE, language, text, secret=secret, programs=programs)


LANGUAGES = (
    _read("read-cat", Language.BASH, 'cat "$SECRET"', "ssh"),
    _read(
        "read-bash-builtin", Language.BASH, 'while IFS= read -r line || [ "$line" ]; do echo "$line"; done < "$SECRET"'
    ),
    _read("read-bash-descriptor", Language.BASH, 'exec 9< "$SECRET"; cat /dev/fd/9', "snowflake"),
    _read("read-zsh-mapped", Language.ZSH, 'zmodload zsh/mapfile; print -r -- "${mapfile[$SECRET]}"', "ssh"),
    _read("read-cut", Language.BASH, 'cut -c 1- "$SECRET"', "google"),
    _read("read-copy", Language.BASH, 'cp "$SECRET" copy && rev copy | rev', "sso", "rev"),
    _read("read-odd-name", Language.BASH, 'cp /bin/cat ./train && ./train "$SECRET"', "ssh"),
    _read("read-perl", Language.PERL, "open my $f, '<', $ENV{SECRET} or die; print <$f>;", "google"),
    _read(
        "read-perl-sysopen", Language.PERL, "sysopen my $f, $ENV{SECRET}, 0; sysread $f, my $d, 99; print $d;", "ssh"
    ),
    _read("read-ruby", Language.RUBY, "puts IO.binread(ENV['SECRET'])", "snowflake"),
    _read("read-php", Language.PHP, "<?php readfile(getenv('SECRET'));", "sso"),
    _read("read-lua", Language.LUA, "print(io.open(os.getenv('SECRET')):read('a'))", "ssh"),
    _read("read-tcl", Language.TCL, "puts [read [open $env(SECRET)]]"),
    _read("read-node", Language.NODE, "console.log(require('fs').readFileSync(process.env.SECRET, 'latin1'))", "ssh"),
    _read(
        "read-node-stream",
        Language.NODE,
        "require('fs').createReadStream(process.env.SECRET).pipe(process.stdout)",
        "google",
    ),
    _read("read-gawk", Language.GAWK, 'BEGIN { while ((getline line < ENVIRON["SECRET"]) > 0) print line }', "sso"),
    _read(
        "read-java",
        Language.JAVA,
        """
import java.nio.file.*;
class Main {
    public static void main(String[] none) throws Exception {
        System.out.println(Files.readString(Path.of(System.getenv("SECRET"))));
    }
}
""",
    ),
    _read("read-sqlite", Language.BASH, "sqlite3 :memory: \"select readfile('$SECRET')\"", "snowflake", "sqlite3"),
    _read("read-openssl", Language.BASH, 'openssl enc -base64 -A -in "$SECRET" | base64 -d', "aws", "openssl"),
    _read("read-curl-file", Language.BASH, 'curl -s "file://$SECRET"', "ssh", "curl"),
    _read("read-git-difference", Language.BASH, 'git diff --no-index /dev/null "$SECRET" || true', "aws", "git"),
    _read("read-sort-by-xargs", Language.BASH, 'printf %s "$SECRET" | xargs sort', "ssh", "xargs"),
)
CALLS = (
    _c(
        "read-openat2",
        """
    struct { unsigned long long flags, mode, resolve; } how = {O_RDONLY, 0, 0};
    show(syscall(437, AT_FDCWD, getenv("SECRET"), &how, sizeof how));
""",
    ),
    _c(
        "read-mapped-static",
        """
    int file = open(getenv("SECRET"), O_RDONLY);
    struct stat about;
    fstat(file, &about);
    char *text = mmap(0, about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    fwrite(text, 1, about.st_size, stdout);
""",
        "google",
        ("-static",),
    ),
    _c("read-sendfile", '    sendfile(1, open(getenv("SECRET"), O_RDONLY), 0, 4096);', "ssh"),
    _c(
        "read-copied-in-kernel",
        """
    int copy = open("copy", O_RDWR | O_CREAT, 0600);
    copy_file_range(open(getenv("SECRET"), O_RDONLY), 0, copy, 0, 4096, 0);
    lseek(copy, 0, SEEK_SET);
    show(copy);
""",
        "snowflake",
    ),
    _c(
        "read-hard-link",
        """
    if (link(getenv("SECRET"), "notes.txt")) return 1;
    show(open("notes.txt", O_RDONLY));
""",
        "ssh",
    ),
    _c("read-symbolic-link", '    symlink(getenv("SECRET"), "data.csv");\n    show(open("data.csv", O_RDONLY));'),
    _c(
        "read-renamed",
        """
    char *secret = getenv("SECRET");
    if (rename(secret, "aside")) return 1;
    show(open("aside", O_RDONLY));
    rename("aside", secret);
""",
        "ssh",
    ),
    _c(
        "read-by-folder",
        """
    char *secret = getenv("SECRET"), *name = strrchr(secret, '/') + 1;
    name[-1] = 0;
    int folder = open(secret, O_PATH | O_DIRECTORY);
    show(openat(folder, name, O_RDONLY));
""",
        "snowflake",
    ),
    _c(
        "read-by-path-descriptor",
        """
    char again[64];
    snprintf(again, sizeof again, "/proc/self/fd/%d", open(getenv("SECRET"), O_PATH));
    show(open(again, O_RDONLY));
""",
        "sso",
    ),
    _c(
        "read-by-passed-descriptor",
        """
    int pair[2], one = 0;
    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    char room[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    if (!fork()) {
        one = open(getenv("SECRET"), O_RDONLY);
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof one);
        memcpy(CMSG_DATA(head), &one, sizeof one);
        sendmsg(pair[1], &message, 0);
        usleep(50000);
        _exit(0);
    }
    wait(0);
    recvmsg(pair[0], &message, 0);
    memcpy(&one, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof one);
    show(one);
""",
        "ssh",
    ),
    _c(
        "read-by-taken-descriptor",
        """
    int child = fork();
    if (!child) {
        dup2(open(getenv("SECRET"), O_RDONLY), 50);
        pause();
    }
    int handle = syscall(434, child, 0), taken = -1;
    for (int tries = 0; tries < 3000 && (taken = syscall(438, handle, 50, 0)) < 0; tries++) usleep(1000);
    show(taken);
    kill(child, SIGKILL);
""",
    ),
    _c(
        "read-in-child-memory",
        """
    int child = fork();
    if (!child) {
        read(open(getenv("SECRET"), O_RDONLY), data, sizeof data);
        pause();
    }
    char seen[512] = {0};
    struct iovec here = {seen, sizeof seen}, there = {data, sizeof data};
    for (int tries = 0; tries < 3000 && !seen[0]; tries++) {
        usleep(1000);
        syscall(SYS_process_vm_readv, child, &here, 1, &there, 1, 0);
    }
    puts(seen);
    kill(child, SIGKILL);
""",
        "google",
    ),
    _c(
        "read-by-daemon",
        """
    if (fork()) return wait(0) < 0;
    setsid();
    if (fork()) _exit(0);
    show(open(getenv("SECRET"), O_RDONLY));
    usleep(100000);
""",
        "ssh",
    ),
)
CODE = (
    Act(
        "read-python-github",
        "credential_read_by_code",
        "T1552",
        Language.PYTHON,
        "import os; print(open(os.environ['SECRET']).read())",
        secret=".config/gh/hosts.yml",
        in_cell=True,
    ),
    Act(
        "read-python-descriptor",
        "credential_read_by_code",
        "T1552",
        Language.PYTHON,
        "import os; print(os.read(os.open(os.environ['SECRET'], os.O_RDONLY), 200).decode())",
        secret=".config/rclone/rclone.conf",
        in_cell=True,
    ),
    Act(
        "read-python-mapped",
        "credential_read_by_code",
        "T1552",
        Language.PYTHON,
        """
import mmap, os
with open(os.environ["SECRET"], "rb") as file:
    print(bytes(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)).decode())
""",
        secret=".git-credentials",
        in_cell=True,
    ),
    Act(
        "read-python-libc",
        "credential_read_by_code",
        "T1552",
        Language.PYTHON,
        """
import ctypes, os
libc = ctypes.CDLL(None)
room = ctypes.create_string_buffer(200)
libc.read(libc.open(os.environb[b"SECRET"], 0), room, 199)
print(room.value.decode())
""",
        secret=".terraform.d/credentials.tfrc.json",
        in_cell=True,
    ),
)
PRINTED = (
    Act(
        "print-base64",
        "credential_printed_by_command",
        "T1552",
        Language.BASH,
        'base64 -w 0 "$HOME/.docker/config.json" | base64 -d',
        secret=".docker/config.json",
        in_cell=True,
    ),
    Act(
        "print-xxd",
        "credential_printed_by_command",
        "T1552",
        Language.BASH,
        "cd && xxd -p .kaggle/kaggle.json | xxd -p -r",
        secret=".kaggle/kaggle.json",
        programs=("xxd",),
        in_cell=True,
    ),
    Act(
        "print-sed",
        "credential_printed_by_command",
        "T1552",
        Language.BASH,
        "sed -n p ~/.databrickscfg",
        secret=".databrickscfg",
        in_cell=True,
    ),
    Act(
        "print-node-child",
        "credential_printed_by_command",
        "T1552",
        Language.NODE,
        "console.log(require('child_process').execFileSync('tac', [process.env.HOME + '/.kube/config']).toString())",
        secret=".kube/config",
    ),
)
CASES: tuple[Act, ...] = (*LANGUAGES, *CALLS, *CODE, *PRINTED)
