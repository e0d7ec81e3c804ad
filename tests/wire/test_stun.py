"""Tests of :mod:`derp.wire.stun`: RFC data, recorded datagrams, garbage."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from zlib import crc32

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ProtocolError
from derp.wire import stun
from tests.vectors import load

CASES: list[dict[str, Any]] = load("stun.json")["cases"]

TRANSACTION_IDS = st.binary(min_size=12, max_size=12)
PORTS = st.integers(0, 65535)
PACKED_IPS = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)

ONES = bytes([1] * 12)
REQUEST = bytes.fromhex(
    "000100142112a442010101010101010101010101802200087461696c6e6f646580280004355f9b89"
)
"""Tailscale's request with transaction id ``ONES``."""

RESPONSES = [
    ("01", "1.2.3.4", 254, "0101000c2112a442" + "01" * 12 + "00200008000121ec2010a746"),
    ("02", "1.2.3.4", 257, "0101000c2112a442" + "02" * 12 + "00200008000120132010a746"),
    (
        "03",
        "1::4",
        254,
        "010100182112a442" + "03" * 12 + "00200014000221ec2113a442" + "03" * 11 + "07",
    ),
    (
        "04",
        "1::4",
        257,
        "010100182112a442" + "04" * 12 + "00200014000220132113a442" + "04" * 11 + "00",
    ),
]
"""Byte of the transaction id, address, port, datagram."""

MAPPED_AS_IPV6 = (
    "010100182112a442" + "01" * 12 + ("00200014000221ec2112a442010101010101fefe00030205")
)
"""How the reference answers ::ffff:1.2.3.4, port 254, on a dual-stack socket."""

FOREIGN_RESPONSES = {
    "google-1": (
        "72.69.33.45",
        59028,
        "0101000c2112a4422360b11e3ec68ffa93e08007002000080001c7866957856f",
    ),
    "google-2": (
        "72.69.33.45",
        59029,
        "0101000c2112a442f9f121cbde7d7c75923ce271002000080001c7876957856f",
    ),
    "stun-sipgate-net-10000: XOR-MAPPED-ADDRESS under its old number": (
        "72.69.33.45",
        58539,
        "010100442112a442482eb64715e8b28eaead6444000100080001e4ab4845212d0004000800012710d90a4498"
        "0005000800012711d9747a8a802000080001c5b96957856f80220010566f766964612e6f726720302e393600",
    ),
    "stun-powervoip-com-3478: MAPPED-ADDRESS only": (
        "72.69.33.45",
        59859,
        "010100242112a4427e57966829f444609d1deaa6000100080001e9d34845212d0004000800010d964d48a9d4"
        "0005000800010d974d48a9d5",
    ),
    "pion: trailing garbage": (
        "127.0.0.1",
        61300,
        "010100242112a442ebc2d36ef471217c4f3e308e8022000a656e64706f696e7465720000002000080001ce66"
        "5e12a44380280004b699bb02010100242112a442",
    ),
    "stuntman-ipv6": (
        "2602:d1:b4cf:c100:38b2:31ff:feef:96f6",
        37070,
        "010100482112a44206f56685d28af3e69ce341e200010014000290ce260200d1b4cfc10038b231fffeef96f6"
        "802b001400020d962604a880000200d10000000000c57001002000140002b1dc0710a493b23aa785ea38c219"
        "620cd714",
    ),
    "software of 1 byte, padded": (
        "127.0.0.1",
        61300,
        "010100142112a442ebc2d36ef471217c4f3e308e8022000161000000002000080001ce665e12a443",
    ),
    "software of 3 bytes, padded": (
        "127.0.0.1",
        61300,
        "010100142112a442ebc2d36ef471217c4f3e308e8022000361626300002000080001ce665e12a443",
    ),
    "no-4in6: IPv4-mapped": (
        "209.180.207.193",
        60463,
        "010100182112a4424fd5d202dcb37d31fc773306002000140002cd3d2112a4424fd5d202dcb382ce2dc3fcc7",
    ),
    "RFC 5769 section 2.2": (
        "192.0.2.1",
        32853,
        "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147"
        "e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96",
    ),
    "RFC 5769 section 2.3": (
        "2001:db8:1234:5678:11:2233:4455:6677",
        32853,
        "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a147"
        "0113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004"
        "c8fb0b4c",
    ),
}
"""Answers of other servers: the address in them."""

