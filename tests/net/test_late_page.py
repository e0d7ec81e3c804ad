"""Tests for :mod:`derp.net.late_page`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource
from twisted.web.static import Data
from twisted.web.test.requesthelper import DummyRequest

from derp.net.late_page import LatePage


class LatePageTests(SynchronousTestCase):
    """A page and when it is made."""

    def setUp(self) -> None:
        """A page that has not been asked for."""
        self.made: list[IResource] = []
        self.page = LatePage(self.make)

    def make(self) -> IResource:
        """Make what is behind it."""
        self.made.append(Data(b"content", "text/plain"))
        return self.made[-1]

    def test_once(self) -> None:
        """Made by the first request and kept for those that follow."""
        self.assertEqual(self.made, [])
        for _ in range(2):
            self.assertEqual(self.page.render(DummyRequest([])), b"content")
        self.assertEqual(len(self.made), 1)

    def test_loaded(self) -> None:
        """Whoever will need it makes it before."""
        self.assertIs(self.page.load(), self.made[0])
        self.assertEqual(self.page.render(DummyRequest([])), b"content")
        self.assertEqual(len(self.made), 1)

    def test_failure(self) -> None:
        """What cannot be made now is tried again: somebody may have had the last file."""
        failing = [OSError("too many open files")]

        def make() -> IResource:
            if failing:
                raise failing.pop()
            return self.make()

        page = LatePage(make)
        self.assertRaises(OSError, page.render, DummyRequest([]))
        self.assertEqual(page.render(DummyRequest([])), b"content")
