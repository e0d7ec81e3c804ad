"""Tests of :mod:`derp.prober.webhook` and :mod:`derp.prober.alert_message`."""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.core.alert_state import Change, Notice
from derp.errors import ConfigError
from derp.prober import webhook
from derp.prober.alert_message import Alert, encode_alertmanager, encode_webhook, sentence
from derp.prober.webhook import (
    ATTEMPT_S,
    DEADLINE_S,
    GROUP_WAIT_S,
    LAST_S,
    MAX_GROUP,
    Target,
    Webhook,
    check_alert_url,
    read_alert_secret,
)
from tests.prober.hook_fakes import FakeHTTP

NOW = 1_763_719_200.0
SECRET = b"a secret that both sides know"
URL = "https://user:pass@hooks.example.com/T000/secret-path"
LABELS = {
    "name": "derp/nyc/1a/udp6",
    "class": "derp_udp",
    "region": "nyc",
    "region_id": "1",
    "hostname": "derp1.example.com",
    "address_family": "ipv6",
}
PAIR = {**LABELS, "name": "derp/nyc/1a/1b/mesh", "class": "derp_mesh", "address_family": ""}


def alert(name: str = "derp/nyc/1a/udp6", change: Change = Change.FIRING, **more: Any) -> Alert:
    """An alert of a probe."""
    labels = more.pop("labels", LABELS)
    notice = Notice(
        change=change, name=name, since=NOW - 75, at=NOW, reason="nothing came back", **more
    )
    return Alert(notice=notice, labels=labels)


class SentenceTests(SynchronousTestCase):
    """What people read."""

    def test_firing(self) -> None:
        """Node, probe and reason."""
        self.assertEqual(
            sentence(alert()),
            "STUN IPv6 of node 1a (derp1.example.com) in region nyc fails: nothing came back",
        )

    def test_pair(self) -> None:
        """Both nodes of a pair."""
        self.assertEqual(
            sentence(alert("derp/nyc/1a/1b/mesh", labels=PAIR)),
            "Relay from node 1a (derp1.example.com) to node 1b in region nyc fails: "
            "nothing came back",
        )

    def test_other_changes(self) -> None:
        """Since when, for how long, that it flaps, that it is gone."""
        start = "STUN IPv6 of node 1a (derp1.example.com) in region nyc "
        for told, words in (
            (alert(change=Change.REPEATED), "has been failing for 1m15s: nothing came back"),
            (alert(change=Change.RESOLVED), "works again, after 1m15s"),
            (alert(flapping=True), "comes and goes: nothing came back"),
            (
                alert(change=Change.RESOLVED, gone=True),
                "is not probed any more; it had been failing for 1m15s",
            ),
        ):
            self.assertEqual(sentence(told), start + words)

    def test_other_probes(self) -> None:
        """The map's probe is of no node; of one from before a restart only the name is known."""
        derp_map = alert("derpmap-probe", labels={"name": "derpmap-probe", "class": "derp_map"})
        self.assertTrue(sentence(derp_map).startswith("the DERP map probe (derpmap-probe) fails"))
        self.assertTrue(sentence(alert(labels={})).startswith("probe derp/nyc/1a/udp6 fails"))

    def test_hostile(self) -> None:
        """Nothing that a terminal or a chat would obey gets through."""
        labels = {**LABELS, "hostname": "a\x1b[2J\u202eb", "region": "x\ny"}
        text = sentence(alert("derp/x\ny/1a/udp6", labels=labels))
        self.assertTrue(text.isprintable(), text)


