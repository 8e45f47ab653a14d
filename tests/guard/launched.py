"""A launcher during which the guard comes to harm, between the filter and the acknowledgement: `launched.py HARM ARGS`.

HARM is `stop` or `kill` and meets the supervisor, `all` kills the holder too. It comes from an unguarded child.
"""

from __future__ import annotations

import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "agent"))

from nbsentinel_guard import launcher

HARM, RUN_DIR, HOLDER = sys.argv[1], sys.argv[3], int(os.environ.pop("HARMED_HOLDER"))
hand_over = launcher._hand_over
go, done = os.pipe(), os.pipe()
if os.fork() == 0:
    os.read(go[0], 1)
    with open(f"/proc/{HOLDER}/task/{HOLDER}/children") as file:
        supervisors = [int(word) for word in file.read().split()]
    for pid in supervisors + ([HOLDER] if HARM == "all" else []):
        try:
            os.kill(pid, signal.SIGSTOP if HARM == "stop" else signal.SIGKILL)
        except ProcessLookupError:
            continue
    os.write(done[1], b"x")
    os._exit(0)


def harmed(*arguments: object) -> bool:
    """Hand over right after the harm."""
    os.write(go[1], b"x")
    os.read(done[0], 1)
    for descriptor in (*go, *done):
        os.close(descriptor)
    os.waitpid(-1, os.WNOHANG)
    return hand_over(*arguments)  # type: ignore[arg-type]


launcher._hand_over = harmed
# what the launcher sees of its own environment must not have our variable
os.unsetenv("HARMED_HOLDER")
sys.exit(launcher.main(sys.argv[2:]))
