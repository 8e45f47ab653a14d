"""Kernels that the launcher starts report without a file in any IPython folder, and are otherwise as ever."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from guard.harness import PROGRAM
from kernel.harness import kernel, listener
from kernel.test_apart import STATE
from nbsentinel_guard import kernels

ENVIRONMENT = (
    "import os, subprocess\n"
    "own = {k: v for k, v in os.environ.items() if k not in ('JPY_PARENT_PID', 'HOME', 'IPYTHONDIR')}\n"
    "child = subprocess.run(['env', '-0'], capture_output=True).stdout.split(b'\\0')\n"
    "print(own, sorted(e for e in child if not e.startswith((b'JPY_PARENT_PID', b'HOME', b'IPYTHONDIR'))))"
)
USERS = {
    "sets a name": "import sys, os\nfound = (__file__, list(sys.argv), os.environ['PYTHONSTARTUP'])\n",
    "fails": "found = 1\nraise ValueError('mine')\n",
    "is not there": None,
}


def launcher(run_dir: Path) -> list[str]:
    return [sys.executable, "-I", "-S", PROGRAM, "--run-dir", str(run_dir), "--"]


def test_reports_and_leaves_nothing(tmp_path: Path) -> None:
    """Cells are told; names, threads, handlers and environments, children's too, are those of a kernel without us."""
    run_dir = tmp_path / "run"
    with (
        listener(run_dir) as heard,
        kernel(tmp_path / "home", None, launcher=launcher(run_dir)) as ours,
        kernel(tmp_path / "plain", None) as plain,
    ):
        outcome = ours.run("1 + 1", "the-cell")
        plain.run("1 + 1")
        assert heard.wait(lambda: [c for c in heard.of("cell") if c[4:6] == ["stop", outcome.message_id]])
        assert plain.run(STATE).text.replace(str(plain.pid), "") == ours.run(STATE).text.replace(str(ours.pid), "")
        assert plain.run(ENVIRONMENT).text == ours.run(ENVIRONMENT).text


@pytest.mark.parametrize("case", USERS)
def test_users_own_file(tmp_path: Path, case: str) -> None:
    """The user's PYTHONSTARTUP runs as without us: its names, what it sees, and what becomes of its errors."""
    run_dir, startup = tmp_path / "run", tmp_path / "startup.py"
    if (text := USERS[case]) is not None:
        startup.write_text(text)
    show = "import os; print(globals().get('found'), '__file__' in globals(), os.environ['PYTHONSTARTUP'])"
    mine = str(startup)
    with (
        listener(run_dir) as heard,
        kernel(tmp_path / "home", None, launcher=launcher(run_dir), PYTHONSTARTUP=mine) as ours,
        kernel(tmp_path / "plain", None, PYTHONSTARTUP=mine) as plain,
    ):
        assert ours.run(show).text == plain.run(show).text
        assert heard.wait(lambda: bool(heard.of("cell")))


@pytest.mark.parametrize(
    "broken", ["nbsentinel_guard/kernels.py", "nbsentinel_kernel/startup.py", "nbsentinel_kernel/reports.py"]
)
def test_kernel_starts_whatever_is_broken(tmp_path: Path, broken: str) -> None:
    """A file of ours that fails stops no kernel, and the user's own PYTHONSTARTUP runs."""
    for package in ("nbsentinel_guard", "nbsentinel_kernel"):
        shutil.copytree(Path(PROGRAM).parents[1] / package, tmp_path / package)
    (tmp_path / broken).write_text("raise ValueError('broken')\n")
    (tmp_path / "mine.py").write_text("mine = 5\n")
    program = str(tmp_path / "nbsentinel_guard" / "__main__.py")
    command = [sys.executable, "-I", "-S", program, "--run-dir", str(tmp_path / "run"), "--"]
    with kernel(tmp_path / "home", None, launcher=command, PYTHONSTARTUP=str(tmp_path / "mine.py")) as running:
        assert running.run("import os; print(mine, os.environ['PYTHONSTARTUP'].endswith('mine.py'))").text == "5 True"


@pytest.mark.parametrize(
    ("command", "is_one"),
    [
        (["python3", "-m", "ipykernel_launcher", "-f", "/x/kernel-1.json"], True),
        (["/opt/conda/bin/python", "-m", "ipykernel", "--IPKernelApp.connection_file=/x/k.json"], True),
        (["bash", "-c", "exec python -m ipykernel_launcher -f /x/k.json"], True),
        (["pip", "install", "ipykernel"], False),
        (["R", "--slave", "-e", "IRkernel::main()", "--args", "/x/k.json"], False),
        (["grep", "-f", "words"], False),
    ],
)
def test_which_commands(command: list[str], is_one: bool) -> None:
    """Only what starts ipykernel gets the variable."""
    assert kernels.starts_kernel(command) is is_one


def test_environment_keeps_odd_entries(tmp_path: Path) -> None:
    """Entries without a name or a value, and equal ones, stay; a start-up file that is set to nothing is carried."""
    file = tmp_path / "file.py"
    file.write_text("")
    odd = [b"A=1", b"=x", b"novalue", b"A=2"]
    found = kernels.environment([*odd, b"PYTHONSTARTUP="], "/run", str(file))
    assert found == [*odd, b"PYTHONSTARTUP=" + bytes(file), b"NBSENTINEL_STARTUP=/run\n"]
    assert kernels.environment(odd, "/run", str(tmp_path / "gone")) == odd
