"""Tests of :mod:`derp.prober.udp_check`: STUN over loopback, with servers good and bad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from derp.net.stun_client import BindingFailed, Cause
from derp.prober import udp_check as module
from derp.prober.check import Check
from derp.prober.udp_check import REMEMBERED, udp_check
from derp.wire import stun
from tests.integration.relay_case import HOST, reactor
from tests.net.closed_ports import closed_udp_port
from tests.net.udp_sockets import why_no_ipv6
from tests.prober.check_case import CheckTestCase

Answers = Callable[[bytes, tuple[str, int]], bytes | None]


class FakeSTUN(DatagramProtocol):
    """Answers as it is told, and counts."""

    noisy = False

    def __init__(self, answers: Answers) -> None:
        self.requests: list[bytes] = []
        self._answers = answers

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.requests.append(datagram)
        answer = self._answers(datagram, addr[:2])
        if answer is not None:
            assert self.transport is not None
            self.transport.write(answer, addr)


def right(request: bytes, peer: tuple[str, int]) -> bytes:
    """The answer of any relay, about a peer on 192.0.2.1."""
    return stun.encode_binding_response(request[8:20], bytes((192, 0, 2, 1)), peer[1])


class UDPTests(CheckTestCase):
    """One node's STUN."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(module, "ANSWER_S", 0.05)
        self.patch(module, "AGAIN_S", 0.01)

    def serve(self, answers: Answers, host: str = HOST) -> int:
        """Serve STUN in some way; give the port."""
        self.server = FakeSTUN(answers)
        return self.closing(reactor.listenUDP(0, self.server, interface=host))

    def check(self, port: int | None, **fields: Any) -> Check:
        node = self.node("900a", 443, stun_port=port, host_name="derp.example.com", **fields)
        return udp_check(self.targets(), self.region, node, "ipv4")

    async def test_relay(self) -> None:
        """A relay of ours answers, and sees us where we are."""
        self.patch(module, "ANSWER_S", 5.0)
        node = self.node_of(self.relay())
        check = udp_check(self.targets(), self.region, node, "ipv4")
        await self.passes(check)
        found = check.findings()
        self.assertRegex(str(found["mapped_address"]), r"^127\.0\.0\.1:\d+$")
        self.assertGreater(float(found["rtt_ms"]), 0)
        self.assertEqual((found["sent"], found["lost"], found["loss"]), (1, 0, 0))

    async def test_request(self) -> None:
        """The request is that of Tailscale's clients, which every relay answers."""
        await self.passes(self.check(self.serve(right)))
        (request,) = self.server.requests
        self.assertEqual(request, stun.encode_binding_request(request[8:20]))

    async def test_labels(self) -> None:
        """The labels of a node, and the family."""
        check = self.check(3478)
        self.assertEqual(check.probe_class, "derp_udp")
        self.assertEqual(
            check.labels,
            {
                "region": "test",
                "region_id": "900",
                "hostname": "derp.example.com",
                "address_family": "ipv4",
            },
        )

    async def test_mapped_address(self) -> None:
        """Whatever address the server tells is told, and not judged."""
        check = self.check(self.serve(right))
        self.assertEqual(dict(check.findings()), {})
        await self.passes(check)
        self.assertRegex(str(check.findings()["mapped_address"]), r"^192\.0\.2\.1:\d+$")

    async def test_ipv6(self) -> None:
        """The node's IPv6 address is asked over IPv6."""
        if why := why_no_ipv6():
            self.skipTest(why)

        def answers(request: bytes, peer: tuple[str, int]) -> bytes:
            return stun.encode_binding_response(request[8:20], bytes(15) + b"\1", peer[1])

        port = self.serve(answers, "::1")
        node = self.node("900a", 443, stun_port=port, ipv6="::1")
        check = udp_check(self.targets(), self.region, node, "ipv6")
        await self.passes(check)
        self.assertRegex(str(check.findings()["mapped_address"]), r"^\[::1\]:\d+$")
        self.assertEqual(check.labels["address_family"], "ipv6")

    async def test_lost(self) -> None:
        """Lost requests are followed by others, and counted."""

        def answers(request: bytes, peer: tuple[str, int]) -> bytes | None:
            return right(request, peer) if len(self.server.requests) > 2 else None

        check = self.check(self.serve(answers))
        await self.passes(check)
        found = check.findings()
        self.assertEqual((found["sent"], found["lost"], found["loss"]), (3, 2, 0.6667))
        self.assertLess(float(found["rtt_ms"]), 50, "of the last request alone")
        for _ in range(3):
            await self.passes(check)
        self.assertEqual(check.findings()["loss"], 0.3333)

    async def test_loss_is_of_the_latest(self) -> None:
        """A loss is forgotten after so many requests."""

        def answers(request: bytes, peer: tuple[str, int]) -> bytes | None:
            return right(request, peer) if len(self.server.requests) > 1 else None

        check = self.check(self.serve(answers))
        for _ in range(REMEMBERED):
            await self.passes(check)
        found = check.findings()
        self.assertEqual((found["sent"], found["lost"]), (REMEMBERED, 0))

    async def test_silent(self) -> None:
        """A server that never answers is asked until the time is over, and then named."""
        port = self.serve(lambda *_: None)
        check = self.check(port)
        text = await self.fails(check, 0.4)
        self.assertIn("node 900a (derp.example.com): no STUN answer", text)
        self.assertRegex(text, rf"from {HOST}:{port} in \d+\.\d s to ")
        self.assertIn("--stun", text)
        self.assertGreater(len(self.server.requests), 2)
        found = check.findings()
        self.assertNotIn("mapped_address", found)
        self.assertEqual(found["loss"], 1)

    async def test_first_request_takes_all_the_time(self) -> None:
        """Also when not even one request's time is over."""
        self.patch(module, "ANSWER_S", 5.0)
        port = self.serve(lambda *_: None)
        text = await self.fails(self.check(port), 0.05)
        self.assertIn("to a request: is STUN on there", text)

    async def test_nobody(self) -> None:
        """A port where nobody listens is told at once."""
        port = closed_udp_port(self)
        self.patch(module, "ANSWER_S", 20.0)
        text = await self.fails(self.check(port))
        self.assertIn("node 900a (derp.example.com): ", text)
        self.assertIn(f"nobody listens on UDP {HOST}:{port}", text)

    async def test_garbage(self) -> None:
        """What is no answer to our request counts for nothing, and is mentioned."""

        def other_id(request: bytes, peer: tuple[str, int]) -> bytes:
            return stun.encode_binding_response(bytes(12), bytes(4), 1)

        for answers in (lambda *_: b"hello", lambda request, _: request, other_id):
            text = await self.fails(self.check(self.serve(answers)), 0.2)
            self.assertIn("sent something else", text)

    async def test_unreadable(self) -> None:
        """An answer without an address is an error at once."""
        self.patch(module, "ANSWER_S", 20.0)

        def empty(request: bytes, peer: tuple[str, int]) -> bytes:
            return b"\1\1\0\0" + request[4:20]

        text = await self.fails(self.check(self.serve(empty)))
        self.assertIn("node 900a (derp.example.com): ", text)
        self.assertIn("without an address", text)

    async def test_not_sent(self) -> None:
        """A request that could not be sent is no lost one."""

        async def unreachable(*args: Any, **options: Any) -> Any:
            raise BindingFailed("cannot send there", Cause.UNREACHABLE)

        self.patch(module, "binding", unreachable)
        check = self.check(3478)
        text = await self.fails(check)
        self.assertEqual(text, "node 900a (derp.example.com): cannot send there")
        self.assertEqual(dict(check.findings()), {})

    async def test_no_address(self) -> None:
        """A node without such an address cannot be asked."""
        self.assertIn("IPv4 address", await self.fails(self.check(3478, ipv4="none")))
        self.assertIn("no STUN port", await self.fails(self.check(None)))
