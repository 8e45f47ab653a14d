"""A holder whose lessors hang, in a loop that looks at nothing, when somebody waits: `harmed.py TIMES RUN_DIR`."""

from __future__ import annotations

import mmap
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "agent"))

from nbsentinel_guard import holder, lessor

TIMES = int(sys.argv[1])
COUNT = mmap.mmap(-1, 8)
answer = lessor.Lessor._answer


def harmed(self: lessor.Lessor, broken: list[lessor.Lease]) -> None:
    """Hang at the third opener of each lessor."""
    self.harmed = getattr(self, "harmed", 0) + 1  # type: ignore[attr-defined]
    done = struct.unpack("q", COUNT[:8])[0]
    if self.harmed == 3 and done < TIMES:  # type: ignore[attr-defined]
        COUNT[:8] = struct.pack("q", done + 1)
        sum(range(10**12))
    answer(self, broken)


lessor.Lessor._answer = harmed  # type: ignore[method-assign]
sys.exit(holder.main(sys.argv[2:]))
