"""Relays whose turns are counted: see :mod:`tests.net.test_packet_cost`."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from derp.core.limits import Limits
from derp.net.hub import Hub
from derp.net.relay_limits import RelayLimits
from derp.net.relay_protocol import RelayServer
from derp.net.timer_wheel import TimerWheel
from derp.wire.frames import HEADER_LEN, KEY_LEN, encode_send_packet
from tests.core.fakes import make_relay
from tests.net.call_counter import count_calls, kernel_calls
from tests.net.relay_sides import PEER, Side
from tests.net.tls_peers import TLSClient
from tests.net.tls_pump import TLSPump
from tests.tls_clients import client_context

FRAME = HEADER_LEN + KEY_LEN
TURNS = 4
"""Turns that are counted and compared."""

Load = Callable[[], None]


class BarePump(TLSPump):
    """Its hub is the relay's own: one that checks itself makes calls that are not its price."""

    def __init__(self, case: SynchronousTestCase) -> None:
        super().__init__(case)
        self.hub.close()
        reactor: Any = self.reactor
        self.hub = Hub(reactor, linger_s=0.0)  # type: ignore[assignment]


class Guest(TLSClient):
    """A client of the relay. Unix sockets: what is sent is there at once, and in one piece."""

    def __init__(
        self, case: PacketCostCase, name: str, maximum: ssl.TLSVersion | None, buffer: int
    ) -> None:
        self.ciphertext = bytearray()
        self.side = Side(name)
        self.protocol = case.server.accept(remote=PEER, fast_start=True)
        ours, theirs = case.pump.pair(tcp=False, buffer=buffer)
        self.transport = case.pump.serve(ours, lambda _: self.protocol)
        super().__init__(theirs, client_context(maximum=maximum))
        case.pump.clients.append(self)
        case.guests.append(self)

    def take(self, data: bytes) -> None:
        self.ciphertext += data
        super().take(data)

    def send_packets(self, to: Sequence[Guest], size: int) -> None:
        """A packet for each of them, each in a record of its own, all in one write."""
        for guest in to:
            self.tls.write(encode_send_packet(guest.side.key, bytes(size)))
        self.flush()


class PacketCostCase(SynchronousTestCase):
    """A relay set up as :mod:`derp.services` does without any flag."""

    def setUp(self) -> None:
        self.pump = BarePump(self)
        self.guests: list[Guest] = []
        reactor = self.pump.reactor
        self.relay = make_relay()
        self.pump.hub.timed = self.relay
        limits = RelayLimits(self.relay, reactor, Limits())
        self.server = RelayServer(self.relay, reactor, self.pump.wheel, limits=limits)

    def log_in(
        self, count: int, maximum: ssl.TLSVersion | None = None, buffer: int = 0
    ) -> list[Guest]:
        """So many new clients, all in, nothing under way."""
        taken = len(self.guests)
        guests = [Guest(self, f"guest {taken + n}", maximum, buffer) for n in range(count)]
        for guest in guests:
            self.pump.until(lambda g=guest: g.ready and g.protocol.transport)  # type: ignore[misc]
            guest.write(guest.side.login(self.relay.public))
            self.pump.until(lambda g=guest: g.protocol.session.conn)  # type: ignore[misc]
        self.clear()
        return guests

    def clear(self) -> None:
        """Let clients read, and forget, what has come."""
        for guest in self.guests:
            guest.pump()
            guest.received.clear()
            guest.ciphertext.clear()

    def cost(self, load: Load, packets: int, size: int, *, receivers: int = 1) -> Counter[str]:
        """
        Count what one turn calls.

        :param load: has clients send so many ``packets`` of ``size``.
        :param receivers: how many clients they are for.
        """
        turns = []
        for _ in range(1 + TURNS):
            self.clear()
            load()
            turns.append(count_calls(self.pump.hub.doRead))
            for guest in self.guests:
                guest.pump()
            arrived = [len(guest.received) for guest in self.guests if guest.received]
            self.assertEqual(sum(arrived), packets * (FRAME + size), "not all within the turn")
            self.assertEqual(len(arrived), receivers)
        for each in turns[2:]:  # the first notes who heard from whom
            self.assertEqual(each, turns[1], "two turns alike cost the same")
        return turns[1]

    def assert_cost(self, calls: Counter[str], most: int) -> None:
        """Compare with a bound; what was called most is in the message."""
        top = ", ".join(f"{name} {n}" for name, n in calls.most_common(12))
        self.assertLessEqual(calls.total(), most, f"calls per turn, most of all {top}")

    def assert_kernel(self, calls: Counter[str], *, senders: int, receivers: int) -> None:
        """One look at who is ready, one read for each sender, one send for each receiver."""
        expected = {"epoll.poll": 1, "socket.recv_into": senders, "socket.send": receivers}
        self.assertEqual(kernel_calls(calls), expected)


def timers(wheel: TimerWheel) -> int:
    """Entries in a wheel, cancelled ones included: they are memory until their time comes."""
    return sum(map(len, wheel._buckets.values()))


def pass_time(pump: TLSPump, seconds: float) -> None:
    """Let the clock run and timers fire; sockets are not served."""
    for _ in range(int(seconds / 0.25)):
        pump.reactor.advance(0.25)


def assert_holds_nothing(case: SynchronousTestCase, guest: Guest) -> None:
    """Nothing is kept for a client, on either of its ways."""
    transport, protocol = guest.transport, guest.protocol
    conn = protocol.session.conn
    assert conn is not None
    case.assertFalse(transport._held, "unconsumed input")
    case.assertFalse(protocol._held, "unconsumed input")
    case.assertEqual((transport._pending, transport._pending_size), ([], 0))
    case.assertEqual(bytes(transport._unsent), b"")
    case.assertIsNone(conn.outbox)
    case.assertIsNone(protocol._deadline)
    case.assertIsNone(transport._opening)
