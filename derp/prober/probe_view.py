"""
One probe as the status page shows it: plain values only, ready for JSON.

Times are Unix seconds, spans are seconds, latencies milliseconds. What comes from a DERP map or
from a server is shortened and freed of characters that a screen would obey; it is **not** escaped
for HTML.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from statistics import median
from typing import Any, Final

BUCKET_S: Final = 300
"""One point of a sparkline: 72 of them are the six hours that a history keeps."""
TAIL: Final = 2
"""Points that a change can have touched: the newest, and the one before it."""
PERCENTILES: Final = (50, 95, 99)
MAX_NAME: Final = 120
MAX_SENTENCE: Final = 600
CONTINUOUS_SETTLED_S: Final = 30.0
"""A continuous probe that has run so long is well: its set-up alone ends within 12 s."""

TITLES: Final[Mapping[str, str]] = {
    "derp_map": "DERP map",
    "tls": "TLS",
    "derp_udp": "STUN",
    "derp_mesh": "Relay",
    "derp_bw": "Bandwidth",
    "derp_qd": "Queuing delay",
}
"""What a class of probes is called on the page."""
PAIR_SUFFIXES: Final[Mapping[str, str]] = {"derp_mesh": "/mesh", "derp_bw": "/bw", "derp_qd": "/qd"}
_NODE_SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "tls": ("/tls",),
    "derp_udp": ("/udp6", "/udp"),
}
_UNSEEN: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
"""Categories of characters that are not shown, or that turn the text around them."""


def shown(text: object, limit: int = MAX_NAME) -> str:
    """Make a short line of what somebody else wrote, without control or bidi characters."""
    line = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in _UNSEEN else char
        for char in str(text)[: limit + 1].replace("\n", " ").replace("\t", " ")
    )
    return line if len(line) <= limit else line[: limit - 1] + "…"


class ViewMemory:
    """
    What of a probe's view costs time, kept between two views of it.

    Points of a sparkline that are over do not change any more. Percentiles of very many runs
    hardly do: they are taken anew after half a percent more runs.
    """

    def __init__(self) -> None:
        self.percentiles: tuple[float | None, ...] = (None,) * len(PERCENTILES)
        self._points: dict[int, list[Any]] = {}
        self._open = 0  # the point that may change: all before it are over
        self._runs = -1

    def points(self, history: Any) -> list[list[Any]]:
        """The sparkline, of whose past only what is new is looked at."""
        fresh = list(
            takewhile(lambda minute: minute.start >= self._open, reversed(history.minutes))
        )
        if fresh:
            for point in spark(reversed(fresh)):
                self._points[point[0] * BUCKET_S] = point
            self._open = max(self._points)
            oldest = history.minutes[0].start // BUCKET_S * BUCKET_S
            for start in [start for start in self._points if start < oldest]:
                del self._points[start]
        return list(self._points.values())

    def note(self, history: Any) -> None:
        """A run has ended: do now what would be much to do later for all probes at once."""
        runs = history.ok_runs + history.failed_runs
        if self._runs >= 0 and runs - self._runs < runs // 200:
            return
        self._runs = runs
        self.percentiles = tuple(_ms(history.percentile(each)) for each in PERCENTILES)
        self.points(history)


def probe_view(probe: Any, memory: ViewMemory | None = None) -> dict[str, Any]:
    """
    Everything the page says about one probe.

    :param memory: of this probe; without it everything is worked out.
    """
    history = probe.history
    memory = memory or ViewMemory()
    memory.note(history)
    p50, p95, p99 = memory.percentiles
    labels = probe.labels
    probe_class = probe.check.probe_class
    source, destination = nodes_of(probe.name, probe_class, labels.get("region", ""))
    state = state_of(probe)
    runs = sum(minute.runs for minute in history.minutes)
    failures = sum(minute.failures for minute in history.minutes)
    return {
        "name": probe.name,
        "class": shown(probe_class),
        "title": title_of(probe_class, labels),
        "region": shown(labels.get("region", "")),
        "region_id": shown(labels.get("region_id", "")),
        "hostname": shown(labels.get("hostname", "")),
        "node": shown(source),
        "to": shown(destination),
        "family": shown(labels.get("address_family", "")),
        "interval": abs(probe.interval),
        "continuous": probe.interval < 0,
        "state": state,
        "running": bool(history.running),
        "since": failing_since(history) if state == "failing" else None,
        "reason": shown(last_reason(history), MAX_SENTENCE) if state == "failing" else "",
        "started": history.started,
        "ended": history.ended,
        "latency": _ms(history.latency),
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "runs": runs,
        "failures": failures,
        "results": list(history.results),
        "spark": memory.points(history),
        "findings": _findings(probe.check.findings()),
    }


def changed_view(view: Mapping[str, Any]) -> dict[str, Any]:
    """The same with no more of its sparkline than a change can have touched."""
    return {**view, "spark": view["spark"][-TAIL:]}


def state_of(probe: Any) -> str:
    """``ok``, ``failing`` or ``pending``; a probe that runs again is what it last was."""
    if probe.interval < 0 and probe.lasted >= CONTINUOUS_SETTLED_S:
        return "ok"  # it only ever ends by failing: to go on is its success
    results = probe.history.results
    if not results:
        return "pending"
    return "ok" if results[-1] else "failing"


def title_of(probe_class: str, labels: Mapping[str, str]) -> str:
    """What is probed, in a word or two."""
    title = TITLES.get(probe_class, shown(probe_class))
    family = {"ipv4": " IPv4", "ipv6": " IPv6"}.get(labels.get("address_family", ""), "")
    return title + family


def nodes_of(name: str, probe_class: str, region: str) -> tuple[str, str]:
    """
    The nodes in a probe's name, ``derp/<code>/<node>[/<other>]/<kind>``.

    :returns: the node and, for a pair, the other one; both empty for a probe of no node.
    """
    prefix = f"derp/{region}/"
    if not name.startswith(prefix):
        return "", ""
    suffix = PAIR_SUFFIXES.get(probe_class)
    if suffix is None:
        for ending in _NODE_SUFFIXES.get(probe_class, ()):
            if name.endswith(ending):
                return name[len(prefix) : -len(ending)], ""
        return name[len(prefix) :], ""
    middle = name[len(prefix) :].removesuffix(suffix)
    # A node's name may hold slashes itself: then the halves are most likely alike.
    parts = middle.split("/")
    half = max(1, len(parts) // 2)
    return "/".join(parts[:half]), "/".join(parts[half:])


def last_reason(history: Any) -> str:
    """Why it failed last, as a sentence."""
    if history.error:
        return str(history.error)
    return str(history.failures[-1][1]) if history.failures else ""


def failing_since(history: Any) -> float | None:
    """
    When the present row of failures began, as far back as the history can tell.

    The last results give the row's length; if all of them are failures, minutes without any
    success lengthen it.
    """
    row = 0
    for result in reversed(history.results):
        if result:
            break
        row += 1
    if row == 0:
        return None
    times = [at for at, _ in history.failures]
    since = float(times[-min(row, len(times))]) if times else history.ended
    if row == len(history.results):
        for minute in reversed(history.minutes):
            if minute.start >= since:
                continue
            if minute.failures < minute.runs or not minute.runs:
                break
            since = float(minute.start)
    return None if since is None else float(since)


def spark(minutes: Iterable[Any]) -> list[list[Any]]:
    """
    Draw together minutes to points: number, median and highest latency, failures, runs.

    The number times :data:`BUCKET_S` is when the point begins. A point without a success has
    ``None`` for both latencies; one without a failure ends behind them.
    """
    counts: dict[int, list[int]] = {}
    samples: dict[int, list[float]] = {}
    for minute in minutes:
        number = int(minute.start // BUCKET_S)
        count = counts.setdefault(number, [0, 0])
        count[0] += minute.failures
        count[1] += minute.runs
        samples.setdefault(number, []).extend(minute.latencies)
    points = []
    for number in sorted(counts):
        found = samples[number]
        latencies = [_ms(median(found)), _ms(max(found))] if found else [None, None]
        points.append([number, *latencies, *(counts[number] if counts[number][0] else ())])
    return points


def _ms(seconds: float | None) -> float | None:
    """Milliseconds, with as many digits as anybody reads."""
    if seconds is None:
        return None
    return round(seconds * 1000, 3 if seconds < 0.001 else 1)


def _findings(found: Mapping[str, Any]) -> dict[str, str | int | float]:
    """What a check found, bounded like all else that others have a say in."""
    kept: Sequence[tuple[str, Any]] = list(found.items())[:16]
    return {
        shown(key, 40): value if isinstance(value, int | float) else shown(value, MAX_NAME)
        for key, value in kept
    }
