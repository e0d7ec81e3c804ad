"""
The status page in a real browser.

The pictures that are taken are left in the folder that ``DERP_SCREENSHOTS`` names, or in
``artifacts/screenshots``, which git ignores.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from derp.config import DebugKnobs
from derp.net.timer_wheel import TimerWheel
from derp.prober import event_stream
from derp.prober.site import prober_site
from tests.browser.chromium import Chromium, missing_chromium
from tests.browser.page_scripts import (
    AT_ONCE,
    COLOUR_OF,
    CONTRAST,
    CUT,
    HIDE,
    HURRY,
    NAMELESS,
    OVERFLOW,
    SMALL,
)
from tests.free_ports import free_ports
from tests.integration.waiting import until
from tests.prober.shown_prober import INTERVAL, ShownProber

reactor: Any = global_reactor

PATIENCE_S = 90.0
POLL_S = 0.03
SHOTS = Path(
    os.environ.get("DERP_SCREENSHOTS") or Path(__file__).parents[2] / "artifacts" / "screenshots"
)
TLS, UDP6 = "derp/fra/4a/tls", "derp/fra/4a/udp6"
REASON = "node 4a did not answer STUN at [2001:db8::4]:3478: is UDP open in the firewall?"
HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>\'"&lt;'


class PageCase(TestCase):
    """A prober, its site on a free port, and a browser."""

    timeout = 300
    skip = missing_chromium()

    def setUp(self) -> Deferred[None]:
        """Begin all of them."""
        return Deferred.fromCoroutine(self.begin())

    async def begin(self) -> None:
        self.shown = ShownProber(time.time())
        self.shown.add("derpmap-probe", "derp_map", {}, latency_s=0.2)
        for node in "abc":
            self.shown.add_node("nyc", 1, f"1{node}", f"derp1{node}.example.com", hours=6)
        for one in "abc":
            for other in set("abc") - {one}:
                self.shown.add_pair(
                    "nyc", 1, f"1{one}", f"1{other}", f"derp1{one}.example.com",
                    packet_ms=9.0 * 4 ** (ord(one) - ord("a")),
                )  # fmt: skip
        self.shown.add_node("fra", 4, "4a", "derp4.example.com", hours=6)
        self.shown.pass_time(1)
        wheel = TimerWheel(reactor)
        self.addCleanup(wheel.stop)
        self.site = prober_site(
            reactor, time.time, self.shown.prober, DebugKnobs(), wheel, INTERVAL
        )
        self.connections: set[Any] = set()
        build = self.site.buildProtocol

        def remember(address: Any) -> Any:
            channel = build(address)
            self.connections.add(channel)
            return channel

        self.site.buildProtocol = remember  # type: ignore[method-assign]
        (number,) = free_ports(1)  # of those that nobody takes while it is closed
        self.port = reactor.listenTCP(number, self.site, interface="127.0.0.1")
        self.addCleanup(self.hang_up)
        self.browser = Chromium(reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.browser.stop()))
        await self.browser.start()

    def hang_up(self) -> Any:
        """Close the port, and cut everybody off."""
        for channel in self.connections:
            if channel.transport is not None:
                channel.transport.abortConnection()
        self.connections.clear()
        return self.port.stopListening()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port.getHost().port}/"

    async def look(self, width: int = 1280, height: int = 800, **preferred: str) -> None:
        """Open the page, and wait until scripts have drawn it."""
        await self.browser.screen(width, height, mobile=width < 500)
        await self.browser.prefers(**({"color_scheme": "dark"} | preferred))
        await self.browser.open(self.url)
        await self.eventually("return document.querySelectorAll('.probe').length > 0")
        await self.eventually("return document.querySelector('#live b').textContent === 'live'")

    async def eventually(self, script: str, *arguments: Any, passing: float = 0.0) -> Any:
        """Wait until a script gives something; with ``passing``, time passes for the probes."""
        give_up_at = reactor.seconds() + PATIENCE_S
        while True:
            result = await self.browser.run(script, *arguments)
            if result:
                return result
            if reactor.seconds() > give_up_at:
                seen = await self.browser.text("body")
                raise AssertionError(f"waited in vain: {script}\n{seen[:2000]}")
            self.shown.pass_time(passing)
            await deferLater(reactor, POLL_S)

    async def reads(self, words: str, *, passing: float = 0.0) -> None:
        """Wait until the page shows some words."""
        script = "return document.body.innerText.includes(arguments[0])"
        await self.eventually(script, words, passing=passing)

    def fail_probe(self, name: str, reason: str = REASON) -> None:
        """Have a probe fail, now; with no reason it is well again."""
        self.shown.checks[name].error = reason
        self.shown.pass_time(INTERVAL + 1)

    async def assert_quiet(self) -> None:
        """Nothing violates the policy, no script fails, and everything asked for is there."""
        self.assertEqual(await self.browser.complaints(), [])

    async def shoot(self, name: str) -> None:
        """Leave a picture."""
        path = SHOTS / f"{name}.png"
        await self.browser.screenshot(path)
        self.assertGreater(path.stat().st_size, 10_000)


class LiveTests(PageCase):
    """What changes while it is looked at."""

    async def test_failing_node(self) -> None:
        """A node that fails turns red, its reason in words, without a reload; and green again."""
        await self.look()
        await self.browser.run("window.same = true")
        await self.reads("All healthy")
        node = '.node[aria-label="Node derp4.example.com"]'
        green = await self.browser.run(COLOUR_OF, f"{node} h3 .mark", "color")
        self.assertGreater(green[1], green[0] + 40)
        self.fail_probe(UDP6)
        await self.reads("1 of 23 failing")
        red = await self.browser.run(COLOUR_OF, f"{node} h3 .mark", "color")
        self.assertGreater(red[0], red[1] + 40)
        self.assertIn(REASON, await self.browser.text(f"{node}"))
        self.assertIn(REASON, await self.browser.text(".trouble"))
        self.assertIn("derp4.example.com (fra)", await self.browser.text(".trouble"))
        self.assertIn(REASON, await self.browser.text(".history"))
        self.assertEqual(
            await self.browser.run("return document.title"), "✕ 1 of 23 failing | DERP Prober"
        )
        icon = await self.browser.run("return document.getElementById('icon').href")
        self.assertTrue(icon.endswith("/static/failing.svg"))
        other = await self.browser.run(COLOUR_OF, '.region[aria-label="Region nyc"] .pill', "color")
        self.assertEqual(other, green)
        await self.shoot("failing-dark")
        self.fail_probe(UDP6, "")
        await self.reads("All healthy")
        self.assertEqual(await self.browser.run(COLOUR_OF, f"{node} h3 .mark", "color"), green)
        self.assertEqual(await self.browser.run("return document.title"), "DERP Prober")
        self.assertTrue(await self.browser.run("return window.same"))
        await self.shoot("healthy-dark")
        await self.assert_quiet()

    async def test_numbers_move(self) -> None:
        """Latencies, certificate days and the map's state are those of now, without a reload."""
        await self.look()
        row = f"return document.querySelector('.probe[title=\"{TLS}\"]')"
        self.assertIn("41.0 ms", await self.browser.run(f"{row}.innerText"))
        self.assertIn("certificate 61 d left", await self.browser.run(f"{row}.innerText"))
        line = await self.browser.run(f"{row}.querySelector('.spark-line').getAttribute('d')")
        self.assertGreater(line.count("L"), 60)
        self.shown.checks[TLS].latency_s = 0.777
        self.shown.checks[TLS].found["days_left"] = 5.5
        self.shown.pass_time(INTERVAL + 1)
        await self.reads("777 ms")
        self.assertIn("certificate 5 d left", await self.browser.run(f"{row}.innerText"))
        self.shown.add("derp/sin/3a/tls", "tls", {"region": "sin", "region_id": "3"})
        await self.eventually("return document.querySelector('[aria-label=\"Region sin\"]')")
        self.shown.prober.remove("derp/sin/3a/tls")
        await self.eventually("return !document.querySelector('[aria-label=\"Region sin\"]')")
        self.assertRegex(await self.browser.text("#map-line"), "✓ DERP map read .* ago")
        self.fail_probe("derpmap-probe", "there is no map")
        await self.reads("✕ DERP map tried ")
        await self.assert_quiet()

    async def test_connection_lost(self) -> None:
        """A page without its server says so, and is live again by itself."""
        await self.look()
        number = self.port.getHost().port
        await self.hang_up()
        await self.eventually("return !document.getElementById('banner').hidden")
        self.assertIn("Connection lost", await self.browser.text("#banner"))
        self.assertEqual(await self.browser.text("#live"), "offline")
        self.shown.checks[UDP6].error = REASON
        self.shown.pass_time(INTERVAL + 1)
        self.port = reactor.listenTCP(number, self.site, interface="127.0.0.1")
        await self.reads("1 of 23 failing")
        self.assertTrue(await self.browser.run("return document.getElementById('banner').hidden"))
        complaints = await self.browser.complaints()
        self.assertEqual([each for each in complaints if "/events" not in each], [])

    async def test_hidden(self) -> None:
        """A tab that nobody sees takes no connection, and its title is right all the same."""
        await self.browser.before_scripts(HURRY)
        await self.look()
        (hear,) = self.shown.prober.listeners
        live: Any = hear.__self__  # type: ignore[attr-defined]
        await until(reactor, lambda: live.streams, "a stream")
        await self.browser.run(HIDE, True)
        await until(reactor, lambda: not live.streams, "that the stream is closed")
        self.fail_probe(UDP6)
        await self.eventually("return document.title.includes('1 of 23 failing')")
        await self.browser.run(HIDE, False)
        await until(reactor, lambda: live.streams, "a stream")
        self.fail_probe(UDP6, "")
        await self.reads("All healthy")
        await self.assert_quiet()

    async def test_no_stream(self) -> None:
        """Where no stream is to be had the page asks from time to time."""
        self.patch(event_stream, "MAX_LISTENERS", 0)
        await self.browser.before_scripts(AT_ONCE)
        await self.look()
        self.assertTrue(await self.browser.run("return document.getElementById('banner').hidden"))
        self.fail_probe(UDP6)
        await self.reads("1 of 23 failing")
        complaints = await self.browser.complaints()
        self.assertEqual([each for each in complaints if "/events" not in each], [])

    async def test_run_now(self) -> None:
        """Pressing Run runs the probe; what came of it is told."""
        await self.look()
        button = f'.run[aria-label="Run {TLS} now"]'
        before = self.shown.prober.probes[TLS].history.ok_runs
        await self.browser.click(button)
        await self.reads(f"{TLS} succeeded in 41.0 ms", passing=0.05)
        self.assertGreater(self.shown.prober.probes[TLS].history.ok_runs, before)
        self.shown.checks[TLS].error = "it has expired"
        await self.browser.click(button)
        await self.reads(f"{TLS} failed: it has expired", passing=0.05)
        cell = '.cell[aria-label^="Relay from 1a to 1b"]'
        await self.browser.click(cell)
        self.assertIn("Relay 1a → 1b (nyc)", await self.browser.text("#toast"))
        await self.browser.click("#only")
        self.assertFalse(
            await self.browser.run(f"return document.querySelector('{cell}').checkVisibility()")
        )
        complaints = await self.browser.complaints()
        self.assertEqual([each for each in complaints if "424" not in each], [])


