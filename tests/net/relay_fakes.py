"""Relays to connect to: one that answers by script, and certificates for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from derp.wire.frames import FrameDecoder, FrameType, encode_frame
from derp.wire.handshake import (
    ClientInfo,
    encode_server_info,
    encode_server_key,
    open_box,
    parse_client_info_json,
    shared_key,
    split_client_info,
)
from derp.wire.keys import public_of
from derp.wire.metacert import build_metacert
from tests.certificate_files import general_name

SERVER = bytes(range(101, 133))
CLIENT = bytes(range(1, 33))
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
    b"Derp-Version: 2\r\n\r\n"
)
_LONG = timedelta(days=3650)


@dataclass(frozen=True)
class Credentials:
    """A certificate, its key, and who issued it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def make_credentials(
    names: Sequence[str],
    issuer: Credentials | None = None,
    *,
    ca: bool = False,
    begins: timedelta = -_LONG,
    ends: timedelta = _LONG,
) -> Credentials:
    """Issue a certificate that OpenSSL, which has its own clock, finds valid for years."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([general_name(name) for name in names]), critical=False
        )
        .sign(issuer.key if issuer else key, SHA256())
    )
    return Credentials(certificate, key)


def metacert() -> bytes:
    """The meta certificate of the fake relay's key, in DER."""
    return build_metacert(public_of(SERVER), datetime.now(UTC).timestamp()).der


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """The TLS side of a fake relay; :attr:`server_names` are those that clients asked for."""

    def __init__(
        self,
        credentials: Credentials,
        extra: Sequence[bytes] = (),
        maximum: int = SSL.TLS1_3_VERSION,
    ) -> None:
        self.server_names: list[bytes | None] = []
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context.set_max_proto_version(maximum)
        self.context.use_certificate(crypto.X509.from_cryptography(credentials.certificate))
        self.context.use_privatekey(crypto.PKey.from_cryptography_key(credentials.key))
        for der in extra:
            loaded = crypto.load_certificate(crypto.FILETYPE_ASN1, der)
            self.context.add_extra_chain_cert(loaded)
        self.context.set_tlsext_servername_callback(
            lambda connection: self.server_names.append(connection.get_servername())
        )

    def serverConnectionForTLS(self, tlsProtocol: Protocol) -> SSL.Connection:
        """See ``IOpenSSLServerConnectionCreator``."""
        return SSL.Connection(self.context, None)


class FakeRelay(Protocol):
    """
    Answers the upgrade, greets, admits, and remembers what it was sent.

    :param answer: instead of the 101.
    :param greeting: instead of ServerKey; ``None`` is the right one.
    :param admit: closes instead of answering the login.
    :param pongs: answers pings.
    """

    def __init__(
        self,
        *,
        answer: bytes = SWITCHING,
        greeting: bytes | None = None,
        admit: bool = True,
        pongs: bool = True,
    ) -> None:
        self.request = b""
        self.client_info: ClientInfo | None = None
        self.client_key = b""
        self.frames: list[tuple[int, bytes]] = []
        """Everything that came after ClientInfo."""
        self.lost = False
        self.first_read = b""
        self._answer = answer
        self._greeting = encode_server_key(public_of(SERVER)) if greeting is None else greeting
        self._admit = admit
        self._pongs = pongs
        self._decoder = FrameDecoder()

    @property
    def fast_started(self) -> bool:
        return b"\r\nDerp-Fast-Start: 1\r\n" in self.request

    def send(self, data: bytes) -> None:
        """Write anything at all to the client."""
        assert self.transport is not None
        self.transport.write(data)

    def hang_up(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self.first_read = self.first_read or data
        if b"\r\n\r\n" not in self.request:
            head, end, data = (self.request + data).partition(b"\r\n\r\n")
            self.request = head + end
            if end:
                self.send((b"" if self.fast_started else self._answer) + self._greeting)
        for frame_type, payload in self._decoder.feed(data):
            self._frame(frame_type, payload)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True

    def _frame(self, frame_type: int, payload: bytes) -> None:
        if self.client_info is None:
            self.client_key, sealed = split_client_info(payload)
            shared = shared_key(SERVER, self.client_key)
            self.client_info = parse_client_info_json(open_box(shared, sealed))
            if self._admit:
                self.send(encode_server_info(shared, bytes(range(24))))
            else:
                self.hang_up()
            return
        self.frames.append((frame_type, payload))
        if frame_type == FrameType.PING and self._pongs:
            self.send(encode_frame(FrameType.PONG, payload))


class FakeRelayFactory(Factory):
    """Makes fake relays, and keeps them in :attr:`relays`."""

    noisy = False

    def __init__(self, make: Callable[[], FakeRelay] = FakeRelay) -> None:
        self.relays: list[FakeRelay] = []
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> FakeRelay:
        relay = self._make()
        self.relays.append(relay)
        return relay


def over_tls(factory: FakeRelayFactory, tls: ServerTLS) -> TLSMemoryBIOFactory:
    """The same relays, behind TLS."""
    return TLSMemoryBIOFactory(tls, False, factory)
