"""
Never a byte to the wrong client: connections that share buffers, interleaved in every way.

The hub of these tests checks after everything a member does that the shared BIOs are empty, and
overwrites the shared buffers (:class:`tests.net.sockets.AuditedHub`).
"""

from __future__ import annotations

import random
import ssl
from collections import defaultdict
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.net.relay_protocol import RelayServer
from derp.wire.frames import FrameType, encode_ping, encode_send_packet
from tests.core.fakes import make_relay
from tests.net.relay_sides import PEER, Side
from tests.net.sockets import PlainClient
from tests.net.test_transport import FrameTaker, frame
from tests.net.tls_peers import ALERT, APPLICATION_DATA, HANDSHAKE, RecordClient, TLSClient
from tests.net.tls_pump import TLSPump
from tests.tls_clients import client_context, client_hello


class Router(FrameTaker):
    """Passes frames on to the client that their first byte names."""

    def __init__(self, members: dict[int, Router]) -> None:
        super().__init__()
        self._members = members

    def bufferReceived(self, buf: bytearray, view: memoryview, end: int) -> int:
        consumed = super().bufferReceived(buf, view, end)
        for payload in self.frames:
            target = self._members.get(payload[0])
            if target is not None:
                target.transport.write(frame(payload))
        self.frames.clear()
        return consumed


class Talker:
    """One client: what it has made but not sent, and what it is owed."""

    def __init__(self, number: int, client: RecordClient, tls12: bool) -> None:
        self.number = number
        self.client = client
        self.tls12 = tls12
        self.wire = b""
        self.dead = False
        self.said: list[int] = []
        """To whom; the n-th frame has number n."""

    def say(self, to: int, size: int) -> None:
        """A frame for somebody: ``to | from | how many-th u16 | filling of from``."""
        payload = bytes((to, self.number)) + len(self.said).to_bytes(2, "big")
        self.said.append(to)
        payload += bytes((self.number,)) * size
        data = frame(payload)
        while data:  # in records of all lengths
            self.wire += self.client.record(APPLICATION_DATA, data[: 1 + size * 7 % 16384])
            data = data[1 + size * 7 % 16384 :]

    def push(self, size: int) -> None:
        """Let some of it out."""
        self.client.send(self.wire[:size])
        self.wire = self.wire[size:]

    def heard(self) -> dict[int, list[int]]:
        """Which frames came, by who said them; anything else fails."""
        received = bytes(self.client.received)
        heard: dict[int, list[int]] = defaultdict(list)
        while received:
            size = int.from_bytes(received[:4], "big")
            payload, received = received[4 : 4 + size], received[4 + size :]
            if len(payload) < size:
                break  # the rest is on its way
            assert payload[0] == self.number, "somebody else's frame"
            assert set(payload[4:]) <= {payload[1]}, "somebody else's bytes in a frame"
            heard[payload[1]].append(int.from_bytes(payload[2:4], "big"))
        return heard


talkers = st.integers(0, 3)
actions = st.one_of(
    st.tuples(st.just("say"), talkers, talkers, st.integers(0, 40_000)),
    st.tuples(st.just("say"), talkers, talkers, st.integers(0, 100)),
    st.tuples(st.just("push"), talkers, st.integers(1, 60)),
    st.tuples(st.just("push"), talkers, st.integers(1, 70_000)),
    st.tuples(st.just("oddity"), talkers, st.sampled_from(["empty", "update", "ask", "hello"])),
    st.tuples(st.just("stranger"), st.sampled_from(["hello", "half", "noise", "leave"])),
    st.tuples(st.just("forge"), talkers, st.booleans()),
    st.tuples(st.just("turn")),
)


