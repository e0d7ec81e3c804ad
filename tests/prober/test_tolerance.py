"""Tests for :mod:`derp.prober.tolerance`."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from derp.prober.check import Check, ProbeFailed
from derp.prober.tolerance import Tolerance, within

Found = Mapping[str, str | int | float]


class ToleranceTests(SynchronousTestCase):
    """:func:`within`."""

    def run_with(self, tolerance: Tolerance, found: Found, error: str = "") -> str:
        """Run a check that finds something; give why it fails, if it does."""

        async def run() -> None:
            if error:
                raise ProbeFailed(error)

        check = Check(probe_class="x", labels={"a": "b"}, run=run, findings=lambda: found)
        limited = within(tolerance, check)
        self.assertEqual((limited.labels, limited.findings()), ({"a": "b"}, found))
        running = Deferred.fromCoroutine(limited.run())
        failures: list[str] = []
        running.addErrback(lambda failure: failures.append(str(failure.value)))
        return failures[0] if failures else ""

    def test_latency(self) -> None:
        """Of STUN answers and of packets."""
        tolerance = Tolerance(latency=0.2)
        for key, what in (("rtt_ms", "the STUN answer"), ("packet_ms", "the packet")):
            self.assertEqual(self.run_with(tolerance, {key: 200.0}), "")
            self.assertEqual(
                self.run_with(tolerance, {key: 412.5}),
                f"{what} took 412.5ms, longer than --max-latency allows (200ms)",
            )

    def test_loss(self) -> None:
        """Of STUN requests."""
        tolerance = Tolerance(loss=0.05)
        self.assertEqual(self.run_with(tolerance, {"sent": 100, "lost": 5, "loss": 0.05}), "")
        self.assertEqual(
            self.run_with(tolerance, {"sent": 100, "lost": 6, "loss": 0.06}),
            "6 of the last 100 STUN requests were lost (6.0%), more than --max-loss allows (5.0%)",
        )

    def test_everything(self) -> None:
        """Without limits nothing is too bad, and what was not found is not judged."""
        self.assertEqual(self.run_with(Tolerance(), {"rtt_ms": 9e9, "loss": 1.0}), "")
        strict = Tolerance(latency=1e-6, loss=1e-6)
        self.assertEqual(self.run_with(strict, {"days_left": 3, "rtt_ms": "fast"}), "")

    def test_own_failure(self) -> None:
        """A run that fails is not judged: its own reason is said."""
        found = self.run_with(Tolerance(latency=0.1), {"rtt_ms": 500.0}, "no answer")
        self.assertEqual(found, "no answer")
