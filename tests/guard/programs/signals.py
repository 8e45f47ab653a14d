"""Signals among a program and its children: kill, traps, alarms, interrupts, job control without a terminal."""

from guard.programs.case import JOB, Case, py, sh

_ALARM = """
        import signal, {0}
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
        {1}
        signal.setitimer(signal.ITIMER_REAL, 0)
        """


def alarmed(name: str, modules: str, script: str) -> Case:
    """Return a case that runs under a timer; the timer ends first, or its last signal would end the interpreter."""
    return py(name, _ALARM.format(modules, script.replace("\n", "\n        ")))


CASES = (
    sh("killed by a signal", "kill -SEGV $$"),
    sh("killed child", "sleep 50 & kill -9 $!; wait $!; echo $?", varies=(JOB,)),
    sh("terminated child", "sleep 50 & kill $!; wait $!; echo $?", varies=(JOB,)),
    sh(
        "every signal",
        'for s in HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM XCPU SYS RTMIN; do sh -c "ulimit -c 0; kill -$s \\$\\$" 2>/dev/null; echo $s $?; done 2>/dev/null',
    ),
    sh("stopped child", "sleep 0.2 & kill -STOP $!; kill -CONT $!; wait $!; echo $?"),
    sh("stopped and killed", "sleep 50 & kill -STOP $!; kill -KILL $!; wait $!; echo $?", varies=(JOB,)),
    sh("process group", "set -m; sleep 50 & kill -TERM -- -$!; wait $!; echo $?"),
    sh("whole group", "setsid -w bash -c 'trap \"echo got\" USR1; kill -USR1 0; echo on'", "setsid"),
    sh("trap", "trap 'echo caught' TERM; kill -TERM $$; echo on"),
    sh(
        "trap in a child",
        "bash -c 'trap \"echo child; exit 6\" TERM; echo > ready; while :; do sleep 0.02; done' & until [ -e ready ]; do sleep 0.02; done; kill $!; wait $!; echo $?",
    ),
    sh("trap at exit", "trap 'echo bye' EXIT; exit 3"),
    sh("interrupt", "trap 'echo int; exit 5' INT; kill -INT $$; sleep 1"),
    sh(
        "signal zero",
        "sleep 50 & kill -0 $!; echo $?; kill $!; wait $!; kill -0 $!; echo $?",
        varies=(JOB, (r"\(\d+\)", "(PID)")),
    ),
    sh("no such process", "kill 4194000; echo $?; kill -9 -- -4194000; echo $?"),
    sh("signals of two shells", "trap 'echo from the child' USR1; bash -c 'kill -USR1 $PPID' & wait; wait; echo end"),
    sh(
        "wait interrupted by a trap",
        "trap 'echo trapped' USR1; (sleep 1; kill -USR1 $$) & sleep 50 & p=$!; wait $p; echo $?; kill $p",
        varies=(JOB,),
    ),
    sh("job list", "set -m; sleep 50 & sleep 51 & jobs; kill %1; wait %1; echo $?; kill %2; wait %2; echo $?"),
    sh("disowned", "sleep 0.1 & disown; wait; jobs; echo $?"),
    sh("setsid", "setsid -w sh -c 'exit 4'; echo $?", "setsid"),
    sh(
        "killed by name",
        'cp /bin/sleep own-sleep-$$; ./own-sleep-$$ 50 & p=$!; until [ "$(cat /proc/$p/comm)" != bash ]; do :; done; pkill -P $$ own-sleep; wait $p; echo $?',
        "pkill",
        varies=(JOB, (r"own-sleep-\d+", "own-sleep")),
    ),
    sh(
        "found by parent",
        # until the child has become what it is looked for as
        'sleep 50 & for i in $(seq 100); do [ "$(pgrep -P $$ -x sleep)" = $! ] && break; :; done; echo $?; kill $!',
        "pgrep",
    ),
    alarmed("alarms and sleep", "time", "t = time.monotonic(); time.sleep(0.3); print(time.monotonic() - t >= 0.3)"),
    alarmed("alarms and programs", "subprocess", "print(sum(subprocess.call(['true']) for _ in range(40)))"),
    alarmed("alarms and shells", "os", "print(sum(os.system('exit 0') for _ in range(30)))"),
    alarmed(
        "alarms and posix_spawn",
        "os",
        "print(sum(os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)[1] for _ in range(60)))",
    ),
    py(
        "child signals",
        "import signal, subprocess; n = []; signal.signal(signal.SIGCHLD, lambda *_: n.append(1)); print(sum(subprocess.call(['true']) for _ in range(30)), len(n) > 0)",
    ),
    py(
        "keyboard interrupt",
        """
        import os, signal, threading, time
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try: time.sleep(50)
        except KeyboardInterrupt: print('interrupted')
        """,
    ),
    py(
        "keyboard interrupt that nobody catches",
        "import os, signal, threading, time\nthreading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\ntime.sleep(50)",
    ),
    py(
        "keyboard interrupt of a waiting parent",
        """
        import os, signal, subprocess, threading
        p = subprocess.Popen(['sleep', '50'])
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try: p.wait()
        except KeyboardInterrupt: print('interrupted'); p.terminate(); print(p.wait())
        """,
    ),
    py(
        "interrupted connect",
        """
        import os, signal, socket, threading
        l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(0)
        fill = [socket.socket() for _ in range(4)]
        [f.setblocking(False) or f.connect_ex(l.getsockname()) for f in fill]
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        s = socket.socket()
        try: s.connect(l.getsockname()); print('connected')
        except KeyboardInterrupt: print('interrupted')
        """,
    ),
    py(
        "alarm that ends a connect",
        """
        import signal, socket
        class Late(Exception): pass
        def late(*_): raise Late
        signal.signal(signal.SIGALRM, late)
        l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(0)
        fill = [socket.socket() for _ in range(4)]
        [f.setblocking(False) or f.connect_ex(l.getsockname()) for f in fill]
        signal.alarm(1)
        try: socket.socket().connect(l.getsockname())
        except Late: print('late')
        """,
    ),
    py(
        "signal zero of Python",
        "import os; os.kill(os.getpid(), 0); print('alive')\ntry: os.kill(2**22 - 7, 0)\nexcept OSError as e: print(e)",
    ),
    py(
        "signals with a number too high",
        "import os\nfor n in (65, 1000, -1):\n    try: os.kill(os.getpid(), n)\n    except OSError as e: print(e)",
    ),
    py(
        "pidfd",
        "import os, signal, subprocess; p = subprocess.Popen(['sleep', '50']); f = os.pidfd_open(p.pid); signal.pidfd_send_signal(f, 15); print(p.wait())",
    ),
    py(
        "pidfd of one that is gone",
        "import os, signal, subprocess; p = subprocess.Popen(['true']); f = os.pidfd_open(p.pid); p.wait()\ntry: signal.pidfd_send_signal(f, 9)\nexcept OSError as e: print(e)",
    ),
    py(
        "signal to a thread",
        "import signal, threading; signal.signal(signal.SIGTERM, lambda *_: print('term')); signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)",
    ),
    py(
        "waiting for signals",
        "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); os.kill(os.getpid(), signal.SIGTERM); print(signal.sigwait([signal.SIGTERM]).name)",
    ),
    py("abort", "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()"),
    py("self-kill", "import os; os.kill(os.getpid(), 9)"),
    py(
        "wake-up descriptor",
        "import os, signal; r, w = os.pipe(); os.set_blocking(w, False); signal.set_wakeup_fd(w); signal.signal(signal.SIGHUP, lambda *_: None); os.kill(os.getpid(), signal.SIGHUP); print(os.read(r, 1))",
    ),
    py(
        "stops and continues of a child",
        """
        import os, signal
        p = os.fork()
        if not p:
            while True: signal.pause()
        for number, flag in ((signal.SIGSTOP, os.WUNTRACED), (signal.SIGCONT, os.WCONTINUED), (signal.SIGTERM, 0)):
            os.kill(p, number); print(os.waitpid(p, flag)[1])
        """,
    ),
)
