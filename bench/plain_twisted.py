"""
The baseline: a DERP relay as one would first write it on Twisted.

TLS is Twisted's own (``TLSMemoryBIOProtocol`` on pyOpenSSL), every chunk comes through
``dataReceived``, every packet goes out by one ``transport.write``. It keeps the login, routes
SendPacket by key and queues 32 packets for a full destination; no HTTP, no limits, no counters.
It shows what the relay's own transport is worth, and is no server to run::

    python -m bench.plain_twisted PORT
"""

from __future__ import annotations

import os
import sys
from collections import deque
from struct import Struct
from typing import Any

from OpenSSL.SSL import OP_NO_RENEGOTIATION
from twisted.internet import ssl
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from derp.wire import handshake, keys
from derp.wire.frames import KEY_LEN, NONCE_LEN, FrameType

HEADER = Struct(">BI")
QUEUE = 32
"""Packets kept for a full destination, as derper does; the oldest go first."""
UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n\r\n"
)


@implementer(IPushProducer)
class PlainRelay(Protocol):
    """One client: the HTTP request, then ClientInfo, then packets for others."""

    key = b""
    transport: Any

    def __init__(self, private: bytes, clients: dict[bytes, PlainRelay]) -> None:
        self.private = private
        self.clients = clients
        self.pending = b""
        self.upgraded = False
        self.full = False
        self.queue: deque[bytes] = deque(maxlen=QUEUE)

    def connectionMade(self) -> None:
        """Learn when our client's socket is full."""
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)

    def connectionLost(self, reason: object = None) -> None:
        """Forget the client."""
        if self.clients.get(self.key) is self:
            del self.clients[self.key]

    def pauseProducing(self) -> None:
        """Queue what comes for this client, the newest only: its socket is full."""
        self.full = True

    def resumeProducing(self) -> None:
        """Send what waits, and take packets again."""
        self.full = False
        while self.queue and not self.full:
            self.transport.write(self.queue.popleft())

    stopProducing = pauseProducing

    def dataReceived(self, data: bytes) -> None:
        """Take complete requests and frames, keep the rest."""
        self.pending += data
        if not self.upgraded and not self.upgrade():
            return
        position, buffer = 0, self.pending
        while len(buffer) - position >= HEADER.size:
            kind, length = HEADER.unpack_from(buffer, position)
            end = position + HEADER.size + length
            if len(buffer) < end:
                break
            self.frameReceived(kind, buffer[position + HEADER.size : end])
            position = end
        self.pending = buffer[position:]

    def upgrade(self) -> bool:
        """Answer the HTTP request once it is complete."""
        request, end, rest = self.pending.partition(b"\r\n\r\n")
        if not end:
            return False
        fast_start = b"\r\nderp-fast-start: 1" in request.lower()
        greeting = handshake.encode_server_key(keys.public_of(self.private))
        self.transport.write(greeting if fast_start else UPGRADED + greeting)
        self.pending, self.upgraded = rest, True
        return True

    def frameReceived(self, kind: int, payload: bytes) -> None:
        """Route a packet; the first frame is the login."""
        if not self.key:
            self.login(payload)
        elif kind == FrameType.SEND_PACKET:
            destination = self.clients.get(payload[:KEY_LEN])
            if destination is not None:
                header = HEADER.pack(FrameType.RECV_PACKET, len(payload))
                destination.deliver(header + self.key + payload[KEY_LEN:])

    def deliver(self, frame: bytes) -> None:
        """Send a frame now, or later if the socket is full."""
        if self.full:
            self.queue.append(frame)
        else:
            self.transport.write(frame)

    def login(self, payload: bytes) -> None:
        """Open ClientInfo, become routable, answer ServerInfo."""
        self.key, box = handshake.split_client_info(payload)
        shared = handshake.shared_key(self.private, self.key)
        handshake.parse_client_info_json(handshake.open_box(shared, box))
        self.clients[self.key] = self
        self.transport.write(handshake.encode_server_info(shared, os.urandom(NONCE_LEN)))


class PlainFactory(Factory):
    """Makes clients that know each other."""

    noisy = False

    def __init__(self) -> None:
        self.private = keys.generate_private()
        self.clients: dict[bytes, PlainRelay] = {}

    def buildProtocol(self, addr: object) -> PlainRelay:
        """One client."""
        return PlainRelay(self.private, self.clients)


def certificate() -> ssl.CertificateOptions:
    """Give the TLS side a self-signed P-256 certificate of its own."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import NameOID
    from OpenSSL.crypto import X509, PKey

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    leaf = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(key, SHA256())
    )
    options = ssl.CertificateOptions(
        privateKey=PKey.from_cryptography_key(key),
        certificate=X509.from_cryptography(leaf),
    )
    options.getContext().set_options(OP_NO_RENEGOTIATION)
    return options


def main() -> None:
    """Serve on 127.0.0.1 until killed."""
    from twisted.internet import reactor

    endpoint = SSL4ServerEndpoint(
        reactor, int(sys.argv[1]), certificate(), interface="127.0.0.1", backlog=4096
    )

    def refused(failure: Failure) -> None:
        print(failure.getErrorMessage())
        reactor.callWhenRunning(reactor.stop)

    endpoint.listen(PlainFactory()).addErrback(refused)
    reactor.run()


if __name__ == "__main__":
    main()
