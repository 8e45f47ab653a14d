"""What the guard costs the programs it watches, beside strace at the same two calls and beside no guard at all.

Everything runs in turn, round by round, and each figure is a median of the rounds, so a machine that gets slower
gets slower for all. `plain` runs twice a round: how far the two are apart is what this machine can tell apart.
"""

from __future__ import annotations

import compileall
import contextlib
import math
import shutil
import socket
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import rig

ROUNDS = 7
LAUNCHES = 5
"""Starts of each kind in a round."""
STRACE = ("-f", "-o", "/dev/null", "-e", "trace=execve,connect")
MODES = ("plain", "plain again", "guarded", "strace --seccomp-bpf", "strace")
Times = dict[str, list[float]]
"""Nanoseconds for one turn, by mode; one figure a round."""


class Work(NamedTuple):
    """Something to measure: a program that prints nanoseconds first on its last line."""

    name: str
    command: Callable[[int], list[str]]
    turns: int
    unit: str
    scale: float
    slow_turns: int
    """Turns under strace without --seccomp-bpf, which stops at every call."""
    slow_rounds: int = ROUNDS


def _prefix(running: rig.Rig, mode: str) -> list[str]:
    if mode == "guarded":
        return running.guarded()
    if mode == "strace --seccomp-bpf":
        return [*rig.as_user(), "strace", "--seccomp-bpf", *STRACE]
    if mode == "strace":
        return [*rig.as_user(), "strace", *STRACE]
    return rig.as_user()


def _run(running: rig.Rig, command: list[str]) -> list[str]:
    """Run a command in the agent's folder; return the words of its last line."""
    done = subprocess.run(
        command, capture_output=True, text=True, env=running.environment, cwd=running.folder / "home", timeout=120
    )
    if done.returncode or not done.stdout.strip():
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    if done.stderr.strip():
        print(f"  it said: {done.stderr.strip()[:300]}")
        if "unguarded" in done.stderr:
            raise SystemExit("The guard did not take, so its figures would mean nothing.")
    return done.stdout.strip().rpartition("\n")[2].split()


def _measure(running: rig.Rig, work: Work, modes: tuple[str, ...]) -> Times:
    """Run one work in all modes, round by round; the order moves, so that none always follows the same one."""
    times: Times = {mode: [] for mode in modes}
    for number in range(ROUNDS):
        at = number % len(modes)
        for mode in modes[at:] + modes[:at]:
            slow = mode == "strace"
            if slow and number >= work.slow_rounds:
                continue
            command = work.command(work.slow_turns if slow else work.turns)
            times[mode].append(float(_run(running, _prefix(running, mode) + command)[0]))
            if mode == "guarded":
                running.settle()
    return times


def _spread(times: Times) -> float:
    """Return how far plain was from plain: the median of the rounds, as a share."""
    pairs = zip(times["plain"], times["plain again"], strict=True)
    return statistics.median(abs(again / first - 1) for first, again in pairs)


def _plain(times: Times) -> float:
    return statistics.median(times["plain"] + times["plain again"])


def _print_table(works: dict[str, tuple[Work, Times]]) -> None:
    print(f"\n{'one turn, median of ' + str(ROUNDS):34}" + "".join(f"{mode:>24}" for mode in MODES) + f"{'noise':>9}")
    for name, (work, times) in works.items():
        plain, cells = _plain(times), []
        for mode in MODES:
            if mode not in times:
                cells.append("-")
                continue
            middle = statistics.median(times[mode])
            added = "" if mode.startswith("plain") else f" ({(middle - plain) / work.scale:+.1f})"
            cells.append(f"{middle / work.scale:.1f}{added}")
        title = f"{name}, {work.unit} (added)"
        print(f"{title:34}" + "".join(f"{cell:>24}" for cell in cells) + f"{_spread(times):>8.1%}")
    print("noise: how far plain was from plain in the same round, median", flush=True)


