"""A holder whose supervisors come to harm between receiving a call and answering it: `harmed.py HARM TIMES RUN_DIR`.

HARM is `stop`, `kill` or `spin` (a loop that never gives the interpreter's lock back). Each supervisor comes to harm
once after some answers; the count is shared, so that it ends after TIMES.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "agent"))

from nbsentinel_guard import holder, seccomp

HARM, TIMES = sys.argv[1], int(sys.argv[2])
HOLDER = os.getpid()
COUNT = mmap.mmap(-1, 8)
answer = seccomp.Answer.__call__
state = {"pid": 0, "left": 0}


def harmed(self: seccomp.Answer, identity: int, error: int = 0) -> int:
    """Come to harm now and then, in the supervisor alone."""
    if os.getpid() != HOLDER:
        if state["pid"] != os.getpid():
            state.update(pid=os.getpid(), left=random.randrange(8, 40))
        state["left"] -= 1
        if state["left"] == 0:
            done = struct.unpack("q", COUNT[:8])[0]
            if done < TIMES:
                COUNT[:8] = struct.pack("q", done + 1)
                state["left"] = random.randrange(8, 40)
                if HARM == "spin":
                    sum(range(10**12))
                os.kill(os.getpid(), {"stop": signal.SIGSTOP, "kill": signal.SIGKILL}[HARM])
    return answer(self, identity, error)


seccomp.Answer.__call__ = harmed  # type: ignore[method-assign]
sys.exit(holder.main(sys.argv[3:]))
