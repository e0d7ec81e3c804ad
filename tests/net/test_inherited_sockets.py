"""Tests of :mod:`derp.net.inherited_sockets`: which socket takes the place of what."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from derp.config import ListeningPlace, PlaceKind
from derp.core.listener_stats import ListenerStats
from derp.core.stun_stats import STUNStats
from derp.errors import ConfigError
from derp.net import inherited_sockets
from derp.net.inherited_sockets import (
    InheritedSocket,
    adopt,
    adopt_handed,
    first_environ,
    systemd_sockets,
)
from derp.net.listening import Listener
from derp.net.stun_udp import STUNServer

HOST = "127.0.0.1"
PID = 4711


def no_greeting(sock: socket.socket, peer: Any) -> None:
    """Nobody comes in these tests."""
    raise AssertionError("somebody came")


class SocketCase(SynchronousTestCase):
    """A relay with every port, none of them open."""

    def setUp(self) -> None:
        self.stun = STUNServer(object(), HOST, 3478, STUNStats())
        self.main = self.listener("-a", 443)
        self.plain = self.listener("--http-port", 80)
        self.metrics = self.listener("--metrics-addr", 9100)
        self.unix = self.listener("--listen", 0, PlaceKind.UNIX, "/run/derper.sock")
        self.listeners = [self.main, self.unix, self.plain, self.metrics]

    def listener(
        self, flag: str, port: int, kind: PlaceKind = PlaceKind.TCP, path: str = ""
    ) -> Listener:
        """A listener that was asked for."""
        place = ListeningPlace(kind, HOST, port, path)
        return Listener(flag, place, "", no_greeting, ListenerStats())

    def stream(self) -> socket.socket:
        """A listening socket."""
        sock = socket.create_server((HOST, 0))
        self.addCleanup(sock.close)
        return sock

    def datagram(self) -> socket.socket:
        """A bound socket."""
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.bind((HOST, 0))
        self.addCleanup(sock.close)
        return sock


class SystemdSocketsTests(SocketCase):
    """The variables of sd_listen_fds(3)."""

    def passed(self, *sockets: socket.socket) -> int:
        """Have copies of sockets at descriptors in a row, somewhere high; give the first."""
        first = self.free_descriptor()
        for number, sock in enumerate(sockets, first):
            os.dup2(sock.fileno(), number)
        self.patch(inherited_sockets, "FIRST_FD", first)
        return first

    def free_descriptor(self) -> int:
        """One that is free, as are those after it."""
        return max(int(each) for each in os.listdir("/proc/self/fd")) + 1

    def take(self, **variables: str) -> list[InheritedSocket]:
        """What is found, closed with the test."""
        found = systemd_sockets({"LISTEN_PID": str(PID), **variables}, PID)
        for each in found:
            self.addCleanup(each.sock.close)
        return found

    def test_found(self) -> None:
        """In order, with their names, and no longer for children of ours."""
        tcp, udp = self.stream(), self.datagram()
        self.passed(tcp, udp)
        found = self.take(LISTEN_FDS="2", LISTEN_FDNAMES="derp:stun")
        self.assertEqual([each.name for each in found], ["derp", "stun"])
        names = [each.sock.getsockname() for each in found]
        self.assertEqual(names, [tcp.getsockname(), udp.getsockname()])
        self.assertEqual([each.sock.type for each in found], [tcp.type, udp.type])
        self.assertFalse(any(os.get_inheritable(each.sock.fileno()) for each in found))

    def test_names_are_optional(self) -> None:
        """Older systemds give none."""
        self.passed(self.stream())
        self.assertEqual([each.name for each in self.take(LISTEN_FDS="1")], [""])

    def test_not_for_us(self) -> None:
        """Variables of another process, or none, or nonsense: nothing is touched."""
        for variables in (
            {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
            {"LISTEN_FDS": "many"},
            {"LISTEN_FDS": "-1"},
            {"LISTEN_FDS": "0"},
            {},
        ):
            self.assertEqual(self.take(**variables), [], variables)

    def test_taken_by_others(self) -> None:
        """A descriptor that --listen fd: names is left to it."""
        first = self.passed(self.stream(), self.stream())
        self.addCleanup(os.close, first)
        environ = {"LISTEN_PID": str(PID), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
        (found,) = systemd_sockets(environ, PID, {first})
        self.addCleanup(found.sock.close)
        self.assertEqual((found.name, found.sock.fileno()), ("b", first + 1))

    def test_no_socket(self) -> None:
        """A unit that passes something else is told so."""
        fd = self.free_descriptor()
        with open(os.devnull) as file:
            os.dup2(file.fileno(), fd)
        self.addCleanup(os.close, fd)
        self.patch(inherited_sockets, "FIRST_FD", fd)
        self.assertRaisesRegex(
            ConfigError, f"LISTEN_FDS: descriptor {fd} is no socket", self.take, LISTEN_FDS="1"
        )

    def test_first_environ(self) -> None:
        """What was set when the process began, whatever became of it."""
        self.assertEqual(first_environ()["PATH"], os.environ["PATH"])
        os.environ["DERP_TEST_LATE"] = "1"
        self.addCleanup(os.environ.pop, "DERP_TEST_LATE")
        self.assertNotIn("DERP_TEST_LATE", first_environ())


class AdoptTests(SocketCase):
    """systemd's sockets to our places."""

    def adopt(self, *sockets: tuple[str, socket.socket]) -> None:
        """Adopt sockets by these names."""
        found = [InheritedSocket(name, sock) for name, sock in sockets]
        adopt(found, self.listeners, self.stun)

    def test_by_name(self) -> None:
        """A name is enough, whatever the port."""
        tcp = [self.stream() for _ in range(3)]
        udp = self.datagram()
        self.adopt(("stun", udp), ("metrics", tcp[0]), ("derp", tcp[1]), ("http", tcp[2]))
        self.assertIs(self.metrics.adopted, tcp[0])
        self.assertIs(self.main.adopted, tcp[1])
        self.assertIs(self.plain.adopted, tcp[2])
        self.assertIsNone(self.unix.adopted)
        self.assertIs(self.stun._inherited, udp)

    def test_by_port(self) -> None:
        """Under systemd's own name for it, the port says what it is for; a datagram is STUN."""
        tcp, udp = self.stream(), self.datagram()
        self.plain.place = ListeningPlace(PlaceKind.TCP, HOST, tcp.getsockname()[1])
        self.adopt(("derper.socket", tcp), ("derper.socket", udp))
        self.assertIs(self.plain.adopted, tcp)
        self.assertIs(self.stun._inherited, udp)

    def test_no_use(self) -> None:
        """Connections to a socket that nobody serves would wait for ever: refuse to start."""
        udp, tcp, path = self.datagram(), self.stream(), socket.socket(socket.AF_UNIX)
        self.addCleanup(path.close)
        for name, sock, words in (
            ("", tcp, "stream socket at"),
            ("web", tcp, 'stream socket "web" at'),
            ("stun", tcp, 'stream socket "stun"'),
            ("", path, "stream socket at"),
        ):
            self.assertRaisesRegex(
                ConfigError,
                f"^LISTEN_FDS: .*{words}.*FileDescriptorName=",
                self.adopt,
                (name, sock),
            )
        self.stun = None
        self.assertRaisesRegex(ConfigError, "the datagram socket", self.adopt, ("", udp))

    def test_twice(self) -> None:
        """Two sockets cannot have one place."""
        self.assertRaisesRegex(
            ConfigError, "no use", self.adopt, ("derp", self.stream()), ("derp", self.stream())
        )


class AdoptHandedTests(SocketCase):
    """A predecessor's sockets to our places."""

    def test_same_flags(self) -> None:
        """Each finds the place that was asked for in the same words."""
        offered = [InheritedSocket(each.key, self.stream()) for each in self.listeners]
        udp = self.datagram()
        adopt_handed([*offered, InheritedSocket(self.stun.key, udp)], self.listeners, self.stun)
        adopted = [each.adopted for each in self.listeners]
        self.assertEqual(adopted, [each.sock for each in offered])
        self.assertIs(self.stun._inherited, udp)

    def test_other_flags(self) -> None:
        """A port that is no longer asked for is closed, and a new one opened by us."""
        before = self.stream()
        old = self.listener("-a", 8443)
        adopt_handed([InheritedSocket(old.key, before)], self.listeners, None)
        self.assertEqual([each.adopted for each in self.listeners], [None] * 4)
        self.assertEqual(before.fileno(), -1)

    def test_keys_differ(self) -> None:
        """No two places have one key."""
        keys = {each.key for each in self.listeners} | {self.stun.key}
        self.assertEqual(len(keys), 5)
