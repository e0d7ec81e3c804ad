"""Tests for :mod:`derp.prober.map_source`: where maps come from, and what may come instead."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from derp.errors import ConfigError
from derp.prober import map_source as module
from derp.prober.check import ProbeFailed
from derp.prober.map_source import (
    STALE_S,
    FileSource,
    MapKeeper,
    MapSource,
    Unreachable,
    map_source,
)
from tests.net.admission_fakes import CLOSE, FakeServer, respond
from tests.net.closed_ports import closed_tcp_port
from tests.prober.maps import map_json, node, region
from tests.prober.test_map_checks import FakeSource

MAP = map_json(region("zero", node("1a")))


class MeaningTests(SynchronousTestCase):
    """What ``--derp-map`` may mean."""

    def source(self, text: str) -> MapSource:
        return map_source(Clock(), text, {}, "/nowhere/tailscaled.sock")

    def test_nothing(self) -> None:
        """What means nothing is refused with a sentence that names the flag."""
        for text in ("", "map.json", "ftp://x/", "https://", "http://x:99999/", "http://a b/"):
            error = self.assertRaises(ConfigError, self.source, text)
            self.assertTrue(str(error).startswith("--derp-map: "), text)

    def test_no_password(self) -> None:
        """A password in a URL is not repeated."""
        error = self.assertRaises(ConfigError, self.source, "gopher://user:secret@host/")
        self.assertNotIn("secret", str(error))

    def test_file(self) -> None:
        """A file of this machine, by its whole path; escapes are read."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        path = place / "a map.json"
        path.write_bytes(MAP)
        url = f"file://{place}/a%20map.json"
        for text in (url, url.replace("file://", "file://localhost")):
            read = Deferred.fromCoroutine(self.source(text).read())
            self.assertEqual(self.successResultOf(read), MAP)
        for text in ("file://host/map.json", "file://map.json", "file:///a%00b"):
            self.assertRaises(ConfigError, self.source, text)

    def test_no_file(self) -> None:
        """One that cannot be read now is refused; later that is a failure of the probe."""
        error = self.assertRaises(ConfigError, self.source, "file:///nowhere/map.json")
        self.assertIn('cannot read "/nowhere/map.json" (No such file or directory)', str(error))
        path = self.mktemp()
        Path(path).write_bytes(MAP)
        source = FileSource(path)
        os.unlink(path)
        read = Deferred.fromCoroutine(source.read())
        self.assertIn("No such file", str(self.failureResultOf(read, ProbeFailed).value))

    def test_pipe(self) -> None:
        """A pipe that nobody writes to is empty, and does not stop us."""
        path = self.mktemp()
        os.mkfifo(path)
        read = Deferred.fromCoroutine(FileSource(path).read())
        self.assertEqual(self.successResultOf(read), b"")

    def test_directory(self) -> None:
        """A directory that has taken the file's place is a failure, and costs no descriptor."""
        path = Path(self.mktemp()).resolve()
        path.write_bytes(MAP)
        source = FileSource(str(path))
        path.unlink()
        path.mkdir()
        read = Deferred.fromCoroutine(source.read())
        self.assertIn("Is a directory", str(self.failureResultOf(read, ProbeFailed).value))
        self.assertNotIn(path, [each.resolve() for each in Path("/proc/self/fd").iterdir()])

    def test_bounded(self) -> None:
        """Of a file without end no more is read than a map can have."""
        self.patch(module, "MAX_MAP", 1000)
        read = Deferred.fromCoroutine(FileSource("/dev/zero").read())
        self.assertEqual(len(self.successResultOf(read)), 1001)


