"""Tests for :mod:`derp.wire.stock_upgrade`."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.wire.stock_upgrade import StockUpgrade, recognise_upgrade
from derp.wire.upgrade import encode_upgrade_request
from tests.vectors import transcripts

PLAIN = encode_upgrade_request("/derp", "derp.example.com")
FAST = encode_upgrade_request("/derp", "[2001:db8::1]:8443", fast_start=True, ideal_node="7a")

DEVIATIONS = (
    PLAIN.replace(b"GET", b"get"),
    PLAIN.replace(b"/derp ", b"/derp/ "),
    PLAIN.replace(b"/derp ", b"/derp?a=b "),
    PLAIN.replace(b"/1.1", b"/1.0"),
    PLAIN.replace(b"Host: derp.example.com", b"Host: "),
    PLAIN.replace(b"Host: derp.example.com", b"Host: a b"),
    PLAIN.replace(b"Host: derp.example.com\r\n", b""),
    PLAIN.replace(b"Host: derp", b"Host:derp"),
    PLAIN.replace(b"User-Agent", b"Host: other\r\nUser-Agent"),
    PLAIN.replace(b"User-Agent", b"X-Forwarded-For: 192.0.2.1\r\nUser-Agent"),
    PLAIN.replace(b"client/1.1", b"client/1.1\r\n folded"),
    PLAIN.replace(b"client/1.1", b"client/1.1\nInjected: 1"),
    PLAIN.replace(b"client/1.1", b"client/1.1\x00"),
    PLAIN.replace(b"client/1.1", b"client/1.1 "),
    PLAIN.replace(b"client/1.1", b"client/1.1" * 30),
    PLAIN.replace(b"Connection: Upgrade", b"Connection: Upgrade\r\nContent-Length: 5"),
    PLAIN.replace(b"Connection: Upgrade", b"Connection: Upgrade\r\nTransfer-Encoding: chunked"),
    PLAIN.replace(b"Connection: Upgrade\r\n", b""),
    PLAIN.replace(b"Upgrade: DERP", b"Upgrade: DERP\r\nUpgrade: websocket"),
    PLAIN.replace(b"Upgrade: DERP", b"Upgrade: websocket"),
    FAST.replace(b"Fast-Start: 1", b"Fast-Start: 10"),
    FAST.replace(b"Ideal-Node: 7a", b"Ideal-Node: "),
    FAST.replace(b"\r\n", b"\n"),
)


class RecogniseTests(SynchronousTestCase):
    """Exactly what stock clients send, and nothing else."""

    def test_recorded(self) -> None:
        """The request of every recorded session of Go's client is recognised."""
        seen = []
        for name, recorded in transcripts().items():
            for step in recorded["steps"]:
                data = bytes.fromhex(step["hex"])
                if not data.startswith(b"GET /derp HTTP/1.1\r\n") or b"websocket" in data:
                    continue
                found = recognise_upgrade(data)
                assert found is not None, (name, data)
                self.assertTrue(data[: found.size].endswith(b"\r\n\r\n"))
                self.assertEqual(found.fast_start, b"Derp-Fast-Start: 1" in data)
                seen.append(found.fast_start)
        self.assertEqual(set(seen), {True, False})

    def test_what_it_says(self) -> None:
        """Fast start, another ideal node, and where DERP begins."""
        self.assertEqual(recognise_upgrade(PLAIN), StockUpgrade(len(PLAIN), False, False))
        self.assertEqual(recognise_upgrade(FAST + b"x"), StockUpgrade(len(FAST), True, True))

    def test_deviations(self) -> None:
        """One step beside the form is the HTTP server's business."""
        for data in DEVIATIONS:
            self.assertNotIn(data, (PLAIN, FAST), "it deviates")
            self.assertIsNone(recognise_upgrade(data), data)

    def test_incomplete(self) -> None:
        """Nothing is said before all of it is there."""
        for end in range(len(FAST)):
            self.assertIsNone(recognise_upgrade(FAST[:end]))

    @given(st.binary(max_size=300))
    def test_garbage(self, data: bytes) -> None:
        """Anything may come."""
        self.assertIsNone(recognise_upgrade(data))

    @given(st.integers(0, len(FAST) - 1), st.integers(0, 255))
    def test_one_byte_changed(self, at: int, byte: int) -> None:
        """
        A changed byte is recognised only inside of a value, and says the same.

        Header lines start after a line's end, and a value has none.
        """
        data = FAST[:at] + bytes((byte,)) + FAST[at + 1 :]
        found = recognise_upgrade(data)
        if found is not None:
            self.assertEqual(found, StockUpgrade(len(FAST), True, True))
            self.assertEqual(
                [line.partition(b": ")[0] for line in data.split(b"\r\n")[1:]],
                [line.partition(b": ")[0] for line in FAST.split(b"\r\n")[1:]],
            )
