"""Which edges are trusted, and which peers are remote."""

from __future__ import annotations

import pytest

from nbsentinel.context.objects import ObjectKind
from nbsentinel.context.processes import ProcessTable
from nbsentinel.context.runs import looks_like_server
from nbsentinel.detect.dataflow import trace
from nbsentinel.detect.trust import Broker, Trust
from nbsentinel.events import Endpoint, Exit, Inode, KernelInfo, Millis, ProcessKey
from support.simulation import ATTACKER, System

BROWSER = Endpoint("198.51.100.9", 61000)


class Studio:
    """A simulated Jupyter server with one terminal and one kernel."""

    def __init__(self, **options: object) -> None:
        self.system, self.table = System(), ProcessTable()
        settings = {"loopback_is_remote": True, "brokers": (), **options}
        self.trust = Trust(self.table, **settings)  # type: ignore[arg-type]
        self.server = self.system.start("/opt/conda/bin/python3", "/opt/conda/bin/jupyter-lab", image="python")
        self.system.hold(self.server, 5, self.system.connection(None, Endpoint("0.0.0.0", 8888), listening=True))
        self.system.hold(self.server, 6, self.system.connection(BROWSER))
        self.master, self.slave = self.system.pty()
        self.system.hold(self.server, 7, self.master)
        self.terminal = self.system.start(
            "/bin/bash", image="shell", parent=self.server, tty=f"pts/{self.slave.number}"
        )
        self.system.stdio(self.terminal, self.slave, self.slave)
        info = KernelInfo(kernel_id="k", connection_file="/run/kernel-k.json", ip="127.0.0.1", ports=(5001, 5002))
        self.kernel = self.system.start("/opt/conda/bin/python3", parent=self.server, kernel=info)
        self.system.hold(self.kernel, 8, self.system.connection(None, Endpoint("127.0.0.1", 5001), listening=True))
        channel = self.system.connection(Endpoint("127.0.0.1", 40000), Endpoint("127.0.0.1", 5001))
        self.system.hold(self.kernel, 9, channel)
        self.see()

    def see(self) -> None:
        for key in list(self.system.processes):
            self.table.apply(self.system.executed(key))
        self.trust.refresh(self.system)

    def is_controlled(self, key: ProcessKey) -> bool:
        return trace(self.system, key, self.trust).flow is not None


@pytest.fixture
def studio() -> Studio:
    return Studio()


def test_server_is_found(studio: Studio) -> None:
    """The process that listens and looks like a Jupyter server is the server."""
    assert studio.trust.server == studio.server


def test_jupyter_terminal_is_the_users_own(studio: Studio) -> None:
    """A terminal that the server opened is not controlled from afar, although browsers are connected."""
    assert not studio.is_controlled(studio.terminal)


def test_other_sockets_of_the_server_are_relays(studio: Studio) -> None:
    """A shell behind a proxy of the server is as remote as any."""
    inner, outer = studio.system.pair()
    shell = studio.system.start("/bin/sh", image="shell", parent=studio.server)
    studio.system.stdio(shell, inner, inner)
    studio.system.hold(studio.server, 20, outer)
    studio.see()
    assert studio.is_controlled(shell)


def test_pty_of_the_server_for_somebody_elses_child(studio: Studio) -> None:
    """A pty that the server holds is trusted only for the terminal's own session."""
    master, slave = studio.system.pty()
    studio.system.hold(studio.server, 21, master)
    shell = studio.system.start("/bin/sh", image="shell", parent=studio.kernel)
    studio.system.stdio(shell, slave, slave)
    studio.see()
    assert studio.is_controlled(shell)


def test_command_of_a_cell_on_a_pty(studio: Studio) -> None:
    """`!bash` in a cell: the kernel holds the pty and its channels, and those are trusted."""
    master, slave = studio.system.pty()
    studio.system.hold(studio.kernel, 22, master)
    shell = studio.system.start("/bin/bash", image="shell", parent=studio.kernel)
    studio.system.stdio(shell, slave, slave)
    studio.see()
    assert not studio.is_controlled(shell)


def test_port_in_a_connection_file_that_nobody_listens_on(studio: Studio) -> None:
    """A connection file does not make a port trusted; the kernel must listen on it."""
    master, slave = studio.system.pty()
    studio.system.hold(studio.kernel, 22, master)
    studio.system.hold(
        studio.kernel, 23, studio.system.connection(Endpoint("127.0.0.1", 4444), Endpoint("127.0.0.1", 5002))
    )
    shell = studio.system.start("/bin/bash", image="shell", parent=studio.kernel)
    studio.system.stdio(shell, slave, slave)
    studio.see()
    assert studio.is_controlled(shell)


