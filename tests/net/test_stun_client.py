"""Tests of :mod:`derp.net.stun_client` and :mod:`derp.net.stun_transaction`: real sockets, and
a clock that stands still unless it is moved."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Coroutine
from ipaddress import ip_address
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from derp.core.stun_stats import STUNStats
from derp.net import stun_transaction
from derp.net.stun_client import Binding, BindingFailed, Cause, Endpoint, binding
from derp.net.stun_transaction import FULL_TIMEOUT
from derp.net.stun_udp import STUNServer
from derp.wire import stun
from derp.wire.stun_error import encode_unknown_attributes
from tests.net.closed_ports import closed_udp_port
from tests.net.udp_sockets import (
    NO_IPV6,
    all_arrived,
    is_silent,
    port_of,
    receive,
    udp_socket,
    wait_readable,
)

NAMES = {"both.example": ["::1", "127.0.0.1"], "six.example": ["::1"], "none.example": []}


class FakeResolver:
    """Knows :data:`NAMES`; other names never get an answer."""

    def resolveHostName(self, receiver: Any, host: str, port: int, kinds: Any) -> None:
        receiver.resolutionBegan(None)
        if host not in NAMES:
            return
        for ip in NAMES[host]:
            kind = IPv6Address if ":" in ip else IPv4Address
            if kind in kinds:
                receiver.addressResolved(kind("TCP", ip, port))
        receiver.resolutionComplete()


class StillReactor(MemoryReactorClock):  # type: ignore[misc]
    """Readers are noted, not read; time passes when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = FakeResolver()


class BindingCase(SynchronousTestCase):
    """One transaction with a server that the test plays."""

    def setUp(self) -> None:
        """Open the server's socket."""
        self.reactor: Any = StillReactor()
        self.server = self.socket()
        self.address = Endpoint(ip_address("127.0.0.1"), port_of(self.server))

    def socket(self, host: str = "127.0.0.1") -> socket.socket:
        """A UDP socket of its own port."""
        udp = udp_socket(host)
        self.addCleanup(udp.close)
        return udp

    def ask(self, host: str = "127.0.0.1", **options: Any) -> Deferred[Binding]:
        """Begin a transaction with the server."""
        asking: Coroutine[Any, Any, Binding] = binding(
            self.reactor, host, self.address.port, **options
        )
        return Deferred.fromCoroutine(asking)

    def request(self) -> tuple[bytes, Any]:
        """Take one request at the server, and where it came from."""
        wait_readable(self.server.fileno())
        return self.server.recvfrom(2048)

    def wake(self) -> None:
        """Let the transaction read what has come."""
        (reader,) = self.reactor.getReaders()
        wait_readable(reader.fileno())
        reader.doRead()

    def taken_away(self) -> Any:
        """The transaction's reader, which the reactor has dropped."""
        (reader,) = self.reactor.getReaders()
        self.reactor.removeReader(reader)
        return reader

    def failed(self, asking: Deferred[Binding], cause: Cause) -> str:
        """The words of a failure; sees that nothing is left behind."""
        failure = self.failureResultOf(asking, BindingFailed)
        self.assertEqual(failure.value.cause, cause)
        self.assert_nothing_left()
        return str(failure.value)

    def assert_nothing_left(self) -> None:
        """Neither reader nor call."""
        self.assertEqual((self.reactor.getReaders(), self.reactor.getDelayedCalls()), ([], []))


