"""Run a command and all that it starts as one bounded tree: note every pid, end them all. Standard library only.

Run as `python -I cage.py FOLDER SECONDS COMMAND...`. Orphans come back to this process (PR_SET_CHILD_SUBREAPER), so a
daemon cannot leave. Nothing here is a pipe or a socket: a cage must not look like a relay to the agent under test.
FOLDER gets `output` (standard output and error), `pids` (one a line) and, once the command has ended, `status`.
The tree ends when this process gets SIGTERM, when its parent dies, after SECONDS, or when nothing is left of it.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_LOOK_S = 0.03


def _stop(_signal: int, _frame: object) -> None:
    raise SystemExit


def _parents() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                yield int(name), int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue


def _children(pid: int) -> list[int]:
    """Children of all threads of a process; needs CONFIG_PROC_CHILDREN, see proc(5)."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path("/proc", str(pid), "task", thread, "children").read_text().split())
    except OSError:
        return found
    return found


def _descendants() -> set[int]:
    found: set[int] = set()
    queue = [os.getpid()]
    if os.path.exists("/proc/thread-self/children"):
        while queue:
            fresh = set(_children(queue.pop())) - found
            found |= fresh
            queue += fresh
        return found
    parents = dict(_parents())
    while queue:
        parent = queue.pop()
        fresh = {pid for pid, its in parents.items() if its == parent} - found
        found |= fresh
        queue += fresh
    return found


def _reap(main: int, status: Path) -> bool:
    """Collect what ended; return whether children are left."""
    while True:
        try:
            pid, code = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        if pid == main:
            status.write_text(str(os.waitstatus_to_exitcode(code)))


def _end_all() -> None:
    for _ in range(100):
        for pid in _descendants():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        time.sleep(0.01)


def main() -> None:
    """Run the command of the arguments until it and its tree are over."""
    folder, seconds, command = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGTERM, _stop)
    deadline = time.monotonic() + seconds
    noted: set[int] = set()
    with (folder / "output").open("wb") as output, (folder / "pids").open("w", buffering=1) as pids:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, start_new_session=True
        )
        try:
            while _reap(process.pid, folder / "status") and time.monotonic() < deadline:
                for pid in sorted(_descendants() - noted):
                    noted.add(pid)
                    print(pid, file=pids)
                time.sleep(_LOOK_S)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _end_all()
            process.returncode = 0


if __name__ == "__main__":
    main()