RFC_5769_REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e"
    "0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781e"
    "f2b5b2d3f249c1b571a280280004e57a3bcf"
)


def attribute(kind: int, value: bytes, padding: bytes = b"\0") -> bytes:
    """An attribute with its padding."""
    return (
        kind.to_bytes(2, "big")
        + len(value).to_bytes(2, "big")
        + value
        + padding * (-len(value) % 4)
    )


def message(kind: int, attributes: bytes, length: int | None = None) -> bytes:
    """A message with transaction id ``ONES`` and, unless given, the right length field."""
    size = len(attributes) if length is None else length
    return kind.to_bytes(2, "big") + size.to_bytes(2, "big") + stun.COOKIE + ONES + attributes


def fingerprinted(packet: bytes) -> bytes:
    """A packet with the FINGERPRINT of the bytes it has, its length field left alone."""
    crc = crc32(packet) ^ 0x5354554E
    return packet + attribute(stun.FINGERPRINT, crc.to_bytes(4, "big"))


TAILNODE = attribute(stun.SOFTWARE, b"tailnode")


class IsSTUNTests(SynchronousTestCase):
    """What looks like STUN at all."""

    def test_decides_by_length_top_bits_and_cookie(self) -> None:
        """Twenty bytes, two clear bits and the cookie are enough, whatever follows."""
        header = bytes(4) + stun.COOKIE + bytes(12)
        for packet, expected in (
            (header, True),
            (header[:-1], False),
            (header + b"trailing", True),
            (b"\xf0" + header[1:], False),
            (b"\x40" + header[1:], False),
            (b"\x20" + header[1:], True),
            (bytes(20), False),
            (b"", False),
        ):
            self.assertIs(stun.is_stun(packet), expected, packet.hex())


