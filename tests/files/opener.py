"""Opens a file again and again until its standard input ends: `opener.py FILE`.

Prints how often, how many opens failed, and the longest and the 99th of a hundred, in milliseconds.
"""

from __future__ import annotations

import os
import sys
import time


def main() -> None:
    """Run until told to end."""
    took, failed = [], 0
    os.set_blocking(0, False)
    print("ready", flush=True)
    while True:
        try:
            if os.read(0, 1) == b"":
                break
        except BlockingIOError:
            pass
        started = time.monotonic()
        try:
            os.close(os.open(sys.argv[1], os.O_RDONLY))
        except OSError as error:
            failed += 1
            print(error, file=sys.stderr)
        took.append(1000 * (time.monotonic() - started))
        time.sleep(0.002)
    took.sort()
    print(len(took), failed, took[-1], took[int(0.99 * len(took))])


main()
