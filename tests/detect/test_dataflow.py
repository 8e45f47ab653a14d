"""Dataflow on a simulated system: every way from a peer to a process and back, and the ways that are none."""

from __future__ import annotations

import pytest

from nbsentinel.context.objects import Family, KernelObject, ObjectKind
from nbsentinel.detect.dataflow import MAX_RELAYS, trace
from nbsentinel.events import Inode, ProcessKey
from support.simulation import EveryPeer, System


@pytest.fixture
def system() -> System:
    return System()


@pytest.fixture
def shell(system: System) -> ProcessKey:
    return system.start("/bin/sh", image="shell")


def relay(system: System, *ends: KernelObject) -> ProcessKey:
    key = system.start("/usr/bin/relay")
    for fd, end in enumerate(ends, 3):
        system.hold(key, fd, end)
    return key


def test_socket_as_standard_streams_is_direct(system: System, shell: ProcessKey) -> None:
    """A shell whose streams are the peer's socket is controlled without any relay."""
    socket = system.connection()
    system.stdio(shell, socket, socket)
    flow = trace(system, shell, EveryPeer()).flow
    assert flow is not None
    assert flow.direct
    assert flow.relays == ()


def test_two_pipes_through_one_relay(system: System, shell: ProcessKey) -> None:
    """A relay between a socket and two pipes is named as the relay."""
    source, sink = system.pipe(), system.pipe()
    system.stdio(shell, source, sink)
    middle = relay(system, system.connection(), source, sink)
    flow = trace(system, shell, EveryPeer()).flow
    assert flow is not None
    assert not flow.direct
    assert flow.relays == (middle,)


def test_pipes_have_a_direction(system: System, shell: ProcessKey) -> None:
    """A process that holds only the reading end of the shell's input feeds it nothing."""
    source, sink = system.pipe(), system.pipe()
    system.stdio(shell, source, sink)
    key = system.start("/usr/bin/reader")
    system.hold(key, 3, source, writes=False)
    system.hold(key, 4, sink, writes=False)
    system.hold(key, 5, system.connection())
    assert trace(system, shell, EveryPeer()).flow is None


def test_fifo_and_pipe_with_two_processes(system: System, shell: ProcessKey) -> None:
    """The classic: input from a fifo that netcat fills, output through a pipe to the same netcat."""
    fifo, pipe = system.fifo(), system.pipe()
    system.stdio(shell, fifo, pipe)
    netcat = system.start("/bin/nc")
    system.hold(netcat, 0, pipe, writes=False)
    system.hold(netcat, 1, fifo, reads=False)
    system.hold(netcat, 3, system.connection())
    assert trace(system, shell, EveryPeer()).flow is not None


def test_pty_held_by_a_connected_process(system: System, shell: ProcessKey) -> None:
    """A shell on a pseudo terminal belongs to whoever holds the master."""
    master, slave = system.pty()
    system.stdio(shell, slave, slave)
    middle = relay(system, master, system.connection())
    flow = trace(system, shell, EveryPeer()).flow
    assert flow is not None
    assert flow.relays == (middle,)


def test_neighbours_on_a_terminal_feed_nothing(system: System, shell: ProcessKey) -> None:
    """Ssh started in a terminal holds a connection and the terminal, but it does not feed the terminal's shell."""
    master, slave = system.pty()
    system.stdio(shell, slave, slave)
    relay(system, master)
    ssh = system.start("/usr/bin/ssh")
    system.stdio(ssh, slave, slave)
    system.hold(ssh, 3, system.connection())
    assert trace(system, shell, EveryPeer()).flow is None


@pytest.mark.parametrize("family", [Family.UNIX, Family.INET])
def test_two_processes_joined_by_local_sockets(system: System, shell: ProcessKey, family: Family) -> None:
    """A local socket pair between two processes is followed, unix or loopback TCP."""
    inner, outer = system.pair(family)
    system.stdio(shell, inner, inner)
    middle = relay(system, outer, system.connection())
    flow = trace(system, shell, EveryPeer()).flow
    assert flow is not None
    assert flow.relays == (middle,)


@pytest.mark.parametrize("length", [1, 3, MAX_RELAYS - 1])
def test_chains_of_any_length_up_to_the_bound(system: System, shell: ProcessKey, length: int) -> None:
    """Relays behind relays are followed to the peer."""
    near = system.pair()
    system.stdio(shell, near[0], near[0])
    outer = near[1]
    for _ in range(length - 1):
        onward = system.pair()
        relay(system, outer, onward[0])
        outer = onward[1]
    relay(system, outer, system.connection())
    flow = trace(system, shell, EveryPeer()).flow
    assert flow is not None
    assert len(flow.relays) == length


def test_longer_chains_are_reported_as_truncated(system: System, shell: ProcessKey) -> None:
    """Beyond the bound the search says that it gave up."""
    near = system.pair()
    system.stdio(shell, near[0], near[0])
    outer = near[1]
    for _ in range(MAX_RELAYS + 2):
        onward = system.pair()
        relay(system, outer, onward[0])
        outer = onward[1]
    relay(system, outer, system.connection())
    found = trace(system, shell, EveryPeer())
    assert found.flow is None
    assert found.truncated


