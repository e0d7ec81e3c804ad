"""Tests for :mod:`derp.net.mesh_peers`."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.config import MeshPeer
from derp.errors import ConfigError
from derp.net.mesh_peers import MAX_FILE_LEN, MAX_PEERS, parse_peer, parse_peers, read_peers

FLAG = "--mesh-with"
PIN = "sha256-raw:" + "0123456789abcdef" * 4


class ParsePeerTests(SynchronousTestCase):
    """One peer."""

    def test_forms(self) -> None:
        """Host, port, what to dial and pin, in every combination that means something."""
        for text, expected in (
            ("a.example", MeshPeer(name="a.example", host="a.example")),
            (" a.example ", MeshPeer(name="a.example", host="a.example")),
            ("a.example:8443", MeshPeer(name="a.example:8443", host="a.example", port=8443)),
            (
                "a.example/10.0.0.1",
                MeshPeer(name="a.example/10.0.0.1", host="a.example", dial_host="10.0.0.1"),
            ),
            (
                "a.example:1/[fd00::1]",
                MeshPeer(
                    name="a.example:1/[fd00::1]", host="a.example", port=1, dial_host="fd00::1"
                ),
            ),
            (
                f"192.0.2.1#{PIN.replace('abcdef', 'ABCDEF')}",
                MeshPeer(name="192.0.2.1", host="192.0.2.1", pin=PIN),
            ),
            (
                f"[2001:db8::1]:444/b#{PIN}",
                MeshPeer(
                    name="[2001:db8::1]:444/b",
                    host="2001:db8::1",
                    port=444,
                    dial_host="b",
                    pin=PIN,
                ),
            ),
        ):
            self.assertEqual(parse_peer(FLAG, text), expected, text)

    def test_refused(self) -> None:
        """What could never be dialed stops the start, with the flag and the text in the error."""
        for text in (
            "",
            "/a",
            "a/",
            "a/b/c",
            "a b",
            "a:x",
            "a:0",
            "a:65536",
            "a/b:443",
            "u@a",
            "a?b",
            "2001:db8::1",
            "a#",
            "a#sha256-raw:12",
            "a#" + PIN + "0",
            "a#pin",
        ):
            with self.assertRaises(ConfigError, msg=text) as caught:
                parse_peer(FLAG, text)
            self.assertIn(f"{FLAG}: ", str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    @given(st.text(max_size=40))
    def test_any_text(self, text: str) -> None:
        """Any text is a peer with a host and a port, or refused."""
        try:
            peer = parse_peer(FLAG, text)
        except ConfigError:
            return
        self.assertTrue(peer.host)
        self.assertTrue(0 < peer.port < 65536)


class ParsePeersTests(SynchronousTestCase):
    """Several."""

    def test_twice(self) -> None:
        """The same peer twice is one link; two pins for one peer are a mistake."""
        self.assertEqual(len(parse_peers(FLAG, ["a", "b", "a"])), 2)
        with self.assertRaisesRegex(ConfigError, "different pins"):
            parse_peers(FLAG, ["a", f"a#{PIN}"])

    def test_too_many(self) -> None:
        """The number of links is bounded."""
        names = [f"r{number}" for number in range(MAX_PEERS + 1)]
        self.assertEqual(len(parse_peers(FLAG, names[:-1])), MAX_PEERS)
        with self.assertRaisesRegex(ConfigError, "too many"):
            parse_peers(FLAG, names)


class ReadPeersTests(SynchronousTestCase):
    """A file of them."""

    def read(self, content: bytes) -> list[str]:
        path = Path(self.mktemp())
        path.write_bytes(content)
        return [peer.name for peer in read_peers("--mesh-with-file", str(path))]

    def test_lines(self) -> None:
        """Blank lines and comments are skipped; a pin's # is no comment."""
        content = f"# ours\n\n a \r\nb/c#{PIN}\n  # d\n".encode()
        self.assertEqual(self.read(content), ["a", "b/c"])
        self.assertEqual(self.read(b""), [])

    def test_bad(self) -> None:
        """A bad line, a file too long and one that is not there are one sentence each."""
        for content in (b"a\n/b\n", b"a\n" * MAX_FILE_LEN, b"\xff\xfe"):
            with self.assertRaisesRegex(ConfigError, "--mesh-with-file: "):
                self.read(content)
        with self.assertRaisesRegex(
            ConfigError, 'file: ".+" line 3: "/b" is no relay to mesh with'
        ):
            self.read(b"# ours\na\n/b\n")
        with self.assertRaisesRegex(ConfigError, 'file: ".+": "a" is named twice'):
            self.read(f"a\na#{PIN}\n".encode())
        with self.assertRaisesRegex(ConfigError, "--mesh-with-file: cannot read .?/nowhere"):
            read_peers("--mesh-with-file", "/nowhere/at/all")
