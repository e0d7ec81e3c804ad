"""Tests of :mod:`derp.wire.stun_generic`."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ProtocolError
from derp.wire import stun
from derp.wire.stun_generic import KNOWN, GenericRequest, parse_generic_request
from tests.wire.test_stun import RFC_5769_REQUEST, attribute

ONES = b"\1" * 12


def request(attributes: bytes = b"", *, kind: int = 1, longer: int = 0) -> bytes:
    """A binding request; its length field may lie."""
    length = len(attributes) + longer
    head = kind.to_bytes(2, "big") + length.to_bytes(2, "big")
    return head + stun.COOKIE + ONES + attributes


def fingerprinted(attributes: bytes) -> bytes:
    """A request that ends in a right fingerprint."""
    covered = request(attributes, longer=8)
    value = stun.fingerprint(covered).to_bytes(4, "big")
    return covered + attribute(stun.FINGERPRINT, value)


class ParseGenericRequestTests(SynchronousTestCase):
    """What is a request, and what of it is not understood."""

    def test_sound(self) -> None:
        """A bare header; Tailscale's own; one with a fingerprint; RFC 5769's, with the
        attributes of ICE, which need to be understood and are not."""
        for packet in (
            request(),
            stun.encode_binding_request(ONES),
            stun.encode_binding_request(ONES, software=None),
        ):
            self.assertEqual(parse_generic_request(packet), GenericRequest(ONES, ()))
        self.assertEqual(
            parse_generic_request(RFC_5769_REQUEST),
            GenericRequest(RFC_5769_REQUEST[8:20], (0x0024,)),
        )

    def test_unknown(self) -> None:
        """Each once; what may be ignored is, and so is what follows the integrity."""
        unknown = attribute(3, b"\0\0\0\6") + attribute(0x7FFF, b"") + attribute(3, b"")
        optional = attribute(0x8000, b"x") + attribute(0xFFFF, b"")
        known = b"".join(attribute(kind, b"known") for kind in sorted(KNOWN))
        late = attribute(0x24, b"1234")
        for packet, found in (
            (request(unknown), (3, 0x7FFF)),
            (request(optional + known + late), ()),
            (fingerprinted(late + optional + attribute(8, bytes(20)) + unknown), (0x24,)),
            (request(attribute(0x1C, bytes(32)) + late), ()),
        ):
            self.assertEqual(parse_generic_request(packet), GenericRequest(ONES, found))

    def test_unsound(self) -> None:
        """Other types, wrong lengths, attributes cut off, fingerprints that are not right."""
        good = fingerprinted(b"")
        for packet in (
            b"",
            request()[:19],
            request(kind=0x0101),
            request(kind=0x0002),
            request(kind=0x8001),
            b"\0\1\0\0" + b"\x21\x12\xa4\x43" + ONES,
            request(longer=4),
            request() + b"\0\0\0\0",
            request(b"\x80\x22\x00\x08tail"),
            request(b"\x80"),
            good[:-1] + bytes([good[-1] ^ 1]),
            fingerprinted(b"")[:2] + b"\0\x0c" + good[4:] + attribute(0x8000, b""),
            request(attribute(stun.FINGERPRINT, b"")),
        ):
            self.assertRaises(ProtocolError, parse_generic_request, packet)

    @given(st.binary(max_size=120), st.booleans())
    def test_garbage(self, data: bytes, framed: bool) -> None:
        """Read, or a :exc:`ProtocolError`; what is unknown asks to be understood."""
        try:
            found = parse_generic_request(request(data) if framed else data)
        except ProtocolError:
            return
        self.assertEqual(len(found.transaction_id), 12)
        self.assertEqual(len(set(found.unknown)), len(found.unknown))
        self.assertTrue(all(0 <= kind < 0x8000 for kind in found.unknown))

    @given(
        st.binary(min_size=12, max_size=12),
        st.one_of(st.none(), st.binary(max_size=30)),
        st.booleans(),
    )
    def test_ours(self, transaction_id: bytes, software: bytes | None, marked: bool) -> None:
        """Whatever the client's side can write is sound."""
        packet = stun.encode_binding_request(
            transaction_id, software=software, with_fingerprint=marked
        )
        self.assertEqual(parse_generic_request(packet), GenericRequest(transaction_id, ()))
