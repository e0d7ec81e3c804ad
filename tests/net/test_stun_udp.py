"""Tests of :mod:`derp.net.stun_udp`: recorded exchanges, the socket, its errors."""

import errno
import os
import socket
import sys
from ipaddress import ip_address
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from derp.core.stun_stats import STUNStats
from derp.errors import ConfigError
from derp.net import stun_udp
from derp.net.stun_responder import BatchResponder, SingleResponder
from derp.net.stun_udp import PAUSE_AFTER_ERROR_S, STUNServer, bind_udp
from derp.wire import stun
from tests.net.udp_sockets import NO_IPV6, is_silent, port_of, receive, udp_socket, wait_readable
from tests.vectors import load

VECTORS = load("stun.json")

HOSTS = {"127.0.0.1": "127.0.0.1", "::1": "::1", "all addresses (dual stack)": ""}
"""``-a`` host by the recorded ``server_bound_to``."""
COUNTERS = {
    "127.0.0.1": "counters after the 127.0.0.1 cases",
    "::1": "counters after the [::1] cases",
    "": "counters after the dual-stack cases",
}


def request() -> bytes:
    """A Tailscale request with a transaction id of its own."""
    return stun.encode_binding_request(os.urandom(12))


def as_reported(stats: STUNStats) -> dict[str, str]:
    """Counters as the recorded ones are written."""
    outcomes = ("not_stun", "read_error", "success", "write_error")
    shown = {f'stun_requests{{disposition="{name}"}}': getattr(stats, name) for name in outcomes}
    for family in ("ipv4", "ipv6"):
        shown[f'stun_addrfamily{{family="{family}"}}'] = getattr(stats, family)
    return {name: str(value) for name, value in shown.items()}


def reactor_standing_still() -> Any:
    """A reactor in memory, of a type that nobody checks: its interfaces are declared otherwise."""
    return MemoryReactorClock()


class ServerTestCase(SynchronousTestCase):
    """A started server on a reactor that stands still."""

    def start(self, host: str = "127.0.0.1", port: int = 0) -> STUNServer:
        """Make and start a server."""
        self.reactor = reactor_standing_still()
        self.stats = STUNStats()
        server = STUNServer(self.reactor, host, port, self.stats)
        self.addCleanup(server.stop)
        server.start()
        return server

    def client(self, host: str = "127.0.0.1") -> socket.socket:
        """Make a client."""
        client = udp_socket(host)
        self.addCleanup(client.close)
        return client

    def handle(self, server: STUNServer, count: int) -> None:
        """Wake the server until it has dealt with so many more datagrams."""

        def seen() -> int:
            stats = self.stats
            return stats.not_stun + stats.withheld + stats.ipv4 + stats.ipv6

        goal = seen() + count
        while seen() < goal:
            wait_readable(server.fileno())
            server.doRead()


class RecordedTests(ServerTestCase):
    """What the reference did with each recorded datagram, and counted."""

    def run_group(self, bound_to: str) -> None:
        """Send one group's datagrams from its client addresses; compare answers, counters."""
        host = HOSTS[bound_to]
        server = self.start(host)
        cases = [case for case in VECTORS["cases"] if case["server_bound_to"] == bound_to]
        self.assertTrue(cases)
        for case in cases:
            peer, _, recorded_port = case["client_addr"].rpartition(":")
            peer = peer.strip("[]")
            client = self.client(peer)
            client.sendto(bytes.fromhex(case["request"]), (peer, server.port))
            self.handle(server, 1)
            if case["response"] is None:
                self.assertTrue(is_silent(client), case["name"])
                continue
            expected = stun.parse_binding_response(bytes.fromhex(case["response"]))
            self.assertEqual(expected.port, int(recorded_port))
            # The recorded answer but for the client's port, and IPv4 peers' always in 32 bytes.
            (answer,) = receive(client, 1)
            self.assertEqual(
                answer,
                stun.encode_binding_response(
                    expected.transaction_id, ip_address(peer).packed, port_of(client)
                ),
            )
            self.assertEqual(stun.parse_binding_response(answer).ip, expected.ip)
            if host:
                self.assertEqual(answer[:26].hex(), case["response"][:52])
                self.assertEqual(answer[28:].hex(), case["response"][56:])
            else:
                self.assertEqual(len(answer), 32 if ":" not in peer else 44)
        self.assertEqual(as_reported(self.stats), VECTORS["counters"][COUNTERS[host]])

    def test_ipv4(self) -> None:
        """Bound to 127.0.0.1."""
        self.run_group("127.0.0.1")

    def test_ipv6(self) -> None:
        """Bound to ::1."""
        self.run_group("::1")

    test_ipv6.skip = NO_IPV6 or None  # type: ignore[attr-defined]

    def test_dual_stack(self) -> None:
        """Bound to every address; unlike the reference, IPv4 peers read IPv4."""
        self.run_group("all addresses (dual stack)")

    test_dual_stack.skip = NO_IPV6 or None  # type: ignore[attr-defined]

    def test_without_batches(self) -> None:
        """The same where the system lacks the calls for batches."""
        self.patch(stun_udp, "open_batch", lambda udp: None)
        for bound_to in HOSTS if not NO_IPV6 else ["127.0.0.1"]:
            self.run_group(bound_to)


