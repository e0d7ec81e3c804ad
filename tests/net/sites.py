"""Sites for tests: real ones, with a relay behind them that only greets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource

from derp.config import Config
from derp.core.bootstrap_dns import BootstrapDNS
from derp.net.timer_wheel import TimerWheel
from derp.net.web import SiteParts
from derp.wire.handshake import encode_server_key

SERVER_KEY = bytes.fromhex("48f32966ec5ab23e93063a5d001ae128e1d126f02ff0ca9bb45bcbc4f2840c2f")
GREETING = encode_server_key(SERVER_KEY)


class FakeConnection(Protocol):
    """A DERP connection that greets, and remembers."""

    def __init__(self, head: bytes, options: dict[str, Any]) -> None:
        self.head = head
        self.options = options
        self.received = b""
        self.lost: Any = None
        self.pauses: list[str] = []

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.transport.write(self.head + GREETING)

    def dataReceived(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        self.received += data

    def pauseProducing(self) -> None:
        self.pauses.append("pause")

    def resumeProducing(self) -> None:
        self.pauses.append("resume")

    def stopProducing(self) -> None:
        self.pauses.append("stop")

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason


class FakeRelay:
    """Accepts everything."""

    def __init__(self) -> None:
        self.connections: list[FakeConnection] = []

    def accept(
        self,
        *,
        remote: IAddress,
        fast_start: bool = False,
        not_ideal: bool = False,
        head: bytes = b"",
    ) -> FakeConnection:
        options = {"remote": remote, "fast_start": fast_start, "not_ideal": not_ideal}
        self.connections.append(FakeConnection(head, options))
        return self.connections[-1]


class TextPage(Resource):
    """A page of fixed text, as the debug pages are in these tests."""

    isLeaf = True

    def __init__(self, text: bytes, content_type: bytes | None = None, status: int = 200) -> None:
        super().__init__()
        self._answer = (text, content_type, status)

    def render(self, request: Any) -> bytes:
        text, content_type, status = self._answer
        if content_type is not None:
            request.setHeader(b"Content-Type", content_type)
        request.setResponseCode(status)
        return text


def no_dial(host: str, port: int) -> Any:
    """Where CONNECT goes in tests that do not expect it to go anywhere."""
    raise AssertionError(f"dialed {host}:{port}")


def site_parts(
    clock: Any, config: Config, *, dial: Callable[[str, int], Any] = no_dial, **more: Any
) -> SiteParts:
    """Everything a site needs, with nothing random in it."""
    parts: dict[str, Any] = {
        "config": config,
        "clock": clock,
        "wheel": TimerWheel(clock),
        "relay": FakeRelay(),
        "server_key": SERVER_KEY,
        "debug_pages": {},
        "bootstrap": BootstrapDNS(coin=lambda: 0.0, shuffle=lambda found: None),
        "dial": dial,
    }
    return SiteParts(**(parts | more))


class Visit:
    """One connection to a site, over a transport of strings and a clock that stands still."""

    def __init__(self, site: Any, transport: Any = None, clock: Clock | None = None) -> None:
        self.transport = transport if transport is not None else AbortableTransport()
        self.clock = clock
        self.channel = site.buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        """Send, and take what came back."""
        self.channel.dataReceived(data)
        return self.take()

    def take(self) -> bytes:
        """Take what was written since."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    @property
    def closing(self) -> bool:
        """Whether the server has closed, or will once all is written."""
        closing: bool = self.transport.disconnecting or self.transport.disconnected
        return closing


class AbortableTransport(StringTransport):
    """A transport of strings that tells an abort from a close."""

    aborted = False

    def __init__(self, peer: str = "127.0.0.1") -> None:
        super().__init__(peerAddress=IPv4Address("TCP", peer, 54321))

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    """A request as text."""
    lines = [f"{method} {path} HTTP/1.1", "Host: derp.example", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
