"""Tests of :mod:`derp.net.handover` and :mod:`derp.net.predecessor`, on real unix sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
import tempfile
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from derp.errors import ConfigError
from derp.net import handover, predecessor
from derp.net.handover import MAX_PEERS, HandoverServer
from derp.net.predecessor import Predecessor, find_predecessor, find_rival
from tests.integration.waiting import in_time, until
from tests.net.unhurried import Unhurried

reactor: Any = global_reactor


class Crowded:
    """A listening socket of a process that has no descriptor left, so many times."""

    def __init__(self, sock: socket.socket, failures: int) -> None:
        self.failures = failures
        self._sock = sock

    def accept(self) -> Any:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self._sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class HandoverCase(TestCase):
    """An old process that offers two sockets."""

    timeout = 60

    def setUp(self) -> None:
        self.place = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.place, ignore_errors=True)
        self.path = f"{self.place}/handover"
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        for sock in (self.tcp, self.udp):
            self.addCleanup(sock.close)
        self.gone: list[str] = []

    def old(self, name: str = "old") -> HandoverServer:
        """Start the old side."""
        server = HandoverServer(
            Unhurried(reactor),
            self.path,
            lambda: {"tcp": self.tcp, "udp": self.udp},
            lambda: self.gone.append(name),
        )
        server.start()
        self.addCleanup(server.stop)
        return server

    async def new(self) -> Predecessor:
        """Ask as a new process does."""
        found: Predecessor | None = await deferToThread(find_predecessor, self.path)
        assert found is not None
        for each in found.sockets:
            self.addCleanup(each.sock.close)
        self.addCleanup(found.forget)
        return found

    def connect(self) -> socket.socket:
        """Somebody at the socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(sock.close)
        sock.connect(self.path)
        sock.setblocking(False)
        return sock

    async def until_closed(self, sock: socket.socket) -> None:
        """Wait for the other side to hang up."""

        def closed() -> bool:
            try:
                return not sock.recv(4096)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True

        await until(reactor, closed, "the end of a connection")


class HandoverTests(HandoverCase):
    """The usual way."""

    async def test_sockets(self) -> None:
        """The new process gets the very sockets, and children of it do not."""
        self.old()
        found = await self.new()
        self.assertEqual([each.name for each in found.sockets], ["tcp", "udp"])
        for each, original in zip(found.sockets, (self.tcp, self.udp), strict=True):
            self.assertEqual(each.sock.getsockname(), original.getsockname())
            self.assertFalse(os.get_inheritable(each.sock.fileno()))
        with socket.create_connection(self.tcp.getsockname()) as knocker:
            self.tcp.close()
            accepted, address = found.sockets[0].sock.accept()
            self.addCleanup(accepted.close)
            self.assertEqual(address, knocker.getsockname())

    async def test_go(self) -> None:
        """Nothing happens to the old process before the new one is ready."""
        self.old()
        found = await self.new()
        await self.new()
        self.assertEqual(self.gone, [])
        found.go()
        await until(reactor, lambda: self.gone, "the word to go")
        self.assertEqual(self.gone, ["old"])

    async def test_new_one_fails(self) -> None:
        """A new process that dies, or says it will not be ready, changes nothing but the log."""
        server = self.old()
        with capturedLogs() as events:
            self.connect().close()
            await until(reactor, lambda: not server.peers, "the end of who asked for nothing")
            found = await self.new()
            found.forget()
            await until(reactor, lambda: not server.peers, "the end of the connection")
        said = [str(formatEvent(event)) for event in events]
        self.assertEqual(len([line for line in said if "did not get ready" in line]), 1, said)
        self.assertEqual(self.gone, [])
        (await self.new()).go()
        await until(reactor, lambda: self.gone, "the word to go")

    async def test_rival(self) -> None:
        """Of two new processes that start at once the second tells the first to go as well."""
        self.old()
        first, second = await self.new(), await self.new()
        self.assertIsNone(find_rival(self.path, first))
        quicker = self.old("first")
        rival = await deferToThread(find_rival, self.path, second)
        assert rival is not None
        rival.go()
        await until(reactor, lambda: self.gone, "the word to go")
        self.assertEqual(self.gone, ["first"])
        quicker.stop()
        self.assertIsNone(find_rival(self.path, second))
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path)
        self.assertIsNone(find_rival(self.path, second))

    async def test_no_descriptor_left(self) -> None:
        """One is kept for a successor; where even that is gone, nobody is accepted for a while."""
        self.patch(handover, "PAUSE_S", 0.01)
        for failures in (1, 3):
            server = self.old()
            assert server._sock is not None
            crowded = Crowded(server._sock, failures)
            server._sock = crowded
            with capturedLogs() as events:
                (await self.new()).go()
                await until(reactor, lambda: self.gone, "the word to go")
            self.gone.clear()
            self.assertEqual(crowded.failures, 0)
            rests = [event for event in events if "too many" in str(formatEvent(event))]
            self.assertEqual(len(rests), failures // 2)
            self.assertIsNotNone(server._spare)
            server.stop()

    async def test_stopped_without_a_descriptor(self) -> None:
        """A process that ends meanwhile leaves nothing behind."""
        server = self.old()
        assert server._sock is not None
        server._sock = Crowded(server._sock, 9)
        waiting = self.connect()
        await until(reactor, lambda: server._pause is not None, "the rest")
        server.stop()
        self.assertEqual((server._pause, server._spare), (None, None))
        await self.until_closed(waiting)

    async def test_old_one_deaf(self) -> None:
        """A new process that took too long says that there may be two of them now, and which."""
        server = self.old()
        found = await self.new()
        for peer in list(server.peers):
            peer._fail()
        with capturedLogs() as events:
            found.go()
        said = "".join(str(formatEvent(event)) for event in events)
        self.assertIn(f"the old process ({os.getpid()}) cannot be told to go (", said)
        self.assertEqual(self.gone, [])

    def test_no_directory(self) -> None:
        """Where we could not listen ourselves the start ends, not the next hand-over."""
        with self.assertRaisesRegex(ConfigError, "--handover-socket: .*: no such file or dir"):
            find_predecessor(f"{self.place}/none/handover")

    def test_nobody_there(self) -> None:
        """The first start, and one after a crash: no predecessor, and no error."""
        self.assertIsNone(find_predecessor(self.path))
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path)
        self.assertIsNone(find_predecessor(self.path))

    async def test_path(self) -> None:
        """For us alone; the successor takes it, and the old one then leaves it alone."""
        old = self.old()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        new = self.old("new")
        self.assertEqual(os.listdir(self.place), ["handover"])
        old.stop()
        (await self.new()).go()
        await until(reactor, lambda: self.gone, "the word to go")
        self.assertEqual(self.gone, ["new"])
        new.stop()
        self.assertEqual(os.listdir(self.place), [])
        new.stop()

    def test_unusable_path(self) -> None:
        """What is no socket stays what it is; a path too long is said to be."""
        with open(self.path, "w") as file:
            file.write("precious")
        self.assertRaisesRegex(ConfigError, "--handover-socket: .*no socket", self.old)
        self.assertRaisesRegex(
            ConfigError, "--handover-socket: .*no socket", find_predecessor, self.path
        )
        with open(self.path) as file:
            self.assertEqual(file.read(), "precious")
        self.path = f"{self.place}/{'x' * 100}"
        self.assertRaisesRegex(ConfigError, "at most 90 bytes", self.old)
        self.path = f"{self.place}/missing/handover"
        self.assertRaisesRegex(ConfigError, "no such file", self.old)