class ServingTests(ServerTestCase):
    """Starting, serving, stopping."""

    def test_on_the_reactor(self) -> None:
        """It is a reader from start to stop, and its log line names the real port."""
        with capturedLogs() as events:
            server = self.start()
        self.assertEqual(self.reactor.getReaders(), [server])
        self.assertNotEqual(server.port, 0)
        (event,) = (event for event in events if event.get("log_format"))
        self.assertEqual(
            event["log_format"].format(**event),
            f"STUN server listening on 127.0.0.1:{server.port}",
        )
        server.stop()
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(server.fileno(), -1)
        server.stop()
        server.doRead()

    def test_is_a_reader(self) -> None:
        """It offers all that a reactor asks of a reader."""
        server = self.start()
        self.assertTrue(verifyObject(IReadDescriptor, server))
        self.assertEqual(server.logPrefix(), "STUN")

    def test_start_again(self) -> None:
        """Starting twice changes nothing; starting after a stop binds anew."""
        server = self.start()
        port = server.port
        server.start()
        self.assertEqual((server.port, self.reactor.getReaders()), (port, [server]))
        server.stop()
        server.start()
        client = self.client()
        client.sendto(request(), ("127.0.0.1", server.port))
        self.handle(server, 1)
        self.assertEqual(len(receive(client, 1)[0]), 32)

    def test_stopped_frees_the_port(self) -> None:
        """After a stop another can have the port."""
        server = self.start()
        port = server.port
        server.stop()
        self.assertEqual(self.start(port=port).port, port)

    def test_room_for_bursts(self) -> None:
        """More than the system's default is asked for in both directions, if that is small."""
        server = self.start()
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with plain, socket.socket(fileno=os.dup(server.fileno())) as ours:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                default = plain.getsockopt(socket.SOL_SOCKET, option)
                given = ours.getsockopt(socket.SOL_SOCKET, option)
                if default < stun_udp.SOCKET_BUFFER_LEN:
                    self.assertGreater(given, default)
                else:
                    self.assertEqual(given, default, "a large default is the operator's")

    def test_thousands_at_once(self) -> None:
        """Bursts of several clients, good and bad: all are answered or counted."""
        server = self.start()
        clients = [self.client() for _ in range(4)]
        for burst in range(25):
            packets = [request() if n % 5 else b"bad" for n in range(50)]
            for client in clients:
                for packet in packets:
                    client.sendto(packet, ("127.0.0.1", server.port))
            self.handle(server, 200)
            for client in clients:
                ids = [answer[8:20] for answer in receive(client, 40)]
                expected = [packet[8:20] for packet in packets if packet != b"bad"]
                self.assertEqual(ids, expected, f"burst {burst}")
        self.assertEqual((self.stats.success, self.stats.not_stun), (4000, 1000))
        self.assertEqual((self.stats.ipv4, self.stats.write_error), (4000, 0))

    def test_not_answering(self) -> None:
        """Switched off, nobody is answered, and switched on again nothing old is."""
        server = self.start()
        client = self.client()
        server.answering = False
        for _ in range(100):
            client.sendto(request(), ("127.0.0.1", server.port))
        self.handle(server, 100)
        self.assertEqual((self.stats.withheld, self.stats.success), (100, 0))
        server.answering = True
        late = request()
        client.sendto(late, ("127.0.0.1", server.port))
        self.handle(server, 1)
        self.assertEqual(receive(client, 1)[0][8:20], late[8:20])
        self.assertTrue(is_silent(client))

    def test_way_of_responding(self) -> None:
        """Batches where the system has them, single calls elsewhere."""
        self.patch(stun_udp, "open_batch", lambda udp: None)
        self.assertIsInstance(self.start()._responder, SingleResponder)

    def test_way_of_responding_on_linux(self) -> None:
        """The system these tests run on normally has them."""
        self.assertIsInstance(self.start()._responder, BatchResponder)

    test_way_of_responding_on_linux.skip = (  # type: ignore[attr-defined]
        None if sys.platform.startswith("linux") else "recvmmsg is a call of Linux"
    )