class BindingRequestTests(SynchronousTestCase):
    """Requests, as the server reads and the client writes them."""

    def refused(self, packet: bytes, reason: str) -> None:
        """Assert that a packet deserves no answer, for a reason, on both ways through."""
        error = self.assertRaises(ProtocolError, stun.parse_binding_request, packet)
        self.assertIn(reason, str(error))
        self.assertIsNone(stun.answer(packet, bytes(4), 1))

    def accepted(self, packet: bytes) -> None:
        """Assert that a packet with transaction id ``ONES`` deserves its answer."""
        self.assertEqual(stun.parse_binding_request(packet), ONES)
        answer = stun.answer(packet, bytes([1, 2, 3, 4]), 254)
        self.assertEqual(answer, bytes.fromhex(RESPONSES[0][3]))

    def test_recorded_datagrams(self) -> None:
        """Each recorded datagram is accepted or ignored as by the reference."""
        for case in CASES:
            packet = bytes.fromhex(case["request"])
            if case["response"] is None:
                self.refused(packet, "")
            else:
                self.assertEqual(stun.parse_binding_request(packet), packet[8:20], case["name"])

    def test_recorded_answers(self) -> None:
        """Answers are the reference's, byte for byte, but that mapped addresses go as IPv4."""
        for case in CASES:
            ip, _, port = case["client_addr"].rpartition(":")
            packed = ip_address(ip.strip("[]")).packed
            expected = case["response"]
            if case["server_bound_to"].startswith("all") and len(packed) == 4:
                packed = bytes(10) + b"\xff\xff" + packed
                self.assertEqual(stun.parse_binding_response(bytes.fromhex(expected)).port, 9795)
                expected = CASES[0]["response"]  # the same request, to an IPv4 socket
            answer = stun.answer(bytes.fromhex(case["request"]), packed, int(port))
            self.assertEqual(answer and answer.hex(), expected, case["name"])

    def test_layout(self) -> None:
        """SOFTWARE comes first, at byte 20, its value at 24: an XDP program looks there."""
        self.assertEqual(stun.encode_binding_request(ONES), REQUEST)
        self.assertEqual(REQUEST[20:24], bytes.fromhex("80220008"))
        self.assertEqual(REQUEST[24:32], b"tailnode")
        self.assertEqual(len(REQUEST), stun.REQUEST_LEN)

    def test_not_stun(self) -> None:
        """Other traffic is told from STUN."""
        self.refused(b"", "not STUN")
        self.refused(REQUEST[:19], "not STUN")
        self.refused(b"\x80" + REQUEST[1:], "not STUN")
        self.refused(REQUEST[:4] + b"\x20" + REQUEST[5:], "not STUN")

    def test_other_types(self) -> None:
        """Indications, responses and other methods get no answer, also with a right CRC."""
        for kind in (0x0011, 0x0101, 0x0111, 0x0002, 0x0003):
            self.refused(fingerprinted(message(kind, TAILNODE, 20)), "not a binding request")

    def test_other_cookie(self) -> None:
        """Without the cookie it is no STUN of this century, also with a right CRC."""
        for at in range(4, 8):
            packet = bytearray(message(1, TAILNODE, 20))
            packet[at] ^= 1
            self.refused(fingerprinted(bytes(packet)), "not STUN")

    def test_length_field_is_ignored(self) -> None:
        """Attributes run to the end of the datagram, whatever the header says."""
        for length in (0, 4, 20, 65535):
            self.accepted(fingerprinted(message(1, TAILNODE, length)))

    def test_unknown_attributes_are_skipped(self) -> None:
        """Also comprehension-required ones, before and after SOFTWARE, whatever their padding."""
        other = attribute(0x7FFE, b"abc", b"\xee") + attribute(0x0006, b"")
        self.accepted(fingerprinted(message(1, other + TAILNODE + other, 0)))

    def test_any_software_attribute_counts(self) -> None:
        """One ``tailnode`` among several SOFTWARE attributes is enough, in any place."""
        other = attribute(stun.SOFTWARE, b"tailnodf")
        for attributes in (other + TAILNODE, TAILNODE + other):
            self.accepted(fingerprinted(message(1, attributes)))

    def test_other_software(self) -> None:
        """Requests of general clients, which say something else or nothing."""
        for attributes in (b"", attribute(stun.SOFTWARE, b"tailnod"), TAILNODE[:3] + b"\x09" * 13):
            self.refused(fingerprinted(message(1, attributes)), "software")
        self.refused(RFC_5769_REQUEST, "software")

    def test_fingerprint_must_be_last(self) -> None:
        """A right fingerprint in the middle, or none, is not accepted."""
        right = fingerprinted(message(1, TAILNODE))
        self.refused(right + attribute(0x8000, b""), "end in a fingerprint")
        self.refused(message(1, TAILNODE), "end in a fingerprint")

    def test_wrong_fingerprint(self) -> None:
        """Any changed bit makes a request refused."""
        for at in range(20 * 8, 40 * 8):
            changed = bytearray(REQUEST)
            changed[at // 8] ^= 1 << at % 8
            self.refused(bytes(changed), "")
        for at in range(8 * 8, 20 * 8):
            changed = bytearray(REQUEST)
            changed[at // 8] ^= 1 << at % 8
            self.refused(bytes(changed), "wrong fingerprint")

    def test_fingerprint_without_a_value(self) -> None:
        """A last FINGERPRINT that is not four bytes long leaves the one before it valid."""
        empty = attribute(stun.FINGERPRINT, b"")
        self.refused(message(1, TAILNODE + empty), "wrong fingerprint")
        # The CRC is taken over all but the last 8 bytes, here a value and an empty attribute.
        head = message(1, TAILNODE) + b"\x80\x28\x00\x04"
        value = (crc32(head) ^ 0x5354554E).to_bytes(4, "big")
        self.accepted(head + value + empty)

    def test_malformed_attributes(self) -> None:
        """Attributes cut off, in header, value or padding, spoil the packet."""
        self.refused(REQUEST + b"\0", "cut off")
        self.refused(REQUEST + b"\0\0\0", "cut off")
        self.refused(REQUEST + b"\x80\x00\x00\x01a\0\0", "longer")
        self.refused(REQUEST + b"\x80\x00\xff\xff", "longer")
        for length in range(len(REQUEST)):
            self.refused(REQUEST[:length], "")

    @given(TRANSACTION_IDS)
    def test_round_trip(self, transaction_id: bytes) -> None:
        """What the client writes the server reads."""
        request = stun.encode_binding_request(transaction_id)
        self.assertEqual(stun.parse_binding_request(request), transaction_id)

    @given(TRANSACTION_IDS, st.none() | st.binary(max_size=40), st.booleans())
    def test_general_request(
        self, transaction_id: bytes, software: bytes | None, with_fingerprint: bool
    ) -> None:
        """A general client's request is well-formed: length field, padding, fingerprint."""
        request = stun.encode_binding_request(
            transaction_id, software=software, with_fingerprint=with_fingerprint
        )
        self.assertEqual(request[:2], b"\x00\x01")
        self.assertEqual(int.from_bytes(request[2:4], "big"), len(request) - 20)
        self.assertEqual(len(request) % 4, 0)
        self.assertEqual(request[8:20], transaction_id)
        rest = request[20:]
        if software is not None:
            expected = attribute(stun.SOFTWARE, software)
            self.assertEqual(rest[: len(expected)], expected)
            rest = rest[len(expected) :]
        self.assertEqual(len(rest), 8 * with_fingerprint)
        self.assertIs(stun.has_valid_fingerprint(request), with_fingerprint)

    def test_plain_request(self) -> None:
        """Without attributes a request is its header alone."""
        request = stun.encode_binding_request(ONES, software=None, with_fingerprint=False)
        self.assertEqual(request, message(1, b""))

    @given(st.binary(max_size=120) | st.binary(max_size=80).map(lambda rest: message(1, rest)))
    @example(fingerprinted(message(1, TAILNODE)))
    def test_garbage(self, packet: bytes) -> None:
        """Whatever comes is accepted by both ways or by none, and raises only ProtocolError."""
        try:
            expected: bytes | None = stun.encode_binding_response(
                stun.parse_binding_request(packet), bytes(4), 5
            )
        except ProtocolError:
            expected = None
        self.assertEqual(stun.answer(packet, bytes(4), 5), expected)

    @given(TRANSACTION_IDS, st.integers(0, 39), st.integers(1, 255))
    def test_perturbed(self, transaction_id: bytes, at: int, change: int) -> None:
        """Any changed byte makes a request refused; the CRC covers the length field too."""
        request = bytearray(stun.encode_binding_request(transaction_id))
        request[at] ^= change
        self.assertRaises(ProtocolError, stun.parse_binding_request, bytes(request))

    def test_our_own_mistakes(self) -> None:
        """A transaction id or address of a wrong size is our bug, not the peer's."""
        for call in (
            lambda: stun.encode_binding_request(bytes(11)),
            lambda: stun.encode_binding_response(bytes(13), bytes(4), 1),
            lambda: stun.encode_binding_response(ONES, bytes(5), 1),
            lambda: stun.answer(REQUEST, b"", 1),
        ):
            self.assertRaises(ValueError, call)


class FingerprintTests(SynchronousTestCase):
    """FINGERPRINT as a general client checks it."""

    def test_published_messages(self) -> None:
        """The messages of RFC 5769 carry right ones."""
        self.assertTrue(stun.has_valid_fingerprint(RFC_5769_REQUEST))
        for name in ("RFC 5769 section 2.2", "RFC 5769 section 2.3"):
            packet = bytes.fromhex(FOREIGN_RESPONSES[name][2])
            self.assertTrue(stun.has_valid_fingerprint(packet))
            self.assertFalse(stun.has_valid_fingerprint(packet[:-1] + b"\0"))

    def test_absent(self) -> None:
        """A message without one, or not STUN at all, has no valid one."""
        self.assertFalse(stun.has_valid_fingerprint(bytes.fromhex(RESPONSES[0][3])))
        self.assertFalse(stun.has_valid_fingerprint(b""))


class BindingResponseTests(SynchronousTestCase):
    """Responses, as the server writes and the client reads them."""

    def test_known_answers(self) -> None:
        """Published combinations of id, address and port give their bytes, and come back."""
        for byte, ip, port, expected in RESPONSES:
            transaction_id = bytes.fromhex(byte) * 12
            packed = ip_address(ip).packed
            response = stun.encode_binding_response(transaction_id, packed, port)
            self.assertEqual(response.hex(), expected)
            self.assertEqual(
                stun.parse_binding_response(response), (transaction_id, ip_address(ip), port)
            )

    def test_mapped_address_is_ipv4(self) -> None:
        """A dual-stack socket's IPv4 peer gets what it would get from an IPv4 socket."""
        mapped = IPv6Address("::ffff:1.2.3.4").packed
        response = stun.encode_binding_response(ONES, mapped, 254)
        self.assertEqual(response.hex(), RESPONSES[0][3])

    def test_mapped_address_of_the_reference(self) -> None:
        """What the reference sends instead is read as the same address."""
        parsed = stun.parse_binding_response(bytes.fromhex(MAPPED_AS_IPV6))
        self.assertEqual(parsed, (ONES, IPv4Address("1.2.3.4"), 254))

    def test_almost_mapped_addresses(self) -> None:
        """Other addresses with an IPv4 in their last bytes stay IPv6."""
        for text in ("::1.2.3.4", "::fffe:1.2.3.4", "0:0:0:1:0:ffff:102:304", "64:ff9b::1.2.3.4"):
            packed = IPv6Address(text).packed
            response = stun.encode_binding_response(ONES, packed, 1)
            self.assertEqual(len(response), 44, text)
            self.assertEqual(stun.parse_binding_response(response).ip, IPv6Address(text))

    def test_recorded_responses(self) -> None:
        """Every recorded response is read as the reference's client reads it."""
        for case in CASES:
            if case["response"] is not None:
                parsed = stun.parse_binding_response(bytes.fromhex(case["response"]))
                host = f"[{parsed.ip}]" if parsed.ip.version == 6 else str(parsed.ip)
                self.assertEqual(f"{host}:{parsed.port}", case["client_parses_as"])
                self.assertEqual(parsed.transaction_id.hex(), case["request"][16:40])

    def test_foreign_responses(self) -> None:
        """Answers of many servers are understood."""
        for name, (ip, port, text) in FOREIGN_RESPONSES.items():
            packet = bytes.fromhex(text)
            parsed = stun.parse_binding_response(packet)
            self.assertEqual(parsed, (packet[8:20], ip_address(ip), port), name)

    def test_xored_beats_plain(self) -> None:
        """XOR-MAPPED-ADDRESS wins in either order: routers rewrite plain addresses they see."""
        plain = attribute(stun.MAPPED_ADDRESS, b"\0\1\0\7\x09\x09\x09\x09")
        xored = attribute(stun.XOR_MAPPED_ADDRESS, b"\0\1\x21\xec\x20\x10\xa7\x46")
        for attributes in (plain + xored, xored + plain):
            parsed = stun.parse_binding_response(message(0x0101, attributes))
            self.assertEqual(parsed, (ONES, IPv4Address("1.2.3.4"), 254))

    def test_old_number_is_xored_too(self) -> None:
        """XOR-MAPPED-ADDRESS under the number of early drafts counts the same."""
        old = attribute(stun.XOR_MAPPED_ADDRESS_OLD, b"\0\1\x21\xec\x20\x10\xa7\x46")
        parsed = stun.parse_binding_response(message(0x0101, old))
        self.assertEqual(parsed, (ONES, IPv4Address("1.2.3.4"), 254))

    def test_last_of_a_kind_wins(self) -> None:
        """Of two equal attributes the second counts."""
        first, second = (
            attribute(stun.MAPPED_ADDRESS, b"\0\1\0\7" + bytes([last] * 4)) for last in (1, 2)
        )
        parsed = stun.parse_binding_response(message(0x0101, first + second))
        self.assertEqual(parsed.ip, IPv4Address("2.2.2.2"))

    def test_mapped_plain_address(self) -> None:
        """A mapped address in MAPPED-ADDRESS is given as IPv4 as well."""
        value = b"\0\2\0\7" + IPv6Address("::ffff:1.2.3.4").packed
        parsed = stun.parse_binding_response(message(0x0101, attribute(stun.MAPPED_ADDRESS, value)))
        self.assertEqual(parsed, (ONES, IPv4Address("1.2.3.4"), 7))

    def test_refused(self) -> None:
        """Everything that is no success response with a readable address."""
        right = bytes.fromhex(RESPONSES[0][3])
        good = attribute(stun.XOR_MAPPED_ADDRESS, b"\0\1\x21\xec\x20\x10\xa7\x46")
        for packet, reason in (
            (b"", "not STUN"),
            (right[:19], "not STUN"),
            (REQUEST, "0x0001"),
            (message(0x0111, good), "0x0111"),
            (right[:-1], "shorter"),
            (message(0x0101, b""), "without an address"),
            (message(0x0101, TAILNODE), "without an address"),
            (message(0x0101, good + b"\0\0\0"), "cut off"),
            (message(0x0101, good + b"\x80\x00\x00\x08abcd"), "longer"),
            (message(0x0101, attribute(stun.XOR_MAPPED_ADDRESS, b"\0\1\0")), "without a port"),
            (message(0x0101, good + attribute(stun.MAPPED_ADDRESS, b"")), "without a port"),
            (message(0x0101, attribute(stun.XOR_MAPPED_ADDRESS, b"\0\3" + bytes(18))), "family 3"),
            (message(0x0101, attribute(stun.XOR_MAPPED_ADDRESS, b"\0\1\0\0\1\2\3")), "cut off"),
            (message(0x0101, attribute(stun.MAPPED_ADDRESS, b"\0\2" + bytes(17))), "cut off"),
        ):
            error = self.assertRaises(ProtocolError, stun.parse_binding_response, packet)
            self.assertIn(reason, str(error))

    def test_bytes_past_the_length_field(self) -> None:
        """Bytes after the message are ignored, also such as would be a bad attribute."""
        parsed = stun.parse_binding_response(bytes.fromhex(RESPONSES[0][3]) + b"\x00\x20\xff")
        self.assertEqual(parsed.port, 254)

    @given(TRANSACTION_IDS, PACKED_IPS, PORTS)
    @example(ONES, bytes(10) + b"\xff\xff\1\2\3\4", 0)
    def test_round_trip(self, transaction_id: bytes, packed: bytes, port: int) -> None:
        """The address comes back, the mapped one as IPv4; no other form of it is on the wire."""
        response = stun.encode_binding_response(transaction_id, packed, port)
        ip = ip_address(packed)
        expected = (isinstance(ip, IPv6Address) and ip.ipv4_mapped) or ip
        self.assertEqual(stun.parse_binding_response(response), (transaction_id, expected, port))
        self.assertEqual(len(response), 32 if expected.version == 4 else 44)

    @given(TRANSACTION_IDS, PACKED_IPS, PORTS)
    def test_fast_way_is_the_slow_way(
        self, transaction_id: bytes, packed: bytes, port: int
    ) -> None:
        """Answering at once gives the bytes of parsing and encoding."""
        request = stun.encode_binding_request(transaction_id)
        self.assertEqual(
            stun.answer(request, packed, port),
            stun.encode_binding_response(transaction_id, packed, port),
        )

    @given(st.binary(max_size=120) | st.binary(max_size=80).map(lambda rest: message(0x0101, rest)))
    def test_garbage(self, packet: bytes) -> None:
        """Whatever a server sends, it is an address or a ProtocolError."""
        try:
            parsed = stun.parse_binding_response(packet)
        except ProtocolError:
            return
        self.assertEqual(parsed.transaction_id, packet[8:20])
        self.assertTrue(0 <= parsed.port <= 65535)

    @given(st.sampled_from(sorted(FOREIGN_RESPONSES)), st.data())
    def test_perturbed_and_cut(self, name: str, data: st.DataObject) -> None:
        """Real answers with a changed byte or an early end raise nothing else either."""
        packet = bytearray.fromhex(FOREIGN_RESPONSES[name][2])
        at = data.draw(st.integers(0, len(packet) - 1))
        packet[at] = data.draw(st.integers(0, 255))
        del packet[data.draw(st.integers(0, len(packet))) :]
        try:
            stun.parse_binding_response(bytes(packet))
        except ProtocolError as error:
            self.assertTrue(str(error))