def test_input_alone_is_not_control(system: System, shell: ProcessKey) -> None:
    """`curl | sh` on a terminal: fed from afar, heard here. That is another rule's business."""
    pipe, (_, slave) = system.pipe(), system.pty()
    system.hold(shell, 0, pipe)
    system.hold(shell, 1, slave)
    system.hold(shell, 2, slave)
    relay(system, system.connection(), pipe)
    assert trace(system, shell, EveryPeer()).flow is None


def test_output_alone_is_not_control(system: System, shell: ProcessKey) -> None:
    """A script whose log is shipped elsewhere is heard, not fed."""
    pipe, (_, slave) = system.pipe(), system.pty()
    system.hold(shell, 0, slave)
    system.hold(shell, 1, pipe)
    relay(system, system.connection(), pipe)
    assert trace(system, shell, EveryPeer()).flow is None


def test_two_peers_one_each_way(system: System, shell: ProcessKey) -> None:
    """Commands from one connection, answers to another: still control."""
    source, sink = system.pipe(), system.pipe()
    system.stdio(shell, source, sink)
    relay(system, system.connection(), source)
    relay(system, system.connection(), sink)
    flow = trace(system, shell, EveryPeer()).flow
    assert flow is not None
    assert len(flow.sockets) == 2


def test_a_loop_of_pipes_ends(system: System, shell: ProcessKey) -> None:
    """Processes that feed each other in a circle without a peer do not keep the search busy."""
    one, two = system.pipe(), system.pipe()
    system.stdio(shell, one, two)
    relay(system, one, two)
    relay(system, one, two)
    assert trace(system, shell, EveryPeer()).flow is None


def test_unreadable_processes_are_passed_over(system: System, shell: ProcessKey) -> None:
    """A relay that may not be looked into gives no path and no error."""
    source, sink = system.pipe(), system.pipe()
    system.stdio(shell, source, sink)
    system.unreadable.add(relay(system, source, sink, system.connection()))
    assert trace(system, shell, EveryPeer()).flow is None


def test_sockets_that_no_table_lists_count_when_direct(system: System, shell: ProcessKey) -> None:
    """A shell on a vsock, SCTP or foreign-namespace socket is controlled by somebody."""
    socket = system.unlisted_socket()
    system.stdio(shell, socket, socket)
    flow = trace(system, shell, EveryPeer()).flow
    assert flow is not None
    assert flow.source.socket.family is Family.UNKNOWN


def test_unconnected_datagram_sockets_count_when_direct(system: System, shell: ProcessKey) -> None:
    """A shell on a bound UDP socket listens to anybody."""
    socket = system.connection(remote=None, protocol="udp")
    system.stdio(shell, socket, socket)
    assert trace(system, shell, EveryPeer()).flow is not None


def test_a_listening_socket_is_no_peer(system: System, shell: ProcessKey) -> None:
    """A relay that only listens is not yet a way to anywhere."""
    source, sink = system.pipe(), system.pipe()
    system.stdio(shell, source, sink)
    relay(system, system.connection(remote=None, listening=True), source, sink)
    assert trace(system, shell, EveryPeer()).flow is None


def test_touched_names_those_whose_connections_matter(system: System, shell: ProcessKey) -> None:
    """A relay without a peer is remembered, so that its later connection is a reason to look again."""
    source, sink = system.pipe(), system.pipe()
    system.stdio(shell, source, sink)
    middle = relay(system, source, sink)
    assert middle in trace(system, shell, EveryPeer()).touched


def test_relay_behind_shared_memory(system: System, shell: ProcessKey) -> None:
    """The shell's pipes end at a process without a socket that shares memory with one that has it."""
    source, sink, board = system.pipe(), system.pipe(), KernelObject(ObjectKind.MEMORY, 9, 1)
    system.stdio(shell, source, sink)
    near, far = relay(system, source, sink), relay(system, system.connection())
    system.mapped = {near: (board,), far: (board,)}
    flow = trace(system, shell, EveryPeer()).flow
    assert flow is not None
    assert flow.relays == (near, far)


def test_memory_that_nobody_shares(system: System, shell: ProcessKey) -> None:
    """A process pool's memory leads nowhere when none of its processes has a connection."""
    source, sink, board = system.pipe(), system.pipe(), KernelObject(ObjectKind.MEMORY, 9, 1)
    system.stdio(shell, source, sink)
    near, far = relay(system, source, sink), relay(system)
    relay(system, system.connection())
    system.mapped = {near: (board,), far: (board,)}
    assert trace(system, shell, EveryPeer()).flow is None


def test_socket_younger_than_the_tables(system: System, shell: ProcessKey) -> None:
    """A local socket that was made while the tables were read is not taken for one that no table lists."""
    near, far = system.pair()
    system.stdio(shell, near, near)
    relay(system, far)
    system.younger = {Inode(near.number), Inode(far.number)}
    assert trace(system, shell, EveryPeer()).flow is None


def test_socket_that_goes_with_its_shell(system: System, shell: ProcessKey) -> None:
    """A shell that ends between a look at its descriptors and one at the tables leaves a socket that nobody lists."""
    socket = system.unlisted_socket()
    system.stdio(shell, socket, socket)
    system.ended = {shell}
    assert trace(system, shell, EveryPeer()).flow is None