class Failing:
    """A responder that fails to read with one error after the other."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    def respond(self, answering: bool) -> None:
        """Fail, or find nothing."""
        if self.codes:
            code = self.codes.pop(0)
            raise OSError(code, os.strerror(code))


class ReadErrorTests(ServerTestCase):
    """Errors of the socket: counted, outlived, without spinning."""

    def failing(self, *codes: int) -> STUNServer:
        """Start a server whose socket fails."""
        server = self.start()
        server._responder = Failing(*codes)
        return server

    def test_about_an_earlier_answer(self) -> None:
        """What an ICMP message left behind is taken off by reading; anybody may cause it."""
        server = self.failing(errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)
        for _ in range(4):
            server.doRead()
        self.assertEqual(self.stats.read_error, 3)
        self.assertEqual(self.reactor.getReaders(), [server])

    def test_pause(self) -> None:
        """After another error the socket is left alone for a second, and then read again."""
        server = self.failing(errno.ENOMEM)
        with capturedLogs() as events:
            server.doRead()
        self.assertEqual(self.stats.read_error, 1)
        self.assertEqual(self.reactor.getReaders(), [])
        text = events[-1]["log_format"].format(**events[-1])
        self.assertIn(f"127.0.0.1:{server.port}", text)
        self.assertIn(os.strerror(errno.ENOMEM), text)
        self.reactor.advance(PAUSE_AFTER_ERROR_S - 0.01)
        self.assertEqual(self.reactor.getReaders(), [])
        self.reactor.advance(0.02)
        self.assertEqual(self.reactor.getReaders(), [server])

    def test_stop_during_a_pause(self) -> None:
        """Nothing is left of a server stopped then."""
        server = self.failing(errno.ENOMEM)
        server.doRead()
        server.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.getReaders(), [])

    def test_disconnected_by_the_reactor(self) -> None:
        """An error without anything to read comes as a lost connection: the same pause."""
        server = self.start()
        self.reactor.removeReader(server)
        server.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.stats.read_error, 1)
        self.reactor.advance(PAUSE_AFTER_ERROR_S)
        self.assertEqual(self.reactor.getReaders(), [server])

    def test_reactor_stops(self) -> None:
        """A reactor that goes away closes the socket."""
        server = self.start()
        server.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(server.fileno(), -1)
        self.assertEqual(self.stats.read_error, 0)
        server.connectionLost(Failure(ConnectionLost()))

    def test_icmp_port_unreachable(self) -> None:
        """A client that went away before its answer leaves the server reading and quiet."""
        server = self.start()
        gone = self.client()
        gone.sendto(request(), ("127.0.0.1", server.port))
        wait_readable(server.fileno())
        gone.close()
        server.doRead()
        client = self.client()
        client.sendto(request(), ("127.0.0.1", server.port))
        self.handle(server, 1)
        self.assertEqual(len(receive(client, 1)), 1)
        self.assertEqual(self.reactor.getReaders(), [server])


class BindTests(SynchronousTestCase):
    """Binding, and the sentence when it fails."""

    def refused(self, host: str, port: int, *parts: str) -> None:
        """Assert that binding fails with a sentence that has these parts."""
        error = self.assertRaises(ConfigError, bind_udp, host, port)
        for part in parts:
            self.assertIn(part, str(error))
        self.assertNotIn("\n", str(error))

    def test_large_buffers_stay(self) -> None:
        """Where sockets have more by default than we would ask for, it is left to them."""
        self.patch(stun_udp, "SOCKET_BUFFER_LEN", 1)
        fresh = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with bind_udp("127.0.0.1", 0) as ours, fresh:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                length = fresh.getsockopt(socket.SOL_SOCKET, option)
                self.assertEqual(ours.getsockopt(socket.SOL_SOCKET, option), length)

    def failing_with(self, code: int, *families: socket.AddressFamily) -> None:
        """Make binding fail with an error, for some families."""
        bound = stun_udp._bound

        def failing(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
            if family in families:
                raise OSError(code, os.strerror(code))
            return bound(family, host, port)

        self.patch(stun_udp, "_bound", failing)

    def test_port_in_use(self) -> None:
        """Somebody else has the port."""
        other = udp_socket()
        self.addCleanup(other.close)
        port = port_of(other)
        for host, shown in (("127.0.0.1", f"127.0.0.1:{port}"), ("", f":{port}")):
            self.refused(host, port, f"--stun-port {port}", shown, "in use", "another port")

    def test_start_reports_it(self) -> None:
        """Starting a server raises the same, and leaves nothing behind."""
        other = udp_socket()
        self.addCleanup(other.close)
        memory_reactor = reactor_standing_still()
        server = STUNServer(memory_reactor, "127.0.0.1", port_of(other), STUNStats())
        self.assertRaises(ConfigError, server.start)
        self.assertEqual(memory_reactor.getReaders(), [])
        server.stop()

    def test_no_permission(self) -> None:
        """Low ports belong to root."""
        self.failing_with(errno.EACCES, socket.AF_INET)
        self.refused("127.0.0.1", 3, "--stun-port 3", "127.0.0.1:3", "CAP_NET_BIND_SERVICE")

    def test_address_not_ours(self) -> None:
        """The address is another machine's: the cure is in ``-a``."""
        self.refused("192.0.2.1", 3478, "--stun-port 3478", "192.0.2.1:3478", "-a")

    def test_other_errors(self) -> None:
        """An error nobody expected still names flag, address and a way out."""
        self.failing_with(errno.EIO, socket.AF_INET6)
        self.refused("::1", 3478, "--stun-port 3478", "[::1]:3478", "--stun=false")

    def test_unknown_scope(self) -> None:
        """A link-local address of an interface that does not exist."""
        self.refused("fe80::1%nosuchinterface", 3478, "--stun-port", "fe80::1%nosuchinterface")

    def test_no_such_port(self) -> None:
        """Numbers beyond 16 bits."""
        for port in (-1, 65536):
            self.refused("127.0.0.1", port, f"--stun-port {port}")

    def test_no_address(self) -> None:
        """Names are resolved by whoever reads ``-a``, not here."""
        self.refused("relay.example", 3478, "-a", "relay.example", "--stun-port")

    def test_without_ipv6(self) -> None:
        """Where IPv6 is off, every address is every IPv4 address."""
        for code in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            self.failing_with(code, socket.AF_INET6)
            with bind_udp("", 0) as udp:
                self.assertEqual(udp.family, socket.AF_INET)
                self.assertEqual(udp.getsockname()[0], "0.0.0.0")

    def test_every_address(self) -> None:
        """Empty and unspecified hosts mean both families on one socket, as in the reference."""
        for host in ("", "0.0.0.0", "::"):
            with bind_udp(host, 0) as udp:
                self.assertEqual(udp.family, socket.AF_INET6, host)
                v6only = udp.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                self.assertEqual((udp.getsockname()[0], v6only), ("::", 0))
                self.assertFalse(udp.getblocking())

    test_every_address.skip = NO_IPV6 or None  # type: ignore[attr-defined]


