"""Tests of :mod:`derp.net.readiness`: what the three ports say of the relay's life."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from derp.config import Config
from derp.core.lifecycle import Event, Lifecycle, Unfit
from derp.net.metrics_site import build_metrics_site
from derp.net.web import build_main_site, build_plain_site
from tests.net.sites import AbortableTransport, Visit, get, site_parts

STRANGER = "203.0.113.9"


class ReadinessTests(SynchronousTestCase):
    """A stranger asks every port, through a relay's life."""

    def setUp(self) -> None:
        self.start()

    def start(self, *, stun_follows_readiness: bool = False) -> None:
        """Have the three sites of a relay that starts."""
        self.lifecycle = Lifecycle(stun_follows_readiness=stun_follows_readiness)
        parts = site_parts(Clock(), Config(), lifecycle=self.lifecycle)
        main = build_main_site(parts)
        self.sites: dict[str, Any] = {
            "main": main,
            "plain": build_plain_site(parts, main),
            "metrics": build_metrics_site(parts, Resource()),
        }

    def ask(self, port: str, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and body."""
        visit = Visit(self.sites[port], AbortableTransport(STRANGER))
        head, _, body = visit.send(get(path, method=method)).partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body.decode("utf-8")

    def ask_all(self, path: str) -> set[tuple[int, str]]:
        """What the ports say; mostly the same."""
        return {self.ask(port, path) for port in self.sites}

    def test_life(self) -> None:
        """Alive at all times; ready in between, and the phase's word before and after."""
        for event, answer in (
            (None, (503, "starting\n")),
            (Event.STARTED, (200, "ready\n")),
            (Event.DRAIN, (503, "draining\n")),
            (Event.STOP, (503, "stopped\n")),
        ):
            if event is not None:
                self.lifecycle.enter(event)
            self.assertEqual(self.ask_all("/readyz"), {answer})
            self.assertEqual(self.ask_all("/healthz"), {(200, "ok\n")})

    def test_unfit(self) -> None:
        """The reason in its words, and no more."""
        self.lifecycle.enter(Event.STARTED)
        for reason in Unfit:
            self.lifecycle.note(reason, True)
            self.assertEqual(self.ask_all("/readyz"), {(503, f"{reason.value}\n")})
            self.lifecycle.note(reason, False)
        self.assertEqual(self.ask_all("/readyz"), {(200, "ready\n")})

    def test_not_cached(self) -> None:
        """Nobody in between may answer in our place; HEAD asks as well."""
        visit = Visit(self.sites["main"], AbortableTransport(STRANGER))
        self.assertIn(b"\r\nCache-Control: no-store\r\n", visit.send(get("/readyz")))
        self.assertEqual(self.ask("main", "/readyz", method="HEAD"), (503, ""))

    def probes(self) -> set[int]:
        """Status of every page that clients measure by."""
        return {
            self.ask("main", "/derp/probe")[0],
            self.ask("main", "/derp/latency-check")[0],
            self.ask("main", "/generate_204")[0] - 4,
            self.ask("plain", "/generate_204")[0] - 4,
        }

    def test_probes(self) -> None:
        """They fail while starting and draining, not for what else ails the relay."""
        self.assertEqual(self.probes(), {503, 499})
        self.lifecycle.enter(Event.STARTED)
        self.assertEqual(self.probes(), {200})
        self.lifecycle.note(Unfit.CERTIFICATE, True)
        self.assertEqual(self.probes(), {200})
        self.lifecycle.enter(Event.DRAIN)
        self.assertEqual(self.probes(), {503, 499})
        self.assertEqual(self.ask("main", "/derp/probe"), (503, "draining\n"))

    def test_probes_that_follow(self) -> None:
        """With --stun-follows-readiness they fail for every reason."""
        self.start(stun_follows_readiness=True)
        self.lifecycle.enter(Event.STARTED)
        self.assertEqual(self.probes(), {200})
        self.lifecycle.note(Unfit.QUOTA, True)
        self.assertEqual(self.probes(), {503, 499})
        self.assertEqual(self.ask("main", "/derp/probe"), (503, "over quota\n"))
