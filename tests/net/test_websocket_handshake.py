"""The opening handshake of WebSocket, and what is no such thing."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.net.web import build_main_site
from tests.net.sites import FakeRelay, Visit, get, site_parts

GOOD = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "derp",
}
VIOLATION = b"WebSocket protocol violation: "


class HandshakeTests(SynchronousTestCase):
    """Requests to ``/derp`` that want a WebSocket."""

    def setUp(self) -> None:
        self.relay = FakeRelay()
        self.site = build_main_site(site_parts(Clock(), Config(tls=False), relay=self.relay))

    def ask(self, *more: str, method: str = "GET", **changes: str | None) -> bytes:
        headers = dict(GOOD)
        for name, value in changes.items():
            name = name.replace("_", "-")
            del headers[name]
            if value is not None:
                headers[name] = value
        lines = [f"{name}: {value}" for name, value in headers.items()]
        return Visit(self.site).send(get("/derp", *lines, *more, method=method))

    def assertRefused(self, answer: bytes, status: bytes, message: bytes) -> None:
        self.assertTrue(answer.startswith(b"HTTP/1.1 " + status), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\n" + message + b"\n"), answer)
        self.assertEqual(self.relay.connections, [])

    def test_good_forms(self) -> None:
        """Tokens may stand among others and in any case; any Origin will do."""
        for answer in (
            self.ask(),
            self.ask("Origin: https://elsewhere.example"),
            self.ask(Connection="keep-alive, UPGRADE"),
            self.ask("Connection: Upgrade", Connection="keep-alive"),
            self.ask(Upgrade="WebSocket"),
            self.ask(Sec_WebSocket_Protocol="chat, derp"),
            self.ask("Sec-WebSocket-Extensions: permessage-deflate"),
        ):
            self.assertIn(b"101 Switching Protocols", answer)
            self.assertIn(b"Sec-Websocket-Protocol: derp\r\n", answer)
            self.assertNotIn(b"Extensions", answer)
            # The sample of RFC 6455 §1.3.
            self.assertIn(b"Sec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", answer)

    def test_connection(self) -> None:
        """The Connection header must ask for it, too."""
        answer = self.ask(Connection="close")
        message = VIOLATION + b'Connection header "close" does not contain Upgrade'
        self.assertRefused(answer, b"426 Upgrade Required", message)
        self.assertIn(b"Upgrade: websocket\r\n", answer)
        self.assertIn(b"Connection: close\r\n", answer)
        self.assertIn(b"Connection: Upgrade\r\n", self.ask(Connection="keep-alive"))

    def test_method(self) -> None:
        """Only GET."""
        message = VIOLATION + b'handshake request method is not GET but "PUT"'
        self.assertRefused(self.ask(method="PUT"), b"405 Method Not Allowed", message)

    def test_version(self) -> None:
        """Only version 13, and the answer says so."""
        text = b"unsupported WebSocket protocol version (only 13 is supported): "
        answer = self.ask(Sec_WebSocket_Version="8")
        self.assertRefused(answer, b"400 Bad Request", text + b'"8"')
        self.assertIn(b"Sec-Websocket-Version: 13\r\n", answer)
        self.assertRefused(self.ask(Sec_WebSocket_Version=None), b"400 ", text + b'""')

    def test_keys(self) -> None:
        """Exactly one key, of 16 bytes."""
        answer = self.ask(Sec_WebSocket_Key=None)
        self.assertRefused(answer, b"400 ", VIOLATION + b"missing Sec-WebSocket-Key")
        answer = self.ask("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
        self.assertRefused(answer, b"400 ", VIOLATION + b"multiple Sec-WebSocket-Key headers")
        for key in ("abc", "dGhlIHNhbXBsZSBub25jZ===", "dGhlIHNhbXBsZSBub25jZTE=", "\xe4\xe4"):
            answer = self.ask(Sec_WebSocket_Key=key)
            self.assertIn(b"invalid Sec-WebSocket-Key", answer)
            self.assertIn(b"must be a 16 byte base64 encoded string\n", answer)
            self.assertIn(b"400 Bad Request", answer)

    def test_old_http(self) -> None:
        """HTTP/1.0 has no upgrade."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in GOOD.items())
        answer = Visit(self.site).send(f"GET /derp HTTP/1.0\r\n{lines}\r\n".encode())
        self.assertTrue(answer.startswith(b"HTTP/1.0 426 Upgrade Required\r\n"))
        self.assertTrue(answer.endswith(b'must be at least HTTP/1.1: "HTTP/1.0"\n'))

    def test_old_clients(self) -> None:
        """Without the subprotocol's name it is plain DERP, whatever the rest looks like."""
        for protocol in (None, "chat", "DERP"):
            self.relay.connections.clear()
            answer = self.ask(Sec_WebSocket_Protocol=protocol)
            self.assertIn(b"Upgrade: DERP\r\n", answer)
            self.assertEqual(len(self.relay.connections), 1)

    def test_first_line_decides(self) -> None:
        """As in Go, whether it is a WebSocket is read off the header's first line."""
        answer = self.ask("Sec-WebSocket-Protocol: derp", Sec_WebSocket_Protocol="chat")
        self.assertIn(b"Upgrade: DERP\r\n", answer)
