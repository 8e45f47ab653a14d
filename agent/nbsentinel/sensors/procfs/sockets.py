"""The kernel's socket tables, by sock_diag over netlink; /proc/net where that is refused or for other namespaces.

For each dump of the TCP sockets the kernel walks its hash table, which grows with the machine's memory: 1.5 ms for
262,144 buckets, and twice that for both families one by one (Linux 6.18, measured). So both are asked for at once, as
the older form of the request can do, and what is asked of one known connection is looked up: 0.02 ms.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import lru_cache, partial

import msgspec

from nbsentinel.context.objects import Activity, Family, Socket
from nbsentinel.events import Endpoint, Inode
from nbsentinel.sensors.procfs.reader import read_bytes

TABLE_LIMIT = 16 * 1024 * 1024
TCP_SYN_SENT, TCP_LISTEN = 0x02, 0x0A
TCP_CLOSED = (0x06, 0x07)
"""TIME_WAIT and CLOSE: no process holds bytes that could still move (include/net/tcp_states.h)."""
NETLINK_SOCK_DIAG = 4
TCPDIAG_GETSOCK, SOCK_DIAG_BY_FAMILY = 18, 20
NLMSG_ERROR, NLMSG_DONE = 2, 3
_LIVE_STATES = 0xFFF & ~(1 << 6)
"""All states but TIME_WAIT, as a mask of 1 << state (include/net/tcp_states.h)."""
NLM_F_REQUEST, NLM_F_REQUEST_DUMP = 0x1, 0x301
_ALL_STATES, _ANY_COOKIE = 0xFFFFFFFF, 0xFFFFFFFF
UDIAG_SHOW_PEER = 0x04
UNIX_DIAG_PEER = 2
INET_DIAG_INFO = 2
_TCP_INFO_LAST_SENT = 44
"""Offset of tcpi_last_data_sent in struct tcp_info (include/uapi/linux/tcp.h); tcpi_last_data_recv is 8 bytes on."""
_TCP_INFO_BYTES_RECEIVED = 128
_TCP_INFO_DATA_SEGMENTS = 152
"""Offset of tcpi_data_segs_in, followed by tcpi_data_segs_out; Linux 4.6 and later."""
CLOCK_ERROR_NS = 5_000_000
CLOCK_TRIES = 4
_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with, never bound


@lru_cache(maxsize=4096)
def _address(text: bytes) -> str:
    raw = bytes.fromhex(text.decode())
    words = struct.unpack(f"={len(raw) // 4}I", raw)
    return _packed_address(struct.pack(f">{len(words)}I", *words))


def _endpoint(text: bytes) -> Endpoint:
    ip, _, port = text.partition(b":")
    return Endpoint(_address(ip), int(port, 16))


def parse_table(data: bytes, protocol: str, only: frozenset[int] | None = None) -> Iterator[Socket]:
    """Yield the sockets of one /proc/net/{tcp,tcp6,udp,udp6} table that still belong to a process.

    Args:
        data: The table.
        protocol: `tcp` or `udp`.
        only: Uids to keep; None keeps all.
    """
    for line in data.split(b"\n")[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[9] == b"0":
            continue
        if only is not None and int(fields[7]) not in only:
            continue
        state = int(fields[3], 16)
        if protocol == "tcp" and state in TCP_CLOSED:
            continue
        remote = _endpoint(fields[2])
        connected = remote.port != 0 or remote.ip not in _ANY
        yield Socket(
            inode=Inode(int(fields[9])),
            family=Family.INET,
            protocol=protocol,
            local=_endpoint(fields[1]),
            remote=remote if connected else None,
            listening=protocol == "tcp" and state == TCP_LISTEN,
            connecting=protocol == "tcp" and state == TCP_SYN_SENT,
        )


def _listed_in_files(pid: int | str, only: frozenset[int] | None) -> dict[Inode, Socket]:
    found: dict[Inode, Socket] = {}
    for name in ("tcp", "tcp6", "udp", "udp6"):
        data = read_bytes(f"/proc/{pid}/net/{name}", TABLE_LIMIT)
        if data:
            found.update((item.inode, item) for item in parse_table(data, name[:3], only))
    return found


def _listed_by_netlink(only: frozenset[int] | None) -> dict[Inode, Socket] | None:
    """Return the sockets of our own namespace, or None where sock_diag is refused."""
    found: dict[Inode, Socket] = {}
    try:
        answers = [("tcp", payload) for payload in _tcp_dump(_LIVE_STATES)]
        for family in (socket.AF_INET, socket.AF_INET6):
            request = struct.pack("=BBBBI", family, socket.IPPROTO_UDP, 0, 0, _LIVE_STATES) + bytes(48)
            answers += [("udp", payload) for payload in _ask(request)]
    except OSError:
        return None
    for protocol, payload in answers:
        item = _diagnosed(payload, protocol, only)
        if item is not None:
            found[item.inode] = item
    return found


def _tcp_dump(states: int, extension: int = 0) -> Iterator[bytes]:
    """Yield a struct inet_diag_msg for each TCP socket of both families.

    Args:
        states: A mask of 1 << state.
        extension: Which attributes to add, by number; 0 for none.

    Raises:
        OSError: sock_diag is refused.
    """
    wanted = 1 << (extension - 1) if extension else 0
    both = struct.pack("=BBBB48xII", socket.AF_UNSPEC, 0, 0, wanted, states, 0)
    try:
        yield from _ask(both, TCPDIAG_GETSOCK)
    except OSError:
        for family in (socket.AF_INET, socket.AF_INET6):
            yield from _ask(struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, wanted, 0, states))


def _diagnosed(payload: bytes, protocol: str, only: frozenset[int] | None) -> Socket | None:
    """Return the socket in a struct inet_diag_msg (include/uapi/linux/inet_diag.h), None for one to leave out."""
    uid, inode = struct.unpack_from("=II", payload, 64)
    if inode == 0 or (only is not None and uid not in only):
        return None
    size = 4 if payload[0] == socket.AF_INET else 16
    ports = struct.unpack_from(">HH", payload, 4)
    local = Endpoint(_packed_address(payload[8 : 8 + size]), ports[0])
    remote = Endpoint(_packed_address(payload[24 : 24 + size]), ports[1])
    return Socket(
        inode=Inode(inode),
        family=Family.INET,
        protocol=protocol,
        local=local,
        remote=remote if remote.port != 0 or remote.ip not in _ANY else None,
        listening=protocol == "tcp" and payload[1] == TCP_LISTEN,
        connecting=protocol == "tcp" and payload[1] == TCP_SYN_SENT,
    )


@lru_cache(maxsize=4096)
def _packed_address(packed: bytes) -> str:
    address = ipaddress.ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def socket_counts() -> bytes:
    """Return the kernel's counts of sockets in use: a cheap sign that something was opened or closed."""
    return read_bytes("/proc/self/net/sockstat", 4096) or b""


