"""Short-lived readers of credentials, many at a time: `many.py COUNT AT_ONCE [--own] C_READER FILE...`.

Prints JSON: [[kind, pid, file, exit code, what the C reader printed], ...]. With --own each of those that run at once
has a file of its own; else they take turns over all files.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading

KINDS = ("C", "C", "C", "python", "bash", "perl", "node", "sqlite", "git", "cat")


def command(kind: str, reader: str, file: str) -> list[str]:
    """Return a command that opens a file once."""
    return {
        "C": [reader, file],
        "python": [sys.executable, "-S", "-c", f"open({file!r}).read()"],
        "bash": ["bash", "-c", f"read x < {file}; :"],
        "perl": ["perl", "-e", f"open F, '{file}'; <F>"],
        "node": ["node", "-e", f"require('fs').readFileSync({file!r})"],
        "sqlite": ["sqlite3", ":memory:", f"select length(readfile('{file}'))"],
        "git": ["git", "config", "-f", file, "-l"],
        "cat": ["cat", file],
    }[kind]


PROGRAMS = {"sqlite": "sqlite3", "python": sys.executable}


def main() -> None:
    """Run them all."""
    words = [word for word in sys.argv[1:] if word != "--own"]
    count, at_once, reader, files = int(words[0]), int(words[1]), words[2], words[3:]
    kinds = [k for k in KINDS if (reader != "-" if k == "C" else shutil.which(PROGRAMS.get(k, k)) is not None)]
    done: list[list[object]] = []
    left, lock = list(range(count)), threading.Lock()

    def work(own: int) -> None:
        while True:
            with lock:
                if not left:
                    return
                number = left.pop()
            kind = kinds[number % len(kinds)]
            file = files[own % len(files)] if "--own" in sys.argv else files[number // len(kinds) % len(files)]
            process = subprocess.Popen(command(kind, reader, file), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            output, errors = process.communicate()
            told = output.decode(errors="replace") if kind == "C" else errors.decode(errors="replace")[:200]
            with lock:
                done.append([kind, process.pid, file, process.returncode, told])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(done))


if __name__ == "__main__":
    main()
