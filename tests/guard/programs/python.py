"""Python: starting programs in every way it knows, processes, threads, event loops."""

from guard.programs.case import py

CASES = (
    py("subprocess", "import subprocess; print(subprocess.run(['sh', '-c', 'exit 3']).returncode)"),
    py("vfork and errors", "import subprocess\ntry: subprocess.run(['/no/such'])\nexcept OSError as e: print(e)"),
    py(
        "errors of starting",
        "import subprocess\nfor w in ('/etc/passwd', '/tmp', '', 'no-such', '/etc/passwd/x'):\n    try: subprocess.run([w])\n    except OSError as e: print(type(e).__name__, e)",
    ),
    py(
        "working folder that is not there",
        "import subprocess\ntry: subprocess.run(['true'], cwd='/no/such')\nexcept OSError as e: print(e, e.filename)",
    ),
    py(
        "subprocess with everything",
        "import os, subprocess; r, w = os.pipe(); p = subprocess.Popen(['sh', '-c', f'echo a; echo b >&2; echo c >&{w}; pwd; umask'], stdout=-1, stderr=-1, pass_fds=[w], cwd='/', umask=0o33, start_new_session=True, restore_signals=True); print(p.communicate(), os.read(r, 9))",
    ),
    py(
        "function before exec",
        "import os, subprocess; print(subprocess.run(['sh', '-c', 'pwd; ulimit -n'], stdout=-1, preexec_fn=lambda: (os.chdir('/'), __import__('resource').setrlimit(7, (60, 60)))).stdout)",
    ),
    py(
        "failing function before exec",
        "import subprocess\ntry: subprocess.run(['true'], preexec_fn=lambda: 1 / 0)\nexcept subprocess.SubprocessError as e: print(e)",
    ),
    py(
        "time limit of a program",
        "import subprocess\ntry: subprocess.run(['sleep', '50'], timeout=0.3)\nexcept subprocess.TimeoutExpired as e: print(e.cmd)",
    ),
    py(
        "shell",
        "import subprocess; print(subprocess.getstatusoutput('echo $((6 * 7)); exit 2'), subprocess.call('kill -9 $$', shell=True))",
    ),
    py(
        "system and popen",
        "import os; print(os.system('exit 5') >> 8, os.popen('echo out').read(), os.popen('exit 3').close())",
    ),
    py(
        "no close-fds",
        "import os, subprocess; f = os.open('/dev/null', 0); os.set_inheritable(f, True); print(subprocess.run(['ls', f'/proc/self/fd/{f}'], close_fds=False, stdout=-1).returncode, subprocess.run(['ls', f'/proc/self/fd/{f}'], stderr=-1).returncode)",
    ),
    py("posix_spawn", "import os; p = os.posix_spawnp('true', ['true'], os.environ); print(os.waitpid(p, 0)[1])"),
    py(
        "posix_spawn with actions",
        "import os; p = os.posix_spawn('/bin/sh', ['sh', '-c', 'echo spawned; exit 4'], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 1, 'f', os.O_CREAT | os.O_WRONLY, 0o600), (os.POSIX_SPAWN_DUP2, 1, 2), (os.POSIX_SPAWN_CLOSE, 0)], setsigmask=[10], setpgroup=0); print(os.waitpid(p, 0)[1] >> 8, open('f').read())",
    ),
    py(
        "posix_spawn and errors",
        "import os\nfor w in ('/no/such', '/etc/passwd', '/tmp'):\n    try: os.posix_spawn(w, ['x'], {})\n    except OSError as e: print(e)",
    ),
    py(
        "spawnv",
        "import os; print(os.spawnl(os.P_WAIT, '/bin/sh', 'sh', '-c', 'exit 6'), os.spawnvp(os.P_WAIT, 'no-such', ['x']))",
    ),
    py("fork", "import os; p = os.fork() or os._exit(9); print(os.waitpid(p, 0)[1])"),
    py(
        "fork of forks",
        "import os\nfor i in range(4): os.fork()\nwhile True:\n    try: os.wait()\n    except ChildProcessError: break\nos.write(1, b'x\\n')",
    ),
    py(
        "fork with threads",
        "import os, threading, warnings; warnings.simplefilter('ignore'); e = threading.Event(); [threading.Thread(target=e.wait, daemon=True).start() for _ in range(5)]; p = os.fork() or os.execlp('sh', 'sh', '-c', 'exit 8'); print(os.waitpid(p, 0)[1] >> 8)",
    ),
    py("exec", "import os; os.execvp('echo', ['echo', 'in place'])"),
    py(
        "exec with threads",
        "import os, threading, time; [threading.Thread(target=time.sleep, args=(50,), daemon=True).start() for _ in range(9)]; os.execvp('echo', ['echo', 'in place'])",
    ),
    py(
        "exec by a thread",
        "import os, threading, time; threading.Thread(target=lambda: os.execvp('sh', ['sh', '-c', '[ $$ = $PID ] && echo same'])).start() if os.environ.update(PID=str(os.getpid())) is None else 0; time.sleep(50)",
    ),
    py(
        "failing exec by a thread",
        "import os, threading\ndef f():\n    try: os.execv('/no/such', ['x'])\n    except OSError as e: print(e)\nt = threading.Thread(target=f); t.start(); t.join(); print('on')",
    ),
    py(
        "exec many times",
        "import os, sys; n = int(os.environ.get('N', 0)); os.environ['N'] = str(n + 1); print(n, flush=True); n < 20 and os.execv(sys.executable, [sys.executable, '-c', 'import os, sys; ' + 'n = int(os.environ[\"N\"]); os.environ[\"N\"] = str(n + 1); c = sys.orig_argv[2]; print(n, flush=True); n < 20 and os.execv(sys.executable, [sys.executable, \"-c\", c])'])",
    ),
    py(
        "close-on-exec",
        "import os, subprocess; a = os.open('/dev/null', 0); b = os.dup2(a, 50, True); c = os.dup2(a, 51, False); os.execvp('ls', ['ls', '/proc/self/fd/50', '/proc/self/fd/51'])",
    ),
    py("pty", "import pty; print(pty.spawn(['sh', '-c', 'echo in a pty; exit 2']))"),
    py(
        "pty with input",
        "import os, pty, sys; p, f = pty.fork()\nif not p: os.execlp('cat', 'cat')\nos.write(f, b'typed\\n\\x04'); d = b''\nwhile True:\n    try: x = os.read(f, 99)\n    except OSError: break\n    d += x\nprint(d, os.waitpid(p, 0)[1])",
    ),
    py("multiprocessing fork", "import multiprocessing as m; print(m.get_context('fork').Pool(2).map(abs, [-1, -2]))"),
    py(
        "multiprocessing spawn",
        "import multiprocessing as m\nif __name__ == '__main__': print(m.get_context('spawn').Pool(1).map(abs, [-1]))",
    ),
    py(
        "multiprocessing forkserver",
        "import multiprocessing as m\nif __name__ == '__main__':\n    with m.get_context('forkserver').Pool(2) as p: print(p.map(abs, range(-5, 0)))",
    ),
    py(
        "multiprocessing that ends badly",
        "import multiprocessing as m, os, signal\nx = m.get_context('fork')\na = x.Process(target=os._exit, args=(5,)); c = x.Process(target=lambda: signal.pause())\n[p.start() for p in (a, c)]; c.terminate(); [p.join() for p in (a, c)]; print([p.exitcode for p in (a, c)])",
    ),
    py(
        "multiprocessing manager",
        "import multiprocessing as m\nx = m.get_context('fork')\nwith x.Manager() as g:\n    l = g.list(); ps = [x.Process(target=l.append, args=(i,)) for i in range(5)]; [p.start() for p in ps]; [p.join() for p in ps]; print(sorted(l))",
    ),
    py(
        "multiprocessing pipes and memory",
        "import multiprocessing as m\nfrom multiprocessing import shared_memory as s\nx = m.get_context('fork'); a, b = x.Pipe(); v = x.Value('i', 0)\ndef f():\n    with v.get_lock(): v.value += 1\n    b.send({'k': 1})\nps = [x.Process(target=f) for _ in range(6)]; [p.start() for p in ps]; got = [a.recv() for _ in ps]; [p.join() for p in ps]; h = s.SharedMemory(create=True, size=64); h.buf[0] = 7; print(v.value, len(got), h.buf[0]); h.close(); h.unlink()",
    ),
    py(
        "process pool",
        "from concurrent.futures import ProcessPoolExecutor as P\nimport multiprocessing as m, os\nwith P(2, mp_context=m.get_context('fork')) as p: print(list(p.map(pow, range(6), range(6))))\nfrom concurrent.futures.process import BrokenProcessPool\ntry:\n    with P(1, mp_context=m.get_context('fork')) as p: p.submit(os._exit, 1).result()\nexcept BrokenProcessPool as e: print(type(e).__name__)",
    ),
    py(
        "thread pool that starts programs",
        "import subprocess\nfrom concurrent.futures import ThreadPoolExecutor as T\nwith T(16) as p: print(sum(p.map(lambda i: subprocess.run(['sh', '-c', f'exit {i % 5}']).returncode, range(80))))",
    ),
    py(
        "asyncio",
        "import asyncio\nasync def f():\n    p = await asyncio.create_subprocess_exec('echo', 'a', stdout=-1)\n    print((await p.communicate())[0])\n    try: await asyncio.open_connection('127.0.0.1', 1)\n    except OSError as e: print(e)\nasyncio.run(f())",
    ),
    py(
        "asyncio with many programs",
        "import asyncio\nasync def one(i):\n    p = await asyncio.create_subprocess_shell(f'cat; exit {i % 7}', stdin=-1, stdout=-1); o, _ = await p.communicate(b'%d' % i); return int(o), p.returncode\nasync def f(): print(sum([a + b for a, b in await asyncio.gather(*map(one, range(60)))]))\nasyncio.run(f())",
    ),
    py(
        "asyncio that ends a program",
        "import asyncio\nasync def f():\n    p = await asyncio.create_subprocess_exec('sleep', '50')\n    try: await asyncio.wait_for(p.wait(), 0.3)\n    except asyncio.TimeoutError: p.terminate(); print(await p.wait())\nasyncio.run(f())",
    ),
    py(
        "asyncio and signals",
        "import asyncio, os, signal\nasync def f():\n    e = asyncio.Event(); asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, e.set); os.kill(os.getpid(), signal.SIGTERM); await asyncio.wait_for(e.wait(), 30); print('term')\nasyncio.run(f())",
    ),
    py(
        "asyncio and an interrupt",
        "import asyncio, os, signal, threading\nasync def f(): await asyncio.sleep(50)\nthreading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\ntry: asyncio.run(f())\nexcept KeyboardInterrupt: print('interrupted')",
    ),
    py(
        "threads",
        "import threading; n = []; t = [threading.Thread(target=n.append, args=(i,)) for i in range(200)]; [x.start() for x in t]; [x.join() for x in t]; print(sum(n))",
    ),
    py(
        "deep recursion",
        "import sys\ndef f(n): return n and 1 + f(n - 1)\nprint(f(900))\ntry: f(10**5)\nexcept RecursionError: print('too deep')",
    ),
    py("memory mapping", "import mmap; m = mmap.mmap(-1, 4096, prot=7); m[:2] = b'ok'; print(m[:2])"),
    py(
        "too much memory",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))\ntry: bytearray(2**30)\nexcept MemoryError: print('no memory')",
    ),
    py("fault", "import ctypes, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); ctypes.string_at(0)"),
    py(
        "fault handler",
        "import faulthandler, os, resource, signal; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); faulthandler.enable(all_threads=False); os.kill(os.getpid(), signal.SIGSEGV)",
    ),
    py(
        "files and locks",
        "import fcntl, os; f = open('l', 'w'); fcntl.flock(f, fcntl.LOCK_EX)\nif not os.fork():\n    try: fcntl.flock(open('l'), fcntl.LOCK_EX | fcntl.LOCK_NB)\n    except OSError as e: print(e, flush=True)\n    os._exit(0)\nos.wait(); fcntl.lockf(f, fcntl.LOCK_EX); print('ok')",
    ),
    py(
        "inotify and leases",
        "import ctypes, fcntl, os, signal; l = ctypes.CDLL(None, use_errno=True); i = l.inotify_init1(0); l.inotify_add_watch(i, b'.', 0x100); open('new', 'w').close(); print(os.read(i, 999)[16:19]); f = os.open('new', os.O_RDONLY); print(fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_RDLCK))",
    ),
    py(
        "sqlite",
        "import sqlite3; d = sqlite3.connect('d'); d.execute('create table t (x)'); d.executemany('insert into t values (?)', [(i,) for i in range(99)]); d.commit(); print(d.execute('select sum(x) from t').fetchone())",
    ),
    py(
        "pickle through a pipe",
        "import pickle, subprocess, sys; p = subprocess.run([sys.executable, '-c', 'import pickle, sys; pickle.dump(sum(pickle.load(sys.stdin.buffer)), sys.stdout.buffer)'], input=pickle.dumps(list(range(9999))), stdout=-1); print(pickle.loads(p.stdout))",
    ),
    py(
        "large pipe",
        "import subprocess; p = subprocess.run(['cat'], input=b'x' * 5_000_000, stdout=-1); print(len(p.stdout))",
    ),
    py(
        "import of much",
        "import asyncio, bz2, ctypes, decimal, email, hashlib, json, lzma, multiprocessing, socket, ssl, sqlite3, unittest, xml.dom; print('imported')",
    ),
    py("temporary files", "import tempfile; f = tempfile.TemporaryFile(); f.write(b'x'); print(f.tell())"),
    py(
        "exit codes",
        "import subprocess, sys; print([subprocess.run([sys.executable, '-c', f'import sys; sys.exit({x!r})'], stderr=-1).returncode for x in (None, 0, 3, 256, 'text', True)])",
    ),
    py(
        "audit hook",
        "import sys; n = []; sys.addaudithook(lambda e, a: n.append(e) if e in ('socket.connect', 'subprocess.Popen') else None); import socket, subprocess; socket.socket().connect_ex(('127.0.0.1', 1)); subprocess.run(['true']); print(n)",
    ),
)
