"""What a program inherits from whoever starts it must pass through the launcher unchanged.

An ignored SIGPIPE or SIGXFSZ is left out: the launcher's interpreter ignores both before its first line, so it cannot
know how they were, and hands them on as they are by default.
"""

from guard.programs.case import Case, inherits

STATE = "grep -E '^(SigIgn|SigBlk|SigPnd|ShdPnd)' /proc/self/status"
OPEN = "for i in {0..1100}; do [ -e /proc/$$/fd/$i ] && echo $i; done"
"""Names the open descriptors without a child, whose pipe would be one of them for a moment."""
CASES = (
    inherits(
        "descriptors above 2",
        "os.dup2(os.open('f', os.O_RDWR | os.O_CREAT), 9)",
        "echo nine >&9; cat f; " + OPEN,
    ),
    inherits(
        "descriptor above 1000",
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)); os.dup2(os.open('f', os.O_RDWR | os.O_CREAT), 1023)",
        "echo x > /proc/self/fd/1023; cat f; " + OPEN,
    ),
    inherits("no further descriptors", "", OPEN),
    inherits("closed input", "os.close(0)", "cat; echo $?; " + OPEN),
    inherits("closed output", "os.close(1)", "echo x; echo $? >&2; ls /proc/$$/fd >&2"),
    inherits("closed errors", "os.close(2)", "ls /no/such; echo $?; ls /proc/$$/fd"),
    inherits("closed input and output", "os.close(0); os.close(1)", "echo x 2>/dev/null; echo $? >&2"),
    inherits("closed streams", "[os.close(i) for i in (0, 1, 2)]", "exit 7"),
    inherits(
        "input at an offset",
        "open('f', 'w').write('a\\nb\\nc\\n'); f = os.open('f', 0); os.read(f, 2); os.dup2(f, 0)",
        "cat",
    ),
    inherits(
        "non-blocking input",
        "r, w = os.pipe(); os.set_blocking(r, False); os.dup2(r, 0); os.dup2(w, 9)",
        "cat; echo $?",
    ),
    inherits(
        "ignored signals",
        "import signal as s\n[s.signal(i, s.SIG_IGN) for i in (s.SIGINT, s.SIGTERM, s.SIGHUP, s.SIGUSR1)]",
        STATE + "; kill -TERM $$; kill -INT $$; kill -HUP $$; echo alive",
    ),
    inherits("ignored children", "import signal as s\ns.signal(s.SIGCHLD, s.SIG_IGN)", STATE + "; /bin/true; echo $?"),
    inherits(
        "blocked signals",
        "import signal as s\ns.pthread_sigmask(s.SIG_BLOCK, [s.SIGTERM, s.SIGUSR2, s.SIGCHLD, s.SIGALRM])",
        STATE + "; kill -TERM $$; echo alive",
    ),
    inherits("everything blocked", "import signal as s\ns.pthread_sigmask(s.SIG_BLOCK, s.valid_signals())", STATE),
    inherits(
        "pending signal",
        "import signal as s\ns.pthread_sigmask(s.SIG_BLOCK, [s.SIGUSR2]); os.kill(os.getpid(), s.SIGUSR2)",
        STATE,
    ),
    inherits("alarm", "import signal as s\ns.setitimer(s.ITIMER_REAL, 1.5)", "exec sleep 50"),
    inherits(
        "signal at the parent's death",
        "import ctypes; ctypes.CDLL(None).prctl(1, 12)",
        "exec python3 -c 'import ctypes; x = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(x)); print(x.value)'",
        "python3",
    ),
    inherits(
        "child of before",
        "os.fork() or os._exit(33)",
        "wait; exec python3 -c 'import os; print(os.wait()[1] >> 8)\ntry: os.wait()\nexcept OSError as e: print(e)'",
        "python3",
    ),
    inherits("umask", "os.umask(0o137)", "umask; touch a; stat -c %a a"),
    inherits("nice value", "os.nice(7)", "nice"),
    inherits("affinity", "os.sched_setaffinity(0, {0})", "nproc"),
    inherits(
        "batch scheduling",
        "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
        "chrt -p $$ | sed 's/.*: //'",
        "chrt",
    ),
    inherits(
        "few descriptors",
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))",
        "ulimit -n; ulimit -Hn; echo x | cat",
    ),
    inherits(
        "limits",
        "import resource as r\nr.setrlimit(r.RLIMIT_CORE, (0, 0)); r.setrlimit(r.RLIMIT_FSIZE, (4096, 4096)); r.setrlimit(r.RLIMIT_CPU, (20, 30))",
        "ulimit -a | grep -E 'core|file size|cpu'; head -c 9000 /dev/zero > f 2>/dev/null & wait $! 2>/dev/null; echo $?; stat -c %s f",
    ),
    inherits(
        "process group",
        "if os.fork(): sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\nos.setpgid(0, 0)",
        "[ $(ps -o pgid= -p $$) = $$ ]; echo $?",
        "ps",
    ),
    inherits(
        "session",
        "if os.fork(): sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\nos.setsid()",
        "[ $(ps -o sid= -p $$) = $$ ]; echo $?",
        "ps",
    ),
    inherits("parent", "os.environ['ABOVE'] = str(os.getppid())", "[ $PPID = $ABOVE ]; echo $?"),
    inherits("pid", "os.environ['OWN'] = str(os.getpid())", "[ $$ = $OWN ]; echo $?"),
    inherits("deleted working folder", "os.mkdir('d'); os.chdir('d'); os.rmdir('../d')", "/bin/pwd; /bin/echo on"),
    inherits(
        "variables of Python",
        "os.environ.update(PYTHONPATH='/no/such', PYTHONHOME='/no/such/home', PYTHONSTARTUP='x', PYTHONWARNINGS='error', PYTHONUNBUFFERED='1', PYTHONINSPECT='1', LD_LIBRARY_PATH='/no/such')",
        "env | grep -E '^(PYTHON|LD_)' | sort",
    ),
    inherits("no variables", "def go(): os.execve(sys.argv[1], sys.argv[1:], {})", "/usr/bin/env | sort; ls -d /"),
    inherits(
        "locale",
        "os.environ.pop('LC_ALL'); os.environ['LANG'] = 'C'; os.environ.pop('LC_CTYPE', None)",
        "/usr/bin/env | grep -E '^(LC_|LANG)' | sort",
    ),
    inherits(
        "invalid UTF-8 variables",
        "os.environb[b'A\\xff'] = b'\\xfe\\x80'; os.environb[b'B'] = b''",
        "env | LC_ALL=C grep -aE '^(A.|B)=' | sort | od -c",
    ),
    inherits(
        "odd names of variables",
        "os.environb.update({b'a.b': b'1', b'BASH_FUNC_x%%': b'() { echo fn; }', b' ': b'2'})",
        "x; /usr/bin/env | grep -E '^(a.b| )' | sort",
    ),
    inherits(
        "a variable that comes twice",
        """
        import ctypes
        def go():
            def texts(*items): return (ctypes.c_char_p * (len(items) + 1))(*items, None)
            words = [os.fsencode(word) for word in sys.argv[1:]]
            ctypes.CDLL(None).execve(words[0], texts(*words), texts(b'PATH=/usr/bin:/bin', b'TWICE=one', b'TWICE=two'))
        """,
        "exec /usr/bin/env",
    ),
    inherits(
        "a variable without a value",
        """
        import ctypes
        def go():
            def texts(*items): return (ctypes.c_char_p * (len(items) + 1))(*items, None)
            words = [os.fsencode(word) for word in sys.argv[1:]]
            ctypes.CDLL(None).execve(words[0], texts(*words), texts(b'PATH=/usr/bin:/bin', b'BARE', b'=EMPTY'))
        """,
        "echo runs",
    ),
    Case(
        name="keyboard interrupt of a group",
        command=("bash", "-c", "trap 'echo int; exit 5' INT; kill -INT 0; sleep 1"),
        before=("setsid", "-w"),
    ),
    Case(name="under nohup", command=("bash", "-c", STATE), before=("nohup",)),
    Case(name="under timeout", command=("sleep", "50"), before=("timeout", "1.5")),
    Case(name="under nice", command=("nice",), before=("nice", "-n", "3")),
    Case(name="under stdbuf", command=("bash", "-c", "echo $LD_PRELOAD"), before=("stdbuf", "-oL"), needs=("stdbuf",)),
    Case(
        name="under strace",
        command=("sh", "-c", "echo traced; exit 3"),
        before=("strace", "-f", "-o", "/dev/null"),
        needs=("strace",),
    ),
)