class AnswerTests(BindingCase):
    """What counts as an answer, and what it tells."""

    def test_answer(self) -> None:
        """Addresses of both sides, what the server sees, the round trip."""
        asking = self.ask()
        (reader,) = self.reactor.getReaders()
        verifyObject(IReadDescriptor, reader)
        packet, peer = self.request()
        self.assertEqual(len(packet), 40)
        transaction_id = stun.parse_binding_request(packet)
        self.reactor.advance(0.25)
        self.server.sendto(stun.encode_binding_response(transaction_id, b"\1\2\3\4", 5), peer)
        self.wake()
        self.assertEqual(
            self.successResultOf(asking),
            Binding(
                mapped=Endpoint(ip_address("1.2.3.4"), 5),
                server=self.address,
                local=Endpoint(ip_address("127.0.0.1"), peer[1]),
                rtt=0.25,
                sent=1,
            ),
        )
        self.assert_nothing_left()

    def test_generic(self) -> None:
        """Without SOFTWARE; the fingerprint makes it long enough for an IPv6 answer."""
        asking = self.ask(generic=True)
        packet, peer = self.request()
        self.assertEqual((len(packet), packet[:4].hex()), (28, "00010008"))
        self.assertTrue(stun.has_valid_fingerprint(packet))
        self.server.sendto(stun.encode_binding_response(packet[8:20], b"\1\2\3\4", 5), peer)
        self.wake()
        self.assertEqual(str(self.successResultOf(asking).mapped), "1.2.3.4:5")

    def test_repeated_with_one_id(self) -> None:
        """A lost request is sent again, the same; the late answer to the first is good."""
        asking = self.ask()
        first, peer = self.request()
        self.reactor.advance(0.5)
        self.assertEqual(self.request(), (first, peer))
        self.reactor.advance(0.75)
        self.server.sendto(stun.encode_binding_response(first[8:20], b"\1\2\3\4", 5), peer)
        self.wake()
        found = self.successResultOf(asking)
        self.assertEqual((found.sent, found.rtt), (2, 1.25))

    def test_strangers(self) -> None:
        """Other ids, other senders, and our own request sent back are no answers; a failure
        tells of them."""
        asking = self.ask()
        packet, peer = self.request()
        stranger = self.socket()
        stranger.sendto(stun.encode_binding_response(packet[8:20], b"\1\2\3\4", 5), peer)
        self.wake()
        for other in (stun.encode_binding_response(b"x" * 12, b"\1\2\3\4", 5), packet, b""):
            self.server.sendto(other, peer)
            self.wake()
        self.assertNoResult(asking)
        self.reactor.advance(0.5)
        self.reactor.advance(2.5)
        self.assertEqual(
            self.failed(asking, Cause.TIMEOUT),
            f"no STUN answer from {self.address} within 3s (3 requests sent); an answer came from "
            f"127.0.0.1:{port_of(stranger)}, which was not asked; {self.address} sent something "
            "else",
        )

    def test_unreadable(self) -> None:
        """The right id and no address: nothing better will come."""
        asking = self.ask()
        packet, peer = self.request()
        self.server.sendto(b"\x01\x01\x00\x00" + packet[4:20], peer)
        self.wake()
        self.assertEqual(
            self.failed(asking, Cause.BAD_ANSWER),
            f"{self.address} answers what cannot be read: binding response without an address",
        )

    def test_error_response(self) -> None:
        """The server's own words."""
        asking = self.ask()
        packet, peer = self.request()
        answer = encode_unknown_attributes(packet[8:20], [0x7FFF])
        self.server.sendto(answer, peer)
        self.wake()
        self.assertEqual(
            self.failed(asking, Cause.ERROR_RESPONSE),
            f"{self.address} answers with STUN error 420",
        )

    def test_error_response_in_words(self) -> None:
        """A reason is quoted, so that it cannot talk to the terminal."""
        asking = self.ask()
        packet, peer = self.request()
        body = b"\x00\x09\x00\x08\x00\x00\x04\x00No\x1b["
        self.server.sendto(b"\x01\x11\x00\x0c" + packet[4:20] + body, peer)
        self.wake()
        self.assertIn("error 400 'No\\x1b['", self.failed(asking, Cause.ERROR_RESPONSE))


