"""Loops of received and executed commands, on a simulated system: what counts as one, and what ordinary programs do."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nbsentinel.context.objects import Activity, KernelObject, ObjectKind, Socket
from nbsentinel.context.processes import ProcessTable
from nbsentinel.detect.loops.commands import CommandLoops
from nbsentinel.detect.loops.evidence import LoopVerdict, Orders, Owner, Variety, Weight
from nbsentinel.events import (
    Connect,
    Connection,
    ConnectStage,
    Endpoint,
    Exit,
    Inode,
    KernelInfo,
    Millis,
    ProcessKey,
)
from support.simulation import ATTACKER, HERE, EveryPeer, System

DATA = Endpoint("198.51.100.20", 443)


class Bench:
    """A simulated system, and a clock that the test moves."""

    def __init__(self, *, initiated: bool | None = True) -> None:
        self.system, self.table, self.now = System(), ProcessTable(), 1_000_000
        self.loops = CommandLoops(self.table, EveryPeer(), lambda _: initiated)
        self.found: list[LoopVerdict] = []

    def program(self, *argv: str, image: str | None = "python", kernel: KernelInfo | None = None) -> ProcessKey:
        """Start a program that the agent has seen."""
        key = self.system.start(*(argv or ("/usr/bin/python3", "job.py")), image=image, kernel=kernel)
        self.table.apply(self.system.executed(key, self.now))
        return key

    def connection(self, *holders: ProcessKey, remote: Endpoint = ATTACKER) -> KernelObject:
        """Make a connection on which nothing was said yet."""
        socket = self.system.connection(remote)
        for holder in holders:
            self.system.hold(holder, 3 + len(self.system.descriptors[holder]), socket)
        self.system.moved[Inode(socket.number)] = Activity(self.now, self.now)
        return socket

    def receive(self, socket: KernelObject, size: int = 20) -> None:
        """Let the peer say something."""
        known = self.system.moved[Inode(socket.number)]
        self.system.moved[Inode(socket.number)] = known._replace(
            received=self.now, segments_in=known.segments_in + 1, bytes_in=known.bytes_in + size
        )

    def send(self, socket: KernelObject) -> None:
        """Let the program say something."""
        known = self.system.moved[Inode(socket.number)]
        self.system.moved[Inode(socket.number)] = known._replace(sent=self.now, segments_out=known.segments_out + 1)

    def run(self, milliseconds: int) -> None:
        """Let time pass, judging whenever something is due."""
        end = self.now + milliseconds
        while (due := self.loops.next_due()) is not None and due <= end:
            self.now = max(self.now, due)
            self.found += self.loops.judge(self.system, self.now)
        self.now = end

    def execute(
        self, owner: ProcessKey, *argv: str, captured: bool = True, lasts: int = 5, image: str | None = "shell"
    ) -> ProcessKey:
        """Let a program run a command to its end."""
        child = self.system.start(*argv, parent=owner, image=image)
        if captured:
            self.system.hold(child, 1, self.system.pipe())
        else:
            self.system.descriptors[child] = dict(self.system.descriptors[owner])
        self.system.processes[child] = replace(self.system.processes[child], started=Millis(self.now))
        seen = self.system.executed(child, self.now)
        self.table.apply(seen)
        self.loops.executed(seen, self.system, self.now)
        self.run(lasts)
        self.system.descriptors[child] = {}
        end = Exit(at=Millis(self.now), key=child, source="simulation")
        self.table.apply(end)
        self.loops.ended(child, self.now)
        return child

    def shell(self, owner: ProcessKey, command: str = "id", *, captured: bool = True, lasts: int = 5) -> None:
        """Let a program hand a command to a shell."""
        self.execute(owner, "/bin/sh", "-c", command, captured=captured, lasts=lasts)

    def connect(self, holder: ProcessKey, peer: Endpoint = ATTACKER) -> None:
        """Let a program make a connection that is gone before anybody looks."""
        connection = Connection(protocol="tcp", local=HERE, remote=peer, inode=Inode(0), initiated=True)
        seen = Connect(
            at=Millis(self.now), key=holder, connection=connection, source="guard", stage=ConnectStage.ATTEMPT
        )
        self.loops.connected(seen, self.now)

    def poll(self, owner: ProcessKey, command: str, peer: Endpoint = ATTACKER) -> None:
        """Ask, execute, report."""
        self.connect(owner, peer)
        self.run(30)
        self.shell(owner, command)
        self.run(5)
        self.connect(owner, peer)
        self.run(5_000)

    @property
    def weights(self) -> list[Weight]:
        """What was concluded so far."""
        self.run(3_000)
        return [verdict.weight for verdict in self.found]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def round_of(bench: Bench, owner: ProcessKey, socket: KernelObject, command: str = "id") -> None:
    """An order, a command, an answer."""
    bench.receive(socket)
    bench.run(2)
    bench.shell(owner, command)
    bench.run(2)
    bench.send(socket)
    bench.run(1_500)


def test_order_that_nobody_asked_for(bench: Bench) -> None:
    """The peer speaks first, a shell runs, an answer goes back: one round is enough, and the confidence says so."""
    owner = bench.program()
    round_of(bench, owner, bench.connection(owner))
    (verdict,) = bench.found
    assert verdict.weight is Weight.STRONG
    assert verdict.process == verdict.holder == owner
    assert verdict.pattern.orders is Orders.UNASKED
    assert verdict.confidence.name == "MEDIUM"


def test_answer_before_the_first_look(bench: Bench) -> None:
    """A command of a millisecond is over and answered before its execution is told: the counts still tell the order."""
    owner = bench.program()
    socket = bench.connection(owner)
    bench.receive(socket)
    bench.run(3)
    bench.send(socket)
    bench.shell(owner)
    assert bench.weights == [Weight.STRONG]


def test_greeting_is_sent_first(bench: Bench) -> None:
    """A loop that introduces itself has asked, but an order of one line is still no service's reply."""
    owner = bench.program()
    socket = bench.connection(owner)
    bench.send(socket)
    bench.run(5_000)
    round_of(bench, owner, socket)
    assert [verdict.weight for verdict in bench.found] == [Weight.FAIR]
    assert bench.found[0].pattern.orders is Orders.SHORT
    round_of(bench, owner, socket, "uname -a")
    assert bench.weights == [Weight.FAIR, Weight.STRONG]


