"""Tests for :mod:`derp.core.occupancy`."""

from collections import Counter
from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from derp.core.connection import RemoteAddress
from derp.core.limits import Limits
from derp.core.occupancy import Door, Occupancy, network_of
from derp.core.session import LoginRequest
from derp.wire.handshake import ClientInfo


def login(key: bytes, ip: str | None = "192.0.2.1", *, mesh: bool = False) -> LoginRequest:
    """Somebody wants in."""
    remote = RemoteAddress(ip_address(ip) if ip else None, 1)
    return LoginRequest(key, ClientInfo(version=2), remote, mesh)


class OccupancyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.here: Counter[bytes] = Counter()
        limits = Limits(max_clients=3, max_clients_per_ip=2)
        self.occupancy = Occupancy(limits, self.here.__getitem__)

    def let_in(self, request: LoginRequest) -> bool:
        if self.occupancy.judge(request) is not None:
            return False
        self.occupancy.enter(request.remote.ip)
        self.here[request.key] += 1
        return True

    def test_clients(self) -> None:
        """Beyond the number nobody gets in, until somebody leaves."""
        for key, ip in (b"a", "192.0.2.1"), (b"b", "192.0.2.2"), (b"c", "192.0.2.3"):
            self.assertTrue(self.let_in(login(key, ip)))
        reason = self.occupancy.judge(login(b"d", "192.0.2.4"))
        self.assertEqual(reason, "the relay is full: 3 clients (--max-clients)")
        self.occupancy.leave(ip_address("192.0.2.1"))
        self.assertTrue(self.let_in(login(b"d", "192.0.2.4")))
        self.assertEqual(self.occupancy.refused_for_count, 1)

    def test_address(self) -> None:
        """One address has its own number; another is not affected."""
        self.assertTrue(self.let_in(login(b"a")))
        self.assertTrue(self.let_in(login(b"b")))
        reason = self.occupancy.judge(login(b"c"))
        self.assertIn("--max-clients-per-ip", reason or "")
        self.assertTrue(self.let_in(login(b"c", "192.0.2.9")))
        self.assertEqual(self.occupancy.refused_for_address, 1)

    def test_addresses_are_forgotten(self) -> None:
        """An address nobody uses any more takes no memory, and its number is whole again."""
        for _ in range(5):
            self.occupancy.enter(ip_address("192.0.2.1"))
            self.occupancy.leave(ip_address("192.0.2.1"))
        self.assertEqual(len(self.occupancy._by_network), 0)
        self.assertIsNone(self.occupancy.judge(login(b"a")))

    def test_reconnecting(self) -> None:
        """A key that is here gets one more connection, and not a third."""
        for key, ip in (b"a", "192.0.2.1"), (b"b", "192.0.2.2"), (b"c", "192.0.2.3"):
            self.let_in(login(key, ip))
        self.assertTrue(self.let_in(login(b"a")))
        self.assertFalse(self.let_in(login(b"a")))

    def test_mesh(self) -> None:
        """A mesh peer always gets in."""
        self.occupancy.limits = Limits(max_clients=1)
        self.let_in(login(b"a"))
        self.assertIsNone(self.occupancy.judge(login(b"m", mesh=True)))

    def test_no_limits(self) -> None:
        """Without limits everybody gets in, from wherever."""
        self.occupancy.limits = Limits()
        self.assertTrue(all(self.let_in(login(bytes((i,)))) for i in range(50)))

    def test_no_address(self) -> None:
        """Clients without an address (unix sockets) count, but not as one address."""
        self.assertTrue(all(self.let_in(login(bytes((i,)), None)) for i in range(3)))
        self.assertFalse(self.let_in(login(b"x", None)))
        self.occupancy.leave(None)
        self.assertEqual(self.occupancy.clients, 2)

    def test_networks(self) -> None:
        """IPv6 counts by /64, and no IPv4 address is taken for one."""
        same = network_of(ip_address("2001:db8::1"))
        self.assertEqual(network_of(ip_address("2001:db8::ffff:1")), same)
        self.assertNotEqual(network_of(ip_address("2001:db8:0:1::1")), same)
        self.assertNotEqual(network_of(ip_address("1.2.3.4")), network_of(ip_address("1.2.3.5")))
        low = network_of(ip_address("::1"))
        self.assertNotEqual(network_of(ip_address("0.0.0.0")), low)


class DoorTests(SynchronousTestCase):
    def test_open(self) -> None:
        """Without limits everybody passes."""
        door = Door(Limits(), 0.0)
        self.assertTrue(all(door.opens(0.0) for _ in range(1000)))

    def test_rate(self) -> None:
        """So many at once, then so many per second; the others are counted."""
        door = Door(Limits(accept_rate=2.0, accept_burst=3), 0.0)
        self.assertEqual([door.opens(0.0) for _ in range(5)], [True] * 3 + [False] * 2)
        self.assertEqual([door.opens(1.0) for _ in range(3)], [True, True, False])
        self.assertEqual(door.refused_for_rate, 3)

    def test_handshakes(self) -> None:
        """So many may be on their way in; one that arrives or gives up makes room."""
        door = Door(Limits(max_handshakes=2), 0.0)
        self.assertEqual([door.opens(0.0) for _ in range(3)], [True, True, False])
        door.passed()
        self.assertEqual([door.opens(0.0) for _ in range(2)], [True, False])
        self.assertEqual(door.refused_for_handshakes, 2)

    def test_refused_take_no_tokens(self) -> None:
        """Who finds too many handshakes does not use up the rate of those who come later."""
        door = Door(Limits(max_handshakes=1, accept_rate=1.0, accept_burst=2), 0.0)
        door.opens(0.0)
        for _ in range(5):
            door.opens(0.0)
        door.passed()
        self.assertTrue(door.opens(0.0))

    def test_new_limits(self) -> None:
        """New limits hold at once, for those who are on their way, too."""
        door = Door(Limits(), 0.0)
        for _ in range(5):
            door.opens(0.0)
        door.apply(Limits(max_handshakes=5), 0.0)
        self.assertFalse(door.opens(0.0))
        door.apply(Limits(accept_rate=1.0, accept_burst=1), 0.0)
        self.assertEqual([door.opens(0.0), door.opens(0.0)], [True, False])
