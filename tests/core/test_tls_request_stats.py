"""Counts of requests by TLS version."""

from twisted.trial.unittest import SynchronousTestCase

from derp.core.tls_request_stats import TLSRequestStats


class TLSRequestStatsTests(SynchronousTestCase):
    """``TLSRequestStats``."""

    def test_counts(self) -> None:
        """Requests add up; active ones come and go; labels stay once seen."""
        stats = TLSRequestStats()
        self.assertEqual((stats.requests, stats.active), ({}, {}))
        for label in ("1.3", "1.2", "1.3"):
            stats.begin(label)
        stats.end("1.3")
        stats.end("1.2")
        self.assertEqual(stats.requests, {"1.3": 2, "1.2": 1})
        self.assertEqual(stats.active, {"1.3": 1, "1.2": 0})
