"""What Jupyter servers tell: whom it is believed of, and what stays when it changes or floods."""

from __future__ import annotations

import pytest

from nbsentinel.context.cells import Cells
from nbsentinel.context.origins import Origins
from nbsentinel.context.processes import ProcessTable
from nbsentinel.context.sessions import ROWS_LIMIT, SERVERS_LIMIT, Sessions
from nbsentinel.events import (
    Exec,
    KernelInfo,
    Millis,
    OriginKind,
    Process,
    ProcessKey,
    ServedSession,
    ServerSessions,
)

SERVER, KERNEL, TERMINAL = ProcessKey(10, 1), ProcessKey(20, 2), ProcessKey(30, 3)
NOTEBOOK = ServedSession("notebook", "/home/now.ipynb", "now.ipynb")
CONSOLE = ServedSession("console", "console-1-af", "Console 1")


def said(
    *opened: ServedSession, by: ProcessKey = SERVER, kernel: ProcessKey = KERNEL, **terminals: str
) -> ServerSessions:
    """Return a server's word about a kernel, and about terminals by `p` and the pid."""
    named = tuple((ProcessKey(int(pid[1:]), int(pid[1:]) // 10), name) for pid, name in terminals.items())
    return ServerSessions(at=Millis(0), key=by, kernels=((kernel, opened),), terminals=named, source="kernels")


class House:
    """A server with a kernel that a notebook started, and a terminal."""

    def __init__(self) -> None:
        self.table = ProcessTable()
        self.origins = Origins(self.table, Cells(), lambda: (SERVER,))
        self.add(SERVER, None, "jupyter-lab")
        self.add(KERNEL, SERVER, "python", kernel="k1")
        self.add(TERMINAL, SERVER, "bash", tty="pts/4")

    def add(
        self, key: ProcessKey, parent: ProcessKey | None, *argv: str, kernel: str = "", tty: str | None = None
    ) -> ProcessKey:
        info = KernelInfo(kernel_id=kernel, connection_file="f", notebook="/home/before.ipynb") if kernel else None
        process = Process(
            key=key,
            parent=parent,
            name=argv[0],
            exe=argv[0],
            argv=argv,
            argv_length=0,
            kernel=info,
            tty=tty,
            session=key.pid,
        )
        self.table.apply(Exec(at=Millis(0), process=process, source="test"))
        return key


@pytest.fixture
def house() -> House:
    return House()


def test_without_the_servers_word(house: House) -> None:
    """Where no server tells, the notebook is the one that the kernel was started for, and nothing claims otherwise."""
    found = house.origins.of(KERNEL)
    assert (found.notebook, found.sessions) == ("/home/before.ipynb", ())
    assert "word" not in found.source
    assert house.origins.of(TERMINAL).terminal is None


def test_a_renamed_notebook(house: House) -> None:
    """A process below a kernel belongs to the notebook by its present name, and it is said who said so."""
    house.origins.learn(said(NOTEBOOK))
    found = house.origins.of(house.add(ProcessKey(21, 5), KERNEL, "ls"))
    assert (found.kind, found.notebook, found.sessions) == (
        OriginKind.KERNEL,
        "/home/now.ipynb",
        ("notebook /home/now.ipynb",),
    )
    assert found.source.endswith("by the Jupyter server's word")


def test_several_on_one_kernel(house: House) -> None:
    """Everything that is open on a kernel is named; a console alone is no notebook."""
    second = ServedSession("notebook", "/home/second.ipynb", "second.ipynb")
    house.origins.learn(said(NOTEBOOK, second, CONSOLE))
    found = house.origins.of(KERNEL)
    assert found.notebook == "/home/now.ipynb"
    assert found.sessions == ("notebook /home/now.ipynb", "notebook /home/second.ipynb", "console Console 1")
    house.origins.learn(said(CONSOLE))
    assert (house.origins.of(KERNEL).notebook, house.origins.of(KERNEL).sessions) == (None, ("console Console 1",))


def test_a_terminals_name(house: House) -> None:
    """A process in a terminal belongs to it by the name that the user sees, also after the terminal was closed."""
    house.origins.learn(said(p30="7"))
    house.origins.learn(said())
    found = house.origins.of(house.add(ProcessKey(31, 5), TERMINAL, "vi", tty="pts/4"))
    assert (found.kind, found.terminal, found.process) == (OriginKind.TERMINAL, "7", TERMINAL)
    assert 'its terminal "7" by its own word' in found.source


def test_another_server_is_not_believed(house: House) -> None:
    """A program that only looks like a server names neither the real one's kernels nor those that it starts itself."""
    liar = house.add(ProcessKey(40, 4), TERMINAL, "jupyter-lab")
    own = house.add(ProcessKey(41, 5), liar, "python", kernel="k1")
    house.origins.learn(said(NOTEBOOK, by=liar, p30="evil"))
    house.origins.learn(said(NOTEBOOK, by=liar, kernel=own))
    assert house.origins.of(KERNEL).notebook == "/home/before.ipynb"
    assert house.origins.of(own).notebook == "/home/before.ipynb"
    assert house.origins.of(TERMINAL).terminal is None


def test_what_is_not_below_the_server(house: House) -> None:
    """The server's word about a process that it did not start changes nothing."""
    other = house.add(ProcessKey(50, 5), ProcessKey(1, 0), "python", kernel="k9")
    house.origins.learn(said(NOTEBOOK, kernel=other, p50="1"))
    assert house.origins.of(other).notebook == "/home/before.ipynb"


def test_a_kernel_that_a_cell_starts(house: House) -> None:
    """A process that a cell lets look like another kernel still belongs to the notebook of that cell."""
    forged = house.add(ProcessKey(22, 6), KERNEL, "python", kernel="of-another-notebook")
    house.origins.learn(said(NOTEBOOK))
    assert house.origins.of(forged).notebook == "/home/now.ipynb"


def test_a_notebook_that_is_run(house: House) -> None:
    """What a runner's arguments say stands above the server: it does not know that kernel."""
    runner = house.add(ProcessKey(23, 6), KERNEL, "papermill", "/home/run.ipynb")
    house.origins.learn(said(NOTEBOOK))
    found = house.origins.of(house.add(ProcessKey(24, 7), runner, "python", kernel="k2"))
    assert (found.notebook, found.sessions) == ("/home/run.ipynb", ())


def test_a_crowd_of_servers_does_not_push_out_the_known_one() -> None:
    """Memory is bounded, and what the known server told stays whatever others tell."""
    sessions = Sessions()
    sessions.learn(said(NOTEBOOK), {SERVER})
    for pid in range(1000, 1000 + 5 * SERVERS_LIMIT):
        sessions.learn(said(CONSOLE, by=ProcessKey(pid, 1)), {SERVER})
    assert sessions.of_kernel(SERVER, KERNEL) == (NOTEBOOK,)
    assert sessions.of_kernel(ProcessKey(1000, 1), KERNEL) == ()


def test_rows_are_bounded() -> None:
    """However many kernels and terminals come and go, the newest are known and the oldest are forgotten."""
    sessions = Sessions()
    for pid in range(1, ROWS_LIMIT + 11):
        key = ProcessKey(pid, pid // 10)
        sessions.learn(said(NOTEBOOK, kernel=key, **{f"p{pid}": "t"}), {SERVER})
    assert sessions.of_kernel(SERVER, key) == (NOTEBOOK,)
    assert sessions.terminal(SERVER, key) == "t"
    assert sessions.of_kernel(SERVER, ProcessKey(10, 1)) == ()
    assert sessions.terminal(SERVER, ProcessKey(10, 1)) is None
