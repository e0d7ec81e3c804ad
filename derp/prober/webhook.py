"""
Post alerts to a URL: together, signed, again and again until they were taken, and never so that
a probe waits for it.

With a secret each request is signed, the time included so that nobody can send it again later::

   X-Derpprobe-Timestamp: 1763718000
   X-Derpprobe-Signature: v1=<hex of HMAC-SHA256(secret, timestamp + "." + body)>

=================================  =====================================================
answer                             what follows
=================================  =====================================================
2xx                                it is delivered
408, 425, 429, 5xx, or no answer   again after 1 s, 2 s, 4 s… at most 60 s, or as
                                   ``Retry-After`` says; given up after 15 minutes
anything else                      given up at once: it would not be taken later, either
=================================  =====================================================
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from derp import __version__
from derp.durations import format_duration
from derp.errors import ConfigError
from derp.net.bounded_http import Head, NoAnswer, shortened
from derp.net.outgoing_http import OutgoingHTTP
from derp.prober.alert_message import Alert, Encoder
from derp.quoting import quoted

log = Logger(namespace="derp")

GROUP_WAIT_S: Final = 5.0
"""What changes within so many seconds is posted together."""
MAX_GROUP: Final = 100
"""Alerts in one request."""
MAX_WAITING: Final = 5000
"""Probes whose alerts wait; of more the oldest are given up."""
ATTEMPT_S: Final = 10.0
DEADLINE_S: Final = 900.0
BACKOFF_S: Final = 1.0
MAX_BACKOFF_S: Final = 60.0
MAX_RETRY_AFTER_S: Final = 300.0
LAST_S: Final = 3.0
"""For what is still under way when we stop."""
_MAX_SECRET: Final = 4096
_AGAIN: Final = frozenset((408, 425, 429))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where alerts go."""

    url: str
    encode: Encoder
    secret: bytes = field(default=b"", repr=False)

    @property
    def label(self) -> str:
        """The URL for a log: without its path, which of many services is the password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def check_alert_url(url: str) -> str:
    """
    Let a URL through.

    :raises ConfigError: if nothing can be posted there.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and url.isprintable() and url.isascii() and " " not in url
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            "--alert-url is no URL that alerts can be posted to: give an http:// or https:// URL"
        )
    return url


