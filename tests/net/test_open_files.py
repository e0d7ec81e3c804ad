"""Tests for :mod:`derp.net.open_files`."""

import resource

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from derp.net.open_files import COMFORTABLE, raise_open_file_limit

INFINITY = resource.RLIM_INFINITY


class OpenFilesTests(SynchronousTestCase):
    """The soft limit goes up to the hard one; little room is worth a warning."""

    def raise_limit(
        self, soft: int, hard: int, error: Exception | None = None
    ) -> tuple[int, list[tuple[int, int]], list[str]]:
        """Do so with these limits; return limit, calls made, and warnings."""
        calls: list[tuple[int, int]] = []

        def setrlimit(what: int, limits: tuple[int, int]) -> None:
            self.assertEqual(what, resource.RLIMIT_NOFILE)
            if error is not None:
                raise error
            calls.append(limits)

        self.patch(resource, "getrlimit", lambda what: (soft, hard))
        self.patch(resource, "setrlimit", setrlimit)
        with capturedLogs() as logs:
            limit = raise_open_file_limit()
        return limit, calls, [each["log_format"].format(**each) for each in logs]

    def test_raised(self) -> None:
        """The usual case: 1024 of a great many."""
        self.assertEqual(self.raise_limit(1024, 524_288), (524_288, [(524_288, 524_288)], []))

    def test_high_already(self) -> None:
        """Nothing to do, nothing done."""
        self.assertEqual(self.raise_limit(524_288, 524_288), (524_288, [], []))
        self.assertEqual(self.raise_limit(INFINITY, INFINITY), (INFINITY, [], []))

    def test_low(self) -> None:
        """A low hard limit stays, and is told with the cure."""
        limit, _, (warning,) = self.raise_limit(256, COMFORTABLE - 1)
        self.assertEqual(limit, COMFORTABLE - 1)
        self.assertIn(str(COMFORTABLE - 1), warning)
        self.assertIn("LimitNOFILE", warning)
        self.assertEqual(self.raise_limit(256, COMFORTABLE)[2], [])

    def test_refused(self) -> None:
        """If the system refuses, that is told, and the relay starts all the same."""
        for error in (ValueError("not allowed"), OSError(1, "not permitted")):
            limit, _, warnings = self.raise_limit(1024, 524_288, error)
            self.assertEqual(limit, 1024)
            self.assertIn("from 1024 to 524288: ", warnings[0])
            self.assertIn("not ", warnings[0])
            self.assertEqual(len(warnings), 2)

    def test_real(self) -> None:
        """On this system it works, or says why."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        limit = raise_open_file_limit()
        self.assertEqual(limit, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self.assertGreaterEqual(limit, before[0])