class EncodingTests(SynchronousTestCase):
    """What machines read."""

    def test_webhook(self) -> None:
        """The body of Alertmanager's webhook receivers, and the text of chats."""
        body = json.loads(
            encode_webhook("https://probe.example.com")(
                [alert(), alert("derp/nyc/1a/1b/mesh", Change.RESOLVED, labels=PAIR)]
            )
        )
        self.assertEqual((body["version"], body["status"]), ("4", "firing"))
        self.assertEqual(body["externalURL"], "https://probe.example.com")
        first, second = body["alerts"]
        self.assertEqual(
            first["labels"],
            {
                "alertname": "DERPProbeFailing",
                "probe": "derp/nyc/1a/udp6",
                "class": "derp_udp",
                "region": "nyc",
                "region_id": "1",
                "hostname": "derp1.example.com",
                "address_family": "ipv6",
            },
        )
        self.assertEqual(first["annotations"]["reason"], "nothing came back")
        self.assertEqual(first["startsAt"], "2025-11-21T09:58:45.000Z")
        self.assertEqual((first["status"], first["endsAt"]), ("firing", "0001-01-01T00:00:00Z"))
        self.assertEqual(
            (second["status"], second["endsAt"]), ("resolved", "2025-11-21T10:00:00.000Z")
        )
        self.assertNotIn("address_family", second["labels"])
        self.assertNotEqual(first["fingerprint"], second["fingerprint"])
        self.assertEqual(len(body["text"].splitlines()), 3)
        self.assertTrue(body["text"].startswith("DERP probes: 1 failing, 1 over\n"))

    def test_all_resolved(self) -> None:
        """A group is resolved when all in it are."""
        body = json.loads(encode_webhook("")([alert(change=Change.RESOLVED)]))
        self.assertEqual(body["status"], "resolved")

    def test_text_is_bounded(self) -> None:
        """A chat is not told a hundred lines; the alerts are all there."""
        body = json.loads(encode_webhook("")([alert(f"p{n}") for n in range(100)]))
        lines = body["text"].splitlines()
        self.assertEqual((len(lines), lines[-1]), (22, "and 80 more"))
        self.assertEqual(len(body["alerts"]), 100)

    def test_alertmanager(self) -> None:
        """A list of alerts, each with its end: soon, unless it is told again."""
        encode = encode_alertmanager("https://probe.example.com", 600)
        first, second = json.loads(encode([alert(), alert(change=Change.RESOLVED)]))
        self.assertEqual(first["startsAt"], "2025-11-21T09:58:45.000Z")
        self.assertEqual(first["endsAt"], "2025-11-21T10:10:00.000Z")
        self.assertEqual(second["endsAt"], "2025-11-21T10:00:00.000Z")
        self.assertEqual(first["generatorURL"], "https://probe.example.com")
        self.assertEqual(first["labels"], second["labels"])


class WebhookCase(SynchronousTestCase):
    """A webhook and its receiver."""

    def setUp(self) -> None:
        """Nothing is posted yet."""
        self.clock = Clock()
        self.http = FakeHTTP(self.clock)
        self.delivered: list[str] = []
        self.given_up: list[str] = []
        target = Target(url=URL, encode=encode_webhook(""), secret=SECRET)
        http: Any = self.http
        self.hook = Webhook(self.clock, http, target, lambda: NOW + self.clock.seconds())
        self.hook.on_delivered = lambda alerts: self.delivered.extend(self.names(alerts))
        self.hook.on_given_up = lambda alerts: self.given_up.extend(self.names(alerts))

    def names(self, alerts: Sequence[Alert]) -> list[str]:
        return [each.notice.name for each in alerts]

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 8)):
            self.clock.advance(0.125)