def read_alert_secret(path: str) -> bytes:
    """
    Read ``--alert-secret-file``; white space around the secret is not part of it.

    :raises ConfigError: if there is none in it.
    """
    try:
        with open(path, "rb") as file:
            secret = file.read(_MAX_SECRET + 1).strip()
    except OSError as error:
        raise ConfigError(
            f"--alert-secret-file: cannot read {quoted(path)} ({error.strerror}): "
            "name a file that this user may read"
        ) from None
    if not 16 <= len(secret) <= _MAX_SECRET:
        raise ConfigError(
            f"--alert-secret-file: {quoted(path)} holds no secret of 16 to {_MAX_SECRET} "
            "characters: write one with openssl rand -hex 32"
        )
    return secret


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Give the value of ``X-Derpprobe-Signature``."""
    return "v1=" + hmac.new(secret, timestamp.encode("ascii") + b"." + body, sha256).hexdigest()


class Webhook:
    """
    Delivers alerts to one URL, one request at a time.

    Of each probe only the newest alert waits: what has changed again is told as it is now.

    :param wall_time: Unix seconds, for signatures.
    :ivar on_delivered: called with alerts that were taken.
    :ivar on_given_up: called with alerts that will not be posted any more.
    """

    def __init__(
        self, reactor: Any, http: OutgoingHTTP, target: Target, wall_time: Callable[[], float]
    ) -> None:
        self.on_delivered: Callable[[Sequence[Alert]], object] = lambda alerts: None
        self.on_given_up: Callable[[Sequence[Alert]], object] = lambda alerts: None
        self.delivered = self.given_up = self.attempts = 0
        self._reactor = reactor
        self._http = http
        self._target = target
        self._wall_time = wall_time
        self._waiting: dict[str, Alert] = {}
        self._work: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None
        self._stopping = False

    def put(self, alert: Alert) -> None:
        """Have an alert delivered."""
        if self._stopping:
            return
        name = alert.notice.name
        self._waiting.pop(name, None)
        self._waiting[name] = alert
        if len(self._waiting) > MAX_WAITING:
            oldest = self._waiting.pop(next(iter(self._waiting)))
            self._give_up([oldest], "too many others are waiting")
        if self._work is None:
            self._work = Deferred.fromCoroutine(self._deliver_all())
            self._work.addErrback(self._broken)

    def stop(self) -> Deferred[None]:
        """Try once more to deliver what is waiting; fires within :data:`LAST_S` seconds."""
        self._stopping = True
        if self._pause is not None:
            self._pause.cancel()
        work = self._work
        if work is None:
            return self._http.close()
        deadline = self._reactor.callLater(LAST_S, work.cancel)

        def ended(_: object) -> Deferred[None]:
            if deadline.active():
                deadline.cancel()
            return self._http.close()

        return work.addBoth(ended)

    # -- inside ----------------------------------------------------------------------------

    async def _deliver_all(self) -> None:
        try:
            await self._wait(GROUP_WAIT_S)
            while self._waiting:
                names = list(self._waiting)[:MAX_GROUP]
                await self._deliver([self._waiting.pop(name) for name in names])
        finally:
            self._work = None

    async def _deliver(self, alerts: list[Alert]) -> None:
        give_up_at = self._reactor.seconds() + DEADLINE_S
        backoff = BACKOFF_S
        while True:
            problem, again, asked_s = await self._attempt(alerts)
            if not problem:
                self.delivered += len(alerts)
                self.on_delivered(alerts)
                return
            pause = max(backoff, asked_s)
            if not again or self._stopping or self._reactor.seconds() + pause > give_up_at:
                self._give_up(alerts, problem)
                return
            log.info(
                "--alert-url: {target}: {problem}; again in {pause}",
                target=self._target.label,
                problem=problem,
                pause=format_duration(pause),
            )
            await self._wait(pause)
            backoff = min(backoff * 2, MAX_BACKOFF_S)
            # What is not true any more need not be told first.
            alerts = [self._waiting.pop(alert.notice.name, alert) for alert in alerts]

    async def _attempt(self, alerts: Sequence[Alert]) -> tuple[str, bool, float]:
        """
        Post once.

        :returns: what went wrong (nothing, if it was taken), whether it may go better later,
            and in how many seconds by the receiver's own word.
        """
        self.attempts += 1
        posting = Deferred.fromCoroutine(self._post(self._target.encode(alerts)))
        posting.addTimeout(ATTEMPT_S, self._reactor)
        try:
            head = await posting
        except NoAnswer as error:
            return str(error), True, 0.0
        except CancelledError:
            raise
        except Exception as error:  # TimeoutError among them
            what = str(error) or type(error).__name__
            return f"no answer: {shortened(what)}", True, 0.0
        status = head.status
        if 200 <= status < 300:
            return "", False, 0.0
        again = status in _AGAIN or status >= 500
        return f"answered {head.status_line}", again, _retry_after(head) if again else 0.0

    async def _post(self, body: bytes) -> Head:
        headers = {"Content-Type": "application/json", "User-Agent": f"derpprobe/{__version__}"}
        if self._target.secret:
            timestamp = str(int(self._wall_time()))
            headers["X-Derpprobe-Timestamp"] = timestamp
            headers["X-Derpprobe-Signature"] = signature(self._target.secret, timestamp, body)
        head = await self._http.send("POST", self._target.url, headers, body)
        await head.drop()
        return head

    async def _wait(self, seconds: float) -> None:
        if self._stopping:
            return
        self._pause = deferLater(self._reactor, seconds, lambda: None)
        try:
            await self._pause
        except CancelledError:
            if not self._stopping:
                raise
        finally:
            self._pause = None

    def _give_up(self, alerts: Sequence[Alert], why: str) -> None:
        self.given_up += len(alerts)
        log.error(
            "--alert-url: {target}: {count} alerts could not be told: {why}",
            target=self._target.label,
            count=len(alerts),
            why=why,
        )
        self.on_given_up(alerts)

    def _broken(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("posting alerts failed", failure)


def _retry_after(head: Head) -> float:
    """What the receiver asks for, in seconds; dates are not read."""
    values = head.response.headers.getRawHeaders(b"Retry-After") or [b""]
    text = values[0].strip()
    return min(float(text), MAX_RETRY_AFTER_S) if text.isdigit() and len(text) < 10 else 0.0
