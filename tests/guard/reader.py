"""An agent of its own process that only notes which calls it was told of: `reader.py RUN_DIR FILE`.

It joins the guard again and again, replaces a holder that is gone, and settles only what is on disk.
"""

from __future__ import annotations

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "agent"))

from nbsentinel_guard import records, seccomp
from nbsentinel_guard.client import Client, replace_holder, start_holder

RUN_DIR = sys.argv[1]


def note(kind: int, payload: bytes) -> bytes:
    """Return a line about an execution or a connection."""
    if kind == records.IMAGE:
        image = records.read_image(payload)
        return b"exec %s\n" % image.argv.replace(b"\0", b" ").strip()[:100].replace(b"\n", b" ")
    if kind == records.CONNECT:
        claim = records.read_connect(payload).claim
        return b"connect %d\n" % int.from_bytes(claim[6:8], "big")
    if kind == records.NOTICE:
        return b"notice %s: %s\n" % tuple(records.read_told(payload)[1])
    return b""


def attach() -> Client:
    """Join the guard."""
    return Client(RUN_DIR, "connect=auto terminals=1 server=0")


def main() -> None:
    """Read for ever."""
    with open(sys.argv[2], "ab", buffering=0) as file:
        while True:
            try:
                client = attach()
                break
            except OSError:
                time.sleep(0.01)
        file.write(b"joined\n")
        while True:
            silent = client.is_silent()
            client.wait(0.016 if silent or client.lost else 0.25)
            lines = []
            for _, kind, index, payload in client.read():
                lines.append(note(kind, payload))
                if kind == records.IMAGE and records.read_image(payload).flags & records.HELD:
                    listener = client.care.listeners.get(index)
                    if listener is not None:
                        seccomp.let_go(listener[0], records.read_who(payload).call)
            if lines:
                file.write(b"".join(lines))
                client.settle(client.cursors)
            if client.lost:
                try:
                    client = replace_holder(client, lambda meanwhile: start_holder(RUN_DIR, meanwhile), attach)
                except OSError:
                    client.look_after_callers()  # the next one is gone as well: once more, like the agent
            elif silent:
                client.look_after_callers()


main()
