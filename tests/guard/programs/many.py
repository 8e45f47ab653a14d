"""Very many processes, threads and connections at once."""

from guard.programs.case import py, sh

CASES = (
    sh("many at once", "for i in $(seq 200); do sleep 0.1 & done; wait; echo done"),
    py(
        "a thousand programs at once",
        """
        import collections, os, subprocess
        r, w = os.pipe()
        children = [subprocess.Popen(['cat'], stdin=r) for _ in range(1000)]
        print(sum(child.poll() is None for child in children), flush=True)
        os.close(w)
        print(collections.Counter(child.wait() for child in children))
        """,
    ),
    py(
        "a thousand forks that connect",
        """
        import collections, os, socket
        r, w = os.pipe(); pids = []
        for _ in range(1000):
            pid = os.fork()
            if not pid:
                os.close(w); os.read(r, 1)
                os._exit(socket.socket().connect_ex(('127.0.0.1', 1)))
            pids.append(pid)
        os.close(w)
        print(collections.Counter(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))
        """,
    ),
    py(
        "three hundred shells at once",
        """
        import collections, os, subprocess
        r, w = os.pipe()
        children = [subprocess.Popen(['sh', '-c', f'read x; exit {i % 9}'], stdin=r) for i in range(300)]
        os.close(w)
        print(sorted(collections.Counter(child.wait() for child in children).items()))
        """,
    ),
    sh(
        "a fork bomb of 300",
        """
        head -c 300 /dev/zero | tr '\\0' x > fuel
        cat > bomb <<'X'
        #!/bin/bash
        while read -rN1 -u3; do echo >> log; ./bomb & done
        wait
        X
        sed -i 's/^ *//' bomb; chmod +x bomb
        (cat fuel) | ./bomb 3<&0
        wc -l < log
        """,
    ),
    sh(
        "chains of forks",
        'f() { [ $1 = 0 ] && { echo deep; return; }; ( f $(($1 - 1)) ); }; f 100; g() { [ $1 = 0 ] || bash -c "$(declare -f g); g $(($1 - 1))"; }; g 30; echo $?',
    ),
    sh("xargs", "seq 60 | xargs -P 8 -n 1 /bin/echo | sort -n | md5sum"),
    sh(
        "xargs of failures",
        "seq 20 | xargs -P 4 -I{} sh -c 'exit $(({} % 3))'; echo $?; echo x | xargs false; echo $?; echo x | xargs no-such; echo $?; echo x | xargs sh -c 'exit 255'; echo $?",
        varies=((r"sh: .*: exited", "sh: exited"),),
    ),
    sh(
        "find with many programs",
        "mkdir d; touch d/{1..150}; find d -type f -exec basename {} \\; | sort -n | md5sum; find d -type f -exec sh -c 'echo $#' sh {} +",
    ),
    sh(
        "make with many jobs",
        'for i in $(seq 60); do echo "t$i:; @echo $i"; done > Makefile; echo "all: $(seq -f t%.0f -s\' \' 60)" >> Makefile; make -s -j 12 all | sort -n | md5sum',
        "make",
    ),
    py(
        "many short threads that connect",
        "import socket\nfrom concurrent.futures import ThreadPoolExecutor as T\ndef f(i):\n    with socket.socket() as s: return s.connect_ex(('127.0.0.1', 1))\nwith T(50) as p: print(set(p.map(f, range(3000))))",
    ),
    py(
        "processes that end while they connect",
        "import os, signal, socket, time\nfor i in range(60):\n    p = os.fork()\n    if not p:\n        while True:\n            with socket.socket() as s: s.connect_ex(('127.0.0.1', 1))\n    time.sleep(0.003); os.kill(p, signal.SIGKILL); assert os.waitpid(p, 0)[1] == 9\nprint('all gone')",
    ),
    py(
        "processes that end while they exec",
        "import os, signal, time\nfor i in range(60):\n    p = os.fork()\n    if not p:\n        while True: os.spawnv(os.P_WAIT, '/bin/true', ['true'])\n    time.sleep(0.004); os.kill(p, signal.SIGKILL); assert os.waitpid(p, 0)[1] == 9\nprint('all gone')",
    ),
)
