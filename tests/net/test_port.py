"""Tests for :mod:`derp.net.port`: listening, accepting, and running out of descriptors."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from derp.core.listener_stats import ListenerStats
from derp.errors import ConfigError
from derp.net.port import (
    ACCEPTS_PER_TURN,
    BACKLOG,
    PAUSE_S,
    RelayPort,
    TCPOptions,
    open_listener,
)
from derp.net.transport import StreamTransport
from tests.net.sockets import Echo, PlainClient, Pump

ROOT = Path(__file__).parent.parent.parent


def has_ipv6() -> bool:
    """Whether this machine's loopback speaks it."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


class ListenerCase(SynchronousTestCase):
    def listen(
        self, host: str = "127.0.0.1", port: int = 0, options: TCPOptions | None = None
    ) -> socket.socket:
        sock = open_listener(host, port, options or TCPOptions(), flag="-a")
        self.addCleanup(sock.close)
        return sock

    def accepted(self, listener: socket.socket, host: str = "127.0.0.1") -> socket.socket:
        """A connection taken from the listener."""
        client = socket.create_connection((host, listener.getsockname()[1]))
        self.addCleanup(client.close)
        listener.setblocking(True)
        sock, _ = listener.accept()
        self.addCleanup(sock.close)
        return sock


class OptionTests(ListenerCase):
    """What accepted sockets inherit: read back from them, not from the listener."""

    def test_defaults(self) -> None:
        """No delay, 15 s for unacknowledged data, probes after ten minutes, nine of them."""
        sock = self.accepted(self.listen())
        self.assertTrue(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self.assertTrue(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        for option, value in (
            (socket.TCP_USER_TIMEOUT, 15_000),
            (socket.TCP_KEEPIDLE, 600),
            (socket.TCP_KEEPINTVL, 15),
            (socket.TCP_KEEPCNT, 9),
        ):
            self.assertEqual(sock.getsockopt(socket.IPPROTO_TCP, option), value)

    def test_chosen(self) -> None:
        """The flags' values arrive; zero and extremes mean what they mean in derper."""
        for keepalive, timeout, idle, user_timeout in (
            (30.0, 2.5, 30, 2500),
            (0.0, 0.0, 15, 0),
            (0.2, 15.0, 1, 15_000),
            (86_400.0 * 30, 1e9, 32_767, 2**31 - 1),
        ):
            sock = self.accepted(self.listen(options=TCPOptions(keepalive, timeout)))
            self.assertEqual(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), idle)
            self.assertEqual(
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), user_timeout
            )

    def test_keepalive_off(self) -> None:
        """A negative time switches probes off."""
        sock = self.accepted(self.listen(options=TCPOptions(keepalive_time_s=-1.0)))
        self.assertFalse(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


class OpenListenerTests(ListenerCase):
    """Binding, and what stands in its way."""

    def test_backlog(self) -> None:
        """The kernel is asked for a long queue; it keeps what net.core.somaxconn allows."""
        listener = self.listen()
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        (limit,) = struct.unpack_from("I", info, 28)  # tcpi_sacked holds it when listening
        somaxconn = int(Path("/proc/sys/net/core/somaxconn").read_text())
        self.assertEqual(limit, min(BACKLOG, somaxconn))
        self.assertFalse(listener.getblocking())

    def test_both_families(self) -> None:
        """Without an address one socket takes IPv6 and IPv4."""
        if not has_ipv6():
            raise SkipTest("no IPv6 on this machine")
        for host in ("", "0.0.0.0", "::"):
            listener = self.listen(host)
            self.assertEqual(listener.family, socket.AF_INET6)
            self.accepted(listener, "127.0.0.1")
            self.accepted(listener, "::1")

    def test_one_family(self) -> None:
        """An IPv6 address is that alone, and so is an IPv4 one."""
        if not has_ipv6():
            raise SkipTest("no IPv6 on this machine")
        listener = self.listen("::1")
        self.assertTrue(listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        self.assertEqual(self.listen("127.0.0.1").family, socket.AF_INET)

    def test_without_ipv6(self) -> None:
        """Where IPv6 is not compiled in, or switched off, IPv4 is served alone."""
        real = socket.socket

        class Without(real):  # type: ignore[valid-type, misc]
            code = errno.EAFNOSUPPORT

            def __init__(self, family: int = -1, *args: Any, **kwargs: Any) -> None:
                if family == socket.AF_INET6 and self.code == errno.EAFNOSUPPORT:
                    raise OSError(self.code, os.strerror(self.code))
                super().__init__(family, *args, **kwargs)

            def bind(self, address: Any) -> None:
                if self.family == socket.AF_INET6:
                    raise OSError(self.code, os.strerror(self.code))
                super().bind(address)

        self.patch(socket, "socket", Without)
        for code in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            self.patch(Without, "code", code)
            self.assertEqual(self.listen("").family, socket.AF_INET)

    def test_taken(self) -> None:
        """A port in use stops the start, with flag, address and cure."""
        port = self.listen().getsockname()[1]
        error = self.assertRaises(ConfigError, self.listen, port=port)
        self.assertEqual(
            str(error),
            f"-a: cannot listen on 127.0.0.1:{port}: address already in use; another process"
            " ('ss -ltnp' names it) or another flag has that port; stop the one or choose another",
        )

    def test_taken_on_all_addresses(self) -> None:
        """The same for all addresses: the free family is not taken quietly instead."""
        if not has_ipv6():
            raise SkipTest("no IPv6 on this machine")
        port = self.listen("").getsockname()[1]
        error = self.assertRaises(ConfigError, self.listen, "", port)
        self.assertIn(f"-a: cannot listen on :{port}: address already in use", str(error))

    def test_the_fallback_fails(self) -> None:
        """Where IPv4 is the fall-back, its error is the one that matters."""
        real = socket.socket
        other = real()
        self.addCleanup(other.close)
        other.bind(("0.0.0.0", 0))
        other.listen()
        taken = other.getsockname()[1]

        def without(family: int, *args: Any) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            return real(family, *args)

        self.patch(socket, "socket", without)
        error = self.assertRaises(ConfigError, open_listener, "", taken, TCPOptions(), flag="-a")
        self.assertIn("address already in use", str(error))

    def test_not_our_address(self) -> None:
        """An address of another machine."""
        error = self.assertRaises(ConfigError, self.listen, "192.0.2.1")
        self.assertIn("this machine has no such address", str(error))

    def test_no_address(self) -> None:
        """Something that is no address."""
        error = self.assertRaises(ConfigError, self.listen, "no address")
        self.assertIn("-a: cannot listen on no address:0: ", str(error))
        self.assertNotIn("Unknown error", str(error))

    def test_ipv6_in_brackets(self) -> None:
        """IPv6 addresses are written so that the port can be told apart."""
        if not has_ipv6():
            raise SkipTest("no IPv6 on this machine")
        error = self.assertRaises(ConfigError, self.listen, "2001:db8::1", 443)
        self.assertIn("cannot listen on [2001:db8::1]:443", str(error))

    def test_privileged(self) -> None:
        """Below 1024 one needs a right, and is told which."""

        class Forbidden(socket.socket):
            def bind(self, address: Any) -> None:
                raise PermissionError(errno.EACCES, "Permission denied")

        self.patch(socket, "socket", Forbidden)
        error = self.assertRaises(ConfigError, self.listen, port=443)
        self.assertIn("CAP_NET_BIND_SERVICE", str(error))


class PortTests(ListenerCase):
    """Accepting."""

    def setUp(self) -> None:
        self.pump = Pump(self)
        self.stats = ListenerStats()
        self.peers: list[Any] = []

    def greet(self, sock: socket.socket, peer: Any) -> None:
        self.assertFalse(sock.getblocking(), "one slow reader would stop everybody")
        self.peers.append(peer)
        StreamTransport(self.pump.hub, self.pump.wheel, sock, peer).start(Echo())

    def port(self, listener: socket.socket | None = None, greet: Any = None) -> RelayPort:
        sock = listener or self.listen()
        port = RelayPort(self.pump.hub, sock, greet or self.greet, self.stats)
        port.start()
        self.addCleanup(port.stop)
        return port

    def client(self, port: RelayPort, host: str = "127.0.0.1") -> PlainClient:
        address: Any = port.getHost()
        client = PlainClient(socket.create_connection((host, address.port)))
        self.addCleanup(client.close)
        self.pump.clients.append(client)
        return client

    def test_echo(self) -> None:
        """An accepted connection is served."""
        client = self.client(self.port())
        client.send(b"hello")
        self.pump.until(lambda: client.received == b"hello")
        self.assertEqual(self.stats.accepted_connections, 1)

    def test_v4_mapped(self) -> None:
        """On a socket for both families IPv4 peers are IPv4, IPv6 peers IPv6."""
        if not has_ipv6():
            raise SkipTest("no IPv6 on this machine")
        port = self.port(self.listen(""))
        transports: list[StreamTransport] = []

        def greet(sock: socket.socket, peer: Any) -> None:
            transports.append(StreamTransport(self.pump.hub, self.pump.wheel, sock, peer))
            transports[-1].start(Echo())

        port._greet = greet
        for host, kind in (("127.0.0.1", IPv4Address), ("::1", IPv6Address)):
            client = self.client(port, host)
            self.pump.until(lambda: transports)
            transport = transports.pop()
            self.assertIsInstance(transport.getPeer(), kind)
            self.assertEqual(
                (transport.getPeer().host, transport.getPeer().port),
                client.sock.getsockname()[:2],
            )
            self.assertEqual(transport.getHost().host, host)
            self.assertIsInstance(transport.getHost(), kind)

    def test_few_at_a_time(self) -> None:
        """A rush of connections is taken in portions."""
        port = self.port()
        for _ in range(ACCEPTS_PER_TURN + 5):
            self.client(port)
        self.pump.turn()
        self.assertEqual(self.stats.accepted_connections, ACCEPTS_PER_TURN)
        self.pump.until(lambda: self.stats.accepted_connections == ACCEPTS_PER_TURN + 5)

    def test_closed_door(self) -> None:
        """A connection that is not to come in is closed at once and counted, the next is served."""
        answers = [False, True]
        port = RelayPort(
            self.pump.hub, self.listen(), self.greet, self.stats, lambda: answers.pop(0)
        )
        port.start()
        self.addCleanup(port.stop)
        first = self.client(port)
        self.pump.until(lambda: first.ended)
        second = self.client(port)
        second.send(b"hello")
        self.pump.until(lambda: second.received == b"hello")
        self.assertEqual(self.stats.rejected_connections, 1)
        self.assertEqual(self.stats.accepted_connections, 1)

    def test_unix(self) -> None:
        """A socket handed to us may be of another family."""
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        path = os.path.relpath(self.mktemp())
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        port = self.port(listener)
        self.assertEqual(port.getHost(), UNIXAddress(path))
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        client = PlainClient(sock)
        self.addCleanup(client.close)
        client.send(b"hello")
        self.pump.clients.append(client)
        self.pump.until(lambda: client.received == b"hello")

    def test_stop(self) -> None:
        """A stopped port is closed; who was accepted lives on."""
        port = self.port()
        address: Any = port.getHost()
        client = self.client(port)
        self.pump.until(lambda: self.peers)
        self.successResultOf(port.stop())
        self.successResultOf(port.stop())
        self.assertRaises(OSError, socket.create_connection, ("127.0.0.1", address.port))
        client.send(b"still here")
        self.pump.until(lambda: client.received == b"still here")

    def test_stop_before_start(self) -> None:
        """A port that never started can be stopped, too."""
        sock = self.listen()
        self.successResultOf(RelayPort(self.pump.hub, sock, self.greet, self.stats).stop())
        self.assertEqual(sock.fileno(), -1)

    def test_hub_closes(self) -> None:
        """With the hub the port closes as well."""
        sock = self.listen()
        self.port(sock)
        self.pump.hub.close()
        self.assertEqual(sock.fileno(), -1)

    def test_greeting_fails(self) -> None:
        """A connection that cannot be started is closed; the port goes on."""
        fine = self.greet

        def greet(sock: socket.socket, peer: Any) -> None:
            port._greet = fine
            self.pump.hub.add(sock.fileno(), port)  # it got as far as into the hub
            raise RuntimeError("a bug of ours")

        port = self.port(greet=greet)
        first = self.client(port)
        self.pump.until(lambda: first.ended)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(self.pump.hub), 1)
        second = self.client(port)
        second.send(b"hello")
        self.pump.until(lambda: second.received == b"hello")

    def test_gone_in_the_queue(self) -> None:
        """A connection that was given up before it was taken does not keep the next waiting."""
        port = self.port()
        real = port._sock
        calls = [OSError(errno.ECONNABORTED, "aborted"), OSError(errno.EPERM, "filtered")]

        class Aborting:
            def accept(self) -> Any:
                if calls:
                    raise calls.pop()
                return real.accept()

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        port._sock = Aborting()  # type: ignore[assignment]
        client = self.client(port)
        client.send(b"hello")
        self.pump.until(lambda: client.received == b"hello")

    def exhaust(self, port: RelayPort, code: int) -> list[int]:
        """Let accepting fail; gives a list that is to be emptied to end it."""
        real = port._sock
        failing = [0]

        class Exhausted:
            def accept(self) -> Any:
                if failing:
                    failing[0] += 1
                    raise OSError(code, os.strerror(code))
                return real.accept()

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        port._sock = Exhausted()  # type: ignore[assignment]
        return failing

    def test_exhausted(self) -> None:
        """
        Out of descriptors or memory: one attempt a second instead of a spinning loop, an error
        in the log that names address and cure, and on it goes when there are some again.
        """
        for code in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            port = self.port()
            told: list[bool] = []
            port.when_exhausted = lambda p=port, t=told: t.append(p.exhausted)  # type: ignore[misc]
            failing = self.exhaust(port, code)
            client = self.client(port)
            client.send(b"hello")
            with capturedLogs() as logs:
                self.pump.until(lambda f=failing: f != [0])  # type: ignore[misc]
                self.pump.turn(20)
            self.assertEqual(failing, [1])
            (event,) = [each for each in logs if "pause" in each]
            text = event["log_format"].format(**event)
            address: Any = port.getHost()
            self.assertIn(f"is accepted on 127.0.0.1:{address.port} for 1.0 s: ", text)
            self.assertIn(os.strerror(code).lower(), text)
            self.assertIn("LimitNOFILE", text)
            self.pump.reactor.advance(PAUSE_S)
            self.pump.turn()
            self.assertEqual(failing, [2])
            failing.clear()
            self.pump.reactor.advance(PAUSE_S)
            self.pump.until(lambda c=client: c.received == b"hello")  # type: ignore[misc]
            self.pump.turn()
            self.assertEqual(told, [True, False], "told once each")
        self.assertEqual(self.stats.accept_paused, 8)

    def test_stopped_while_exhausted(self) -> None:
        """A port that waits can be stopped, and leaves no timer."""
        port = self.port()
        self.exhaust(port, errno.EMFILE)
        self.client(port)
        self.pump.until(lambda: self.stats.accept_paused)
        self.successResultOf(port.stop())
        self.assertEqual(self.pump.reactor.getDelayedCalls(), [])


class DescriptorLimitTests(SynchronousTestCase):
    """The same with the kernel's own limit, in a process of its own."""

    CHILD = """
        import json, resource, socket, sys
        from twisted.logger import globalLogBeginner
        from derp.core.listener_stats import ListenerStats
        from derp.net.port import RelayPort, TCPOptions, open_listener
        from derp.net.hub import Hub
        from derp.net.timer_wheel import TimerWheel
        from derp.net.transport import StreamTransport
        from tests.net.sockets import Echo, PumpedReactor

        lines = []
        globalLogBeginner.beginLoggingTo([lambda e: lines.append(e)], redirectStandardIO=False)
        reactor = PumpedReactor()
        hub, wheel, stats = Hub(reactor), TimerWheel(reactor), ListenerStats()
        def greet(sock, peer):
            StreamTransport(hub, wheel, sock, peer).start(Echo())
        port = RelayPort(hub, open_listener("127.0.0.1", 0, TCPOptions(), flag="-a"), greet, stats)
        port.start()
        clients = [socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(20)]
        used = max(sock.fileno() for sock in clients) + 1
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 5, hard))
        while not stats.accept_paused:
            hub.doRead()
        first = stats.accepted_connections, stats.accept_paused
        for sock in clients[:5]:
            sock.close()
        while len(hub):
            hub.doRead()
        reactor.advance(1)
        while stats.accept_paused < 2:
            hub.doRead()
        print(json.dumps([first, stats.accepted_connections, stats.accept_paused,
                          [e["log_level"].name for e in lines]]))
    """

    def test_limit(self) -> None:
        """With room for five, five of twenty get in; when some leave, others do."""
        child = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(self.CHILD)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(child.returncode, 0, child.stderr)
        first, accepted, paused, levels = json.loads(child.stdout)
        self.assertEqual(first, [5, 1])
        self.assertEqual(accepted, 15)
        self.assertEqual(paused, 2)
        self.assertEqual(levels, ["error", "error"])