class KeeperTests(SynchronousTestCase):
    """:class:`MapKeeper`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.source = FakeSource(MAP)
        self.keeper = MapKeeper(self.clock, self.source, 11.0)

    def refresh(self) -> Deferred[Any]:
        """Ask for the map, and use it."""
        return Deferred.fromCoroutine(self.keeper.refresh()).addCallback(self._use)

    def _use(self, derp_map: Any) -> Any:
        self.keeper.use(derp_map)
        return derp_map

    def test_stale(self) -> None:
        """A map of less than ten minutes stands in while its server cannot be reached."""
        first = self.successResultOf(self.refresh())
        self.source.error = Unreachable("refused")
        self.clock.advance(STALE_S - 1)
        self.assertIs(self.successResultOf(self.refresh()), first)
        self.clock.advance(1)
        error = self.failureResultOf(self.refresh(), Unreachable)
        self.assertEqual(str(error.value), "refused")

    def test_no_older_one(self) -> None:
        """There must be one."""
        self.source.error = Unreachable("refused")
        self.failureResultOf(self.refresh(), Unreachable)

    def test_bad_answer(self) -> None:
        """An answer that is no good is a failure at once, and does not make the map older."""
        self.successResultOf(self.refresh())
        self.source.error = ProbeFailed("500")
        self.failureResultOf(self.refresh(), ProbeFailed)
        self.source.error, self.source.data = None, b"<html>"
        self.failureResultOf(self.refresh(), ProbeFailed)

    def test_hangs(self) -> None:
        """A server that does not answer in time is one that cannot be reached."""
        self.source.hangs = True
        refreshing = self.refresh()
        self.clock.advance(11)
        error = self.failureResultOf(refreshing, Unreachable)
        self.assertEqual(str(error.value), "no DERP map within 11s")
        self.source.hangs = False
        self.successResultOf(self.refresh())
        self.source.hangs = True
        refreshing = self.refresh()
        self.clock.advance(11)
        self.successResultOf(refreshing)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_long(self) -> None:
        """A map has its bound."""
        with patch.object(module, "MAX_MAP", len(MAP) - 1):
            error = self.failureResultOf(self.refresh(), ProbeFailed)
        self.assertIn("longer than", str(error.value))


class URLTests(TestCase):
    """Maps by HTTP, on real sockets."""

    timeout = 60

    async def read(self, *answers: bytes | Callable[[bytes], bytes]) -> bytes:
        """Ask a server that has one answer for each request, or one that finds it out."""
        from twisted.internet import reactor

        server = await FakeServer().listen()
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        queue = list(answers)

        def answer_to(request: bytes) -> bytes:
            answer = queue[0] if callable(queue[0]) else queue.pop(0)
            return answer(request) if callable(answer) else answer

        server.answer_to = answer_to
        self.server = server
        source = map_source(reactor, server.url, {}, "")
        self.addCleanup(source.close)
        return await source.read()

    async def failure(self, *answers: bytes) -> ProbeFailed:
        """Ask in vain; the error never shows the query."""
        error = await self.assertFailure(Deferred.fromCoroutine(self.read(*answers)), ProbeFailed)
        self.assertNotIn("x=1", str(error))
        assert isinstance(error, ProbeFailed)
        return error

    async def test_map(self) -> None:
        """A plain answer."""
        self.assertEqual(await self.read(respond(MAP)), MAP)
        self.assertTrue(self.server.requests[0].startswith(b"GET /admit?x=1 HTTP/1.1\r\n"))

    async def test_redirect(self) -> None:
        """Redirects are followed, and not for ever."""
        moved = b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"
        self.assertEqual(await self.read(moved, respond(MAP)), MAP)
        self.assertTrue(self.server.requests[1].startswith(b"GET /b HTTP/1.1\r\n"))
        error = await self.failure(*[moved] * 11)
        self.assertIn("stopped after 10 redirects", str(error))
        away = moved.replace(b"/b", b"file:///etc/passwd")
        self.assertIn("redirected to what is no", str(await self.failure(away)))

    async def test_redirect_elsewhere(self) -> None:
        """A password that a redirect to another host brings along is not sent there."""

        def answer(request: bytes) -> bytes:
            if request.startswith(b"GET /b "):
                return respond(MAP)
            there = self.server.url.replace("127.0.0.1", "user:secret@localhost")
            location = there.partition("/admit")[0] + "/b"
            head = f"HTTP/1.1 307 There\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            return head.encode()

        self.assertEqual(await self.read(answer), MAP)
        self.assertIn(b"\r\nHost: localhost:", self.server.requests[1])
        self.assertNotIn(b"Authorization", self.server.requests[1])

    async def test_other_status(self) -> None:
        """An answer other than 200 is a failure that no older map hides."""
        error = await self.failure(respond(MAP, "503 Service Unavailable"))
        self.assertIn("answered 503 Service Unavailable", str(error))
        self.assertNotIsInstance(error, Unreachable)

    async def test_cut(self) -> None:
        """Cut before an answer it was not reached; cut within, its answer was bad."""
        self.assertIsInstance(await self.failure(CLOSE), Unreachable)
        error = await self.failure(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{" + CLOSE)
        self.assertNotIsInstance(error, Unreachable)

    async def test_endless(self) -> None:
        """Of a map without end no more is taken than a map can have."""
        self.patch(module, "MAX_MAP", 1000)
        head = b"HTTP/1.1 200 OK\r\n\r\n"
        self.assertEqual(len(await self.read(head + b" " * 5000)), 1001)

    async def test_nobody(self) -> None:
        """Nobody listens there."""
        from twisted.internet import reactor

        url = f"http://127.0.0.1:{closed_tcp_port(self)}/"
        source = map_source(reactor, url, {}, "")
        error = await self.assertFailure(Deferred.fromCoroutine(source.read()), Unreachable)
        self.assertIn("cannot fetch the DERP map from http://", str(error))


class LocalTests(TestCase):
    """Maps of this machine's tailscaled."""

    timeout = 60

    async def read(self, answer: bytes) -> bytes:
        """Ask a tailscaled that has one answer."""
        from twisted.internet import reactor

        path = os.path.relpath(self.mktemp())  # a socket's path is a short one
        self.server = server = await FakeServer(answer).listen(path)
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        source = map_source(reactor, "local", {}, path)
        self.addCleanup(source.close)
        return await source.read()

    async def test_map(self) -> None:
        """Asked as tailscale's own programs ask."""
        self.assertEqual(await self.read(respond(MAP)), MAP)
        request = self.server.requests[0]
        self.assertTrue(request.startswith(b"GET /localapi/v0/derpmap HTTP/1.1\r\n"), request)
        self.assertIn(b"Host: local-tailscaled.sock\r\n", request)

    async def test_failures(self) -> None:
        """Whatever is wrong there: a failure that says where, and no older map will do."""
        for answer in (respond(b"no", "403 Forbidden"), CLOSE):
            reading = Deferred.fromCoroutine(self.read(answer))
            error = await self.assertFailure(reading, ProbeFailed)
            self.assertNotIsInstance(error, Unreachable)
            self.assertIn("did not tell its DERP map", str(error))