def test_encrypted_loop_shows_from_the_second_order(bench: Bench) -> None:
    """After a handshake the first order looks like a reply; the next comes without anything having been sent."""
    owner = bench.program()
    socket = bench.connection(owner)
    bench.send(socket)
    bench.receive(socket, 3_000)
    bench.send(socket)
    round_of(bench, owner, socket)
    assert bench.found == []
    round_of(bench, owner, socket, "uname -a")
    assert bench.weights == [Weight.STRONG]


def test_nothing_is_answered(bench: Bench) -> None:
    """A program that only takes data in, and runs shells, is none."""
    owner = bench.program()
    socket = bench.connection(owner)
    for _ in range(5):
        bench.receive(socket)
        bench.shell(owner)
        bench.run(2_000)
    assert bench.weights == []


def test_shell_long_after_the_data(bench: Bench) -> None:
    """A cell that runs a command while a connection of an earlier cell is open."""
    owner = bench.program()
    socket = bench.connection(owner)
    bench.receive(socket)
    bench.run(1_000)
    bench.shell(owner)
    bench.send(socket)
    assert bench.weights == []


def test_download_then_shell_then_upload(bench: Bench) -> None:
    """Request, reply, command, request on one kept connection: a pipeline over files stays below a warning."""
    owner = bench.program()
    socket = bench.connection(owner, remote=DATA)
    for number in range(6):
        bench.send(socket)
        bench.run(20)
        bench.receive(socket, 900)
        bench.shell(owner, f"convert {number}.png {number}.jpg", lasts=200)
        bench.send(socket)
        bench.run(20)
        bench.receive(socket, 200)
        bench.run(50)
    assert set(bench.weights) <= {Weight.WEAK}


def test_question_that_no_look_saw(bench: Bench) -> None:
    """A report, its receipt and the next question within one look: the next reply is not taken for an order."""
    owner = bench.program()
    socket = bench.connection(owner, remote=DATA)
    bench.send(socket)
    bench.run(20)
    for number in range(6):
        bench.receive(socket, 900)
        child = bench.system.start("/bin/sh", "-c", f"convert {number}.png", parent=owner, image="shell")
        bench.system.hold(child, 1, bench.system.pipe())
        seen = bench.system.executed(child, bench.now)
        bench.table.apply(seen)
        bench.loops.executed(seen, bench.system, bench.now)
        bench.now += 4
        bench.system.descriptors[child] = {}
        bench.send(socket)
        bench.receive(socket, 200)
        bench.send(socket)
        bench.run(100)
    assert set(bench.weights) <= {Weight.WEAK}