def _wheel(folder: Path) -> Path:
    """Write a wheel of twenty small modules."""
    target, info = folder / "nbsentinel_bench_sample-1.0-py3-none-any.whl", "nbsentinel_bench_sample-1.0.dist-info"
    files = {f"nbsentinel_bench_sample/m{n}.py": f'"""Module {n}."""\n\nVALUE = {n}\n' for n in range(20)}
    files |= {
        "nbsentinel_bench_sample/__init__.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: nbsentinel-bench-sample\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(target, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return target


def _installs(running: rig.Rig, spawns: str) -> Callable[[int], list[str]]:
    """Return the command that installs the wheel into a folder that is new each time."""
    wheel, targets = _wheel(running.folder), iter(range(10_000))
    options = "--no-index --no-deps --no-cache-dir --disable-pip-version-check --quiet --quiet".split()

    def command(turns: int) -> list[str]:
        target = str(running.folder / "home" / f"target{next(targets)}")
        pip = [sys.executable, "-m", "pip", "install", *options, "--target", target, str(wheel)]
        return [spawns, str(turns), *pip]

    return command


@contextlib.contextmanager
def _closed_port() -> Iterator[int]:
    """Keep a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


def _works(running: rig.Rig, port: int) -> list[Work]:
    folder = running.folder / "programs"
    connects, spawns, opens = (rig.build(folder, name) for name in ("connects", "spawns", "opens"))
    calculation = str(Path(__file__).with_name("programs") / "calculation.py")
    readable = shutil.copy(calculation, folder)
    which = _run(running, [*rig.as_user(), sys.executable, readable])[1:]
    return [
        Work("connect, C", lambda n: [connects, str(n), str(port)], 2000, "us", 1e3, 1000),
        Work("posix_spawn of true, C", lambda n: [spawns, str(n), "/bin/true"], 200, "us", 1e3, 60),
        Work(f"loop, {' '.join(which)}", lambda _: [sys.executable, readable], 1, "ms", 1e6, 1, 2),
        Work("open, C", lambda n: [opens, str(n), readable], 100_000, "us", 1e3, 5000),
        Work("pip install of a wheel", _installs(running, spawns), 1, "ms", 1e6, 1, 2),
    ]


def _against_strace(name: str, times: Times, issue: float, aim: float) -> list[tuple]:
    """Return our added cost as a share of strace's; no number where strace's is lost in the noise of this machine."""
    if "strace --seccomp-bpf" not in times:
        return []
    plain = _plain(times)
    added, peer = (statistics.median(times[mode]) - plain for mode in ("guarded", "strace --seccomp-bpf"))
    share = added / peer if peer > _spread(times) * plain else float("nan")
    if math.isnan(share):
        print(f"overhead: what strace adds to {name} is within the noise here, so a share of it would mean nothing")
    return [(f"guard, added to {name}, share of what strace adds (aim {aim:.2f})", share, "", issue)]


def _against_plain(name: str, times: Times) -> tuple:
    """Return a row: guarded against plain, and as its goal what two runs without a guard differ by in this run."""
    ratio = statistics.median(times["guarded"]) / _plain(times)
    return f"guard, {name}, guarded / plain (goal: within noise)", ratio, "x", 1 + max(0.01, _spread(times))


def _launcher(running: rig.Rig) -> list[tuple]:
    """Return what `nbsentinel guard --` adds before the command runs, both ways of starting it."""
    import nbsentinel
    import nbsentinel_guard

    for package in (nbsentinel, nbsentinel_guard):  # as an installation does
        compileall.compile_dir(Path(package.__file__).parent, quiet=2)
    script, own = str(Path(sys.executable).with_name("nbsentinel")), ["--run-dir", str(running.run_dir), "--"]
    forms = {
        "/bin/true alone": ["/bin/true"],
        "python3 -I -S -c pass": [sys.executable, "-I", "-S", "-c", "pass"],
        "python -I -S __main__.py": [sys.executable, "-I", "-S", rig.LAUNCHER, *own, "/bin/true"],
        "nbsentinel guard": [script, "guard", *own, "/bin/true"],
    }
    spawns = str(running.folder / "programs" / "spawns")
    times: Times = {form: [] for form in forms}
    for _ in range(ROUNDS):
        for form, command in forms.items():
            words = _run(running, [*rig.as_user(), spawns, str(LAUNCHES), *command])
            times[form].append(float(words[0]) / 1e6)
        running.settle()
    middle = {form: statistics.median(found) for form, found in times.items()}
    base = middle["/bin/true alone"]
    print(f"\nlauncher, median of {ROUNDS} rounds of {LAUNCHES}")
    for form, value in middle.items():
        print(f"  {form:28}{value:8.1f} ms  ({value - base:+.1f})")
    forms_of_ours = ("python -I -S __main__.py", "nbsentinel guard")
    return [(f"launcher, added by `{form}` (aim 15)", middle[form] - base, "ms", 25.0) for form in forms_of_ours]


def measure() -> list[tuple]:
    """Return our added cost as a share of strace's, the ratios to plain, and the launcher's milliseconds."""
    modes = MODES if shutil.which("strace") else MODES[:3]
    if modes is not MODES:
        print("overhead: strace is not installed, so there is no peer")
    found: dict[str, tuple[Work, Times]] = {}
    with rig.agent() as running, _closed_port() as port:
        for work in _works(running, port):
            print(f"overhead: {work.name}, {ROUNDS} rounds ...", flush=True)
            found[work.name] = work, _measure(running, work, modes)
        _print_table(found)
        rows = _launcher(running)
        print(f"events that the guard could not tell meanwhile: {running.status().get('drops')}")
    connect, spawn, *others = found.items()
    return [
        *_against_strace("connect", connect[1][1], 0.40, 0.20),
        *_against_strace("posix_spawn", spawn[1][1], 0.10, 0.05),
        *(_against_plain(name, times) for name, (_, times) in others),
        *rows,
    ]
