"""Which cell a process, a thread or a file access belongs to, and how sure that is."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nbsentinel.context import cells as module
from nbsentinel.context.cells import Cells
from nbsentinel.context.origins import Moment, Origins, moment_of
from nbsentinel.context.processes import ProcessTable
from nbsentinel.events import (
    CellPhase,
    CellRun,
    Certainty,
    Connect,
    Connection,
    Endpoint,
    Exit,
    FileAccess,
    FileOperation,
    Inode,
    KernelAudit,
    KernelInfo,
    Millis,
    Origin,
    OriginKind,
    Process,
    ProcessKey,
    Tamper,
    TamperKind,
)
from support.simulation import System

MAIN, SUBSHELL, WORKER = 71, 72, 73


class Notebook:
    """A kernel, its cells, and what they start."""

    def __init__(self) -> None:
        self.system, self.table, self.cells = System(), ProcessTable(), Cells()
        self.server = self.system.start("/opt/conda/bin/jupyter-lab")
        info = KernelInfo(kernel_id="k1", connection_file="/x/kernel-k1.json", notebook="/home/a.ipynb")
        self.kernel = self.system.start("/usr/bin/python3", parent=self.server, kernel=info)
        self.origins = Origins(self.table, self.cells, lambda: (self.server,))
        for key in (self.server, self.kernel):
            self.table.apply(self.system.executed(key, 0))

    def cell(self, name: str, started: int, ended: int | None = None, thread: int = MAIN) -> None:
        told = CellRun(
            at=Millis(started),
            key=self.kernel,
            phase=CellPhase.START,
            thread=thread,
            message_id=f"m-{name}",
            cell_id=name,
            execution_count=started,
            source="kernels",
        )
        self.cells.learn(told)
        if ended is not None:
            self.cells.learn(replace(told, at=Millis(ended), phase=CellPhase.STOP, cell_id=None))

    def tells(self, name: str, at: int, cell: str | None, thread: int = MAIN, **arguments: str) -> KernelAudit:
        told = KernelAudit(
            at=Millis(at),
            key=self.kernel,
            thread=thread,
            name=name,
            arguments=arguments,
            message_id=f"m-{cell}" if cell else None,
            certain=thread != WORKER,
            source="kernels",
        )
        self.cells.learn(told)
        return told

    def starts(self, *argv: str, at: int, parent: ProcessKey | None = None) -> Process:
        key = self.system.start(*argv, parent=parent or self.kernel)
        self.system.processes[key] = replace(self.system.processes[key], started=Millis(at))
        observed = self.system.executed(key, at + 3)
        self.table.apply(observed)
        self.cells.started(observed.process, self.table.lineage(key), observed.at)
        return observed.process

    def of(self, process: Process) -> Origin:
        return self.origins.of(process.key)


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


def test_the_only_cell_that_runs(notebook: Notebook) -> None:
    """Without the kernel's word about the process, the only running cell is likely, not certain."""
    notebook.cell("a", 1000, 1900)
    notebook.cell("b", 2000)
    found = notebook.of(notebook.starts("/bin/ls", at=2500))
    assert (found.kernel_id, found.notebook, found.cell_id) == ("k1", "/home/a.ipynb", "b")
    assert found.cell is not None
    assert found.cell.execution_count == 2000
    assert found.cell_certainty is Certainty.LIKELY
    assert found.cell_source.startswith("likely: the only cell")


def test_the_kernel_told_of_the_process(notebook: Notebook) -> None:
    """What the kernel told in the cell's own thread is certain."""
    notebook.cell("a", 1000)
    notebook.tells("subprocess.Popen", 1499, "a", CommandLine="ls -l")
    found = notebook.of(notebook.starts("/bin/ls", "-l", at=1500))
    assert (found.cell_id, found.cell_certainty) == ("a", Certainty.CERTAIN)


