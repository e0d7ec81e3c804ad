"""
What an alert says, and the two forms it is posted in.

``json`` is the body that Alertmanager sends to webhook receivers (version 4 of it), so that what
reads those reads ours; ``text`` on top of it is all that most chat services look for.
``alertmanager`` is what Alertmanager itself takes at ``/api/v2/alerts``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from derp.core.alert_state import Change, Notice
from derp.durations import format_duration
from derp.prober.probe_view import MAX_SENTENCE, nodes_of, shown, title_of

ALERT_NAME: Final = "DERPProbeFailing"
VERSION: Final = "4"
MAX_TEXT_LINES: Final = 20

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_ENDED: Final = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A notice, and what the probe is about."""

    notice: Notice
    labels: Mapping[str, str] = field(default_factory=dict)
    """Those of the probe; none, if it was only known from before a restart."""

    @property
    def status(self) -> str:
        """``firing`` or ``resolved``."""
        return "resolved" if self.notice.change is Change.RESOLVED else "firing"


Encoder = Callable[[Sequence[Alert]], bytes]


def sentence(alert: Alert) -> str:
    """Tell what happened: node, probe, reason."""
    notice = alert.notice
    what = subject(notice.name, alert.labels)
    lasted = format_duration(max(0, round(notice.at - notice.since)))
    if notice.gone:
        return f"{what} is not probed any more; it had been failing for {lasted}"
    if notice.change is Change.RESOLVED:
        return f"{what} works again, after {lasted}"
    reason = shown(notice.reason, MAX_SENTENCE)
    if notice.change is Change.REPEATED:
        return f"{what} has been failing for {lasted}: {reason}"
    if notice.flapping:
        return f"{what} comes and goes: {reason}"
    return f"{what} fails: {reason}"


def text_of(alerts: Sequence[Alert]) -> str:
    """Tell several alerts, a line each, with a headline; of very many only the first."""
    lines = [sentence(alert) for alert in alerts]
    if len(lines) == 1:
        return lines[0]
    failing = sum(alert.status == "firing" for alert in alerts)
    counts = ((failing, "failing"), (len(lines) - failing, "over"))
    headline = "DERP probes: " + ", ".join(f"{n} {what}" for n, what in counts if n)
    if len(lines) > MAX_TEXT_LINES:
        lines = [*lines[:MAX_TEXT_LINES], f"and {len(lines) - MAX_TEXT_LINES} more"]
    return "\n".join([headline, *lines])


def subject(name: str, labels: Mapping[str, str]) -> str:
    """
    Name what is probed: ``STUN IPv6 of node 1a (derp1.example.com) in region nyc``.

    :param name: the probe's own name, for one whose labels are not known.
    """
    probe_class = labels.get("class", "")
    if not probe_class:
        return f"probe {shown(name)}"
    title = title_of(probe_class, labels)
    region = labels.get("region", "")
    source, destination = nodes_of(name, probe_class, region)
    if not source:
        return f"the {title} probe ({shown(name)})"
    host = f" ({shown(labels['hostname'])})" if labels.get("hostname") else ""
    place = f"node {shown(source)}{host}"
    if destination and destination != source:
        return f"{title} from {place} to node {shown(destination)} in region {shown(region)}"
    return f"{title} of {place} in region {shown(region)}"


def encode_webhook(page_url: str) -> Encoder:
    """Make the encoder of ``json``; ``page_url`` is where people find the status page."""

    def encode(alerts: Sequence[Alert]) -> bytes:
        body = {
            "version": VERSION,
            "groupKey": f'{{}}:{{alertname="{ALERT_NAME}"}}',
            "truncatedAlerts": 0,
            "status": "firing" if any(a.status == "firing" for a in alerts) else "resolved",
            "receiver": "derpprobe",
            "groupLabels": {"alertname": ALERT_NAME},
            "commonLabels": {"alertname": ALERT_NAME},
            "commonAnnotations": {},
            "externalURL": page_url,
            "alerts": [_webhook_alert(alert, page_url) for alert in alerts],
            "text": text_of(alerts),
        }
        return json.dumps(body, separators=(",", ":")).encode("ascii")

    return encode


def encode_alertmanager(page_url: str, lasts_s: float) -> Encoder:
    """
    Make the encoder of ``alertmanager``.

    :param lasts_s: after so many seconds without a word from us an alert is over. It has to
        be longer than the repeat interval.
    """

    def encode(alerts: Sequence[Alert]) -> bytes:
        body = []
        for alert in alerts:
            over = alert.status == "resolved"
            entry = _entry(alert, page_url)
            entry["endsAt"] = _rfc3339(alert.notice.at + (0.0 if over else lasts_s))
            body.append(entry)
        return json.dumps(body, separators=(",", ":")).encode("ascii")

    return encode


def _webhook_alert(alert: Alert, page_url: str) -> dict[str, Any]:
    over = alert.status == "resolved"
    return {
        "status": alert.status,
        **_entry(alert, page_url),
        "endsAt": _rfc3339(alert.notice.at) if over else _NOT_ENDED,
        "fingerprint": sha256(alert.notice.name.encode("utf-8", "replace")).hexdigest()[:16],
    }


def _entry(alert: Alert, page_url: str) -> dict[str, Any]:
    """What both forms have in common."""
    notice = alert.notice
    own = {key: shown(value) for key, value in alert.labels.items() if value and key != "name"}
    entry: dict[str, Any] = {
        "labels": {"alertname": ALERT_NAME, "probe": shown(notice.name, 400), **own},
        "annotations": {
            "summary": sentence(alert),
            "reason": shown(notice.reason, MAX_SENTENCE),
            "change": notice.change.value,
        },
        "startsAt": _rfc3339(notice.since),
    }
    if page_url:
        entry["generatorURL"] = page_url
    return entry


def _rfc3339(unix: float) -> str:
    time = _EPOCH + timedelta(milliseconds=round(unix * 1000))
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"
