"""
Somebody sets the clock of a machine with a relay on it: ``date -s``, NTP after a boot in 1970.

Neither stalls what is due, nor is anybody cut off for it; what is told of dates follows the clock.
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from derp.net.certificate_watchdog import LOOK_S
from derp.net.relay_client import RelayClient
from derp.net.relay_connector import connect
from derp.wire.frames import KEEP_ALIVE_S
from derp.wire.keys import generate_private
from derp.wire.messages import Health, KeepAlive
from tests.exposition import Exposition
from tests.integration.child import ANY_PORTS, Ending, RelayChild
from tests.integration.relay_case import HOST, MESH_KEY, RelayTestCase, reactor
from tests.integration.set_clocks import SetClocks
from tests.integration.waiting import in_time

HOUR = 3600.0
DAY = 24 * HOUR
REQUEST_S = 30.0
NEAR_S = 600.0
"""Less than any step, more than a test takes."""
TLS_FLAGS = ("--hostname", HOST, "--certmode", "manual", "--certdir", "certs")


class SetClocksTests(RelayTestCase):
    """A child, and its clocks."""

    async def relay(self, *flags: str) -> RelayChild:
        """Start one and wait until it serves."""
        self.clocks = SetClocks(self.mktemp())
        environ = self.clocks.environ
        return await self.start_child(
            *ANY_PORTS, "-c", "derper.key", *flags, environ=environ
        ).ready()

    async def hearing_client(self, child: RelayChild) -> tuple[RelayClient, list[Any]]:
        """A client that is logged in, and all it hears, keep-alives as well."""
        heard: list[Any] = []
        client = await connect(
            reactor,
            f"http://{HOST}:{child.port()}/derp",
            on_message=heard.append,
            private_key=generate_private(),
        )
        self.addCleanup(client.close)
        await in_time(reactor, client.when_logged_in(), "a login")
        return client, heard

    async def see(self, child: RelayChild) -> None:
        """Let the relay look at its clocks, and see that they are as we have set them."""
        for _ in range(3):  # each is a turn of its reactor at least: what is due is made
            answer = await self.get(child.port(), "/")
            shown = parsedate_to_datetime(answer.header("Date") or "").timestamp()
            self.assertLess(abs(shown - time.time() - self.clocks.wall_ahead), NEAR_S)

    async def metrics(self, child: RelayChild) -> Exposition:
        """What it shows at ``/metrics``."""
        answer = await self.get(child.port(), "/metrics")
        return Exposition.parse(answer.body.decode())

    async def test_connections(self) -> None:
        """
        An hour forward cuts nobody, and nobody's deadline; two hours back stall neither those
        deadlines nor keep-alives.
        """
        child = await self.relay()
        client, heard = await self.hearing_client(child)
        halfway = await self.wire(child.port())
        halfway.transport.write(b"GET / HT")
        await self.see(child)
        self.clocks.set_wall_by(HOUR)
        await self.see(child)
        self.assertFalse(halfway.closed)
        self.assertFalse(client.when_closed().called)
        self.clocks.set_wall_by(-2 * HOUR)
        await self.see(child)
        self.clocks.pass_by(REQUEST_S - 5.0)
        await self.see(child)
        self.assertFalse(halfway.closed)
        self.assertNotIn(KeepAlive(), heard)
        self.clocks.pass_by(KEEP_ALIVE_S)
        await self.see(child)
        await self.until(lambda: halfway.closed, "the deadline of half a request")
        await self.until(lambda: KeepAlive() in heard, "a keep-alive")
        self.assertFalse(client.when_closed().called)
        await in_time(reactor, client.ping(30.0), "a pong")

    async def test_stamps(self) -> None:
        """What is told of the time of day follows the clock; uptime is time that has passed."""
        key = Path(self.mktemp()).absolute()
        key.write_text(MESH_KEY.hex())
        child = await self.relay("--mesh-psk-file", str(key))
        for change in (HOUR, -2 * HOUR):
            self.clocks.set_wall_by(change)
            reloaded = child.log.count("is in use now")
            child.send("HUP")
            await self.until(
                lambda: child.log.count("is in use now") > reloaded,  # noqa: B023
                "a reload",
            )
            shown = await self.metrics(child)
            name = "derp_reload_last_success_timestamp_seconds"
            told = shown.value(name, file="mesh_key")
            self.assertLess(abs(told - time.time() - self.clocks.wall_ahead), NEAR_S)
            varz = await self.varz(child.port())
            self.assertLess(varz.value("uptime_sec"), NEAR_S)

    async def test_certificate(self) -> None:
        """Years forward it is over, and back it is valid: found out by the next look."""
        child = await self.relay(*TLS_FLAGS)
        _, heard = await self.client(child.port())
        for change, said, status in (
            (3651 * DAY, "has expired", 503),
            (-3651 * DAY, "", 200),
            (-2 * DAY, "is not valid yet", 503),
            (2 * DAY, "", 200),
        ):
            self.clocks.set_wall_by(change)
            self.clocks.pass_by(LOOK_S + 1.0)
            await self.get(child.port("--http-port"), "/healthz")  # it looks at its clocks
            health: Health = await heard.next()
            self.assertEqual(bool(health.problem), bool(said))
            self.assertIn(said, health.problem)
            answer = await self.get(child.port("--http-port"), "/readyz")
            self.assertEqual(answer.status, status)

    async def test_drain(self) -> None:
        """A clock that is set back while the relay drains does not make it stay."""
        child = await self.relay("--drain-seconds", "10s")
        client, _ = await self.hearing_client(child)
        child.send("TERM")
        await self.until(lambda: "draining: 1 clients" in child.log, "the beginning of a drain")
        self.clocks.set_wall_by(-HOUR)
        self.assertFalse(client.when_closed().called)
        self.clocks.flow()
        self.assertEqual(await child.over(), Ending(0, None), child.everything)
