"""Limits, priorities and processors: of a program itself and of its children."""

from guard.programs.case import JOB, py, sh

CASES = (
    sh("limits", "ulimit -n 77; ulimit -n; bash -c 'ulimit -n'"),
    sh("limit that cannot be raised", "ulimit -Hn 100; ulimit -n 200; echo $?; ulimit -n"),
    sh(
        "too many open files",
        "ulimit -n 8; exec 3</dev/null 4</dev/null 5</dev/null 6</dev/null 7</dev/null; cat < /dev/null; echo $?",
    ),
    sh("file size", "ulimit -f 1; head -c 9000 /dev/zero > f 2>/dev/null; echo $?; stat -c %s f", varies=(JOB,)),
    sh(
        "processor time",
        "ulimit -c 0; ulimit -St 1; python3 -S -c 'while True: pass'; echo $?",
        "python3",
        varies=(JOB,),
    ),
    sh(
        "prlimit of itself",
        "prlimit --nofile=66 bash -c 'ulimit -n'; prlimit --pid $$ --nofile=55:55; ulimit -n",
        "prlimit",
    ),
    sh(
        "prlimit of a child",
        "sleep 50 & prlimit --pid $! --nofile=44:44; prlimit --pid $! --nofile -o SOFT --noheadings; kill $!",
        "prlimit",
    ),
    sh("prlimit of nobody", "prlimit --pid 4194000 --nofile=44:44; echo $?", "prlimit"),
    sh("nice", "nice -n 5 nice"),
    sh("nice that is refused", "nice -n -5 nice", "nice"),
    sh(
        "renice",
        "renice -n 3 -p $$ >/dev/null; nice; sleep 50 & renice -n 7 -p $! >/dev/null; ps -o ni= -p $!; kill $!",
        "renice",
        "ps",
    ),
    sh(
        "renice of a group",
        "setsid -w bash -c 'renice -n 4 -g $$ >/dev/null; nice; renice -n 6 -g 0 >/dev/null; nice'",
        "renice",
    ),
    sh("affinity", "taskset -c 0 bash -c 'taskset -p $$ >/dev/null; echo $?; nproc'", "taskset"),
    sh(
        "affinity of a child",
        "sleep 50 & taskset -cp 0 $! >/dev/null; taskset -cp $! | sed 's/.*: //'; kill $!",
        "taskset",
    ),
    sh("affinity of nobody", "taskset -cp 0 4194000; echo $?", "taskset"),
    sh("scheduling", "chrt -b 0 chrt -p 0 | sed 's/.*: //'; chrt -i 0 sh -c 'chrt -p $$' | sed 's/.*: //'", "chrt"),
    sh("scheduling of a child", "sleep 50 & chrt -b -p 0 $!; chrt -p $! | sed 's/.*: //'; kill $!", "chrt"),
    sh(
        "scheduling that is refused",
        "chrt -f 10 true 2>&1 | sed 's/pid [0-9]*/pid PID/'; echo ${PIPESTATUS[0]}",
        "chrt",
    ),
    sh(
        "input and output priority",
        "ionice -c 3 ionice; ionice -c 2 -n 6 ionice; sleep 50 & ionice -c 3 -p $!; ionice -p $!; kill $!",
        "ionice",
    ),
    sh(
        "out-of-memory score",
        "echo 500 > /proc/$$/oom_score_adj; cat /proc/self/oom_score_adj; sleep 50 & echo 700 > /proc/$!/oom_score_adj; cat /proc/$!/oom_score_adj; kill $!",
    ),
    sh("name of a process", "printf renamed > /proc/$$/comm; cat /proc/$$/comm"),
    py(
        "own limits",
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (99, 99)); print(r.getrlimit(r.RLIMIT_NOFILE), r.prlimit(0, r.RLIMIT_NOFILE, (90, 99)))",
    ),
    py(
        "own priority",
        "import os; os.setpriority(os.PRIO_PROCESS, 0, 3); os.setpriority(os.PRIO_PROCESS, os.getpid(), 4); print(os.nice(0), os.getpriority(os.PRIO_PROCESS, 0))",
    ),
    py("own affinity", "import os; os.sched_setaffinity(os.getpid(), {0}); print(os.sched_getaffinity(0))"),
    py("affinity without processors", "import os\ntry: os.sched_setaffinity(0, {900})\nexcept OSError as e: print(e)"),
    py(
        "own scheduling",
        "import os; os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)); print(os.sched_getscheduler(os.getpid())); os.sched_yield()\ntry: os.sched_setscheduler(os.getpid(), os.SCHED_FIFO, os.sched_param(5))\nexcept OSError as e: print(e)",
    ),
    py(
        "child's limits",
        "import resource as r, subprocess; p = subprocess.Popen(['sleep', '50']); r.prlimit(p.pid, r.RLIMIT_NOFILE, (88, 88)); print(r.prlimit(p.pid, r.RLIMIT_NOFILE)); p.kill(); p.wait()",
    ),
    py(
        "child's priority",
        "import os, subprocess; p = subprocess.Popen(['sleep', '50']); os.setpriority(os.PRIO_PROCESS, p.pid, 9); os.sched_setaffinity(p.pid, {0}); print(os.getpriority(os.PRIO_PROCESS, p.pid), os.sched_getaffinity(p.pid)); p.kill(); p.wait()",
    ),
    py(
        "limits of nobody",
        "import resource as r\ntry: r.prlimit(4194000, r.RLIMIT_NOFILE, (88, 88))\nexcept OSError as e: print(e)",
    ),
    py(
        "no more processes",
        "import os, resource as r; os.getuid() and r.setrlimit(r.RLIMIT_NPROC, (1, 1))\ntry: os.fork() or os._exit(0); print('forked')\nexcept OSError as e: print(e)",
    ),
    py(
        "resource usage",
        "import resource as r, subprocess; subprocess.run(['true']); print(r.getrusage(r.RUSAGE_CHILDREN).ru_maxrss > 0)",
    ),
)
