"""Tests for :mod:`derp.net.mesh_links`: the list of links, and what connects them."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from derp.config import MeshPeer
from derp.errors import ConfigError
from derp.net.link_state import LinkState
from derp.net.mesh_links import MeshLinks, PeerConnector, check_ca_file
from derp.net.relay_dialer import RelayAddress
from derp.net.relay_errors import ConnectFailed
from tests.core.fakes import MESH_KEY, make_relay, public_key
from tests.net.mesh_fakes import FakeConnector

OURS = public_key("the links' own key")
A, B, C = (MeshPeer(name=name, host=name) for name in "abc")


class MeshLinksTests(SynchronousTestCase):
    """Links come and go with the list."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.relay = make_relay()
        self.connectors: dict[str, FakeConnector] = {}
        self.links = MeshLinks(self.clock, self.relay, make_connector=self.make_connector)
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def make_connector(self, peer: MeshPeer) -> FakeConnector:
        connector = self.connectors[peer.name] = FakeConnector(self.clock)
        return connector

    def states(self) -> dict[str, LinkState]:
        return {link.peer.name: link.state for link in self.links}

    def test_start_and_stop(self) -> None:
        """Links run as long as the service."""
        self.links.set_peers([A, B])
        self.assertEqual(set(self.states().values()), {LinkState.STOPPED})
        self.links.startService()
        self.connectors["a"].accept(OURS)
        self.assertEqual(self.states(), {"a": LinkState.UP, "b": LinkState.CONNECTING})
        self.assertEqual(self.links.missing, ["b"])
        self.successResultOf(self.links.stopService())
        self.assertTrue(self.connectors["a"].clients[0].closed)
        self.assertEqual(set(self.states().values()), {LinkState.STOPPED})
        self.assertEqual(len(self.relay.forwarders), 0)

    def test_new_list(self) -> None:
        """Who stays is not touched, who is new is connected to, who is not in it is left."""
        self.links.set_peers([A, B])
        self.links.startService()
        kept = self.connectors["b"].accept(OURS)
        gone = self.connectors["a"].accept(OURS)
        self.links.set_peers([C, B])
        self.assertEqual(self.states(), {"c": LinkState.CONNECTING, "b": LinkState.UP})
        self.assertEqual((kept.closed, gone.closed), (False, True))
        self.assertEqual(len(self.connectors["b"].attempts), 1)
        self.successResultOf(self.links.stopService())

    def test_new_pin(self) -> None:
        """A peer with another pin is another peer."""
        self.links.set_peers([A])
        self.links.startService()
        self.links.set_peers([MeshPeer(name="a", host="a", pin="sha256-raw:" + "0" * 64)])
        self.assertEqual(len(self.links), 1)
        self.assertEqual(len(self.relay.mesh_books), 1)
        self.successResultOf(self.links.stopService())

    def test_late_key(self) -> None:
        """Without the mesh key nothing is tried; once it is there everything is."""
        self.relay.mesh_key = None
        self.links.set_peers([A])
        self.links.startService()
        self.assertEqual(self.connectors["a"].attempts, [])
        self.relay.mesh_key = MESH_KEY
        self.links.begin()
        self.links.begin()
        self.assertEqual(len(self.connectors["a"].attempts), 1)
        self.successResultOf(self.links.stopService())


class PeerConnectorTests(SynchronousTestCase):
    """How a peer is dialed."""

    def test_dialed(self) -> None:
        """The port is the peer's, the address the one to dial."""
        reactor = MemoryReactorClock()
        for peer, dialed in (
            (MeshPeer(name="192.0.2.1", host="192.0.2.1"), ("192.0.2.1", 443)),
            (
                MeshPeer(name="a:8443/192.0.2.2", host="a", port=8443, dial_host="192.0.2.2"),
                ("192.0.2.2", 8443),
            ),
        ):
            connecting = PeerConnector(reactor, make_relay(), "", peer).connect()
            self.assertEqual(reactor.tcpClients[-1][:2], dialed)
            connecting.addErrback(lambda _: None)
            connecting.cancel()

    def test_who_we_are(self) -> None:
        """The relay's own key, the mesh key of the moment, the pin and the roots to trust."""
        relay = make_relay()
        peer = MeshPeer(name="a", host="a", port=8443, pin="sha256-raw:" + "0" * 64)
        connector = PeerConnector(Clock(), relay, "/ca.pem", peer)
        relay.mesh_key = MESH_KEY[::-1]
        made = connector.make()
        self.assertEqual((made.private_key, made.mesh_key), (relay.private, MESH_KEY[::-1]))
        self.assertEqual((made.watch_conns, made.ca_file), (True, "/ca.pem"))
        assert isinstance(made.target, RelayAddress)
        self.assertEqual((made.target.host_header, made.target.cert_name), ("a:8443", peer.pin))

    def test_lost_ca_file(self) -> None:
        """A file of roots that is gone is a failed attempt that names the flag, and no surprise."""
        peer = MeshPeer(name="a", host="127.0.0.1")
        connector = PeerConnector(Clock(), make_relay(), "/nowhere/at/all.pem", peer)
        error = self.failureResultOf(connector.connect(), ConnectFailed).value
        self.assertIn("--mesh-ca-file: CA file /nowhere/at/all.pem: cannot be read", str(error))


class CheckCAFileTests(SynchronousTestCase):
    """A file of roots is tried before it is needed."""

    def test_unusable(self) -> None:
        """What is no PEM file is one sentence that names the flag."""
        path = Path(self.mktemp())
        path.write_bytes(b"no certificate")
        for name in (str(path), "/nowhere/at/all.pem"):
            with self.assertRaises(ConfigError) as caught:
                check_ca_file(name)
            self.assertIn("--mesh-ca-file: ", str(caught.exception))
            self.assertIn(name, str(caught.exception))