def test_large_replies_are_data(bench: Bench) -> None:
    """What is larger than any command is not one, whatever is run then."""
    owner = bench.program()
    socket = bench.connection(owner, remote=DATA)
    for command in ("tar xf a", "make", "ls", "du -s", "id"):
        bench.send(socket)
        bench.run(20)
        bench.receive(socket, 500_000)
        bench.shell(owner, command)
        bench.send(socket)
        bench.run(100)
    assert bench.weights == []


def test_client_that_goes_on_talking(bench: Bench) -> None:
    """A client that polls beside commands of its own talks while they run: none of its requests reports them."""
    owner = bench.program()
    socket = bench.connection(owner, remote=DATA)
    for command in ("sleep 1; id", "make all", "ls -l", "uname -a"):
        bench.send(socket)
        bench.receive(socket, 300)
        child = bench.system.start("/bin/sh", "-c", command, parent=owner, image="shell")
        bench.system.hold(child, 1, bench.system.pipe())
        seen = bench.system.executed(child, bench.now)
        bench.table.apply(seen)
        bench.loops.executed(seen, bench.system, bench.now)
        for _ in range(5):
            bench.run(100)
            bench.send(socket)
            bench.receive(socket, 300)
        bench.system.descriptors[child] = {}
        bench.run(100)
    assert bench.weights == []


def test_programs_without_a_shell(bench: Bench) -> None:
    """A loop that executes programs itself shows at once where it reads their output."""
    owner = bench.program()
    socket = bench.connection(owner)
    bench.receive(socket)
    bench.execute(owner, "/usr/bin/id", image=None)
    bench.send(socket)
    assert bench.weights == [Weight.STRONG]


def test_service_that_greets(bench: Bench) -> None:
    """A mail or file server speaks first; a password program run before the login is no command of its."""
    owner = bench.program()
    socket = bench.connection(owner, remote=Endpoint("198.51.100.25", 21))
    round_of(bench, owner, socket, "pass show ftp")
    assert bench.weights == []
    for command in ("id", "uname -a"):
        round_of(bench, owner, socket, command)
    assert bench.weights == [Weight.STRONG]


def test_shell_between_that_nobody_saw(bench: Bench) -> None:
    """`$(sh -c ...)` runs below a fork of the script that is gone at once: the script is who executes."""
    owner = bench.program("/bin/bash", "loop.sh", image="shell")
    bench.system.processes[owner] = replace(bench.system.processes[owner], session=5)
    bench.table.apply(bench.system.executed(owner, bench.now))
    for _ in range(2):
        bench.connect(owner)
        child = bench.system.start("/bin/sh", "-c", "id", parent=ProcessKey(9, 9), image="shell")
        bench.system.processes[child] = replace(bench.system.processes[child], session=5, started=Millis(bench.now))
        bench.system.hold(child, 1, bench.system.pipe())
        bench.loops.executed(bench.system.executed(child, bench.now), bench.system, bench.now)
        bench.run(5)
        bench.system.descriptors[child] = {}
        bench.connect(owner)
        bench.run(2_000)
    assert [verdict.process for verdict in bench.found] == [owner]


def test_shell_below_another_program(bench: Bench) -> None:
    """`timeout 9 sh -c ...` is one command, and a shell's."""
    owner = bench.program()
    socket = bench.connection(owner)
    bench.receive(socket)
    wrapper = bench.system.start("/usr/bin/timeout", "9", "sh", "-c", "id", parent=owner)
    bench.system.hold(wrapper, 1, bench.system.pipe())
    inner = bench.system.start("/bin/sh", "-c", "id", parent=wrapper, image="shell")
    bench.system.hold(inner, 1, bench.system.descriptors[wrapper][1].object)
    for key in (wrapper, inner):
        seen = bench.system.executed(key, bench.now)
        bench.table.apply(seen)
        bench.loops.executed(seen, bench.system, bench.now)
    bench.run(5)
    bench.system.descriptors[wrapper] = {}
    bench.send(socket)
    assert bench.weights == [Weight.STRONG]


def test_loop_that_was_started_as_a_command(bench: Bench) -> None:
    """A program that a busy client has started, and that is still under way as its command, can be a loop itself."""
    client = bench.program()
    bench.connect(client)
    started = bench.system.start("/bin/sh", "-c", "exec python3 loop.py", parent=client, image="shell")
    bench.system.hold(started, 1, bench.system.pipe())
    for exe, image in (("/bin/sh", "shell"), ("/usr/bin/python3", "python")):
        bench.system.processes[started] = replace(bench.system.processes[started], exe=exe)
        bench.system.images[started] = image
        seen = bench.system.executed(started, bench.now)
        bench.table.apply(seen)
        bench.loops.executed(seen, bench.system, bench.now)
    bench.run(200)
    round_of(bench, started, bench.connection(started))
    assert [verdict.process for verdict in bench.found] == [started]


