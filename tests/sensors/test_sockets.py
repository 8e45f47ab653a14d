"""The kernel's socket tables: peers, directions, activity."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from nbsentinel.context.objects import Family
from nbsentinel.events import Endpoint, Inode
from nbsentinel.sensors.procfs import sockets


def inode(end: socket.socket) -> Inode:
    return Inode(os.fstat(end.fileno()).st_ino)


@pytest.mark.parametrize(("family", "ip"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_tcp_connection_and_its_other_end(family: socket.AddressFamily, ip: str) -> None:
    """Both ends of a local connection are listed with their addresses and name each other."""
    with socket.create_server((ip, 0), family=family) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((ip, port)) as client, listener.accept()[0] as server:
            found = sockets.inet_sockets()
            here = found[inode(client)]
            assert here.remote == Endpoint(ip, port)
            assert here.peer == inode(server)
            assert found[inode(listener)].listening
            assert found[inode(listener)].remote is None


def test_mapped_addresses_are_given_as_ipv4() -> None:
    """An IPv4 peer of a dual-stack socket has its IPv4 address: no rule is fooled by the notation."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0] as server:
            here = sockets.inet_sockets()[inode(server)]
            assert here.remote is not None
            assert here.remote.ip == "127.0.0.1"


def test_connected_and_bound_datagram_sockets() -> None:
    """A connected UDP socket has a peer, a bound one has none."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.1", 0))
        two.connect(one.getsockname())
        found = sockets.inet_sockets()
        assert found[inode(one)].remote is None
        assert found[inode(two)].remote == Endpoint(*one.getsockname())


def test_unix_peers() -> None:
    """The two ends of a unix socket pair name each other."""
    one, two = socket.socketpair()
    with one, two:
        peers = sockets.unix_peers()
        assert peers is not None
        assert peers[inode(one)] == inode(two)
        assert peers[inode(two)] == inode(one)


def test_activity_of_a_connection() -> None:
    """The kernel tells how long ago bytes moved on a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
            begin = time.time() * 1000
            time.sleep(0.3)
            server.sendall(b"x")
            client.recv(1)
            found = sockets.tcp_activity()[inode(client)]
            assert begin + 250 <= found.received <= time.time() * 1000 + 50
            assert found.sent <= begin + 50


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "mapped"])
def test_one_connection_is_looked_up(ip: str) -> None:
    """What is asked of one connection is what the list of all says, at each end and in each family."""
    family = socket.AF_INET if ip == "127.0.0.1" else socket.AF_INET6
    bound, named = ("::", "127.0.0.1") if ip == "mapped" else (ip, ip)
    with socket.create_server((bound, 0), family=family, dualstack_ipv6=ip == "mapped") as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((named, port)) as client, listener.accept()[0] as server:
            client.sendall(b"xyz")
            server.recv(3)
            time.sleep(0.2)
            listed, known = sockets.tcp_activity(), sockets.inet_sockets()
            for end in (client, server):
                alone = sockets.activity_of(known[inode(end)])
                assert alone is not None
                assert abs(alone.received - listed[inode(end)].received) <= 50
                assert alone.bytes_in == listed[inode(end)].bytes_in == (3 if end is server else 0)
                assert alone.segments_in == listed[inode(end)].segments_in
            held = known[inode(client)]
        assert sockets.activity_of(held) is None, "it is closed: nobody's socket is taken for it"
        assert sockets.activity_of(known[inode(listener)]) is None


def test_a_kernel_without_the_older_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both families cannot be asked for at once they are asked for one by one."""
    kinds: list[int] = []
    plain = sockets._ask

    def refuse(request: bytes, kind: int = sockets.SOCK_DIAG_BY_FAMILY, flags: int = 0x301) -> Iterator[bytes]:
        kinds.append(kind)
        if kind == sockets.TCPDIAG_GETSOCK:
            raise OSError(22, "Invalid argument")
        return plain(request, kind, flags)

    monkeypatch.setattr(sockets, "_ask", refuse)
    for family, ip in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.create_server((ip, 0), family=family) as listener:
            assert inode(listener) in sockets.inet_sockets()
    assert sockets.TCPDIAG_GETSOCK in kinds


def test_other_users_can_be_left_out() -> None:
    """Only the sockets of the wanted users are returned."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert inode(listener) in sockets.inet_sockets(only=frozenset({os.getuid()}))
        assert inode(listener) not in sockets.inet_sockets(only=frozenset({54321}))


@pytest.mark.parametrize("data", [b"", b"heading\n", b"heading\nshort line\n", b"heading\n\n\n"])
def test_broken_tables(data: bytes) -> None:
    """A table that is empty or cut gives nothing and no error."""
    assert list(sockets.parse_table(data, "tcp")) == []


def test_families_are_told_apart() -> None:
    """Internet sockets are of the inet family."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert sockets.inet_sockets()[inode(listener)].family is Family.INET


def test_both_ways_of_listing_agree() -> None:
    """What netlink lists is what /proc/net lists."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
            ours = {inode(end) for end in (listener, client, server)}
            by_netlink = sockets._listed_by_netlink(None)
            in_files = sockets._listed_in_files("self", None)
            assert by_netlink is not None
            assert {key: by_netlink[key] for key in ours} == {key: in_files[key] for key in ours}
