"""STUN of a running relay, by the datagrams recorded from the reference."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol

from derp.net.stun_client import BindingFailed, binding
from derp.services import RelayService
from tests.integration.relay_case import HOST, RelayTestCase, reactor
from tests.integration.test_dual_stack import require_ipv6
from tests.integration.waiting import in_time
from tests.vectors import load

STUN = load("stun.json")
BOUND_TO = {"127.0.0.1": "127.0.0.1", "::1": "::1", "all addresses (dual stack)": ""}
"""The recorded ways to bind, and the host of ``-a`` that asks for them."""
COUNTERS = {
    "127.0.0.1": "counters after the 127.0.0.1 cases",
    "::1": "counters after the [::1] cases",
    "all addresses (dual stack)": "counters after the dual-stack cases",
}
PORT_AT = 26
"""Of the port in a response: header 20, attribute header 4, zero, family."""
MAGIC = 0x2112


class Asker(DatagramProtocol):
    """A UDP client."""

    transport: Any

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self._waiting: Deferred[bytes] | None = None

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        """See ``DatagramProtocol``."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(data)
        else:
            self.came.append(data)

    async def next(self) -> bytes:
        """Take the next answer."""
        if self.came:
            return self.came.pop(0)
        self._waiting = Deferred()
        answer: bytes = await in_time(reactor, self._waiting, "a STUN response")
        return answer

    @property
    def port(self) -> int:
        """Its own."""
        port: int = self.transport.getHost().port
        return port


class STUNVectorTests(RelayTestCase):
    """Each recorded datagram is answered as recorded, or not at all."""

    def asker(self, interface: str) -> Asker:
        """A client bound to an address."""
        asker = Asker()
        port = reactor.listenUDP(0, asker, interface=interface)
        self.addCleanup(port.stopListening)
        return asker

    async def check(self, bound_to: str) -> None:
        """Ask everything recorded of a relay bound like this, and read its counters."""
        service: RelayService = self.start_relay(self.config(host=BOUND_TO[bound_to]))
        port = self.port_of(service, "--stun-port")
        ignored = []
        for case in STUN["cases"]:
            if case["server_bound_to"] != bound_to:
                continue
            host = case["client_addr"].rpartition(":")[0].strip("[]")
            asker = self.asker(host)
            not_stun = service.stun_stats.not_stun
            asker.transport.write(bytes.fromhex(case["request"]), (host, port))
            if case["response"] is not None:
                answer = await asker.next()
                self.assertEqual(answer, self.expected(case, asker.port), case["name"])
            else:
                await self.until(
                    lambda before=not_stun: service.stun_stats.not_stun > before,  # type: ignore[misc]
                    "a datagram to be thrown away",
                )
                ignored.append(asker)
        page = await self.varz(
            self.port_of(service, "--http-port"), host=BOUND_TO[bound_to] or HOST
        )
        recorded = STUN["counters"][COUNTERS[bound_to]]
        counted = {name: n for name, n in recorded.items() if n != "0"}
        self.assertEqual(page.non_zero("stun_"), counted)
        self.assertEqual([asker.came for asker in ignored], [[]] * len(ignored))

    async def test_ipv4(self) -> None:
        """Bound to an IPv4 address."""
        await self.check("127.0.0.1")

    async def test_ipv6(self) -> None:
        """Bound to an IPv6 address."""
        require_ipv6()
        await self.check("::1")

    async def test_dual_stack(self) -> None:
        """
        Bound to all addresses, IPv4 peers are told an IPv4 address, as RFC 8489 wants it. The
        reference tells them the mapped IPv6 form; here it answers as if bound to IPv4.
        """
        require_ipv6()
        await self.check("all addresses (dual stack)")

    def expected(self, case: dict[str, Any], port: int) -> bytes:
        """The recorded response, told to our port instead of the recorded one."""
        if not BOUND_TO[case["server_bound_to"]]:
            host = case["client_addr"].rpartition(":")[0].strip("[]")
            alike = (each for each in STUN["cases"] if each["server_bound_to"] == host)
            case = next(each for each in alike if each["request"] == case["request"])
        response = bytearray.fromhex(case["response"])
        recorded = int(case["client_addr"].rpartition(":")[2])
        at = slice(PORT_AT, PORT_AT + 2)
        self.assertEqual(response[at], (recorded ^ MAGIC).to_bytes(2, "big"))
        response[at] = (port ^ MAGIC).to_bytes(2, "big")
        return bytes(response)


class GenericTests(RelayTestCase):
    """``--stun-generic``."""

    async def test_answered(self) -> None:
        """Any client of RFC 8489 is, and is counted; without the flag none is."""
        for on in (True, False):
            service: RelayService = self.start_relay(self.config(stun_generic=on))
            port = self.port_of(service, "--stun-port")
            asking = binding(reactor, HOST, port, generic=True, timeout=20.0 if on else 0.1)
            if on:
                self.assertEqual(str((await asking).mapped.ip), HOST)
            else:
                await self.assertFailure(Deferred.fromCoroutine(asking), BindingFailed)
            await binding(reactor, HOST, port, timeout=20.0)
            self.assertEqual(service.stun_stats.generic_success, int(on))
            self.assertEqual(service.stun_stats.not_stun, int(not on))
            self.assertEqual(service.stun_stats.success, 1)