def test_kernel_is_judged_like_a_script(bench: Bench) -> None:
    """An eval loop in a cell shows when it runs something."""
    info = KernelInfo(kernel_id="k", connection_file="k.json")
    owner = bench.program("/usr/bin/python3", "-m", "ipykernel_launcher", kernel=info)
    round_of(bench, owner, bench.connection(owner))
    (verdict,) = bench.found
    assert verdict.pattern.owner is Owner.KERNEL
    assert verdict.weight is Weight.STRONG


def test_runtime_with_a_text_of_the_users(bench: Bench) -> None:
    """awk, java and their like belong to the system; what they run does not."""
    owner = bench.program("/usr/bin/gawk", "-f", "loop.awk", image=None)
    round_of(bench, owner, bench.connection(owner))
    assert bench.weights == [Weight.STRONG]


def test_installed_programs_ask_all_day(bench: Bench) -> None:
    """pip, npm, a worker from a package: asking, running and reporting is their work."""
    owner = bench.program("/opt/conda/bin/python3", "/opt/conda/bin/pip", "install", "x")
    for number in range(6):
        bench.poll(owner, f"build {number}; make")
    assert bench.weights == []


def test_accepted_line_is_a_bind_shell(bench: Bench) -> None:
    """A peer that connects here and sends a line which is run."""
    bench = Bench(initiated=False)
    owner = bench.program()
    round_of(bench, owner, bench.connection(owner))
    assert bench.weights == [Weight.STRONG]


def test_web_service_that_runs_one_command(bench: Bench) -> None:
    """A request of a browser that leads to a fixed command is a trace, no warning."""
    bench = Bench(initiated=False)
    owner = bench.program("/usr/bin/python3", "app.py")
    socket = bench.connection(owner)
    for _ in range(4):
        bench.receive(socket, 400)
        bench.shell(owner, "df -h")
        bench.send(socket)
        bench.run(500)
    assert bench.weights == [Weight.WEAK]


def test_worker_that_shares_memory_with_the_network_process(bench: Bench) -> None:
    """The executing process has no descriptor that leads anywhere: the memory that it maps does."""
    network, worker = bench.program(), bench.program()
    socket = bench.connection(network)
    board = KernelObject(ObjectKind.MEMORY, 32, 1)
    bench.system.mapped = {network: (board,), worker: (board,)}
    round_of(bench, worker, socket)
    (verdict,) = bench.found
    assert (verdict.process, verdict.holder) == (worker, network)
    assert verdict.weight is Weight.STRONG


def test_worker_behind_a_pipe(bench: Bench) -> None:
    """Orders that another process passes on through a pipe."""
    network, worker = bench.program(), bench.program()
    socket, pipe = bench.connection(network), bench.system.pipe()
    bench.system.hold(network, 7, pipe, reads=False)
    bench.system.hold(worker, 0, pipe, writes=False)
    round_of(bench, worker, socket)
    assert [(verdict.process, verdict.holder) for verdict in bench.found] == [(worker, network)]


def test_scheduler_of_the_same_session(bench: Bench) -> None:
    """Where loopback counts as remote, a peer in the same session is the other half of one program."""
    owner, scheduler = bench.program(), bench.program()
    for key in (owner, scheduler):
        bench.system.processes[key] = replace(bench.system.processes[key], session=77)
        bench.table.apply(bench.system.executed(key, bench.now))
    socket = bench.connection(owner)
    other = bench.system.connection(HERE, ATTACKER)
    bench.system.hold(scheduler, 3, other)
    bench.system.sockets[Inode(socket.number)] = _with_peer(bench.system, socket, other)
    round_of(bench, owner, socket)
    assert bench.weights == []


def _with_peer(system: System, socket: KernelObject, other: KernelObject):  # type: ignore[no-untyped-def]
    return replace(system.sockets[Inode(socket.number)], peer=Inode(other.number))


