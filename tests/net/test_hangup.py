"""Tests of :mod:`derp.net.hangup`: SIGHUP."""

import os
import signal
import threading

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from derp.net.hangup import HangUp


class HangUpTests(TestCase):
    """:class:`derp.net.hangup.HangUp` on the running reactor."""

    def test_signal(self) -> Deferred[None]:
        """The signal becomes a call of the reactor, and kills nobody."""
        from twisted.internet import reactor

        before = signal.getsignal(signal.SIGHUP)
        arrived: Deferred[None] = Deferred()
        hang_up = HangUp(reactor, lambda: arrived.callback(None))
        hang_up.install()
        hang_up.install()
        self.addCleanup(self.assertEqual, signal.getsignal(signal.SIGHUP), hang_up._arrived)
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        os.kill(os.getpid(), signal.SIGHUP)

        def done(_: None) -> None:
            hang_up.restore()
            self.assertEqual(signal.getsignal(signal.SIGHUP), before)

        return arrived.addCallback(done)


class ThreadTests(SynchronousTestCase):
    """Outside the main thread."""

    def test_other_thread(self) -> None:
        """Signals are left alone where they cannot be had."""
        before = signal.getsignal(signal.SIGHUP)
        errors: list[BaseException] = []

        def run() -> None:
            try:
                hang_up = HangUp(None, lambda: None)
                hang_up.install()
                hang_up.restore()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(60)
        self.assertEqual((errors, signal.getsignal(signal.SIGHUP)), ([], before))
