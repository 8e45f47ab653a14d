"""Ways from the operator to a shell: connections that the shell makes, or that are made to it."""

from __future__ import annotations

import datetime
import random
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CONTACT_S = 20.0
"""The longest time until a case has connected: a Java compiler or a kernel starts slowly on a busy machine."""
_STEP_S = 0.05


class Transport(str, Enum):
    """How the bytes travel."""

    TCP = "tcp"
    TCP6 = "tcp6"
    PAIR = "pair"
    """Two TCP connections: commands on the first port, answers on the second."""
    TLS = "tls"
    UDP = "udp"
    BIND = "bind"
    """The case listens, the operator calls."""


class NoContactError(Exception):
    """The case did not connect, or did not listen, in time."""


class Channel:
    """A connection that carries bytes both ways.

    Args:
        outgoing: Carries commands.
        incoming: Carries answers; often the same socket.
        peer: The address of a datagram peer.
    """

    def __init__(self, outgoing: socket.socket, incoming: socket.socket, peer: object = None) -> None:
        self._outgoing, self._incoming, self._peer = outgoing, incoming, peer

    def send(self, data: bytes) -> None:
        """Send all of it."""
        if self._peer is None:
            self._outgoing.sendall(data)
        else:
            self._outgoing.sendto(data, self._peer)  # type: ignore[call-overload]

    def receive(self, seconds: float) -> bytes | None:
        """Return what comes in time (empty: nothing yet), None where the peer has hung up."""
        self._incoming.settimeout(seconds)
        try:
            data = self._incoming.recv(65_536)
        except TimeoutError:
            return b""
        except OSError:
            return None
        return data or None


class Station:
    """The operator's place: ports are known before the case starts, the channel comes later."""

    def __init__(self, transport: Transport, folder: Path) -> None:
        self._transport = transport
        self._open = ExitStack()
        self.host = "::1" if transport is Transport.TCP6 else "127.0.0.1"
        self._tls = _server_context(folder) if transport is Transport.TLS else None
        self._listeners: list[socket.socket] = []
        if transport is Transport.BIND:
            self.ports = [_free_port()]
        else:
            count = 2 if transport is Transport.PAIR else 1
            self._listeners = [self._open.enter_context(self._listen()) for _ in range(count)]
            self.ports = [listener.getsockname()[1] for listener in self._listeners]

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        kind = socket.SOCK_DGRAM if self._transport is Transport.UDP else socket.SOCK_STREAM
        listener = socket.socket(family, kind)
        listener.bind((self.host, 0))
        if kind == socket.SOCK_STREAM:
            listener.listen(8)
        return listener

    def contact(self) -> Channel:
        """Wait for the shell, or call it.

        Raises:
            NoContactError: Nothing came, or nothing listens.
        """
        deadline = time.monotonic() + CONTACT_S
        if self._transport is Transport.BIND:
            called = self._call(deadline)
            return Channel(called, called)
        try:
            if self._transport is Transport.UDP:
                self._listeners[0].settimeout(CONTACT_S)
                _, peer = self._listeners[0].recvfrom(65_536)
                return Channel(self._listeners[0], self._listeners[0], peer)
            accepted = [self._accept(listener, deadline) for listener in self._listeners]
        except OSError as error:
            raise NoContactError(f"nobody connected in {CONTACT_S:.0f} s: {error}") from error
        return Channel(accepted[0], accepted[-1])

    def _accept(self, listener: socket.socket, deadline: float) -> socket.socket:
        listener.settimeout(max(0.1, deadline - time.monotonic()))
        raw, _ = listener.accept()
        self._open.enter_context(raw)
        if self._tls is None:
            return raw
        raw.settimeout(CONTACT_S)
        return self._open.enter_context(self._tls.wrap_socket(raw, server_side=True))

    def _call(self, deadline: float) -> socket.socket:
        while time.monotonic() < deadline:
            with suppress(OSError):
                return self._open.enter_context(socket.create_connection((self.host, self.ports[0]), timeout=1))
            time.sleep(_STEP_S)
        raise NoContactError(f"nothing listened in {CONTACT_S:.0f} s")

    def close(self) -> None:
        """Hang up."""
        self._open.close()


@contextmanager
def station(transport: Transport, folder: Path) -> Iterator[Station]:
    """Yield a station and hang up at the end."""
    place = Station(transport, folder)
    try:
        yield place
    finally:
        place.close()


def _free_port() -> int:
    """Return a port below the ephemeral range: a caller of a port in it can meet itself (RFC 9293, section 3.5)."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _server_context(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    both = folder / "operator.pem"
    both.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context
