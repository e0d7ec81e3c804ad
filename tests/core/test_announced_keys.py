"""Tests for :mod:`derp.core.announced_keys`, and for the books it is checked against."""

from hashlib import sha256

from twisted.trial.unittest import SynchronousTestCase

from derp.core.announced_keys import AnnouncedKeys
from derp.core.consistency import check
from derp.wire.frames import PeerGoneReason
from derp.wire.messages import PeerGone
from tests.core.fakes import NOBODY, FakeClient, FakeForwarder, make_relay, public_key


class AnnouncedKeysTests(SynchronousTestCase):
    """What a link says is entered, bounded, and taken back."""

    def setUp(self) -> None:
        self.relay = make_relay()
        self.link = FakeForwarder()
        self.keys = AnnouncedKeys(self.relay, self.link, limit=3)
        self.relay.mesh_books.append(self.keys)

    def test_present_and_gone(self) -> None:
        """A key is reachable from its announcement until it is taken back."""
        self.assertTrue(self.keys.present(NOBODY))
        self.assertTrue(self.keys.present(NOBODY))
        self.assertIs(self.relay.forwarders.lookup(NOBODY), self.link)
        self.assertEqual((len(self.keys), check(self.relay)), (1, []))
        self.keys.gone(NOBODY)
        self.assertIsNone(self.relay.forwarders.lookup(NOBODY))
        self.assertEqual((len(self.keys), check(self.relay)), (0, []))

    def test_limit(self) -> None:
        """Beyond the limit nothing is remembered, until a key goes; known keys stay known."""
        names = [sha256(bytes((n,))).digest() for n in range(5)]
        self.assertEqual([self.keys.present(key) for key in names], [True] * 3 + [False] * 2)
        self.assertTrue(self.keys.present(names[0]))
        self.assertEqual((len(self.relay.forwarders), self.keys.refused), (3, 2))
        self.keys.gone(names[0])
        self.assertTrue(self.keys.present(names[4]))
        self.assertEqual(set(self.keys), {names[1], names[2], names[4]})

    def test_liar_takes_nobody_over(self) -> None:
        """A link that claims a key of ours, or one another link had first, gets no packets."""
        client = FakeClient(self.relay, "a")
        other = FakeClient(self.relay, "b")
        first = FakeForwarder()
        self.relay.add_forwarder(NOBODY, first)
        self.keys.present(other.key)
        self.keys.present(NOBODY)
        client.send(other, b"to b")
        client.send(NOBODY, b"elsewhere")
        self.assertEqual(other.take_packets(), [(client.key, b"to b")])
        self.assertEqual(first.forwarded, [(client.key, NOBODY, b"elsewhere")])
        self.assertEqual(self.link.forwarded, [])

    def test_gone_without_present(self) -> None:
        """Taking back what was never announced changes nobody's books, and is counted."""
        other = FakeForwarder()
        self.relay.add_forwarder(NOBODY, other)
        self.keys.gone(NOBODY)
        self.keys.gone(public_key("a"))
        self.assertIs(self.relay.forwarders.lookup(NOBODY), other)
        self.assertEqual(self.relay.stats.packet_forwarder_delete_other_value, 1)

    def test_clear(self) -> None:
        """A broken link takes back all of its keys; who was sent packets from one is told."""
        client = FakeClient(self.relay, "a")
        link = FakeClient(self.relay, "peer", mesh=True)
        self.keys.present(NOBODY)
        self.keys.present(public_key("c"))
        self.relay.forward_in(link.conn, NOBODY, client.key, b"hello")
        client.take()
        self.assertEqual(self.keys.clear(), 2)
        self.assertEqual(client.take(), [PeerGone(NOBODY, PeerGoneReason.DISCONNECTED)])
        self.assertEqual((len(self.relay.forwarders), len(self.keys)), (0, 0))
        self.assertEqual(self.keys.clear(), 0)

    def test_books_differ(self) -> None:
        """The consistency check sees a page missing on either side."""
        self.keys.present(NOBODY)
        self.relay.remove_forwarder(NOBODY, self.link)
        self.assertEqual(
            check(self.relay), ["1 keys a mesh link announced that are not forwarded to it"]
        )
        self.keys.clear()
        self.relay.add_forwarder(NOBODY, self.link)
        self.assertEqual(
            check(self.relay), ["1 keys forwarded to a mesh link that did not announce them"]
        )
