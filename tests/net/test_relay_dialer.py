"""Tests of :mod:`derp.net.relay_dialer` with a reactor that only remembers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError
from derp.net.relay_dialer import (
    DialError,
    DialStage,
    RelayAddress,
    dial,
    parse_relay_url,
    region_addresses,
)
from derp.wire.derp_map import Node, Region

NAMES = {
    ("relay.example", IPv4Address): ["192.0.2.1"],
    ("relay.example", IPv6Address): ["2001:db8::1"],
    ("many.example", IPv4Address): [f"192.0.2.{n}" for n in range(10, 20)],
    ("other.example", IPv4Address): ["192.0.2.99"],
}


class FakeResolver:
    """Knows :data:`NAMES`; a name that ends in ``.slow`` never gets an answer."""

    def resolveHostName(
        self, receiver: Any, host: str, port: int = 0, addressTypes: Sequence[Any] = (), **_: Any
    ) -> None:
        receiver.resolutionBegan(None)
        if host.endswith(".slow"):
            return
        (kind,) = addressTypes
        for ip in NAMES.get((host, kind), []):
            receiver.addressResolved(kind("TCP", ip, port))
        receiver.resolutionComplete()


class DialReactor(MemoryReactorClock):  # type: ignore[misc]
    """Connections that are made, or not, when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = FakeResolver()

    @property
    def dialed(self) -> list[tuple[str, int]]:
        return [(host, port) for host, port, *_ in self.tcpClients]

    def accept(self, index: int) -> None:
        factory = self.tcpClients[index][2]
        host, port = self.dialed[index]
        protocol = factory.buildProtocol(IPv4Address("TCP", host, port))
        protocol.makeConnection(StringTransport())

    def refuse(self, index: int) -> None:
        factory = self.tcpClients[index][2]
        factory.clientConnectionFailed(self.connectors[index], Failure(ConnectionRefusedError()))

    def cancelled(self, index: int) -> bool:
        return bool(self.connectors[index].stoppedConnecting)


class RememberingFactory(Factory):
    """Notes for whom a protocol was built."""

    noisy = False

    def __init__(self, label: str, built: list[str]) -> None:
        self.label = label
        self.built = built

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        self.built.append(self.label)
        return Protocol()


class URLTests(SynchronousTestCase):
    """Targets as operators write them."""

    def test_urls(self) -> None:
        """Scheme, host, port and path, each with its default."""
        for url, host, port, tls, path, header in (
            ("https://d.example/derp", "d.example", 443, True, "/derp", "d.example"),
            ("http://d.example/derp", "d.example", 80, False, "/derp", "d.example"),
            ("https://d.example:8443/x?y", "d.example", 8443, True, "/x?y", "d.example:8443"),
            ("http://D.example:443", "d.example", 443, False, "/", "d.example:443"),
            ("https://[2001:db8::1]:8443/derp", "2001:db8::1", 8443, True, "/derp",
             "[2001:db8::1]:8443"),
            ("https://[::1]/derp", "::1", 443, True, "/derp", "[::1]"),
            ("https://b\u00fccher.example/derp", "xn--bcher-kva.example", 443, True, "/derp",
             "xn--bcher-kva.example"),
        ):  # fmt: skip
            relay = parse_relay_url(url)
            self.assertEqual((relay.host, relay.port, relay.tls), (host, port, tls), url)
            self.assertEqual((relay.path, relay.host_header, relay.label), (path, header, url))

    def test_no_urls(self) -> None:
        """Anything else names the URL and the cure."""
        for url in (
            "",
            "derp.example",
            "ftp://d.example/derp",
            "https:///derp",
            "https://d.example:x/derp",
            "https://d.example:70000/derp",
            "https://a..b/derp",
            "https://[::1/derp",
            "https://a b/derp",
            "https://" + "x" * 64 + ".example/",
        ):
            error = self.assertRaises(ConfigError, parse_relay_url, url)
            self.assertIn(repr(url), str(error))
            self.assertIn("https://host[:port]/derp", str(error))