class SilenceTests(BindingCase):
    """How long is waited for, and how often is asked."""

    def requests_at(self, seconds: float) -> list[float]:
        """When requests come in this time."""
        times = []
        for _ in range(int(seconds * 4)):
            all_arrived()
            while not is_silent(self.server):
                times.append(self.reactor.seconds())
            self.reactor.advance(0.25)
        return times

    def test_schedule(self) -> None:
        """Seven times with doubling pauses, then eight seconds."""
        asking = self.ask(timeout=100.0)
        times = self.requests_at(FULL_TIMEOUT - 0.25)
        self.assertEqual(times, [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5])
        self.assertNoResult(asking)
        self.reactor.advance(0.25)
        self.assertIn("within 39.5s (7 requests sent)", self.failed(asking, Cause.TIMEOUT))

    def test_timeout(self) -> None:
        """What is left of the schedule then is not waited for."""
        asking = self.ask(timeout=2.0)
        self.assertEqual(self.requests_at(2.0), [0.0, 0.5, 1.5])
        self.assertIn("within 2s (3 requests sent)", self.failed(asking, Cause.TIMEOUT))

    def test_once(self) -> None:
        """Asked for one request, none is repeated."""
        asking = self.ask(timeout=3.0, sends=1)
        self.assertEqual(self.requests_at(3.0), [0.0])
        self.assertIn("within 3s (1 request sent)", self.failed(asking, Cause.TIMEOUT))

    def test_no_time(self) -> None:
        """No time, or less than none, is over at once."""
        for seconds in (0.0, -1.0):
            asking = self.ask(timeout=seconds)
            self.reactor.advance(0)
            self.failed(asking, Cause.TIMEOUT)

    def test_cancelled(self) -> None:
        """Giving up closes the socket."""
        asking = self.ask()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assert_nothing_left()

    def test_reactor_stops(self) -> None:
        """Then the reactor takes every reader's connection away."""
        asking = self.ask()
        reader = self.taken_away()
        reader.connectionLost(Failure(ConnectionLost()))
        self.assertIn("(1 request sent); interrupted", self.failed(asking, Cause.TIMEOUT))


class NameTests(BindingCase):
    """From a name to the address that is asked."""

    def asked(self, host: str, **options: Any) -> str:
        """Which address that is."""
        asking = self.ask(host, **options)
        asking.addErrback(lambda failure: failure.trap(CancelledError))
        (reader,) = self.reactor.getReaders()
        asking.cancel()
        return str(reader._server.ip)

    def test_ipv4_first(self) -> None:
        """As the reference does, whatever the resolver's order."""
        self.assertEqual(self.asked("both.example"), "127.0.0.1")

    def test_family(self) -> None:
        """Unless told."""
        self.assertEqual(self.asked("both.example", family="ipv6"), "::1")
        self.assertEqual(self.asked("six.example"), "::1")

    test_family.skip = NO_IPV6 or None  # type: ignore[attr-defined]

    def test_no_address(self) -> None:
        """Not of this family, or none at all."""
        asking = self.ask("six.example", family="ipv4")
        self.assertIn('"six.example" has no IPv4 address', self.failed(asking, Cause.LOOKUP))
        asking = self.ask("none.example")
        self.assertIn('"none.example" has no address', self.failed(asking, Cause.LOOKUP))
        asking = self.ask("127.0.0.1", family="ipv6")
        self.assertEqual(self.failed(asking, Cause.LOOKUP), "127.0.0.1 is no IPv6 address")

    def test_no_name(self) -> None:
        """Labels that are empty or too long."""
        for name in ("a..b", "x" * 64, "a b", "a\0", ""):
            self.assertIn("is no host name", self.failed(self.ask(name), Cause.LOOKUP))

    def test_slow_name(self) -> None:
        """The time is one for name and answer together."""
        asking = self.ask("slow.example", timeout=1.5)
        self.reactor.advance(1.5)
        self.assertIn("was not looked up within 1.5s", self.failed(asking, Cause.LOOKUP))


