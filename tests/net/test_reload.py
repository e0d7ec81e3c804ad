"""Tests of :mod:`derp.net.reload`: files that change while the relay runs."""

import os
import signal
from pathlib import Path
from unittest import mock

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError
from derp.net.reload import LOOK_S, SETTLE_S, ReloadableFile, Reloader


class ReloadTests(SynchronousTestCase):
    """A reloader with one file, whose content is what is loaded."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.path = Path(self.mktemp())
        self.path.write_text("one")
        self.content = "one"
        self.told = 0
        self.reloader = Reloader(self.clock)
        self.file = self.reloader.add(
            ReloadableFile(
                name="words", flag="--words", paths=(str(self.path),), load=self.load_file
            )
        )
        self.reloader.when_reloaded(self.count)
        self.reloader.startService()
        self.addCleanup(self.reloader.stopService)

    def count(self) -> None:
        self.told += 1

    def load_file(self) -> None:
        """As a load has to be: check, then swap."""
        try:
            text = self.path.read_text()
        except OSError as error:
            raise ConfigError(f"--words: {error.strerror}") from None
        if text == "bad":
            raise ConfigError("--words: line 1 is bad")
        self.content = text

    def replace(self, text: str) -> None:
        """Put another file in its place, as careful writers do."""
        new = Path(self.mktemp())
        new.write_text(text)
        os.replace(new, self.path)

    def test_change(self) -> None:
        """A changed file is read once it has settled, and once only."""
        self.replace("two")
        self.clock.advance(LOOK_S)
        self.assertEqual(self.content, "one")
        self.clock.advance(SETTLE_S)
        self.assertEqual((self.content, self.file.loads, self.told), ("two", 1, 0))
        self.clock.pump([1.0] * 30)
        self.assertEqual((self.file.loads, self.told), (1, 0))

    def test_slow_writer(self) -> None:
        """What is still being written is left alone, though it could be read."""
        self.path.write_text("t")
        self.clock.advance(LOOK_S)
        self.path.write_text("three")
        self.clock.advance(SETTLE_S)
        self.assertEqual(self.content, "one")
        self.clock.advance(SETTLE_S)
        self.assertEqual(self.content, "three")

    def test_bad(self) -> None:
        """An unusable file changes nothing, is told and counted once, and may be mended."""
        self.replace("bad")
        with capturedLogs() as events:
            self.clock.pump([1.0] * 20)
        self.assertEqual(
            (self.content, self.file.loads, self.file.failures, self.told), ("one", 0, 1, 0)
        )
        self.assertIn("line 1 is bad", next(e["problem"] for e in events if "problem" in e))
        self.replace("good")
        self.clock.pump([1.0] * 10)
        self.assertEqual((self.content, self.file.loads), ("good", 1))

    def test_unforeseen(self) -> None:
        """A load that fails in a way of its own is told, and does not end the watch."""
        with mock.patch.object(self.file, "load", side_effect=LookupError("no such word")):
            self.replace("two")
            self.clock.pump([LOOK_S, SETTLE_S])
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        self.assertEqual((self.content, self.file.failures), ("one", 1))
        self.replace("three")
        self.clock.pump([LOOK_S, SETTLE_S])
        self.assertEqual((self.content, self.file.loads), ("three", 1))

    def test_vanished(self) -> None:
        """A file that is gone leaves what it held; its return is noticed."""
        self.path.unlink()
        self.clock.pump([1.0] * 10)
        self.assertEqual((self.content, self.file.failures), ("one", 1))
        self.path.write_text("again")
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.content, "again")

    def test_reload_all(self) -> None:
        """On request everything is read at once, each file by itself."""
        other: list[str] = []
        self.reloader.add(
            ReloadableFile(name="o", flag="-o", paths=(), load=lambda: other.append("read"))
        )
        self.replace("bad")
        self.reloader.reload_all()
        self.assertEqual((self.content, other, self.file.failures), ("one", ["read"], 1))
        self.assertEqual(self.told, 1)
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.file.failures, 1)

    def test_stop(self) -> None:
        """Nothing is left in the reactor, and SIGHUP means again what it meant."""
        mine = signal.getsignal(signal.SIGHUP)
        self.replace("two")
        self.clock.advance(LOOK_S)
        self.reloader.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNotEqual(signal.getsignal(signal.SIGHUP), mine)
        self.reloader.startService()
