"""Tests of :mod:`derp.net.pprof`: what the process is doing."""

from __future__ import annotations

import threading

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from derp.net.pprof import PAGES, ProfilePages


class ProfilePagesTests(SynchronousTestCase):
    """Everything below ``/debug/pprof/``."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pages = ProfilePages(self.clock, ["derper", "-c", "ä"])

    def get(self, path: str, status: int | None = None, **arguments: bytes) -> str:
        request = DummyRequest(path.encode("ascii").split(b"/"))
        for name, value in arguments.items():
            request.addArg(name.encode("ascii"), value)
        body = self.pages.render(request)
        self.assertEqual(request.responseCode, status)
        self.content_type = request.responseHeaders.getRawHeaders(b"Content-Type")[0]
        return body.decode("utf-8")

    def test_index(self) -> None:
        """The index leads to every page, and each of them exists."""
        index = self.get("")
        self.assertEqual(self.content_type, b"text/html; charset=utf-8")
        for page, _ in PAGES:
            self.assertIn(f'href="{page}"', index)
            self.get(page.partition("?")[0])
            self.assertEqual(self.content_type, b"text/plain; charset=utf-8")

    def test_command_line(self) -> None:
        """Arguments are separated by NUL, as in Go."""
        self.assertEqual(self.get("cmdline"), "derper\0-c\0ä")

    def test_every_thread(self) -> None:
        """Each thread is there with its name and where it stands."""
        begun, release = threading.Event(), threading.Event()

        def wait_in_a_test() -> None:
            begun.set()
            release.wait(60)

        thread = threading.Thread(target=wait_in_a_test, name="waiting")
        thread.start()
        begun.wait(60)
        try:
            text = self.get("goroutine", debug=b"2")
        finally:
            release.set()
            thread.join()
        self.assertIn("[waiting]", text)
        self.assertIn("wait_in_a_test", text)
        self.assertIn("[MainThread]", text)

    def test_collapsed(self) -> None:
        """Equal stacks are one entry, and so are timers that call the same function."""
        for delay in (1, 2, 3):
            self.clock.callLater(delay, self.test_collapsed)
        text = self.get("goroutine", debug=b"1")
        self.assertRegex(text, r"\Athread profile: total \d+\n")
        self.assertIn("pending timers: total 3\n", text)
        self.assertIn(f"3 @ {__name__}.ProfilePagesTests.test_collapsed\n", text)

    def test_default(self) -> None:
        """Without ``debug`` the collapsed form comes; Go's binary one is not offered."""
        self.assertIn("thread profile", self.get("goroutine"))

    def test_unknown(self) -> None:
        """Other profiles do not exist."""
        for path in ("heap", "profile", "goroutine/x", "cmdline/"):
            self.assertEqual(self.get(path, status=404), "Unknown profile\n")
