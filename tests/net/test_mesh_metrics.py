"""Tests for :mod:`derp.net.mesh_metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.config import MeshPeer
from derp.net.mesh_link import MeshLink
from derp.net.relay_metrics import RelayMetrics
from tests.core.fakes import public_key
from tests.net.mesh_fakes import PEER_KEY, FakeConnector
from tests.shown_relay import make_sources

ALICE, BOB = public_key("alice"), public_key("bob")


class MeshMetricsTests(SynchronousTestCase):
    """What a scrape reads of links."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sources = make_sources(mesh_key=bytes(range(32)))
        self.registry = CollectorRegistry(auto_describe=True)
        self.registry.register(RelayMetrics(self.sources))

    def link(self, name: str, server_key: bytes = PEER_KEY) -> tuple[MeshLink, FakeConnector]:
        connector = FakeConnector(self.clock, server_key)
        peer = MeshPeer(name=name, host=name)
        link = MeshLink(self.clock, self.sources.relay, peer, connector, max_keys=1)
        self.addCleanup(link.stop)
        link.start()
        return link, connector

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"derp_mesh_{name}", labels)

    def test_links(self) -> None:
        """Each peer has its own numbers; a link to ourselves has none."""
        up, connector = self.link("up")
        down, unreachable = self.link("down")
        itself, own = self.link("own", self.sources.relay.public)
        self.sources.mesh_links = [up, down, itself]
        unreachable.refuse()
        own.accept()
        client = connector.accept(ALICE, BOB)
        client.pong(0.25)
        up.forward_packet(BOB, ALICE, b"x")
        client.takes = False
        up.forward_packet(BOB, ALICE, b"x")
        for name, expected in (
            ("peer_up", (1, 0)),
            ("peer_clients", (1, 0)),
            ("peer_round_trip_seconds", (0.25, None)),
            ("connects_total", (1, 0)),
            ("forwarded_packets_total", (1, 0)),
            ("dropped_packets_total", (1, 0)),
            ("refused_keys_total", (1, 0)),
            ("unconfirmed_packets_total", (0, 0)),
        ):
            self.assertEqual((self.value(name, peer="up"), self.value(name, peer="down")), expected)
            self.assertIsNone(self.value(name, peer="own"))
        self.assertEqual(self.value("failures_total", peer="down", reason="unreachable"), 1)
        self.assertEqual(self.value("failures_total", peer="down", reason="refused"), 0)
        client.lose()
        self.assertEqual(self.value("unconfirmed_packets_total", peer="up"), 1)
