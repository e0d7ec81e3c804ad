"""A WebSocket on strings, for the tests of its parts."""

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection

from derp.net.timer_wheel import TimerWheel
from derp.net.websocket import (
    WebSocketProtocol,
)
from tests.net.sites import (
    GREETING,
    AbortableTransport,
    FakeConnection,
)


class WebSocketTestCase(SynchronousTestCase):
    """A WebSocket with a session inside and a client outside."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wheel = TimerWheel(self.clock)
        self.session = FakeConnection(b"", {})
        self.transport = AbortableTransport()
        self.client = Connection(ConnectionType.CLIENT)
        self.websocket = WebSocketProtocol(b"", self.session, self.wheel.schedule)
        self.websocket.makeConnection(self.transport)
        self.assertEqual(self.events(), [BytesMessage(data=GREETING)])

    def send(self, event: Any) -> None:
        self.websocket.dataReceived(bytes(self.client.send(event)))

    def events(self) -> list[Any]:
        """What the client makes of what was written since."""
        data = self.transport.value()
        self.transport.clear()
        self.client.receive_data(data)
        return list(self.client.events())

    def the_close(self) -> int:
        (event,) = self.events()
        assert isinstance(event, CloseConnection)
        return int(event.code)

    def advance(self, seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)