class StrangerTests(HandoverCase):
    """Whoever else is at the other end."""

    async def test_other_user(self) -> None:
        """Another user's process is refused on either side."""
        self.old()
        for side in (handover, predecessor):
            self.patch(side, "is_trusted", lambda sock, *others: False)
        stranger = self.connect()
        await self.until_closed(stranger)
        with self.assertRaisesRegex(ConfigError, "another user"):
            await deferToThread(find_predecessor, self.path)

    def test_credentials(self) -> None:
        """Our own user and root are trusted, no other."""
        left, right = socket.socketpair()
        self.addCleanup(left.close)
        self.addCleanup(right.close)
        self.assertTrue(handover.is_trusted(left))
        for uid, is_trusted in ((0, True), (os.geteuid(), True), (4711, False)):
            raw = handover._CREDENTIALS.pack(1, uid, 1)
            peer = SimpleNamespace(getsockopt=lambda *_, raw=raw: raw)
            self.assertEqual(handover.is_trusted(peer), is_trusted, uid)
            self.assertTrue(handover.is_trusted(peer, 4711, uid))

    async def test_nonsense(self) -> None:
        """Words that are none end the connection; nobody gets a socket or makes us go."""
        server = self.old()
        for said in (b"go away\n", b"\n", b"sockets\ngo\n", b"x" * 60, b"sockets" * 3):
            stranger = self.connect()
            stranger.send(said)
            await self.until_closed(stranger)
        self.assertEqual((self.gone, server.peers), ([], set()))

    async def test_in_pieces(self) -> None:
        """A word may come byte by byte."""
        self.old()
        stranger = self.connect()
        for byte in b"go\n":
            stranger.send(bytes([byte]))
            waited: Deferred[None] = Deferred()
            reactor.callLater(0, waited.callback, None)
            await waited
        await until(reactor, lambda: self.gone, "the word to go")

    async def test_too_many(self) -> None:
        """Connections that say nothing are few, and not for ever."""
        self.patch(handover, "START_S", 0.2)
        server = self.old()
        silent = [self.connect() for _ in range(MAX_PEERS)]
        await until(reactor, lambda: len(server.peers) == MAX_PEERS, "all connections")
        await self.until_closed(self.connect())
        for each in silent:
            await self.until_closed(each)
        self.assertEqual(server.peers, set())

    async def answer(self, *answers: bytes) -> None:
        """Be an old process that gives this answer; see that it is as good as none."""
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(self.path)
        server.listen()

        def serve() -> None:
            with contextlib.suppress(ConnectionError), server, server.accept()[0] as sock:
                sock.recv(100)
                for answer in answers:
                    sock.sendall(answer)

        serving = deferToThread(serve)
        asked = deferToThread(find_predecessor, self.path)
        self.assertIsNone(await in_time(reactor, asked, "an end to asking"))
        await serving
        os.unlink(self.path)

    async def test_bad_answers(self) -> None:
        """An old process that hands nothing over is no reason not to start."""
        for answers in (
            (),
            (b"[",),
            (b'["tcp"]\n',),
            (b"{}\n",),
            (b"\xff\n",),
            (b"no json\n",),
            (b"[" * 100_000, b"\n"),
            (b"[" * 60_000 + b"\n",),
        ):
            with self.subTest(answers=answers[:1]):
                await self.answer(*answers)

    async def test_silence(self) -> None:
        """One that does not answer is not waited for."""
        self.patch(predecessor, "ANSWER_S", 0.1)
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(self.path)
            silent.listen()
            asked = deferToThread(find_predecessor, self.path)
            self.assertIsNone(await in_time(reactor, asked, "an end to asking"))