class InterleavingTests(SynchronousTestCase):
    """Hypothesis plays four clients and strangers against each other."""

    def start(self) -> None:
        """Four clients, one of them with TLS 1.2."""
        self.pump = TLSPump(self)
        members: dict[int, Router] = {}
        self.talkers = []
        for number in range(4):
            router = members[number] = Router(members)
            _, client = self.pump.connect_records(router, tls12=number == 3)
            self.talkers.append(Talker(number, client, number == 3))

    def act(self, kind: str, *arguments: Any) -> None:
        if kind == "turn":
            self.pump.turn()
        elif kind == "stranger":
            self.stranger(arguments[0])
        else:
            talker = self.talkers[arguments[0]]
            if not talker.dead:
                getattr(self, f"do_{kind}")(talker, *arguments[1:])

    def do_say(self, talker: Talker, to: int, size: int) -> None:
        talker.say(to, size)

    def do_push(self, talker: Talker, size: int) -> None:
        talker.push(size)
        self.pump.turn()

    def do_oddity(self, talker: Talker, which: str) -> None:
        client = talker.client
        if which == "empty":
            talker.wire += client.record(APPLICATION_DATA, b"")
            talker.say(talker.number, 1)  # OpenSSL counts empty ones in a row
        elif which == "hello" and talker.tls12:
            talker.wire += client.record(HANDSHAKE, client_hello(client_context())[5:])
        elif which in ("update", "ask") and not talker.tls12:
            talker.wire += client.key_update(answer=which == "ask")

    def do_forge(self, talker: Talker, alert: bool) -> None:
        """It breaks off in the middle of a record, or a record is forged."""
        talker.push(len(talker.wire))
        if alert:
            talker.client.send(talker.client.record(ALERT, b"\x02\x50"))
        talker.client.send(b"\x17\x03\x03\x40\x00" + bytes(16384))
        talker.dead = True
        self.pump.turn()

    def stranger(self, what: str) -> None:
        """Somebody who never gets in."""
        ours, theirs = self.pump.pair()
        self.pump.serve(ours, lambda _: None)
        if what == "hello":
            self.pump.clients.append(TLSClient(theirs))
            return
        client = PlainClient(theirs)
        self.pump.clients.append(client)
        hello = client_hello(client_context())
        client.send({"half": hello[:100], "noise": bytes(3000), "leave": hello}[what])
        self.pump.turn()
        if what == "leave":
            client.close()

    @given(st.lists(actions, max_size=40))
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def test_any_interleaving(self, script: list[tuple[Any, ...]]) -> None:
        """Whoever sends whatever in whichever pieces: everybody gets what is his, in order."""
        self.start()
        try:
            for action in script:
                self.act(*action)
            for talker in self.talkers:
                if not talker.dead:
                    talker.push(len(talker.wire))
            self.pump.until(self.all_heard, "something was lost")
            self.pump.until(self.dead_are_out, "somebody who was to be thrown out is still in")
            for talker in self.talkers:
                self.assertEqual(talker.client.ended is None, not talker.dead)
        finally:
            self.pump.hub.close()
            self.pump.close_sockets()

    def dead_are_out(self) -> bool:
        """Whether those who broke off are disconnected; who said a lot is read for some turns."""
        return all(talker.client.ended for talker in self.talkers if talker.dead)

    def all_heard(self) -> bool:
        """
        Whether everybody alive has all that those alive have said to him.

        What the dead said may be cut short; what has come must always be in order.
        """
        complete = all(talker.client.all_sent for talker in self.talkers)
        for talker in self.talkers:
            heard = talker.heard() if not talker.dead else {}
            for source in self.talkers:
                got = heard.get(source.number, [])
                said = [n for n, to in enumerate(source.said) if to == talker.number]
                assert got == said[: len(got)], "lost on the way, or out of order"
                if len(got) < len(said) and not (source.dead or talker.dead):
                    complete = False
        return complete


class CrowdTests(SynchronousTestCase):
    """Many clients of a real relay at once."""

    def test_crowd(self) -> None:
        """
        Thirty clients, TLS 1.2, 1.3 and plain, send packets of all sizes to each other in
        pieces of all sizes, while others fail their handshakes: each gets what is his.
        """
        pump = TLSPump(self)
        relay = make_relay()
        server = RelayServer(relay, pump.reactor, pump.wheel)
        rng = random.Random(7)
        sides: list[tuple[Side, Any]] = []
        for n in range(30):
            protocol = server.accept(remote=PEER, fast_start=True)
            client: PlainClient
            if n % 3 == 0:
                _, client = pump.connect(protocol)
            else:
                maximum = None if n % 3 == 1 else ssl.TLSVersion.TLSv1_2
                ours, theirs = pump.pair()
                pump.serve(ours, lambda _, p=protocol: p)  # type: ignore[misc]
                client = TLSClient(theirs, client_context(maximum=maximum))
                pump.clients.append(client)
                pump.until(lambda c=client: c.ready)  # type: ignore[misc]
            side = Side(f"client {n}")
            write = getattr(client, "write", client.send)
            write(side.login(relay.public))
            sides.append((side, write))
        pump.until(lambda: len(relay.registry.active) == 30)
        sent: dict[bytes, dict[bytes, list[bytes]]] = defaultdict(lambda: defaultdict(list))
        for _round in range(12):
            queues = []
            for side, write in sides:
                queue = b""
                for _ in range(rng.randrange(4)):
                    to = rng.choice(sides)[0]
                    size = rng.choice((0, 1, 62, 100, 1200, 1200, 1400, 20_000, 65_536))
                    packet = rng.randbytes(8)[:size] + side.key[:1] * max(0, size - 8)
                    sent[to.key][side.key].append(packet)
                    queue += encode_send_packet(to.key, packet)
                queues.append((write, queue + encode_ping(b"12345678")))
            while queues:
                write, queue = queues.pop(rng.randrange(len(queues)))
                cut = rng.choice((1, 3, 40, 1000, 5000, len(queue)))
                write(queue[:cut])
                if queue[cut:]:
                    queues.append((write, queue[cut:]))
                if rng.random() < 0.3:
                    pump.turn()
            self.stranger(pump, rng)
        expected = sum(len(p) for by in sent.values() for p in by.values())
        pump.until(lambda: relay.stats.packets_sent == expected)
        pump.settle()
        for (side, _), client in zip(sides, self.of_sides(pump), strict=True):
            got: dict[bytes, list[bytes]] = defaultdict(list)
            for frame_type, payload in side.frames(bytes(client.received)):
                if frame_type == FrameType.RECV_PACKET:
                    got[payload[:32]].append(payload[32:])
            self.assertEqual(got, sent[side.key])
        self.assertEqual(relay.stats.dropped, 0)

    def of_sides(self, pump: TLSPump) -> list[Any]:
        return pump.clients[:30]

    def stranger(self, pump: TLSPump, rng: random.Random) -> None:
        ours, theirs = pump.pair()
        pump.serve(ours, lambda _: None)
        client = PlainClient(theirs)
        pump.clients.append(client)
        client.send(client_hello(client_context())[: rng.randrange(600)] + rng.randbytes(50))
