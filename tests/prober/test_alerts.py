"""Tests of :mod:`derp.prober.alerts`: from a run of a probe to what is posted."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from derp.core.alert_state import AlertRule
from derp.errors import ConfigError
from derp.prober import webhook
from derp.prober.alert_message import encode_webhook
from derp.prober.alerts import UNSEEN_S, AlertConfig, Alerts, make_alerts
from derp.prober.webhook import DEADLINE_S, GROUP_WAIT_S, Target, Webhook, signature
from tests.prober.hook_fakes import FakeHTTP
from tests.prober.shown_prober import INTERVAL, START, ShownProber

TLS, UDP, MESH = "derp/nyc/1a/tls", "derp/nyc/1a/udp", "derp/nyc/1a/1a/mesh"
QD = "derp/nyc/1a/1a/qd"
RULE = AlertRule()


class AlertsCase(SynchronousTestCase):
    """A prober of one node, and the service that tells of it."""

    def setUp(self) -> None:
        """Start with everything well."""
        self.state_file = Path(self.mktemp())
        self.begin()
        self.shown.pass_time(1)

    def begin(
        self, now: float = START, *, errors: str = "", kept: bool = True, node: str = "1a"
    ) -> None:
        """Start a prober and its alerts; again, as after a restart."""
        self.shown = ShownProber(now)
        self.http = FakeHTTP(self.shown.clock)
        target = Target(url="http://hook.example.com/", encode=encode_webhook(""))
        http: Any = self.http
        hook = Webhook(self.shown.clock, http, target, self.shown.clock.seconds)
        self.alerts = Alerts(
            self.shown.clock,
            self.shown.prober,
            hook,
            RULE,
            wall_time=self.shown.clock.seconds,
            state_file=self.state_file if kept else None,
        )
        self.alerts.startService()
        self.shown.add_node("nyc", 1, node, "derp1.example.com")
        for check in self.shown.checks.values():
            check.error = errors

    def fail(self, *names: str, error: str = "nothing came back") -> None:  # type: ignore[override]
        """From now on these fail."""
        for name in names:
            self.shown.checks[name].error = error


class TellingTests(AlertsCase):
    """What is told of a running prober."""

    def test_within_two_intervals(self) -> None:
        """A fault is told when the second run has failed: node, probe and reason."""
        self.fail(UDP)
        self.shown.pass_time(2 * INTERVAL + GROUP_WAIT_S)
        (body,) = self.http.bodies
        self.assertEqual(
            body["text"],
            "STUN IPv4 of node 1a (derp1.example.com) in region nyc fails: nothing came back",
        )

    def test_once(self) -> None:
        """It is told once, and once more when it is over."""
        self.fail(UDP)
        self.shown.pass_time(600)
        self.fail(UDP, error="")
        self.shown.pass_time(600)
        self.assertEqual(self.http.told, [[(UDP, "firing")], [(UDP, "resolved")]])

    def test_one_failure(self) -> None:
        """A single failure is not told."""
        self.fail(UDP)
        self.shown.pass_time(INTERVAL)
        self.fail(UDP, error="")
        self.shown.pass_time(600)
        self.assertEqual(self.http.told, [])

    def test_together(self) -> None:
        """What fails together is told together."""
        self.fail(TLS, UDP, MESH)
        self.shown.pass_time(60)
        (told,) = self.http.told
        self.assertEqual(sorted(told), [(MESH, "firing"), (TLS, "firing"), (UDP, "firing")])

    def test_repeated(self) -> None:
        """It is told again after four hours."""
        self.fail(UDP)
        self.shown.pass_time(4 * 3600 + 60)
        self.assertEqual(self.http.told, [[(UDP, "firing")], [(UDP, "repeated")]])

    def test_removed(self) -> None:
        """An alert of a probe that is removed is over; of a healthy one nothing is told."""
        self.fail(UDP)
        self.shown.pass_time(60)
        self.shown.prober.remove(UDP)
        self.shown.prober.remove(TLS)
        self.shown.pass_time(60)
        self.assertEqual(self.http.told, [[(UDP, "firing")], [(UDP, "resolved")]])
        self.assertIn("is not probed any more", self.http.bodies[-1]["text"])
        self.assertEqual(self.alerts._heard.keys(), self.shown.prober.probes.keys())

    def test_removed_for_a_moment(self) -> None:
        """A map that lacks a node for a moment does not end its alert, nor begin it anew."""
        self.fail(UDP)
        self.shown.pass_time(60)
        labels = self.shown.prober.probes[UDP].check.labels
        self.shown.prober.remove(UDP)
        self.shown.pass_time(20)
        self.shown.add(UDP, "derp_udp", labels, error="nothing came back")
        self.shown.pass_time(300)
        self.assertEqual(self.http.told, [[(UDP, "firing")]])

    def test_prober_ends(self) -> None:
        """A prober that ends removes its probes first: nothing is over by that."""
        self.fail(UDP)
        self.shown.pass_time(60)
        self.shown.prober.stop()
        self.shown.pass_time(5)
        self.successResultOf(self.alerts.stopService())
        self.assertEqual(self.http.told, [[(UDP, "firing")]])
        self.assertEqual(list(json.loads(self.state_file.read_bytes())), [UDP])

    def test_continuous(self) -> None:
        """A continuous probe that ends again and again is told, and over when it goes on."""
        labels = {"region": "nyc", "region_id": "1", "hostname": "derp1.example.com"}
        fake = self.shown.add(QD, "derp_qd", labels, interval=-10, error="it was cut")
        self.shown.pass_time(60)
        fake.latency_s = 1e9
        self.shown.pass_time(100)
        self.assertEqual(self.http.told, [[(QD, "firing")], [(QD, "resolved")]])

    def test_probes_do_not_wait(self) -> None:
        """A receiver that says nothing, for ever, holds up no probe."""
        self.http.hangs = True
        self.fail(UDP)
        self.shown.pass_time(1200)
        runs = self.shown.prober.probes[TLS].history.ok_runs
        self.assertEqual(runs, 1 + 1200 // INTERVAL)

    def test_not_delivered(self) -> None:
        """What nobody took for a quarter of an hour is told again while it lasts."""
        self.http.answers = [500] * 30
        self.fail(UDP)
        self.shown.pass_time(2 * DEADLINE_S)
        self.assertEqual(self.http.told[-1], [(UDP, "repeated")])

    def test_stopped(self) -> None:
        """Stopped, it hears nothing any more, and what waits is told at once."""
        self.fail(UDP)
        self.shown.pass_time(2 * INTERVAL - 0.5)
        self.successResultOf(self.alerts.stopService())
        self.assertEqual(self.http.told, [[(UDP, "firing")]])
        self.assertEqual(self.shown.prober.listeners, [])
        self.assertTrue(self.http.closed)


class RestartTests(AlertsCase):
    """What is told after a start."""

    def fail_and_restart(self, errors: str, **more: Any) -> None:
        self.fail(UDP, TLS)
        self.shown.pass_time(300)
        self.assertEqual(len(self.http.requests), 1)
        self.successResultOf(self.alerts.stopService())
        self.begin(self.shown.clock.seconds() + 60, errors=errors, **more)
        self.shown.pass_time(INTERVAL)

    def test_everything_fails_from_the_start(self) -> None:
        """It is told, all of it, in one request."""
        self.begin(errors="no route to host", kept=False)
        self.shown.pass_time(60)
        (told,) = self.http.told
        self.assertEqual({change for _, change in told}, {"firing"})
        self.assertEqual(len(told), 4)

    def test_no_storm(self) -> None:
        """What was told before is not told again; what fails only now is."""
        self.fail_and_restart("nothing came back")
        self.shown.pass_time(300)
        (told,) = self.http.told
        self.assertEqual(sorted(name for name, _ in told), [MESH, "derp/nyc/1a/udp6"])

    def test_recovered_meanwhile(self) -> None:
        """That something works again is told by who did not see it fail."""
        self.fail_and_restart("")
        self.shown.pass_time(300)
        (told,) = self.http.told
        self.assertEqual(sorted(told), [(TLS, "resolved"), (UDP, "resolved")])

    def test_gone_meanwhile(self) -> None:
        """An alert of what does not come back is over after ten minutes."""
        self.fail_and_restart("", node="2a")
        self.shown.pass_time(UNSEEN_S - 60)
        self.assertEqual(self.http.told, [])
        self.shown.pass_time(120)
        (told,) = self.http.told
        self.assertEqual(sorted(told), [(TLS, "resolved"), (UDP, "resolved")])

    def test_without_a_file(self) -> None:
        """Without a file what still fails is told anew, in one request."""
        self.fail_and_restart("nothing came back", kept=False)
        self.shown.pass_time(300)
        self.assertEqual([len(told) for told in self.http.told], [4])

    def test_not_delivered_not_kept(self) -> None:
        """What was never delivered is told after the restart."""
        self.http.hangs = True
        self.fail(UDP)
        self.shown.pass_time(60)
        stopped = self.alerts.stopService()
        self.shown.clock.advance(5)
        self.successResultOf(stopped)
        self.begin(self.shown.clock.seconds(), errors="nothing came back")
        self.shown.pass_time(60)
        self.assertIn((UDP, "firing"), self.http.told[0])

    def test_file(self) -> None:
        """It is private, and empty when nothing fails any more."""
        self.fail(UDP)
        self.shown.pass_time(60)
        self.assertEqual(list(json.loads(self.state_file.read_bytes())), [UDP])
        self.assertEqual(stat.S_IMODE(self.state_file.stat().st_mode), 0o600)
        self.fail(UDP, error="")
        self.shown.pass_time(60)
        self.assertEqual(json.loads(self.state_file.read_bytes()), {})

    def test_broken_file(self) -> None:
        """One that cannot be read is logged, and everything is told as without."""
        for content in (b"", b"[]", b"{", b'{"a": 1}', b"\xff", b'{"a": {"since": {}}}'):
            self.state_file.write_bytes(content)
            self.begin(errors="nothing came back")
            self.shown.pass_time(60)
            self.assertEqual([len(told) for told in self.http.told], [4], content)


class MakeTests(SynchronousTestCase):
    """From flags to the service."""

    def made(self, **flags: Any) -> Alerts:
        shown = ShownProber()
        config = AlertConfig(url="http://127.0.0.1:9/", **flags)
        return make_alerts(shown.clock, shown.prober, config, environ={})

    def test_repeat(self) -> None:
        """Four hours; for Alertmanager, which has to be told again and again, a minute."""
        self.assertEqual(self.made().book._rule.repeat_s, 4 * 3600)
        self.assertEqual(self.made(format="alertmanager").book._rule.repeat_s, 60)
        self.assertEqual(self.made(format="alertmanager", repeat_s=30.0).book._rule.repeat_s, 30)

    def test_refused(self) -> None:
        """Each flag that makes no sense is named."""
        for flag, value in (
            ("--alert-format", {"format": "xml"}),
            ("--alert-failures", {"failures": 0}),
            ("--alert-successes", {"successes": 10**6}),
            ("--alert-repeat", {"repeat_s": 0.0}),
            ("--alert-secret-file", {"secret_file": "/nonexistent"}),
            ("--alert-state-file", {"state_file": "/nonexistent/alerts.json"}),
            ("--alert-state-file", {"state_file": "/dev/null/alerts.json"}),
        ):
            with self.assertRaisesRegex(ConfigError, f"^{flag}"):
                self.made(**value)


class Receiver(Resource):
    """Takes alerts over HTTP."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.came: Deferred[Any] = Deferred()

    def render_POST(self, request: Any) -> bytes:
        headers = request.requestHeaders
        body = request.content.read()
        self.came.callback((headers, body))
        return b"thank you"


class OverHTTPTests(TestCase):
    """With a real receiver."""

    async def test_delivered(self) -> None:
        """A failing probe is told to a server that can check who says so."""
        self.patch(webhook, "GROUP_WAIT_S", 0.0)
        receiver = Receiver()
        port = reactor.listenTCP(0, Site(receiver), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        secret = Path(self.mktemp())
        secret.write_text("0123456789abcdef\n")
        shown = ShownProber()
        config = AlertConfig(
            url=f"http://127.0.0.1:{port.getHost().port}/hook", secret_file=str(secret), failures=1
        )
        alerts = make_alerts(reactor, shown.prober, config, environ={})
        alerts.startService()
        self.addCleanup(alerts.stopService)
        shown.add(TLS, "tls", {"region": "nyc"}, error="it has expired")
        shown.pass_time(1)
        headers, body = await receiver.came.addTimeout(20, reactor)  # type: ignore[arg-type]
        stamp = headers.getRawHeaders("X-Derpprobe-Timestamp")[0]
        wanted = signature(b"0123456789abcdef", stamp, body)
        self.assertEqual(headers.getRawHeaders("X-Derpprobe-Signature"), [wanted])
        self.assertIn("it has expired", json.loads(body)["text"])