def test_peer_that_has_hung_up(bench: Bench) -> None:
    """A connection on this machine whose other end is gone belonged to nobody knows whom."""
    bench = Bench(initiated=False)
    owner = bench.program()
    socket = bench.connection(owner)
    known = bench.system.sockets[Inode(socket.number)]
    bench.system.sockets[Inode(socket.number)] = replace(known, remote=Endpoint("127.0.0.1", 5))
    bench.loops = CommandLoops(bench.table, _Anybody(), lambda _: False)
    round_of(bench, owner, socket)
    assert bench.weights == []


def test_language_server_behind_a_connection(bench: Bench) -> None:
    """A program in some language that goes on reading requests after the first answer is no command."""
    bench = Bench(initiated=False)
    owner = bench.program()
    socket = bench.connection(owner)
    bench.receive(socket)
    server = bench.system.start("/usr/bin/python3", "-u", "-c", "...", parent=owner, image="python")
    bench.system.hold(server, 0, bench.system.pipe())
    bench.system.hold(server, 1, bench.system.pipe())
    seen = bench.system.executed(server, bench.now)
    bench.table.apply(seen)
    bench.loops.executed(seen, bench.system, bench.now)
    bench.run(60)
    bench.send(socket)
    bench.run(1_000)
    bench.system.descriptors[server] = {}
    assert bench.weights == []


class _Anybody(EveryPeer):
    def is_remote(self, socket: Socket) -> bool:
        return socket.remote is not None


def test_polling_with_a_connection_each_time(bench: Bench) -> None:
    """Connect, shell, connect, and again: with the same command twice, or with three different ones."""
    owner = bench.program()
    bench.poll(owner, "id")
    assert bench.weights == []
    bench.poll(owner, "id")
    (verdict,) = bench.found
    assert verdict.weight is Weight.FAIR
    assert verdict.peer == ATTACKER
    assert verdict.pattern.variety is Variety.IDENTICAL


def test_different_polled_commands(bench: Bench) -> None:
    """Two different commands could be a script's steps; three are a warning."""
    owner = bench.program()
    for command in ("id", "uname -a"):
        bench.poll(owner, command)
    assert bench.weights == [Weight.WEAK]
    bench.poll(owner, "cat /etc/passwd")
    assert bench.weights == [Weight.WEAK, Weight.FAIR]


def test_one_download_for_each_command(bench: Bench) -> None:
    """Download, convert, download, convert: nothing reports, so nothing is asked anew."""
    owner = bench.program()
    for number in range(6):
        bench.connect(owner, DATA)
        bench.run(20)
        bench.shell(owner, f"step{number}")
        bench.run(10)
    assert bench.weights == []


def test_metrics_loop(bench: Bench) -> None:
    """A command every second whose output is posted: nothing is asked before it."""
    owner = bench.program()
    for _ in range(10):
        bench.shell(owner, "nvidia-smi")
        bench.connect(owner, DATA)
        bench.run(1_000)
    assert bench.weights == []


def test_name_lookups_are_no_polls(bench: Bench) -> None:
    """Name servers and the metadata service are asked before and after anything."""
    owner = bench.program()
    for peer in (Endpoint("10.0.0.2", 53), Endpoint("169.254.170.2", 80)):
        for command in ("a", "b", "c", "d"):
            bench.poll(owner, command, peer)
    assert bench.weights == []


def test_commands_that_nothing_frames(bench: Bench) -> None:
    """A build that talks now and then runs many commands that no connection frames."""
    owner = bench.program()
    for number in range(4):
        for other in range(3):
            bench.shell(owner, f"cc {number}{other}.c")
            bench.run(700)
        bench.poll(owner, f"tool{number}")
    assert bench.weights == []


def test_download_tool_speaks_for_its_shell(bench: Bench) -> None:
    """`sh -c "$(curl ...)"` in a loop: another process connects, the script reads what it prints."""
    owner = bench.program("/bin/bash", "loop.sh", image="shell")
    for _ in range(2):
        for piped in ("ask", "report"):
            tool = bench.system.start("/usr/bin/curl", piped, parent=owner)
            bench.system.hold(tool, 1, bench.system.pipe())
            bench.table.apply(bench.system.executed(tool, bench.now))
            bench.connect(tool)
            bench.run(10)
            if piped == "ask":
                bench.shell(owner)
        bench.run(2_000)
    assert bench.weights == [Weight.FAIR]


def test_ended_programs_are_forgotten(bench: Bench) -> None:
    """Nothing is due for what is gone."""
    owner = bench.program()
    round_of(bench, owner, bench.connection(owner))
    bench.loops.ended(owner, bench.now)
    bench.run(120_000)
    assert bench.loops.next_due() is None
