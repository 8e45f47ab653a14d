"""workload.py PLAN TRUTH: starts what the plan says, one after the other, and writes down which process each became.

The plan is JSON: {"path": PATH, "execs": [[name, argument], ...], "calls": [[program, argument, ...], ...]}. Half of
the programs are started by posix_spawnp, which shares its memory with the child, half by fork and execvp; both look
through all folders of PATH.
"""

import json
import os
import sys


def start(number: int, words: "list[str]") -> int:
    """Start a program and return its pid."""
    if number % 2:
        return os.posix_spawnp(words[0], words, os.environ)
    child = os.fork()
    if child == 0:
        try:
            os.execvp(words[0], words)
        finally:
            os._exit(127)
    return child


def main() -> None:
    """Do it; the truth has a line for each: number, pid, exit code."""
    with open(sys.argv[1]) as file:
        plan = json.load(file)
    os.environ["PATH"] = plan["path"]
    truth = []
    for number, words in enumerate(plan["execs"] + plan["calls"]):
        pid = start(number, words)
        truth.append((pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    with open(sys.argv[2], "w") as file:
        json.dump(truth, file)


main()
