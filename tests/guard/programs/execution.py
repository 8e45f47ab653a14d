"""Executing: `#!` lines, permissions, searches, arguments, environment, working folder."""

from guard.programs.case import py, sh

CASES = (
    sh("script file", "printf '#!/bin/sh\\necho script $1\\n' > s; chmod +x s; ./s x"),
    sh("script without a line", "echo 'echo plain' > p; chmod +x p; ./p"),
    sh("script with an option", "printf '#!/bin/sh -eu\\necho $-\\necho $none\\n' > s; chmod +x s; ./s; echo $?"),
    sh("script of env", "printf '#!/usr/bin/env -S python3 -I -S\\nprint(5)\\n' > s; chmod +x s; ./s", "python3"),
    sh(
        "script of a script",
        "printf '#!/bin/sh\\necho one $0 $1\\n' > a; printf '#!'$PWD'/a\\n' > b; chmod +x a b; ./b",
    ),
    sh(
        "scripts too deep",
        """
        printf '#!/bin/sh\\necho end\\n' > s0; chmod +x s0
        for i in $(seq 8); do printf "#!$PWD/s$((i-1))\\n" > s$i; chmod +x s$i; done
        ./s3 && ./s8; echo $?
        """,
    ),
    sh("missing interpreter", "printf '#!/no/such\\n' > m; chmod +x m; ./m; echo $?"),
    sh("interpreter with a carriage return", "printf '#!/bin/sh\\r\\necho x\\r\\n' > m; chmod +x m; ./m; echo $?"),
    sh("line too long", "printf '#!/bin/sh %0400d\\necho x\\n' 0 > m; chmod +x m; ./m; echo $?"),
    sh("line without an end", "printf '#!/bin/true' > m; chmod +x m; ./m; echo $?"),
    sh("empty program", ": > m; chmod +x m; ./m; echo $?"),
    sh("not a program", "printf '\\177ELF rubbish' > m; chmod +x m; ./m 2>/dev/null; echo $?"),
    py(
        "truncated program",
        """
        import os, subprocess
        open("t", "wb").write(open("/bin/true", "rb").read()[:2000]); os.chmod("t", 0o755)
        try: print(subprocess.call(["./t"]) != 0)
        except OSError as e: print(e)
        """,
    ),
    py(
        "script without a line, from a program",
        """
        import os, subprocess
        open("p", "w").write("echo x\\n"); os.chmod("p", 0o755)
        try: subprocess.run(["./p"])
        except OSError as e: print(e)
        os.execvp("sh", ["sh", "./p"])
        """,
    ),
    sh("execute-only program", "cp /bin/true xo; chmod 111 xo; ./xo; echo $?"),
    sh("execute-only program that works", "cp /bin/cat xo; chmod 111 xo; echo through | ./xo; ./xo /no/such; echo $?"),
    sh("execute-only shell", "cp /bin/dash xo; chmod 111 xo; ./xo -c 'echo in; exit 4'; echo $?", "dash"),
    sh("execute-only script", "printf '#!/bin/sh\\necho x\\n' > s; chmod 111 s; ./s 2>&1 | grep -c enied"),
    sh("no permission", "cp /bin/true n; chmod 000 n; ./n; echo $?"),
    sh("folder without permission", "mkdir d; cp /bin/true d/t; chmod 000 d; d/t; echo $?; chmod 755 d"),
    sh(
        "busy program",
        'cp /bin/sleep busy; ./busy 50 & p=$!; until [ "$(cat /proc/$p/comm)" = busy ]; do :; done; (: >> busy); echo $?; kill $p',
    ),
    sh("deleted program", "cp /bin/sh gone; ./gone -c 'rm gone; ls gone; echo $?'"),
    sh("replaced program", "cp /bin/true r; ./r; echo $?; cp /bin/false r2; mv r2 r; ./r; echo $?"),
    sh("links", "ln -s /bin/echo e; ln -s e f; ./f linked; ln -s loop loop; ./loop; echo $?"),
    sh("busybox by its name", "ln -s $(command -v busybox) seq; ./seq 3", "busybox"),
    sh("path search", "PATH=/nonexistent:/nonexistent2:$PATH; ls -d / ; echo $?"),
    sh("deep path", "for i in $(seq 300); do P=$P/no/$i:; done; PATH=$P$PATH ls -d /; PATH=$P$PATH env ls -d /"),
    sh(
        "path with the working folder",
        "printf '#!/bin/sh\\necho here\\n' > tool; chmod +x tool; PATH=:/bin tool; PATH=/bin: env tool",
    ),
    sh(
        "path with a folder of the name",
        "mkdir -p a/tool b; printf '#!/bin/sh\\necho b\\n' > b/tool; chmod +x b/tool; PATH=a:b:/bin env tool",
    ),
    sh(
        "path with a forbidden program",
        "mkdir a b; echo x > a/tool; printf '#!/bin/sh\\necho b\\n' > b/tool; chmod +x b/tool; PATH=a:b:/bin env tool",
    ),
    sh("path with a forbidden program only", "mkdir a; echo x > a/tool; PATH=a:/bin; env tool; echo $?; tool; echo $?"),
    sh("no path", "unset PATH; ls -d /; /bin/sh -c 'ls -d /'"),
    sh("empty path", "PATH=; ls; echo $?; /bin/ls -d /"),
    py(
        "path search of Python",
        "import os; os.environ['PATH'] = '/no:/no/2:/etc:' + os.environ['PATH']; print(os.spawnlp(os.P_WAIT, 'true', 'true'), os.spawnlp(os.P_WAIT, 'passwd-no', 'x'))",
    ),
    sh("empty argument", "/bin/echo '' x ''; /usr/bin/printf '<%s>' '' a ' ' \"$(printf '\\n')\"; echo"),
    sh("long arguments", "/bin/echo $(seq 20000) | md5sum"),
    sh("too long", "/bin/echo $(seq 600000) >/dev/null 2>&1; echo $?"),
    sh(
        "one argument too long",
        "/bin/echo $(printf '%0131072d' 0) >/dev/null 2>&1; echo $?; /bin/echo $(printf '%0131071d' 0) | wc -c",
    ),
    py(
        "argument list grows",
        """
        import subprocess
        for n in (1, 10, 1000, 100000, 10**6):
            try: print(n, subprocess.run(["true", *["x"] * n]).returncode)
            except OSError as e: print(n, e)
        """,
    ),
    py(
        "invalid UTF-8 arguments",
        "import subprocess; print(subprocess.run([b'echo', b'\\xff\\xfe', b'\\x80 \\xc3'], stdout=-1).stdout)",
    ),
    sh("control characters in arguments", "/usr/bin/printf %s $'\\e[31m\\a\\x01' | od -c"),
    sh("environment", "env -i A=1 /usr/bin/env"),
    sh("empty environment", "env -i /usr/bin/env; env -i /bin/sh -c 'echo $PATH'"),
    py(
        "invalid UTF-8 environment",
        "import subprocess; print(subprocess.run(['/usr/bin/env'], env={b'A\\xff': b'\\xfe\\x80', b'B': b''}, stdout=-1).stdout)",
    ),
    sh(
        "long variable",
        "X=$(printf '%0131000d' 0) bash -c 'echo ${#X}'; X=$(printf '%0131072d' 0) /bin/true 2>/dev/null; echo $?",
    ),
    py(
        "many variables",
        "import subprocess; print(subprocess.run(['env'], env={f'V{i}': 'x' * 50 for i in range(9000)}, stdout=-1).stdout.count(b'\\n'))",
    ),
    sh(
        "loader variables",
        "LD_PRELOAD=/no/such.so /bin/echo x; LD_LIBRARY_PATH=/no/such /bin/echo y; LD_BIND_NOW=1 /bin/echo z",
    ),
    sh(
        "loader as a program",
        "l=$(ls /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1 2>/dev/null); $l /bin/echo by the loader; $l /no/such; echo $?",
    ),
    sh("umask", "umask 027; touch a; mkdir d; sh -c 'umask; touch b'; stat -c '%n %a' a b d"),
    sh("deleted working folder", "mkdir d; cd d; rmdir ../d; /bin/pwd; echo $?; ls; /bin/echo on; cd ..; ls"),
    sh(
        "working folder without permission",
        "d=$PWD/d; mkdir d; cd d; chmod 000 $d; /bin/echo on; ls; echo $?; chmod 755 $d",
    ),
    sh(
        "deep working folder",
        "for i in $(seq 60); do mkdir $(printf %080d 0); cd $(printf %080d 0); done; /bin/sh -c 'pwd -P' | wc -c | awk '{print ($1 > 4000)}'",
    ),
    sh("programs of the descriptor", "exec 9< /bin/echo; /proc/self/fd/9 by descriptor; /dev/fd/9 again"),
    py(
        "memfd",
        "import os; f = os.memfd_create('m'); os.write(f, open('/bin/true', 'rb').read()); print(os.spawnv(os.P_WAIT, f'/proc/self/fd/{f}', ['m']))",
    ),
    py(
        "memfd and fexecve",
        "import os; f = os.memfd_create('m'); os.write(f, open('/bin/echo', 'rb').read()); os.execve(f, ['m', 'from memory'], {})",
    ),
    py(
        "memfd that stays open",
        "import os, fcntl; f = os.memfd_create('m', 0); os.write(f, b'#!/bin/cat\\nx\\n'); os.execve(f, ['m'], {})",
        varies=((r"/dev/fd/\d+", "FD"),),
    ),
    py(
        "sealed memfd",
        "import os, fcntl; f = os.memfd_create('m', os.MFD_ALLOW_SEALING); os.write(f, b'x'); fcntl.fcntl(f, fcntl.F_ADD_SEALS, 8)\ntry: os.write(f, b'y')\nexcept OSError as e: print(e)\ntry: os.memfd_create('x' * 300)\nexcept OSError as e: print(e)",
    ),
)
