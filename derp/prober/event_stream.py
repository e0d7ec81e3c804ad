"""
``/events``: what changes, as it changes (server-sent events, WHATWG HTML §9.2).

============  ==============================================================================
event         data, JSON
============  ==============================================================================
``snapshot``  everything, see :mod:`derp.prober.snapshot`; first, and when probes came or went
``probes``    ``now``, ``summary``, the views of the probes that changed, with the end of
              their sparklines, and ``failures``, if there is a new one
``tick``      ``now``; when nothing else was sent for 10 s, so that both sides notice a
              connection that is none any more
============  ==============================================================================

Changes are gathered for a second and are encoded once for all listeners. Who does not read
misses changes, is sent a snapshot when there is room again, and is dropped after a minute: no
more than one message is ever kept for anybody. A reconnecting browser names the last event it
saw; it gets a snapshot like everyone else. While nobody listens, nothing ticks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from derp.net.answers import plain_error
from derp.prober.probe_view import changed_view
from derp.prober.snapshot import Views, last_failures, snapshot, summary

log = Logger(namespace="derp")

GATHER_S: Final = 1.0
TICK_S: Final = 10.0
STALLED_S: Final = 60.0
MAX_LISTENERS: Final = 128
MAX_PER_HOST: Final = 16
_RETRY_MS: Final = 3000


class LiveView:
    """
    What all viewers of a prober share: views of its probes as they are now, and the streams.

    :param wall_time: Unix seconds, as in the probes' histories.
    """

    def __init__(self, reactor: Any, prober: Any, wall_time: Callable[[], float]) -> None:
        self.streams: list[Stream] = []
        self._reactor = reactor
        self._prober = prober
        self._wall_time = wall_time
        self._views = Views()
        self._changed: set[str] = set()
        self._arranged: set[str] = set()
        """The probes of the last snapshot that was sent."""
        self._failed_runs = 0
        """Of all probes there are, when their last failures were told."""
        self._latest: tuple[float, dict[str, Any]] | None = None
        self._text = ""
        self._number = 0
        self._rounds = LoopingCall(self._round)
        self._rounds.clock = reactor
        self._ticked_at = 0.0
        prober.listeners.append(self.hear)

    def hear(self, probe: Any) -> None:
        """Note that a probe is not what it was; a listener of the prober."""
        self._latest = None
        self._views.spoil(probe)
        if probe.removed:
            self._failed_runs -= probe.history.failed_runs
        if self.streams:
            self._changed.add(probe.name)

    def snapshot(self) -> dict[str, Any]:
        """Describe everything; the same description for up to a second."""
        now = self._reactor.seconds()
        if self._latest is None or now - self._latest[0] >= GATHER_S:
            self._forget_moving()
            self._latest = now, snapshot(self._prober, self._wall_time(), self._views)
            self._text = ""
        return self._latest[1]

    def snapshot_text(self) -> str:
        """The same as JSON, in ASCII on one line."""
        current = self.snapshot()
        if not self._text:
            self._text = _json(current)
        return self._text

    def add(self, stream: Stream) -> None:
        """Begin to tell somebody."""
        self.streams.append(stream)
        stream.tell(self.snapshot_event())
        if not self._rounds.running:
            self._changed.clear()
            self._ticked_at = self._reactor.seconds()
            self._rounds.start(GATHER_S, now=False).addErrback(
                lambda failure: log.failure("telling viewers failed", failure)
            )

    def discard(self, stream: Stream) -> None:
        """Somebody has gone."""
        if stream in self.streams:
            self.streams.remove(stream)
        if not self.streams and self._rounds.running:
            self._rounds.stop()
            self._changed.clear()

    def has_room_for(self, host: str) -> bool:
        """Whether one more may listen from there."""
        of_host = sum(stream.host == host for stream in self.streams)
        return len(self.streams) < MAX_LISTENERS and of_host < MAX_PER_HOST

    def snapshot_event(self) -> bytes:
        """The event that makes whatever came before irrelevant."""
        text = self.snapshot_text()
        self._arranged = set(self.snapshot()["probes"])
        return self._event("snapshot", text)

    # -- inside ----------------------------------------------------------------------------

    def _forget_moving(self) -> None:
        """Continuous probes find things, and settle, without any event."""
        for name, probe in self._prober.probes.items():
            if probe.interval < 0:
                self._views.spoil(probe)
                self._changed.add(name)

    def _round(self) -> None:
        now = self._reactor.seconds()
        for stream in list(self.streams):
            stream.check(now)
        ticking = now - self._ticked_at >= TICK_S
        if ticking:
            self._forget_moving()
        if self._changed and self._arranged != set(self._prober.probes):
            message = self.snapshot_event()
        elif self._changed:
            message = self._changes_event()
        elif ticking:
            message = self._event("tick", _json({"now": self._wall_time()}))
        else:
            return
        self._changed.clear()
        self._ticked_at = now
        for stream in list(self.streams):
            stream.tell(message)

    def _changes_event(self) -> bytes:
        now = self._wall_time()
        probes = self._prober.probes
        views = self._views.of(probes)
        data = {
            "now": now,
            "summary": summary(views.values()),
            "probes": [
                changed_view(views[name]) for name in sorted(self._changed) if name in views
            ],
        }
        failed_runs = sum(probe.history.failed_runs for probe in probes.values())
        if failed_runs != self._failed_runs:
            self._failed_runs = failed_runs
            data["failures"] = last_failures(probes.values(), views)
        return self._event("probes", _json(data))

    def _event(self, kind: str, text: str) -> bytes:
        self._number += 1
        return f"event: {kind}\nid: {self._number}\ndata: {text}\n\n".encode("ascii")


def _json(data: object) -> str:
    return json.dumps(data, separators=(",", ":"))


@implementer(IPushProducer)
class Stream:
    """One listener. It ends with its connection."""

    def __init__(self, live: LiveView, reactor: Any, request: Any) -> None:
        self.host: str = getattr(request.getClientAddress(), "host", "") or ""
        self._live = live
        self._reactor = reactor
        self._request = request
        self._paused_at: float | None = None
        self._missed = False
        self._ended = False

    def start(self) -> None:
        """Send what is, then what changes."""
        deadlines = getattr(self._request.channel, "deadlines", None)
        if deadlines is not None:
            deadlines.stop()  # an answer without end; check() watches over it instead
        self._request.notifyFinish().addBoth(self._gone)
        self._request.registerProducer(self, True)
        self._request.write(f": derpprobe\nretry: {_RETRY_MS}\n\n".encode("ascii"))
        self._live.add(self)

    def tell(self, message: bytes) -> None:
        """Send a message, unless those before it were not read yet."""
        if self._paused_at is None and not self._ended:
            self._request.write(message)
        else:
            self._missed = True

    def check(self, now: float) -> None:
        """Drop a listener that does not read."""
        if self._paused_at is not None and now - self._paused_at >= STALLED_S:
            self._request.transport.abortConnection()
            self._gone(None)

    def _gone(self, _: object) -> None:
        self._ended = True
        self._live.discard(self)

    def pauseProducing(self) -> None:
        """See ``IPushProducer``: there is no room for more."""
        if self._paused_at is None:
            self._paused_at = self._reactor.seconds()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``: all was read."""
        self._paused_at = None
        if self._missed and not self._ended:
            self._missed = False
            self._request.write(self._live.snapshot_event())

    def stopProducing(self) -> None:
        """See ``IProducer``: the connection is lost."""
        self._gone(None)


class EventPage(Resource):
    """Starts a stream for everybody who asks."""

    isLeaf = True

    def __init__(self, reactor: Any, live: LiveView) -> None:
        super().__init__()
        self._reactor = reactor
        self._live = live

    def render_GET(self, request: Any) -> bytes | int:
        """Answer without end; HEAD gets the head of it."""
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"X-Content-Type-Options", b"nosniff")
        host = getattr(request.getClientAddress(), "host", "") or ""
        if not self._live.has_room_for(host):
            request.setHeader(b"Retry-After", b"30")
            return plain_error(request, 503, "too many are watching: close a page, or wait")
        request.setHeader(b"Content-Type", b"text/event-stream; charset=utf-8")
        request.setHeader(b"X-Accel-Buffering", b"no")  # nginx would keep events back
        if request.method == b"HEAD":
            return b""
        Stream(self._live, self._reactor, request).start()
        done: int = NOT_DONE_YET
        return done