def inet_sockets(pid: int | str = "self", only: frozenset[int] | None = None) -> dict[Inode, Socket]:
    """Return all internet sockets of the network namespace that a process is in, by inode.

    The two ends of a connection on this machine name each other in `peer`.
    """
    listed = None if pid != "self" else _listed_by_netlink(only)
    found = _listed_in_files(pid, only) if listed is None else listed
    ends = {(s.protocol, s.local, s.remote): s.inode for s in found.values() if s.local and s.remote}
    for item in list(found.values()):
        other = ends.get((item.protocol, item.remote, item.local)) if item.remote and item.local else None
        if other is not None and other != item.inode:
            found[item.inode] = msgspec.structs.replace(item, peer=other)
    return found


def _ask(request: bytes, kind: int = SOCK_DIAG_BY_FAMILY, flags: int = NLM_F_REQUEST_DUMP) -> Iterator[bytes]:
    """Send one sock_diag request and yield the payload of each answer; one that is no dump has one answer.

    Raises:
        OSError: The kernel refuses, or knows no such socket.
    """
    with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)) as netlink:
        netlink.settimeout(1)
        netlink.send(struct.pack("=IHHII", 16 + len(request), kind, flags, 1, 0) + request)
        while True:
            data = netlink.recv(1 << 18)
            offset = 0
            while offset + 16 <= len(data):
                length, answer = struct.unpack_from("=IH", data, offset)
                if answer == NLMSG_ERROR:
                    error = -struct.unpack_from("=i", data, offset + 16)[0]
                    raise OSError(error, os.strerror(error))
                if answer == NLMSG_DONE:
                    return
                yield data[offset + 16 : offset + length]
                offset += (length + 3) & ~3
            if flags == NLM_F_REQUEST:
                return