class NetworkErrorTests(BindingCase):
    """What the system and ICMP say."""

    def hear_nobody(self) -> None:
        """Refuse all, as if the server were gone, whose port nobody else is to get."""
        self.server.connect(self.server.getsockname())

    def test_refused(self) -> None:
        """Nobody listens: known at once, not after the time."""
        self.hear_nobody()
        asking = self.ask()
        self.wake()
        self.assertIn(f"nobody listens on UDP {self.address}", self.failed(asking, Cause.REFUSED))

    def test_refused_as_the_reactor_tells(self) -> None:
        """Epoll takes an error without data for the end of the connection."""
        self.hear_nobody()
        asking = self.ask()
        all_arrived()
        reader = self.taken_away()
        reader.connectionLost(Failure(ConnectionDone()))
        self.failed(asking, Cause.REFUSED)

    def test_passing_error(self) -> None:
        """A router's complaint may pass: it is remembered, and asking goes on."""
        asking = self.ask()
        reader = self.taken_away()
        reader._note_error(errno.EHOSTUNREACH)
        reader.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.reactor.getReaders(), [reader])
        self.reactor.advance(3)
        said = f"the network says: {os.strerror(errno.EHOSTUNREACH)}"
        self.assertTrue(self.failed(asking, Cause.TIMEOUT).endswith(said))

    def test_no_way(self) -> None:
        """A family this machine has not."""

        def no_route(family: Any, to: Any) -> None:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

        self.patch(stun_transaction, "_local_ip", no_route)
        words = self.failed(self.ask(), Cause.UNREACHABLE)
        self.assertIn(f"cannot send to {self.address}: ", words)
        self.assertIn("has this machine IPv4?", words)

    def test_bad_port(self) -> None:
        """Port 0 takes no datagram; the kernel says so."""
        asking: Deferred[Binding] = Deferred.fromCoroutine(binding(self.reactor, "127.0.0.1", 0))
        self.assertIn("cannot send to 127.0.0.1:0", self.failed(asking, Cause.UNREACHABLE))

    def test_full_buffer(self) -> None:
        """A request the kernel has no room for is as one lost on its way."""
        asking = self.ask()
        receive(self.server, 1)
        (reader,) = self.reactor.getReaders()

        class Full:
            """Takes nothing."""

            def sendto(self, *_: Any) -> int:
                raise BlockingIOError

        real, reader._udp = reader._udp, Full()
        self.reactor.advance(0.5)
        reader._udp = real
        self.reactor.advance(1)
        receive(self.server, 1)
        asking.addErrback(lambda failure: failure.trap(CancelledError))
        asking.cancel()


class RelayTests(TestCase):
    """Our own server, on the real reactor."""

    async def check(self, host: str, bound: str) -> None:
        """Ask a server bound so."""
        server = STUNServer(reactor, bound, 0, STUNStats())  # type: ignore[arg-type]
        server.start()
        self.addCleanup(server.stop)
        found = await binding(reactor, host, server.port, timeout=20.0)  # type: ignore[arg-type]
        self.assertEqual(found.mapped, found.local)
        self.assertEqual(str(found.server), str(Endpoint(ip_address(host), server.port)))
        self.assertLess(found.rtt, 20)

    def test_ipv4(self) -> Deferred[None]:
        """No NAT is between: the server sees the address the socket has."""
        return Deferred.fromCoroutine(self.check("127.0.0.1", "127.0.0.1"))

    def test_ipv6(self) -> Deferred[None]:
        """The same with IPv6."""
        return Deferred.fromCoroutine(self.check("::1", "::1"))

    test_ipv6.skip = NO_IPV6 or None  # type: ignore[attr-defined]

    def test_dual_stack(self) -> Deferred[None]:
        """An IPv4 peer of a dual-stack socket."""
        return Deferred.fromCoroutine(self.check("127.0.0.1", ""))

    def test_refused(self) -> Deferred[None]:
        """The real reactor brings the refusal."""
        port = closed_udp_port(self)

        async def check() -> None:
            asking = Deferred.fromCoroutine(
                binding(reactor, "127.0.0.1", port, timeout=20.0)  # type: ignore[arg-type]
            )
            failure = await self.assertFailure(asking, BindingFailed)
            self.assertEqual(failure.cause, Cause.REFUSED)

        return Deferred.fromCoroutine(check())
