"""Tests for :mod:`derp.net.hub_readers`."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from derp.core.stun_stats import STUNStats
from derp.net.hub import Hub
from derp.net.hub_readers import HubReaders
from derp.net.stun_udp import STUNServer
from derp.wire.stun import encode_binding_request, parse_binding_response
from tests.net.sockets import PumpedReactor
from tests.net.udp_sockets import all_arrived


class HubReadersTests(SynchronousTestCase):
    """STUN in the hub: answered in its turns, gone when it is stopped."""

    def setUp(self) -> None:
        self.reactor = PumpedReactor()
        self.hub = Hub(self.reactor, linger_s=0.0)
        self.addCleanup(self.hub.close)
        self.readers = HubReaders(self.hub)
        self.stats = STUNStats()
        self.server = STUNServer(
            self.readers,  # type: ignore[arg-type]
            "127.0.0.1",
            0,
            self.stats,
        )
        self.server.start()
        self.addCleanup(self.server.stop)
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.client.close)
        self.client.settimeout(60)
        self.client.connect(("127.0.0.1", self.server.port))

    def test_answered_in_a_turn(self) -> None:
        """A binding request is answered by a turn of the hub, without the reactor."""
        self.client.send(encode_binding_request(b"t" * 12))
        all_arrived()
        self.hub.doRead()
        response = parse_binding_response(self.client.recv(100))
        self.assertEqual(response.transaction_id, b"t" * 12)
        self.assertEqual(response.port, self.client.getsockname()[1])
        self.assertEqual(self.stats.success, 1)

    def test_stopped(self) -> None:
        """A stopped server leaves no member behind, and stopping twice does no harm."""
        self.assertEqual(len(self.hub), 1)
        self.server.stop()
        self.server.stop()
        self.assertEqual(len(self.hub), 0)

    def test_added_twice(self) -> None:
        """A reader that is there is not added again."""
        self.readers.addReader(self.server)
        self.assertEqual(len(self.hub), 1)

    def test_time(self) -> None:
        """Its clock is the reactor's."""
        called: list[str] = []
        self.readers.callLater(1.0, called.append, "a")
        self.reactor.advance(2.0)
        self.assertEqual(called, ["a"])
        self.assertEqual(self.readers.seconds(), self.reactor.seconds())