def _timed(ask: Callable[[], Iterator[bytes]]) -> tuple[int, list[bytes]]:
    """Return the answers to a request, and the time in milliseconds since the epoch that their ages refer to."""
    for _ in range(CLOCK_TRIES):
        before = time.time_ns()
        answers = ask()
        first = next(answers, None)
        after = time.time_ns()
        found = [] if first is None else [first, *answers]
        if after - before < CLOCK_ERROR_NS:
            break
    return (before + after) // 2_000_000, found


def _attributes(payload: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, offset)
        if length < 4:
            return
        yield kind, payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def unix_peers() -> dict[Inode, Inode] | None:
    """Return the inode of the other end of each connected unix socket; None where the kernel refuses to say."""
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, UDIAG_SHOW_PEER, 0, 0)
    peers: dict[Inode, Inode] = {}
    try:
        for payload in _ask(request):
            inode = struct.unpack_from("=I", payload, 4)[0]
            for kind, value in _attributes(payload, 16):
                if kind == UNIX_DIAG_PEER and len(value) == 4:
                    peers[Inode(inode)] = Inode(struct.unpack("=I", value)[0])
    except OSError:
        return None
    return peers


def unix_sockets() -> dict[Inode, Inode | None]:
    """Return every unix socket of our network namespace with its peer, as far as the kernel tells."""
    table = reader_lines("/proc/self/net/unix")
    found: dict[Inode, Inode | None] = {Inode(int(fields[6])): None for fields in table if len(fields) > 6}
    found.update(unix_peers() or {})
    return found


def reader_lines(path: str) -> Iterator[list[bytes]]:
    """Yield the fields of each line of a table under /proc after its heading."""
    for line in (read_bytes(path, TABLE_LIMIT) or b"").split(b"\n")[1:]:
        yield line.split()


def tcp_activity() -> dict[Inode, Activity]:
    """Return for each TCP connection when it last received and sent data; empty where that is refused.

    The kernel tells ages, so the clock is read right before and after it looks; where other programs came in between,
    it is asked again.
    """
    try:
        return _ages(*_timed(partial(_tcp_dump, _ALL_STATES, INET_DIAG_INFO)))
    except OSError:
        return {}


def activity_of(item: Socket) -> Activity | None:
    """Return the same of one TCP connection of our own network namespace, without a look at all others; else None."""
    if item.protocol != "tcp" or item.local is None or item.remote is None:
        return None
    ends = [ipaddress.ip_address(end.ip.partition("%")[0]) for end in (item.local, item.remote)]
    family = socket.AF_INET if ends[0].version == 4 else socket.AF_INET6
    names = [end.packed.ljust(16, b"\0") for end in ends]
    request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0, _ALL_STATES)
    request += struct.pack(">HH", item.local.port, item.remote.port) + b"".join(names)
    request += struct.pack("=III", 0, _ANY_COOKIE, _ANY_COOKIE)
    try:
        return _ages(*_timed(partial(_ask, request, flags=NLM_F_REQUEST))).get(item.inode)
    except OSError:
        return None


def _ages(now: int, payloads: Iterable[bytes]) -> dict[Inode, Activity]:
    found: dict[Inode, Activity] = {}
    for payload in payloads:
        inode = struct.unpack_from("=I", payload, 68)[0]
        for kind, value in _attributes(payload, 72):
            if kind == INET_DIAG_INFO and len(value) >= _TCP_INFO_LAST_SENT + 12:
                found[Inode(inode)] = _moved(value, now)
    return found


def _moved(info: bytes, now: int) -> Activity:
    sent, _, received = struct.unpack_from("=III", info, _TCP_INFO_LAST_SENT)
    if len(info) < _TCP_INFO_DATA_SEGMENTS + 8:
        return Activity(now - received, now - sent)
    (bytes_in,) = struct.unpack_from("=Q", info, _TCP_INFO_BYTES_RECEIVED)
    segments_in, segments_out = struct.unpack_from("=II", info, _TCP_INFO_DATA_SEGMENTS)
    return Activity(now - received, now - sent, segments_in, segments_out, bytes_in)


def own_namespace() -> str | None:
    """Return the name of our network namespace, to tell processes that live in another one."""
    try:
        return os.readlink("/proc/self/ns/net")
    except OSError:
        return None