@pytest.mark.parametrize("first", ["a", "b"])
def test_two_cells_at_once(notebook: Notebook, first: str) -> None:
    """Of two cells that run at once in subshells, each gets the process that it told of."""
    second = "b" if first == "a" else "a"
    notebook.cell("a", 1000, thread=MAIN)
    notebook.cell("b", 1000, thread=SUBSHELL)
    notebook.tells("subprocess.Popen", 1499, first, CommandLine="ls one")
    notebook.tells("subprocess.Popen", 1500, second, thread=SUBSHELL, CommandLine="ls two")
    assert notebook.of(notebook.starts("ls", "one", at=1500)).cell_id == first
    assert notebook.of(notebook.starts("ls", "two", at=1501)).cell_id == second


def test_two_cells_and_no_word(notebook: Notebook) -> None:
    """Where two cells ran and nothing tells them apart, the answer is unknown, with the reason."""
    notebook.cell("a", 1000, thread=MAIN)
    notebook.cell("b", 1000, thread=SUBSHELL)
    found = notebook.of(notebook.starts("/bin/ls", at=1500))
    assert (found.cell, found.cell_certainty) == (None, Certainty.UNKNOWN)
    assert found.cell_source.startswith("unknown: 2 cells ran")


def test_a_thread_of_an_earlier_cell(notebook: Notebook) -> None:
    """A process that a thread starts belongs to the cell that started the thread, whatever runs meanwhile."""
    notebook.cell("a", 1000, 1100)
    notebook.cell("b", 2000)
    notebook.tells("subprocess.Popen", 2499, "a", thread=WORKER, CommandLine="ls")
    found = notebook.of(notebook.starts("ls", at=2500))
    assert (found.cell_id, found.cell_certainty) == ("a", Certainty.LIKELY)


def test_background_processes_keep_their_cell(notebook: Notebook) -> None:
    """What a process starts belongs to its cell after that cell, its parent and the kernel have ended."""
    notebook.cell("a", 1000)
    daemon = notebook.starts("/bin/sh", at=1500)
    notebook.table.apply(Exit(at=Millis(1600), key=notebook.kernel, source="t"))
    notebook.cells.forget(notebook.kernel)
    late = notebook.starts("/usr/bin/curl", at=90_000, parent=daemon.key)
    notebook.table.apply(Exit(at=Millis(90_001), key=daemon.key, source="t"))
    found = notebook.of(late)
    assert (found.kind, found.cell_id) == (OriginKind.KERNEL, "a")


def test_nothing_runs(notebook: Notebook) -> None:
    """A process that starts between cells is not blamed on any, and the last one is named in the reason."""
    notebook.cell("a", 1000, 1100)
    found = notebook.of(notebook.starts("/bin/ls", at=5000))
    assert found.cell is None
    assert "no cell ran" in found.cell_source
    assert "a" in found.cell_source


def test_a_kernel_that_is_silent(notebook: Notebook) -> None:
    """Without reports the kernel and notebook are known all the same."""
    found = notebook.of(notebook.starts("/bin/ls", at=5000))
    assert (found.kernel_id, found.cell) == ("k1", None)
    assert "does not report" in found.cell_source


def connect(notebook: Notebook, at: int, thread: int) -> Connect:
    connection = Connection(
        protocol="tcp", local=None, remote=Endpoint("192.0.2.1", 80), inode=Inode(1), initiated=True
    )
    return Connect(at=Millis(at), key=notebook.kernel, connection=connection, source="guard", thread=thread)


def test_connections_of_the_kernel_itself(notebook: Notebook) -> None:
    """A connection of the kernel belongs to the cell that its thread ran, or to the one that started the thread."""
    notebook.cell("a", 1000, 1100)
    notebook.cell("b", 2000, thread=MAIN)
    notebook.cell("c", 2000, thread=SUBSHELL)
    notebook.tells("socket.connect", 2499, "a", thread=WORKER)

    def of(at: int, thread: int) -> tuple[str | None, Certainty]:
        found = notebook.origins.of_observation(connect(notebook, at, thread))
        assert found is not None
        return found.cell_id, found.cell_certainty

    assert of(1050, MAIN) == ("a", Certainty.CERTAIN)
    assert of(2500, MAIN) == ("b", Certainty.CERTAIN)
    assert of(2500, SUBSHELL) == ("c", Certainty.CERTAIN)
    assert of(2500, WORKER) == ("a", Certainty.LIKELY)
    assert of(2500, 99) == (None, Certainty.UNKNOWN)
    assert of(2500, 0) == (None, Certainty.UNKNOWN)
    assert of(1050, 0) == ("a", Certainty.LIKELY)


