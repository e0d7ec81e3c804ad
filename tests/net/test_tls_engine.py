"""Tests for :mod:`derp.net.tls_engine`."""

import ssl

from twisted.trial.unittest import SynchronousTestCase

from derp.net import tls_engine
from derp.net.arena import Arena
from derp.net.tls_engine import error_text, says_nothing, server_engine, version_of
from tests.net.sockets import Recorder
from tests.net.tls_pump import TLSPump, make_context


class EngineTests(SynchronousTestCase):
    """The private object where there is one, the public one where there is not."""

    def test_private_name(self) -> None:
        """
        This Python has the private object, with everything that is called on it. If this fails,
        the relay still works, slower: see whether the new name can be had.
        """
        engine = server_engine(make_context(), Arena())
        self.assertNotIsInstance(engine, tls_engine._PublicEngine)
        for name in ("do_handshake", "read", "write", "shutdown", "version"):
            self.assertTrue(callable(getattr(engine, name)), name)

    def test_public_fallback(self) -> None:
        """Without it everything works alike, from the handshake to the goodbye."""
        self.patch(tls_engine, "_INNER", "_no_such_name")
        pump = TLSPump(self)
        recorder = Recorder()
        transport, client = pump.connect_tls(recorder)
        self.assertIsInstance(transport._tls, tls_engine._PublicEngine)
        client.write(b"in")
        transport.write(b"out" * 30_000)
        pump.until(lambda: recorder.received == b"in" and len(client.received) == 90_000)
        client.say_goodbye()
        pump.until(lambda: recorder.lost)
        pump.until(lambda: client.closed)
        self.assertEqual(transport.tls_version, "1.3")


class ErrorTests(SynchronousTestCase):
    """What OpenSSL's errors say, and whether anybody wants to know."""

    def error(self, reason: str) -> ssl.SSLError:
        error = ssl.SSLError(1, "[SSL: X] x (_ssl.c:1000)")
        error.reason = reason
        return error

    def test_text(self) -> None:
        """The reason in words; other errors speak for themselves."""
        self.assertEqual(error_text(self.error("NO_SHARED_CIPHER")), "no shared cipher")
        self.assertEqual(error_text(OSError("broken")), "broken")

    def test_noise(self) -> None:
        """Scanners and clients that change their mind are not worth a line."""
        for reason in (
            "UNEXPECTED_EOF_WHILE_READING",
            "HTTP_REQUEST",
            "WRONG_VERSION_NUMBER",
            "SSLV3_ALERT_BAD_CERTIFICATE",
        ):
            self.assertTrue(says_nothing(self.error(reason)), reason)
        for error in (self.error("NO_SHARED_CIPHER"), ssl.SSLError(1, "x"), OSError("x")):
            self.assertFalse(says_nothing(error))

    def test_unknown_version(self) -> None:
        """A version nobody has heard of is shown as such."""

        class Engine:
            def version(self) -> None:
                return None

        self.assertEqual(version_of(Engine()), "unknown")  # type: ignore[arg-type]
