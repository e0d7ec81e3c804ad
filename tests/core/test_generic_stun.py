"""Tests of :mod:`derp.core.generic_stun`."""

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.generic_stun import GenericSTUN, is_within_bounds
from derp.core.source_limit import SourceLimit
from derp.core.stun_stats import STUNStats
from derp.wire import stun
from derp.wire.stun_error import parse_error_response
from tests.wire.test_stun_generic import ONES, attribute, request

IPV4 = ip_address("192.0.2.7").packed
IPV6 = ip_address("2001:db8::7").packed
MAPPED = ip_address("::ffff:192.0.2.7").packed


def counted(stats: STUNStats) -> dict[str, int]:
    """The counters that are not 0."""
    values = {name: getattr(stats, name) for name in STUNStats.__slots__}
    return {name: value for name, value in values.items() if value}


class GenericSTUNTests(SynchronousTestCase):
    """Which datagrams are answered, and how."""

    def setUp(self) -> None:
        """Make one."""
        self.stats = STUNStats()
        self.generic = GenericSTUN(self.stats, SourceLimit(0.0))

    def answer(self, packet: bytes, ip: bytes = IPV4, now: float = 0.0) -> bytes | None:
        """Ask it, from port 9."""
        return self.generic.answer(packet, ip, 9, now)

    def test_ipv4(self) -> None:
        """The shortest request buys the 32 bytes of an IPv4 answer, exactly 1.6 times its 20."""
        for ip in (IPV4, MAPPED):
            answer = self.answer(request(), ip)
            self.assertEqual(answer, stun.encode_binding_response(ONES, IPV4, 9))
        self.assertEqual(counted(self.stats), {"generic_success": 2})

    def test_ipv6(self) -> None:
        """44 bytes need 28; a shorter request is not answered."""
        self.assertIsNone(self.answer(request(), IPV6))
        self.assertIsNone(self.answer(request(attribute(0x8022, b"")), IPV6))
        self.assertEqual(counted(self.stats), {"generic_too_short": 2})
        answer = self.answer(request(attribute(0x8022, b"test")), IPV6)
        self.assertEqual(answer, stun.encode_binding_response(ONES, IPV6, 9))

    def test_unknown_attributes(self) -> None:
        """420 with a list, if it is not too long for the request."""
        answer = self.answer(request(attribute(3, b"")))
        assert answer is not None
        refused = parse_error_response(answer)
        assert refused is not None
        self.assertEqual((refused.transaction_id, refused.code), (ONES, 420))
        self.assertEqual((len(answer), answer[-8:].hex()), (36, "000a000200030000"))
        self.assertEqual(counted(self.stats), {"generic_unknown_attributes": 1})

    def test_not_a_request(self) -> None:
        """Counted as what it would be without the flag."""
        self.assertIsNone(self.answer(b"hello"))
        self.assertIsNone(self.answer(request(kind=0x0101)))
        self.assertEqual(counted(self.stats), {"not_stun": 2})

    def test_limited(self) -> None:
        """20 at once per address, the same mapped or not, and per /64 of IPv6."""
        marked = request(attribute(0x8022, b"test"))
        other = ip_address("2001:db8::ffff:1").packed
        for first, second in ((IPV4, MAPPED), (IPV6, other)):
            answers = [self.answer(marked, ip) for ip in (first, second) for _ in range(15)]
            self.assertEqual(sum(answer is not None for answer in answers), 20)
        self.assertIsNotNone(self.answer(marked, ip_address("2001:db8:0:1::7").packed))
        self.assertEqual(counted(self.stats), {"generic_success": 41, "generic_rate_limited": 20})
        self.assertIsNotNone(self.answer(marked, IPV4, now=0.1))

    def test_bounds(self) -> None:
        """At most 1.6 times, to the byte."""
        self.assertTrue(is_within_bounds(20, 32))
        self.assertFalse(is_within_bounds(20, 33))
        self.assertFalse(is_within_bounds(27, 44))
        self.assertTrue(is_within_bounds(28, 44))

    @given(
        st.lists(
            st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=9)).map(lambda it: attribute(*it)),
            max_size=12,
        ).map(b"".join),
        st.sampled_from([IPV4, IPV6, MAPPED]),
        st.integers(0, 0xFFFF),
    )
    def test_never_amplifies(self, attributes: bytes, ip: bytes, port: int) -> None:
        """Whatever is asked, an answer is bounded, and each datagram is counted once."""
        stats = STUNStats()
        packet = request(attributes)
        answer = GenericSTUN(stats, SourceLimit(0.0)).answer(packet, ip, port, 0.0)
        self.assertEqual(sum(counted(stats).values()), 1)
        if answer is not None:
            self.assertLessEqual(len(answer), 1.6 * len(packet))
            self.assertEqual(answer[8:20], ONES)
            self.assertTrue(stun.is_stun(answer))
            self.assertEqual(answer[0], 1)