def test_a_file_that_the_kernel_told_of(notebook: Notebook) -> None:
    """The file sensor knows the process alone; the kernel's own word about the same file tells the cell."""
    notebook.cell("a", 1000, thread=MAIN)
    notebook.cell("b", 1000, thread=SUBSHELL)
    notebook.tells("open", 1500, "b", thread=SUBSHELL, Path="/home/u/.aws/credentials", Access="read")
    access = FileAccess(
        at=Millis(1503),
        path="/home/u/.aws/credentials",
        operation=FileOperation.READ,
        kind="aws",
        key=notebook.kernel,
        certainty="lease",
        source="files",
    )
    found = notebook.origins.of_observation(access)
    assert found is not None
    assert (found.cell_id, found.cell_certainty) == ("b", Certainty.CERTAIN)
    other = notebook.origins.of_observation(replace(access, path="/home/u/.ssh/id_rsa"))
    assert other is not None
    assert other.cell is None


def test_lost_end_of_a_cell(notebook: Notebook) -> None:
    """A thread runs one cell at a time: the next start ends a run whose end was lost."""
    notebook.cell("a", 1000)
    notebook.cell("b", 2000)
    assert notebook.of(notebook.starts("/bin/ls", at=2500)).cell_id == "b"


def test_terminals_and_runs_of_notebooks(notebook: Notebook) -> None:
    """Terminals are told by who opened them, kernels of nbconvert and papermill by their notebook."""
    start = notebook.system.start
    terminal = start("/bin/bash", parent=notebook.server, tty="pts/4")
    command = start("/usr/bin/git", parent=terminal)
    host = start("/usr/lib/node", "/opt/x/out/bootstrap-fork", "--type=ptyHost")
    editors = start("/bin/bash", parent=host, tty="pts/5")
    runner = start("/usr/bin/python3", "/usr/bin/papermill", "in.ipynb", "out.ipynb")
    notebook.system.processes[runner] = replace(notebook.system.processes[runner], cwd="/home/u/work")
    info = KernelInfo(kernel_id="k2", connection_file="/tmp/kernel-k2.json")
    ran = start("/usr/bin/python3", parent=runner, kernel=info)
    lonely = start("/bin/ls")
    for key in (terminal, command, host, editors, runner, ran, lonely):
        notebook.table.apply(notebook.system.executed(key, 5))
    of = notebook.origins.of
    assert (of(command).kind, of(command).process) == (OriginKind.TERMINAL, terminal)
    assert "Jupyter server" in of(command).source
    assert "Code Editor" in of(editors).source
    assert (of(ran).notebook, "papermill" in of(ran).source) == ("/home/u/work/in.ipynb", True)
    assert of(lonely).kind is OriginKind.OTHER
    assert of(lonely).source.startswith("unknown:")


def test_memory_is_bounded(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much kernels tell, only so much is remembered, the newest of it."""
    monkeypatch.setattr(module, "RUNS_LIMIT", 10)
    monkeypatch.setattr(module, "PROCESSES_LIMIT", 10)
    for number in range(100):
        notebook.cell(str(number), 1000 * number, 1000 * number + 900)
        last = notebook.starts("/bin/true", at=1000 * number + 500)
    assert notebook.of(last).cell_id == "99"
    kernel = notebook.cells._kernels[notebook.kernel]
    assert len(kernel.runs) == 10
    assert len(notebook.cells._places) == 10


def test_moments() -> None:
    """What says nothing about when an image did something has no moment."""
    assert moment_of(Exit(at=Millis(1), key=ProcessKey(1, 1), source="t"), Cells()) is None
    assert Moment(Millis(1)).thread == 0
    words = {"kind": TamperKind.REFUSED_CALL, "target": "agent", "detail": "kill was refused", "source": "guard"}
    refused = Tamper(at=Millis(5), key=ProcessKey(1, 1), thread=7, **words)  # type: ignore[arg-type]
    assert moment_of(refused, Cells()) == Moment(Millis(5), 7)