class DeliveryTests(WebhookCase):
    """How alerts get there."""

    def test_grouped(self) -> None:
        """What happens within a few seconds is one request."""
        self.hook.put(alert("a"))
        self.pass_time(2)
        self.hook.put(alert("b"))
        self.assertEqual(self.http.requests, [])
        self.pass_time(GROUP_WAIT_S)
        self.assertEqual(self.http.told, [[("a", "firing"), ("b", "firing")]])
        self.assertEqual(self.delivered, ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_request(self) -> None:
        """A POST of JSON to the URL."""
        self.hook.put(alert())
        self.pass_time(GROUP_WAIT_S)
        (request,) = self.http.requests
        self.assertEqual((request.method, request.url), ("POST", URL))
        self.assertEqual(request.headers["Content-Type"], "application/json")
        self.assertRegex(request.headers["User-Agent"], r"^derpprobe/")

    def test_signed(self) -> None:
        """Over the time and the body, as documented."""
        self.hook.put(alert())
        self.pass_time(GROUP_WAIT_S)
        (request,) = self.http.requests
        timestamp = request.headers["X-Derpprobe-Timestamp"]
        self.assertEqual(timestamp, str(int(NOW + GROUP_WAIT_S)))
        wanted = hmac.new(SECRET, timestamp.encode() + b"." + request.body, sha256).hexdigest()
        self.assertEqual(request.headers["X-Derpprobe-Signature"], f"v1={wanted}")

    def test_unsigned(self) -> None:
        """Without a secret there is no signature that would look like one."""
        http: Any = self.http
        hook = Webhook(self.clock, http, Target(url=URL, encode=encode_webhook("")), lambda: NOW)
        hook.put(alert())
        self.pass_time(GROUP_WAIT_S)
        self.assertFalse([key for key in self.http.requests[0].headers if "Derpprobe" in key])

    def test_newest_only(self) -> None:
        """What has changed again before it was told is told as it is."""
        self.hook.put(alert("a"))
        self.hook.put(alert("a", Change.RESOLVED))
        self.pass_time(GROUP_WAIT_S)
        self.assertEqual(self.http.told, [[("a", "resolved")]])

    def test_many(self) -> None:
        """A request is of bounded size; the rest follows at once."""
        for number in range(MAX_GROUP + 5):
            self.hook.put(alert(f"p{number}"))
        self.pass_time(GROUP_WAIT_S)
        self.assertEqual([len(each) for each in self.http.told], [MAX_GROUP, 5])

    def test_too_many(self) -> None:
        """Of more than can wait the oldest are given up, and it is logged."""
        self.patch(webhook, "MAX_WAITING", 3)
        for number in range(5):
            self.hook.put(alert(f"p{number}"))
        self.assertEqual(self.given_up, ["p0", "p1"])
        self.hook.put(alert("p2", Change.RESOLVED))
        self.hook.put(alert("p5"))
        self.assertEqual(self.given_up, ["p0", "p1", "p3"])
        self.pass_time(GROUP_WAIT_S)
        self.assertEqual(self.delivered, ["p4", "p2", "p5"])


class RetryTests(WebhookCase):
    """What follows a failure."""

    def test_again(self) -> None:
        """After 1, 2 and 4 seconds, signed anew each time."""
        self.http.answers = ["connection refused", 500, 429]
        self.hook.put(alert("a"))
        self.pass_time(GROUP_WAIT_S + 10)
        self.assertEqual([at - GROUP_WAIT_S for at in self.http.times], [0, 1, 3, 7])
        self.assertEqual(self.delivered, ["a"])
        stamps = {request.headers["X-Derpprobe-Signature"] for request in self.http.requests}
        self.assertEqual(len(stamps), 4)

    def test_not_again(self) -> None:
        """What the receiver refuses for good is not posted again."""
        for status in (301, 400, 401, 403, 404, 413):
            self.http.answers = [status]
            self.hook.put(alert(str(status)))
            self.pass_time(GROUP_WAIT_S + 120)
            self.assertEqual(self.given_up.pop(), str(status))
        self.assertEqual(len(self.http.requests), 6)

    def test_retry_after(self) -> None:
        """A receiver may ask for more time, within reason."""
        self.http.answers, self.http.retry_after = [503], b"30"
        self.hook.put(alert("a"))
        self.pass_time(GROUP_WAIT_S + 29)
        self.assertEqual(len(self.http.requests), 1)
        self.pass_time(2)
        self.assertEqual(self.delivered, ["a"])
        self.http.answers, self.http.retry_after = [503], b"999999"
        self.hook.put(alert("b"))
        self.pass_time(GROUP_WAIT_S + 301)
        self.assertEqual(self.delivered, ["a", "b"])

    def test_given_up(self) -> None:
        """After a quarter of an hour it is given up; the pauses were a minute at most."""
        self.http.answers = [500] * 1000
        self.hook.put(alert("a"))
        self.pass_time(GROUP_WAIT_S + DEADLINE_S - 70)
        self.assertEqual(self.given_up, [])
        self.pass_time(70)
        self.assertEqual(self.given_up, ["a"])
        self.assertIn(len(self.http.requests), range(18, 24))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_answer(self) -> None:
        """A receiver that says nothing has ten seconds."""
        self.http.hangs = True
        self.hook.put(alert("a"))
        self.pass_time(GROUP_WAIT_S + ATTEMPT_S)
        self.http.hangs = False
        self.pass_time(2)
        self.assertEqual(self.delivered, ["a"])

    def test_overtaken(self) -> None:
        """What has changed while it could not be told is told as it is now."""
        self.http.answers = [500]
        self.hook.put(alert("a"))
        self.pass_time(GROUP_WAIT_S + 0.2)
        self.hook.put(alert("a", Change.RESOLVED))
        self.hook.put(alert("b"))
        self.pass_time(2)
        self.assertEqual(self.http.told[1:], [[("a", "resolved")], [("b", "firing")]])


class StopTests(WebhookCase):
    """The end."""

    def test_idle(self) -> None:
        """Nothing to wait for."""
        self.successResultOf(self.hook.stop())
        self.assertTrue(self.http.closed)

    def test_waiting(self) -> None:
        """What waits for its group is posted at once."""
        self.hook.put(alert("a"))
        self.successResultOf(self.hook.stop())
        self.assertEqual(self.delivered, ["a"])
        self.assertTrue(self.http.closed)
        self.hook.put(alert("b"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failing(self) -> None:
        """What fails now is not posted again."""
        self.http.answers = [500, 500, 500]
        self.hook.put(alert("a"))
        self.pass_time(GROUP_WAIT_S)
        self.successResultOf(self.hook.stop())
        self.assertEqual(self.given_up, ["a"])
        self.assertEqual(len(self.http.requests), 2)

    def test_hanging(self) -> None:
        """A receiver that says nothing holds nobody up for long."""
        self.http.hangs = True
        self.hook.put(alert("a"))
        self.pass_time(GROUP_WAIT_S)
        stopped = self.hook.stop()
        self.assertNoResult(stopped)
        self.pass_time(LAST_S + 0.125)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SettingsTests(SynchronousTestCase):
    """URL and secret."""

    def test_urls(self) -> None:
        """What can be posted to."""
        for url in ("http://127.0.0.1:9093/api/v2/alerts", URL, "https://[::1]/x?y=z"):
            self.assertEqual(check_alert_url(url), url)
        for url in ("", "ftp://a/", "https://", "hooks.example.com", "http://a:0/", "http://a b/"):
            with self.assertRaisesRegex(ConfigError, "^--alert-url"):
                check_alert_url(url)

    def test_secret_stays(self) -> None:
        """Neither errors nor logs show what may be a password: of a URL only its host."""
        target = Target(url=URL, encode=encode_webhook(""), secret=SECRET)
        self.assertEqual(target.label, "https://hooks.example.com")
        self.assertNotIn("secret", repr(target).replace("secret-path", ""))
        with self.assertRaises(ConfigError) as caught:
            check_alert_url("https://user:hunter2@/x")
        self.assertNotIn("hunter2", str(caught.exception))

    def test_secret_file(self) -> None:
        """White space around it is not part of the secret."""
        path = Path(self.mktemp())
        path.write_bytes(SECRET + b"\n")
        self.assertEqual(read_alert_secret(str(path)), SECRET)

    def test_bad_secret_files(self) -> None:
        """One that is missing, empty, or guessed at once, is refused with the cure."""
        path = Path(self.mktemp())
        with self.assertRaisesRegex(ConfigError, "--alert-secret-file: cannot read"):
            read_alert_secret(str(path))
        for content in (b"", b"\n", b"short", b"x" * 5000):
            path.write_bytes(content)
            with self.assertRaisesRegex(ConfigError, "openssl rand -hex 32"):
                read_alert_secret(str(path))