def test_second_server_is_not_trusted(studio: Studio) -> None:
    """Whoever claims to be the server later is noted and not believed."""
    other = studio.system.start("/usr/bin/python3", "-m", "jupyter_server")
    studio.system.hold(other, 5, studio.system.connection(None, Endpoint("0.0.0.0", 9999), listening=True))
    studio.see()
    assert studio.trust.server == studio.server
    assert other in studio.trust.second_claims


def test_parent_of_a_kernel_stands_back(studio: Studio) -> None:
    """A program that started a kernel before the server came is not the server once there is one."""
    studio.table.apply(Exit(at=Millis(0), key=studio.server, source="t"))
    del studio.system.processes[studio.server]
    driver = studio.system.start("/usr/bin/python3", "driver.py")
    studio.system.hold(driver, 5, studio.system.connection(None, Endpoint("127.0.0.1", 7000), listening=True))
    info = KernelInfo(kernel_id="x", connection_file="/run/kernel-x.json")
    studio.system.start("/usr/bin/python3", parent=driver, kernel=info)
    studio.see()
    assert studio.trust.server == driver
    server = studio.system.start("/usr/bin/python3", "-m", "jupyterlab")
    studio.system.hold(server, 5, studio.system.connection(None, Endpoint("0.0.0.0", 8888), listening=True))
    studio.see()
    assert studio.trust.server == server


def test_registered_broker(studio: Studio) -> None:
    """A terminal broker that an admin registered holds terminals for its users."""
    broker = Broker(exe="/opt/editor/node", argv=("*ptyHost*",))
    for brokers, expected in (((), True), ((broker,), False)):
        other = Studio(brokers=brokers)
        host = other.system.start("/opt/editor/node", "--type=ptyHost")
        master, slave = other.system.pty()
        other.system.hold(host, 4, master)
        other.system.hold(host, 5, other.system.connection(BROWSER))
        shell = other.system.start("/bin/bash", image="shell", parent=host)
        other.system.stdio(shell, slave, slave)
        other.see()
        assert other.is_controlled(shell) is expected


@pytest.mark.parametrize(("setting", "expected"), [(True, True), (False, False)])
def test_loopback(setting: bool, expected: bool) -> None:
    """A peer on this machine is remote only where the configuration says so."""
    studio = Studio(loopback_is_remote=setting)
    socket = studio.system.connection(Endpoint("127.0.0.1", 4444), Endpoint("127.0.0.1", 40001))
    assert socket.kind is ObjectKind.SOCKET
    assert studio.trust.is_remote(studio.system.sockets[Inode(socket.number)]) is expected


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("/opt/conda/bin/python3", "/opt/conda/bin/jupyter-lab", "--ip", "0.0.0.0"), True),
        (("python3", "-m", "jupyterlab"), True),
        (("python3", "/usr/bin/jupyter", "lab"), True),
        (("python3", "-m", "ipykernel_launcher", "-f", "k.json"), False),
        (("python3", "train.py", "jupyter-lab"), False),
    ],
)
def test_what_looks_like_a_server(argv: tuple[str, ...], expected: bool) -> None:
    """Server programs are known by how they are started."""
    system = System()
    assert looks_like_server(system.processes[system.start(*argv)]) is expected


@pytest.mark.parametrize("server", ["a server program", "no server program"])
def test_kernel_is_never_the_server(server: str) -> None:
    """A kernel that forks is the parent of a process with a kernel's arguments, and its ptys are nobody's terminals."""
    studio = Studio()
    if server == "no server program":
        studio.table.apply(Exit(at=Millis(1), source="simulation", key=studio.server))
        studio.system.processes.pop(studio.server)
    kernel = studio.system.processes[studio.kernel]
    fork = studio.system.start(*kernel.argv, parent=studio.kernel, kernel=kernel.kernel)
    master, slave = studio.system.pty()
    studio.system.hold(studio.kernel, 30, master)
    studio.system.hold(studio.kernel, 31, studio.system.connection(ATTACKER))
    studio.see()
    shell = studio.system.start("/bin/sh", image="shell", parent=studio.kernel, tty=f"pts/{slave.number}")
    studio.system.stdio(shell, slave, slave)
    studio.see()
    assert studio.trust.server != studio.kernel
    assert studio.trust.server != fork
    assert studio.is_controlled(shell)


def test_server_program_below_a_kernel_is_no_server(studio: Studio) -> None:
    """Code in a cell cannot start a server of its own whose terminals are trusted."""
    studio.table.apply(Exit(at=Millis(1), source="simulation", key=studio.server))
    studio.system.processes.pop(studio.server)
    own = studio.system.start("/usr/bin/python3", "/usr/bin/jupyter-lab", parent=studio.kernel)
    studio.system.hold(own, 5, studio.system.connection(None, Endpoint("0.0.0.0", 9999), listening=True))
    studio.see()
    assert studio.trust.server is None