class AskingClient(DatagramProtocol):
    """Sends requests to one server and collects the answers to them."""

    def __init__(self, host: str, port: int, count: int) -> None:
        self.server = (host, port)
        self.waiting = {packet[8:20]: packet for packet in (request() for _ in range(count))}
        self.answers: list[stun.BindingResponse] = []
        self.done: Deferred[None] = Deferred()

    def startProtocol(self) -> None:
        """Send everything."""
        assert self.transport is not None
        for packet in self.waiting.values():
            self.transport.write(packet, self.server)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Match an answer."""
        answer = stun.parse_binding_response(datagram)
        del self.waiting[answer.transaction_id]
        self.answers.append(answer)
        if not self.waiting:
            self.done.callback(None)


class OnTheRealReactorTests(TestCase):
    """Sockets, reactor and all."""

    timeout = 60

    @inlineCallbacks
    def ask(self, bind: str, host: str, count: int) -> Any:
        """Let a client ask a server ``count`` times."""
        running: Any = reactor
        stats = STUNStats()
        server = STUNServer(running, bind, 0, stats)
        server.start()
        self.addCleanup(server.stop)
        client = AskingClient(host, server.port, count)
        port = running.listenUDP(0, client, interface=host)
        self.addCleanup(port.stopListening)
        yield client.done
        seen = {(str(answer.ip), answer.port) for answer in client.answers}
        self.assertEqual(seen, {(host, port.getHost().port)})
        self.assertEqual((stats.success, stats.not_stun), (count, 0))
        return stats

    @inlineCallbacks
    def test_ipv4(self) -> Any:
        """Bound to 127.0.0.1."""
        stats = yield self.ask("127.0.0.1", "127.0.0.1", 150)
        self.assertEqual((stats.ipv4, stats.ipv6), (150, 0))

    @inlineCallbacks
    def test_ipv6(self) -> Any:
        """Bound to ::1."""
        stats = yield self.ask("::1", "::1", 150)
        self.assertEqual((stats.ipv4, stats.ipv6), (0, 150))

    test_ipv6.skip = NO_IPV6 or None  # type: ignore[attr-defined]

    @inlineCallbacks
    def test_dual_stack(self) -> Any:
        """Bound to every address, asked over IPv4."""
        stats = yield self.ask("", "127.0.0.1", 150)
        self.assertEqual((stats.ipv4, stats.ipv6), (150, 0))
