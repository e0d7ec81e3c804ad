"""
The service that tells of failing probes: it hears of every run, and posts what lasts.

What the receiver was told last is kept in ``--alert-state-file``, if one is named. Without it a
prober that starts anew tells of what still fails, in one request; with it that is not told a
second time, and what has recovered meanwhile is told.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from derp.core.alert_state import AlertBook, AlertRule, AlertState, Change, Notice
from derp.errors import ConfigError
from derp.net.outgoing_http import OutgoingHTTP
from derp.net.private_files import write_file
from derp.prober.alert_message import Alert, encode_alertmanager, encode_webhook
from derp.prober.probe_view import state_of
from derp.prober.webhook import Target, Webhook, check_alert_url, read_alert_secret
from derp.quoting import quoted

log = Logger(namespace="derp")

REPEAT_S: Final = 4 * 3600.0
ALERTMANAGER_REPEAT_S: Final = 60.0
"""Alertmanager has to hear of an alert again and again, and tells people by its own rules."""
ROUND_S: Final = 15.0
"""How often a continuous probe that runs counts as a success, and what is gone is looked for."""
GONE_S: Final = 30.0
"""
A probe that was removed has so long to come back before its alert is over: a map may be wrong
for a moment, and a prober that ends removes all of them.
"""
UNSEEN_S: Final = 600.0
"""After a restart a probe has so long to be there again, then its alert is over."""
FORMATS: Final = ("json", "alertmanager")

_MAX_STATE: Final = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertConfig:
    """The flags about alerts; there are none without ``url``."""

    url: str = ""
    format: str = "json"
    """``json`` or ``alertmanager``, see :mod:`derp.prober.alert_message`."""
    secret_file: str = ""
    failures: int = 2
    successes: int = 2
    repeat_s: float | None = None
    """Seconds; without it 4 h, and 1 min for Alertmanager."""
    state_file: str = ""
    page_url: str = ""
    """Where people reach the status page, for links to it."""


def make_alerts(
    reactor: Any,
    prober: Any,
    config: AlertConfig,
    *,
    environ: Mapping[str, str],
    wall_time: Callable[[], float] = time.time,
) -> Alerts:
    """
    Make the service from flags.

    :param environ: names the proxy to use, if there is one.
    :raises ConfigError: if one of them cannot be used.
    """
    if config.format not in FORMATS:
        raise ConfigError(
            f"--alert-format: {quoted(config.format)} is unknown: say json or alertmanager"
        )
    for flag, value in (
        ("--alert-failures", config.failures),
        ("--alert-successes", config.successes),
    ):
        if not 1 <= value <= 1000:
            raise ConfigError(f"{flag}: {value} is no usable number of runs: give 1 to 1000")
    alertmanager = config.format == "alertmanager"
    repeat_s = config.repeat_s
    if repeat_s is None:
        repeat_s = ALERTMANAGER_REPEAT_S if alertmanager else REPEAT_S
    if repeat_s < 1:
        raise ConfigError("--alert-repeat is shorter than a second: give a duration such as 4h")
    rule = AlertRule(failures=config.failures, successes=config.successes, repeat_s=repeat_s)
    encode = encode_webhook(config.page_url)
    if alertmanager:
        encode = encode_alertmanager(config.page_url, rule.calm_s + 4 * repeat_s)
    target = Target(
        url=check_alert_url(config.url),
        encode=encode,
        secret=read_alert_secret(config.secret_file) if config.secret_file else b"",
    )
    webhook = Webhook(reactor, OutgoingHTTP(reactor, environ), target, wall_time)
    state = _state_file(config.state_file) if config.state_file else None
    return Alerts(reactor, prober, webhook, rule, wall_time=wall_time, state_file=state)


def _state_file(path: str) -> Path:
    """See that the file could be written: the first alert is too late to find that out."""
    directory = Path(path).absolute().parent
    if not (directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)):
        raise ConfigError(
            f"--alert-state-file: {quoted(str(directory))} is no directory that this user may "
            "write to: make it, or name another place"
        )
    return Path(path)


class Alerts(Service):
    """
    Watches the probes of a prober.

    :param webhook: what posts.
    :param wall_time: Unix seconds, as in the probes' histories.
    """

    name = "alerts"

    def __init__(
        self,
        reactor: Any,
        prober: Any,
        webhook: Webhook,
        rule: AlertRule,
        *,
        wall_time: Callable[[], float],
        state_file: Path | None = None,
    ) -> None:
        self.book = AlertBook(rule)
        self._reactor = reactor
        self._prober = prober
        self._webhook = webhook
        self._wall_time = wall_time
        self._state_file = state_file
        self._told: dict[str, dict[str, Any]] = {}
        self._heard: dict[str, int] = {}
        """How many runs of a probe were over when it was heard of last."""
        self._gone: dict[str, tuple[float, Any]] = {}
        """Probes that were removed while an alert was firing: when, and their labels."""
        self._unseen: IDelayedCall | None = None
        self._rounds = LoopingCall(self._round)
        self._rounds.clock = reactor
        webhook.on_delivered = self._delivered
        webhook.on_given_up = self._given_up

    def startService(self) -> None:
        """Begin to listen to the prober."""
        super().startService()
        self._restore()
        self._prober.listeners.append(self.hear)
        self._rounds.start(ROUND_S, now=False).addErrback(self._broken)
        if self.book.firing():
            self._unseen = self._reactor.callLater(UNSEEN_S, self._drop_unseen)

    def stopService(self) -> Deferred[None]:
        """Listen no more; fires when what was under way is posted, or its time is up."""
        super().stopService()
        if self.hear in self._prober.listeners:
            self._prober.listeners.remove(self.hear)
        if self._rounds.running:
            self._rounds.stop()
        if self._unseen is not None and self._unseen.active():
            self._unseen.cancel()
        return self._webhook.stop()

    def hear(self, probe: Any) -> None:
        """Note what became of a probe; a listener of the prober."""
        if probe.removed:
            self._heard.pop(probe.name, None)
            if probe.name in self.book.firing():
                self._gone[probe.name] = self._reactor.seconds(), probe.labels
            else:
                self.book.forget(probe.name, self._wall_time())
            return
        history = probe.history
        runs = history.ok_runs + history.failed_runs
        if runs == self._heard.get(probe.name, 0) or not history.results:
            return
        self._heard[probe.name] = runs
        self._observe(probe, succeeded=history.results[-1], reason=history.error)

    # -- inside ----------------------------------------------------------------------------

    def _observe(self, probe: Any, *, succeeded: bool, reason: str = "") -> None:
        notice = self.book.observe(
            probe.name, succeeded=succeeded, now=self._wall_time(), reason=reason
        )
        self._tell(notice, probe.labels)

    def _tell(self, notice: Notice | None, labels: Any) -> None:
        if notice is not None:
            self._webhook.put(Alert(notice=notice, labels=dict(labels)))

    def _round(self) -> None:
        # Continuous probes end only by failing: that they go on is all the success they have.
        now = self._wall_time()
        for probe in list(self._prober.probes.values()):
            if probe.interval < 0 and probe.history.running and state_of(probe) == "ok":
                self._observe(probe, succeeded=True)
        for name, (removed_at, labels) in list(self._gone.items()):
            if name in self._prober.probes:
                del self._gone[name]
            elif self._reactor.seconds() - removed_at >= GONE_S:
                del self._gone[name]
                self._tell(self.book.forget(name, now), labels)

    def _drop_unseen(self) -> None:
        for name in self.book.firing():
            if name not in self._prober.probes and name not in self._gone:
                self._tell(self.book.forget(name, self._wall_time()), {})

    def _delivered(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            notice = alert.notice
            if notice.change is Change.RESOLVED:
                self._told.pop(notice.name, None)
            else:
                self._told[notice.name] = AlertState.told(notice)
        self._save()

    def _given_up(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            self.book.untold(alert.notice.name)

    def _broken(self, failure: Failure) -> None:
        log.failure("looking after alerts failed", failure)

    def _save(self) -> None:
        if self._state_file is None:
            return
        try:
            write_file(self._state_file, json.dumps(self._told, indent=1).encode("ascii"))
        except OSError as error:
            log.error("--alert-state-file: it cannot be written: {error}", error=error)

    def _restore(self) -> None:
        if self._state_file is None:
            return
        try:
            with open(self._state_file, "rb") as file:
                told = json.loads(file.read(_MAX_STATE))
            self.book.restore(told)
            self._told = told
        except FileNotFoundError:
            return
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            log.error(
                "--alert-state-file: {path} cannot be read, what still fails is told again: "
                "{error}",
                path=quoted(str(self._state_file)),
                error=error,
            )
