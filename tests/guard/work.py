"""What is guarded while the guard comes to harm: `work.py SECONDS MOST` connects and executes.

Each connection has its number in its address, each execution in its argument. Prints how many there were, how many
went wrong (ENOSYS, success where there is nobody), and the longest in seconds.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time


def main() -> None:
    """Run until the time or the numbers are over, or standard input is closed."""
    end, most = time.monotonic() + float(sys.argv[1]), int(sys.argv[2])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    number = wrong = 0
    worst = 0.0
    os.set_blocking(0, False)
    while time.monotonic() < end and number < most:
        try:
            if os.read(0, 1) == b"":
                break
        except BlockingIOError:
            pass
        started = time.monotonic()
        with socket.socket() as one:
            try:
                one.connect((f"127.77.{number >> 8}.{number & 255}", 1))
                wrong += 1
                sys.stderr.write(f"connected with {one.getpeername()}\n")
            except OSError as error:
                if error.errno != errno.ECONNREFUSED:
                    wrong += 1
                    sys.stderr.write(f"{number}: {error}\n")
        worst = max(worst, time.monotonic() - started)
        if number % 8 == 0:
            started = time.monotonic()
            pid = os.posix_spawn("/bin/true", ["true", str(number)], {})
            wrong += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
            worst = max(worst, time.monotonic() - started)
        number += 1
        time.sleep(0.001)
    print(number, wrong, worst)


main()