class RegionTests(SynchronousTestCase):
    """Targets out of a DERP map."""

    def test_nodes(self) -> None:
        """Every node that does DERP, in order; all but the first name the first."""
        region = Region(
            region_id=9,
            code="test",
            nodes=(
                Node(name="9a", host_name="a.example", derp_port=8443, cert_name="pin"),
                Node(name="9s", host_name="s.example", stun_only=True),
                Node(name="9b", host_name="b.example", ipv4="192.0.2.1", ipv6="none"),
                Node(name="9c", host_name="192.0.2.9", insecure_for_tests=True),
            ),
        )
        self.assertEqual(
            region_addresses(region),
            [
                RelayAddress(
                    label="region 9 (test) node 9a", host="a.example", port=8443, cert_name="pin"
                ),
                RelayAddress(
                    label="region 9 (test) node 9b",
                    host="b.example",
                    ipv4="192.0.2.1",
                    ipv6="none",
                    ideal_node="9a",
                ),
                RelayAddress(
                    label="region 9 (test) node 9c",
                    host="192.0.2.9",
                    insecure=True,
                    ideal_node="9a",
                ),
            ],
        )

    def test_ideal_node_may_be_for_stun_only(self) -> None:
        """The node that was wanted is the first of the list, whatever it does."""
        first = Node(name="9s", host_name="s.example", stun_only=True)
        region = Region(region_id=9, nodes=(first, Node(name="9b", host_name="b.example")))
        (relay,) = region_addresses(region)
        self.assertEqual(relay.ideal_node, "9s")

    def test_nothing_to_dial(self) -> None:
        """Regions without a relay are the map's fault, and said to be."""
        stun = Node(name="9s", host_name="s.example", stun_only=True)
        for nodes, text in (((), "no nodes"), ((stun,), "STUN only")):
            region = Region(region_id=9, code="test", nodes=nodes)
            error = self.assertRaises(ConfigError, region_addresses, region)
            self.assertIn(text, str(error))
            self.assertIn("region 9 (test)", str(error))

    def test_no_host_name(self) -> None:
        """A map cannot smuggle anything into a request by a host name."""
        for host in ("a b", "a\r\nX: y", "a..b", "a/b"):
            region = Region(region_id=9, nodes=(Node(name="9a", host_name=host),))
            error = self.assertRaises(ConfigError, region_addresses, region)
            self.assertIn("'9a'", str(error))


