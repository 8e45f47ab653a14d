"""The peer of a socket that a caller has just connected, from the kernel's table, where its memory may not be read.

The call has been answered by then, so a socket that is closed within the next fraction of a millisecond is missed. Only
our own network namespace is seen.
"""

from __future__ import annotations

import socket
import struct
import time

_SOCK_DIAG, _DUMP, _ERROR, _DONE = 4, 0x301, 2, 3
_BY_FAMILY = 20
_CONNECTED = (1 << 1) | (1 << 2)
"""ESTABLISHED and SYN_SENT as a mask of 1 << state (include/net/tcp_states.h)."""
PAUSES_S = (0.0, 0.0002, 0.0008)
_REQUEST = struct.Struct("=IHHIIBBBBI48x")
_HEADER = struct.Struct("=IHHII")
_IDENTITY_AT, _INODE_AT = _HEADER.size + 4, _HEADER.size + 68
"""Of struct inet_diag_sockid and of the inode in an answer (include/uapi/linux/inet_diag.h)."""


class Peers:
    """Asks over netlink; one for each thread."""

    def __init__(self) -> None:
        self._netlink: socket.socket | None = None

    def wait_for(self, inode: int) -> bytes:
        """Return the peer as `find` does, once the call that was just answered has run; at most 2 ms."""
        for pause in PAUSES_S:
            time.sleep(pause)
            found = self.find(inode)
            if found:
                return found
        return b""

    def find(self, inode: int) -> bytes:
        """Return the peer of a TCP socket as a struct sockaddr, b"" where it is not connected (any more)."""
        try:
            if self._netlink is None:
                kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
                self._netlink = socket.socket(socket.AF_NETLINK, kind, _SOCK_DIAG)
                self._netlink.settimeout(0.05)
            for family in (socket.AF_INET, socket.AF_INET6):
                found = self._look(self._netlink, family, inode)
                if found:
                    return found
        except OSError:
            if self._netlink is not None:
                self._netlink.close()
            self._netlink = None
        return b""

    @staticmethod
    def _look(netlink: socket.socket, family: int, inode: int) -> bytes:
        netlink.send(
            _REQUEST.pack(_REQUEST.size, _BY_FAMILY, _DUMP, 1, 0, family, socket.IPPROTO_TCP, 0, 0, _CONNECTED)
        )
        found, wanted = b"", struct.pack("=I", inode)
        while True:
            data = netlink.recv(1 << 16)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind = _HEADER.unpack_from(data, at)[:2]
                if kind in (_ERROR, _DONE) or length < _HEADER.size:
                    return found
                if data[at + _INODE_AT : at + _INODE_AT + 4] == wanted:
                    found = _sockaddr(data, at, family)
                at += (length + 3) & ~3


def _sockaddr(data: bytes, at: int, family: int) -> bytes:
    port = data[at + _IDENTITY_AT + 2 : at + _IDENTITY_AT + 4]
    address = data[at + _IDENTITY_AT + 20 : at + _IDENTITY_AT + 36]
    if family == socket.AF_INET:
        return struct.pack("=H", family) + port + address[:4] + bytes(8)
    return struct.pack("=H", family) + port + bytes(4) + address + bytes(4)
