"""
A restart that nobody notices but by being told: by inherited sockets, and by hand-over.

Clients do as they are told: back at the time in the Restarting frame. Meanwhile others knock at
the port again and again, and none may be refused. ``DERP_TEST_RESTART_CLIENTS=200`` has more
clients than the usual number, and prints the figures.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall, deferLater

from derp.net import relay_dialer
from derp.net.drain import HARD_LIMIT_S
from derp.net.relay_connector import connect
from derp.wire.handshake import ServerInfo
from derp.wire.keys import generate_private
from derp.wire.messages import Restarting
from derp.wire.stun import encode_binding_request
from tests.integration.child import Ending, RelayChild
from tests.integration.relay_case import HOST, IN_CI, RelayTestCase, reactor
from tests.integration.waiting import PATIENCE_S, in_time
from tests.net.unhurried import Unhurried

CLIENTS = int(os.environ.get("DERP_TEST_RESTART_CLIENTS", "30" if IN_CI else "50"))
KNOCK_EVERY_S = 0.02
DRAIN_S = 10.0
"""Far more than it takes: what is left when it is over is cut."""
IN_ORDER = Ending(0, None)
SYSTEMDS_BACKLOG = 4096
"""Who knocks while no process accepts has to wait here: what is more is not answered at all."""


class Knocker:
    """Connects over and over, and asks the UDP port as well."""

    def __init__(self, port: int, stun_port: int) -> None:
        self.knocks = 0
        self.refused: list[str] = []
        self.asked = 0
        self.answered = 0
        self._endpoint = TCP4ClientEndpoint(reactor, HOST, port, timeout=PATIENCE_S)
        self._loop = LoopingCall(self._knock)
        self._under_way: set[Deferred[None]] = set()
        self._udp = socket.socket(type=socket.SOCK_DGRAM)
        self._udp.setblocking(False)
        self._udp.connect((HOST, stun_port))
        self._request = encode_binding_request(b"x" * 12)

    def start(self) -> None:
        self._loop.start(KNOCK_EVERY_S)

    async def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()
        await gatherResults(list(self._under_way))
        await deferLater(reactor, KNOCK_EVERY_S)
        self._hear()
        self._udp.close()

    def _knock(self) -> None:
        self.knocks += 1
        knock = Deferred.fromCoroutine(self._connect())
        self._under_way.add(knock)
        knock.addBoth(lambda _: self._under_way.discard(knock))
        self._hear()
        try:
            self._udp.send(self._request)
            self.asked += 1
        except OSError as error:
            self.refused.append(f"STUN: {error}")

    def _hear(self) -> None:
        while True:
            try:
                self._udp.recv(1000)
            except BlockingIOError:
                return
            except OSError as error:
                self.refused.append(f"STUN: {error}")
                return
            self.answered += 1

    async def _connect(self) -> None:
        try:
            protocol = await connectProtocol(self._endpoint, Protocol())
        except Exception as error:
            self.refused.append(f"TCP: {error}")
            return
        protocol.transport.abortConnection()


class Returning:
    """A client that comes back when it was told to, once."""

    def __init__(self, port: int, time: Unhurried) -> None:
        self.url = f"http://{HOST}:{port}/derp"
        self._time = time
        self.private_key = generate_private()
        self.told_at = 0.0
        self.told: Restarting | None = None
        self.closed_at = 0.0
        self.back_at = 0.0
        self.client: Any = None

    async def come(self) -> None:
        logged_in: Deferred[None] = Deferred()

        def heard(message: Any) -> None:
            if isinstance(message, ServerInfo):
                logged_in.callback(None)
            elif isinstance(message, Restarting) and self.told is None:
                self.told, self.told_at = message, self._time.seconds()

        self.client = await connect(
            reactor, self.url, self.private_key, on_message=heard, timeout=PATIENCE_S
        )
        await in_time(reactor, logged_in, "a login")

    async def go_and_return(self) -> None:
        await in_time(reactor, self.client.when_closed(), "the end of a connection")
        self.closed_at = self._time.seconds()
        assert self.told is not None, "it was closed without a word"
        back_at = self.told_at + self.told.reconnect_in_ms / 1000
        await deferLater(self._time, max(0.0, back_at - self._time.seconds()))
        await self.come()
        self.back_at = self._time.seconds()


class RestartTests(RelayTestCase):
    """An old process, a new one, and clients that move from one to the other."""

    def setUp(self) -> None:
        # Not below the tests' directory: the path of a unix socket is short.
        self.place = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.place, ignore_errors=True)
        self.flags = ("--http-port", "-1", "-c", f"{self.place}/key")
        self.flags += ("--drain-seconds", f"{DRAIN_S:g}s")

    async def restart(self, old: RelayChild, start_new: Any) -> RelayChild:
        """Fill the old relay, have a new one take its place, and see everybody move."""
        self.patch(relay_dialer, "CONNECT_TIMEOUT", PATIENCE_S)
        time = self.steady_time()
        clients = [Returning(old.port(), time) for _ in range(CLIENTS)]
        await gatherResults(Deferred.fromCoroutine(each.come()) for each in clients)
        knocker = Knocker(old.port(), old.port("--stun-port"))
        self.addCleanup(knocker.stop)
        knocker.start()
        moving = gatherResults(
            (Deferred.fromCoroutine(each.go_and_return()) for each in clients), consumeErrors=True
        )
        new: RelayChild = await start_new()
        self.assertEqual(await old.over(), IN_ORDER, old.everything)
        await moving
        await knocker.stop()
        self.assertEqual(knocker.refused, [])
        self.assertGreater(knocker.answered, 0)
        late = [self.lateness(each) for each in clients]
        self.report(clients, knocker, late)
        for each in clients:
            assert each.told is not None
            self.assertLessEqual(each.closed_at - each.told_at, DRAIN_S + HARD_LIMIT_S)
            self.assertLessEqual(each.back_at - each.told_at, self.told_s(each))
        here = (await self.varz(new.port())).value("derp_current_connections")
        self.assertEqual(here, CLIENTS)
        for each in clients:
            await each.client.close()
        for child in (old, new):
            self.assertNotIn("Traceback", child.everything)
        self.assertEqual(await new.end("TERM"), IN_ORDER, new.everything)
        return new

    def told_s(self, client: Returning) -> float:
        """Until when a client may try, from when it was told."""
        assert client.told is not None
        return (client.told.reconnect_in_ms + client.told.try_for_ms) / 1000

    def lateness(self, client: Returning) -> float:
        """How much later than told it was back."""
        assert client.told is not None
        return client.back_at - client.told_at - client.told.reconnect_in_ms / 1000

    def report(self, clients: list[Returning], knocker: Knocker, late: list[float]) -> None:
        """Say the figures to who asks for them."""
        if "DERP_TEST_RESTART_CLIENTS" not in os.environ:
            return
        away = sorted(each.back_at - each.closed_at for each in clients)
        print(
            f"\n{len(clients)} clients; {knocker.knocks} connections beside them, "
            f"{len(knocker.refused)} refused; STUN {knocker.answered} of {knocker.asked}; "
            f"back {max(late) * 1000:.0f} ms after the told time at most; away "
            f"{away[len(away) // 2] * 1000:.0f} ms in the median, {away[-1] * 1000:.0f} ms at most"
        )

    async def test_hand_over(self) -> None:
        """The new process asks the old one for its sockets, and then sends it away."""
        handover = f"{self.place}/handover"
        flags = ("-a", f"{HOST}:0", "--stun-port", "0", *self.flags, "--handover-socket", handover)
        old = await self.start_child(*flags).ready()
        await self.until(lambda: os.path.exists(handover), "the socket of the old process")
        self.assertEqual(os.stat(handover).st_mode & 0o777, 0o600)

        async def start_new() -> RelayChild:
            return await self.start_child(*flags).ready()

        new = await self.restart(old, start_new)
        self.assertEqual(new.port(), old.port())
        self.assertEqual(new.port("--stun-port"), old.port("--stun-port"))
        self.assertFalse(os.path.exists(handover))

    async def test_generations(self) -> None:
        """One after the other; one that cannot start is none, and changes nothing."""
        handover = f"{self.place}/handover"
        flags = ("-a", f"{HOST}:0", "--stun-port", "0", *self.flags, "--handover-socket", handover)
        before = await self.start_child(*flags).ready()
        await self.until(lambda: os.path.exists(handover), "the socket of the first process")
        knocker = Knocker(before.port(), before.port("--stun-port"))
        self.addCleanup(knocker.stop)
        knocker.start()
        with socket.create_server((HOST, 0)) as taken:
            address = f"{HOST}:{taken.getsockname()[1]}"
            failing = self.start_child(*flags, "--metrics-addr", address)
            self.assertEqual(await failing.over(), Ending(1, None), failing.everything)
        self.assertIn("--metrics-addr", failing.errors)
        self.assertIsNone(before.ending)
        for _ in range(2):
            after = await self.start_child(*flags).ready()
            self.assertEqual(await before.over(), IN_ORDER, before.everything)
            self.assertEqual(after.port(), before.port())
            before = after
        await self.client(before.port(), tls=False)
        await knocker.stop()
        self.assertEqual(knocker.refused, [])
        self.assertEqual(await before.end("TERM"), IN_ORDER, before.everything)

    async def test_socket_activation(self) -> None:
        """Both get the same sockets from whoever started them, as systemd does it."""
        tcp = socket.create_server((HOST, 0), backlog=SYSTEMDS_BACKLOG)
        udp = socket.socket(type=socket.SOCK_DGRAM)
        udp.bind((HOST, 0))
        self.addCleanup(tcp.close)
        self.addCleanup(udp.close)
        passed = {
            "environ": {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "stun:derp"},
            "passed": (udp.fileno(), tcp.fileno()),
        }
        flags = ("-a", f"{HOST}:1", "--stun-port", "1", *self.flags)
        old = await self.start_child(*flags, **passed).ready()
        self.assertEqual(old.port(), tcp.getsockname()[1])
        self.assertEqual(old.port("--stun-port"), udp.getsockname()[1])

        async def start_new() -> RelayChild:
            old.send("TERM")  # in this order, as "systemctl restart" does it
            await old.over()
            return await self.start_child(*flags, **passed).ready()

        await self.restart(old, start_new)