class LooksTests(PageCase):
    """How it looks, to whom."""

    async def test_themes(self) -> None:
        """Dark or light as the system says, or as was chosen; everything can be read in both."""
        self.fail_probe(UDP6)
        self.fail_probe("derp/nyc/1b/1c/mesh", "no packet came")
        self.shown.checks["derp/nyc/1a/tls"].found["days_left"] = 10
        self.shown.add("derp/sin/3a/tls", "tls", {"region": "sin", "region_id": "3"}).latency_s = 9
        await self.look(color_scheme="dark")
        dark = await self.browser.run(COLOUR_OF, "body", "backgroundColor")
        await self.assert_readable()
        await self.look(color_scheme="light")
        light = await self.browser.run(COLOUR_OF, "body", "backgroundColor")
        await self.assert_readable()
        self.assertLess(max(dark), 40)
        self.assertGreater(min(light), 215)
        await self.shoot("failing-light")
        for theme, colour in (("dark", dark), ("light", light)):
            await self.browser.click("#theme")
            chosen = await self.browser.run("return document.documentElement.dataset.theme")
            self.assertEqual(chosen, theme)
            self.assertEqual(await self.browser.run(COLOUR_OF, "body", "backgroundColor"), colour)
            await self.look(color_scheme="dark" if theme == "light" else "light")
            self.assertEqual(await self.browser.run(COLOUR_OF, "body", "backgroundColor"), colour)
        self.assertEqual(await self.browser.run(NAMELESS), [])
        await self.assert_quiet()

    async def assert_readable(self) -> None:
        """The contrast of all text is at least what WCAG calls AA."""
        (worst, *_), *_ = found = await self.browser.run(CONTRAST)
        self.assertGreaterEqual(worst, 4.5, json.dumps(found))

    async def test_phone(self) -> None:
        """
        At 390 pixels nothing is beside the screen, whatever the names, and fingers find all.

        Nodes have their whole names there, as in the columns of a wide screen.
        """
        long_name = "a-host-with-a-name-that-does-not-end." * 4
        labels = {"region": "x" * 60, "region_id": "9", "hostname": long_name}
        self.shown.add(f"derp/{'x' * 60}/9a/tls", "tls", labels, error="e" * 500)
        self.fail_probe(UDP6)
        await self.look(390, 844, color_scheme="light")
        self.assertEqual(await self.browser.run(OVERFLOW), [0, []])
        self.assertEqual(await self.browser.run(SMALL), [])
        await self.shoot("phone-light")
        self.assertEqual(await self.browser.run(CUT), [])
        await self.look(390, 844, color_scheme="dark")
        await self.shoot("phone-dark")
        await self.look(1400, 900)
        self.assertEqual(await self.browser.run(CUT), [])
        await self.assert_quiet()

    async def test_still(self) -> None:
        """Nothing moves for those who do not want it to."""
        await self.look(reduced_motion="reduce")
        moving = "return getComputedStyle(document.querySelector('#live i')).animationName"
        self.assertEqual(await self.browser.run(moving), "none")
        await self.browser.prefers(reduced_motion="no-preference")
        self.assertEqual(await self.browser.run(moving), "breathe")

    async def test_without_scripts(self) -> None:
        """A browser without scripts shows everything, too, and no button that would do nothing."""
        self.fail_probe(UDP6)
        await self.browser.allow_scripts(False)
        await self.browser.screen(390, 844, mobile=True)
        await self.browser.open(self.url)
        text = await self.browser.text("body")
        for words in ("1 of 23 failing", REASON, "derp4.example.com", "certificate 61 d"):
            self.assertIn(words, text)
        self.assertNotIn("Only failing", text)
        self.assertNotIn("Theme", text)
        self.assertEqual((await self.browser.run(OVERFLOW))[0], 0)
        await self.shoot("without-scripts")
        await self.assert_quiet()

    async def test_hostile_names(self) -> None:
        """Names and errors that try to be markup are text wherever they are shown."""
        labels = {"region": HOSTILE, "region_id": HOSTILE, "hostname": HOSTILE}
        name = f"derp/{HOSTILE}/{HOSTILE}/tls"
        self.shown.add(name, "tls", labels, error=HOSTILE, mapped_address=HOSTILE, issuer=HOSTILE)
        self.shown.add_pair(HOSTILE, 9, HOSTILE, "b", HOSTILE)
        self.shown.pass_time(INTERVAL)
        await self.look()
        await self.reads("<script>window.pwned=1</script>")
        await self.browser.click(f".run[aria-label*='{HOSTILE[:5]}']")
        await self.eventually("return !document.getElementById('toast').hidden", passing=0.05)
        self.assertFalse(await self.browser.run("return window.pwned"))
        self.assertEqual(await self.browser.run("return document.images.length"), 0)
        self.assertEqual(
            await self.browser.run("return document.querySelectorAll('body script').length"), 0
        )
        complaints = await self.browser.complaints()
        self.assertEqual([each for each in complaints if "424" not in each], [])