class DialTests(SynchronousTestCase):
    """Which connections are tried, and which one is taken."""

    def setUp(self) -> None:
        self.reactor = DialReactor()
        self.built: list[str] = []

    def dial(self, *relays: RelayAddress, node_timeout: float = 1.5) -> Deferred[IProtocol]:
        def factory_for(relay: RelayAddress) -> Factory:
            return RememberingFactory(relay.label, self.built)

        return Deferred.fromCoroutine(dial(self.reactor, relays, factory_for, node_timeout))

    def relay(self, host: str, label: str = "relay", **fields: Any) -> RelayAddress:
        return RelayAddress(label=label, host=host, **fields)

    def test_both_families(self) -> None:
        """IPv4 and IPv6 start together; the first connection wins, the other is given up."""
        for winner, loser in ((0, 1), (1, 0)):
            self.setUp()
            dialing = self.dial(self.relay("relay.example"))
            self.assertEqual(self.reactor.dialed, [("192.0.2.1", 443), ("2001:db8::1", 443)])
            self.reactor.accept(winner)
            self.assertIsInstance(self.successResultOf(dialing), Protocol)
            self.assertTrue(self.reactor.cancelled(loser))
            self.assertEqual(self.built, ["relay"])

    def test_one_refuses(self) -> None:
        """A family that fails leaves the other its chance."""
        dialing = self.dial(self.relay("relay.example"))
        self.reactor.refuse(0)
        self.assertNoResult(dialing)
        self.reactor.accept(1)
        self.successResultOf(dialing)

    def test_forced_addresses(self) -> None:
        """Addresses from the map are dialed without asking DNS; other text turns a family off."""
        for ipv4, ipv6, dialed in (
            ("192.0.2.7", "", ["192.0.2.7", "2001:db8::1"]),
            ("192.0.2.7", "none", ["192.0.2.7"]),
            ("none", "2001:db8::7", ["2001:db8::7"]),
            ("2001:db8::7", "", ["2001:db8::1"]),
            ("", "192.0.2.7", ["192.0.2.1"]),
        ):
            self.setUp()
            self.dial(self.relay("relay.example", ipv4=ipv4, ipv6=ipv6))
            self.assertEqual([host for host, _ in self.reactor.dialed], dialed, (ipv4, ipv6))

    def test_both_off(self) -> None:
        """With both families turned off there is nothing to do, and the error says so."""
        dialing = self.dial(self.relay("relay.example", ipv4="none", ipv6="none"))
        error = self.failureResultOf(dialing, DialError).value
        self.assertIn("IPv4 and IPv6 are both turned off", str(error))

    def test_literals(self) -> None:
        """Of a host that is an address only that address's family is dialed."""
        for host in ("192.0.2.50", "2001:db8::50"):
            self.setUp()
            self.dial(self.relay(host, port=3340))
            self.assertEqual(self.reactor.dialed, [(host, 3340)])
        self.setUp()
        self.dial(self.relay("192.0.2.50", ipv4="192.0.2.51", ipv6="2001:db8::51"))
        self.assertEqual(self.reactor.dialed, [("192.0.2.51", 443)])

    def test_dial_host(self) -> None:
        """A dial host replaces the name that is dialed, and only that."""
        relay = parse_relay_url("https://relay.example:8443/derp", "other.example")
        self.assertEqual(relay.host, "relay.example")
        self.dial(relay)
        self.assertEqual(self.reactor.dialed, [("192.0.2.99", 8443)])

    def test_several_addresses(self) -> None:
        """The addresses of a name are tried one by one, four at most, sharing the time."""
        dialing = self.dial(self.relay("many.example"), node_timeout=2.0)
        for index in range(4):
            self.assertEqual(self.reactor.dialed[index:], [(f"192.0.2.{10 + index}", 443)])
            self.assertEqual(self.reactor.tcpClients[index][3], 0.5)
            self.reactor.refuse(index)
        error = self.failureResultOf(dialing, DialError).value
        self.assertIn("192.0.2.13 port 443: Connection was refused", str(error))
        self.assertIn("many.example has no IPv6 address", str(error))

    def test_unknown_name(self) -> None:
        """A name without addresses is named."""
        error = self.failureResultOf(self.dial(self.relay("no.example")), DialError).value
        self.assertIn("relay: ", str(error))
        self.assertIn("no.example has no IPv4 address", str(error))

    def test_next_node(self) -> None:
        """A node that refuses, or does not answer within 1.5 s, is followed by the next."""
        dialing = self.dial(
            self.relay("192.0.2.1", "first"),
            self.relay("192.0.2.2", "second"),
            self.relay("192.0.2.3", "third"),
        )
        self.reactor.refuse(0)
        self.assertEqual(self.reactor.dialed[1:], [("192.0.2.2", 443)])
        self.reactor.advance(1.4)
        self.assertEqual(len(self.reactor.dialed), 2)
        self.reactor.advance(0.2)
        self.assertTrue(self.reactor.cancelled(1))
        self.assertEqual(self.reactor.dialed[2:], [("192.0.2.3", 443)])
        self.reactor.accept(2)
        self.successResultOf(dialing)
        self.assertEqual(self.built, ["third"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_slow_names(self) -> None:
        """A name server that does not answer costs a node its 1.5 s, not more."""
        dialing = self.dial(self.relay("dns.slow", "first"), self.relay("192.0.2.2", "second"))
        self.reactor.advance(1.6)
        self.assertEqual(self.reactor.dialed, [("192.0.2.2", 443)])
        self.reactor.refuse(0)
        error = self.failureResultOf(dialing, DialError).value
        self.assertIn(
            "first: no TCP connection within 1.5 s, still waiting for an IPv4 address of dns.slow,"
            " and an IPv6 address of dns.slow; second: ",
            str(error),
        )

    def test_stage(self) -> None:
        """What is waited for can be told at any time, over each IP version."""
        stage = DialStage()
        relays = [self.relay("many.example", ipv6="2001:db8::7", port=8443)]
        dialing = Deferred.fromCoroutine(
            dial(self.reactor, relays, lambda _: RememberingFactory("it", self.built), 2.0, stage)
        )
        six = "the TCP connection to [2001:db8::7]:8443"
        self.assertEqual(str(stage), f"the TCP connection to 192.0.2.10:8443, and {six}")
        self.reactor.refuse(0)
        self.assertEqual(str(stage), f"the TCP connection to 192.0.2.11:8443, and {six}")
        self.reactor.refuse(1)
        self.assertEqual(str(stage), "the TCP connection to 192.0.2.11:8443")
        self.reactor.accept(2)
        self.successResultOf(dialing)

    def test_cancel(self) -> None:
        """Giving up stops both attempts and tries no further node."""
        dialing = self.dial(self.relay("relay.example"), self.relay("192.0.2.2"))
        dialing.cancel()
        self.failureResultOf(dialing, CancelledError)
        self.assertTrue(self.reactor.cancelled(0) and self.reactor.cancelled(1))
        self.assertEqual(len(self.reactor.dialed), 2)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
