"""Tests for :mod:`derp.doctor.conversation`: what no relay of the other tests does."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from derp.doctor.conversation import MAX_HEARD, Conversation


class ConversationTests(SynchronousTestCase):
    """Listening, within bounds of time and size."""

    def setUp(self) -> None:
        """A connection without TLS."""
        self.clock = Clock()
        self.transport = StringTransport()
        self.conversation = Conversation(None, tls=False)
        self.conversation.makeConnection(self.transport)
        self.judged: list[tuple[bytes, str]] = []

    def listen(self, seconds: float = 2.0) -> Deferred[str]:
        """Listen for a full stop, or for the end."""

        def judge(heard: bytes, over: str) -> str | None:
            self.judged.append((heard, over))
            return over or ("stop" if b"." in heard else None)

        return Deferred.fromCoroutine(self.conversation.until(judge, self.clock, seconds))

    def test_pieces(self) -> None:
        """What comes is judged as it comes, all of it each time."""
        done = self.listen()
        self.conversation.dataReceived(b"a")
        self.conversation.dataReceived(b"b.")
        self.assertEqual(self.successResultOf(done), "stop")
        self.assertEqual([heard for heard, _ in self.judged], [b"", b"a", b"ab."])

    def test_silence(self) -> None:
        """Time runs from the beginning, whatever drips in meanwhile."""
        done = self.listen(1.0)
        for _ in range(9):
            self.clock.advance(0.1)
            self.conversation.dataReceived(b"x")
        self.assertNoResult(done)
        self.clock.advance(0.2)
        self.assertEqual(self.successResultOf(done), "silent")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_end(self) -> None:
        """They close: while we listen, or before."""
        done = self.listen()
        self.conversation.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.successResultOf(done), "closed")
        self.assertEqual(self.successResultOf(self.listen()), "closed")

    def test_flood(self) -> None:
        """Who says too much is left."""
        self.conversation.dataReceived(b"x" * MAX_HEARD)
        self.assertFalse(self.transport.disconnecting)
        self.conversation.dataReceived(b"x")
        self.assertTrue(self.transport.disconnecting)
