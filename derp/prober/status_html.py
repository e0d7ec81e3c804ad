"""
The status page as HTML, whole without any script.

Scripts replace what is in ``main`` by what they draw themselves; a browser without them loads
the page anew every half minute. Everything but our own words passes :func:`html.escape`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any, Final
from urllib.parse import quote

from derp.durations import format_duration
from derp.prober.snapshot import headline, where

TITLE: Final = "DERP Prober"
RELOAD_S: Final = 30
STATES: Final = {"ok": "OK", "failing": "Failing", "pending": "Waiting"}
FACTS: Final[Mapping[str, str]] = {
    "days_left": "certificate {} d",
    "loss": "{:.1%} lost",
    "packet_ms": "packet {} ms",
    "rtt_ms": "answer in {} ms",
    "mbit_per_second": "{} Mbit/s",
    "p99_ms": "99 % within {} ms",
    "mapped_address": "seen as {}",
    "revocation": "{}",
}
"""How findings are told; those that are not listed are not shown."""

View = Mapping[str, Any]

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="dark light">
<title>{title}</title>
<link rel="icon" type="image/svg+xml" href="/static/{state}.svg" id="icon">
<script src="/static/boot.js"></script>
<link rel="stylesheet" href="/static/page.css">
<script type="module" src="/static/page.js"></script>
<noscript><meta http-equiv="refresh" content="{reload}"></noscript>
</head>
<body data-state="{state}"{may_run}>
<a class="skip" href="#main">Skip to the probes</a>
<header class="top">
<div class="verdict" role="status" aria-live="polite">
<span class="beacon" aria-hidden="true"></span>
<div><h1 id="headline">{headline}</h1><p id="subline" class="muted">{subline}</p>
<p id="map-line" class="map-line" hidden><b></b>
<time class="age" data-words="read " data-after=" ago"></time></p></div>
</div>
<nav class="tools" aria-label="Page">
<span id="live" class="live" data-live="off" title="Whether this page is live"><i></i><b></b></span>
<button type="button" id="only" class="needs-js" aria-pressed="false">Only failing</button>
<button type="button" id="theme" class="needs-js">Theme</button>
{run_all}<a href="/debug/varz">Prober metrics</a>
</nav>
</header>
<div id="banner" class="banner" role="alert" hidden></div>
<main id="main">
<div id="plain">
{failing}{regions}{failures}</div>
<div id="drawn" hidden></div>
</main>
<footer class="foot muted"><p>As of <time id="as-of">{as_of}</time>.
Latencies are those of whole runs over the last six hours.</p></footer>
<div id="toast" class="toast" role="status" aria-live="polite" hidden></div>
</body>
</html>
"""
_RUN_ALL: Final = '<button type="button" id="run-all" class="needs-js">Run all now</button>\n'


def render_page(current: Mapping[str, Any], *, may_run: bool) -> str:
    """
    Render a snapshot.

    :param current: see :mod:`derp.prober.snapshot`.
    :param may_run: whether there are buttons that run probes.
    """
    counts = current["summary"]
    text = headline(counts)
    views: Mapping[str, View] = current["probes"]
    failing = [view for view in views.values() if view["state"] == "failing"]
    return _PAGE.format(
        title=escape(f"{text} | {TITLE}" if failing else TITLE),
        state=counts["state"],
        reload=RELOAD_S,
        may_run=" data-may-run" if may_run else "",
        headline=escape(text),
        subline=escape(subline(current)),
        run_all=_RUN_ALL if may_run else "",
        failing=_failing(failing, current["now"]),
        regions="".join(_region(region, views, may_run) for region in current["regions"]),
        failures=_failures(current["failures"]),
        as_of=_utc(current["now"]),
    )


def subline(current: Mapping[str, Any]) -> str:
    """How much there is: ``42 probes, 7 nodes, 3 regions``."""
    regions = current["regions"]
    nodes = sum(len(region["nodes"]) for region in regions)
    counts = ((current["summary"]["total"], "probe"), (nodes, "node"), (len(regions), "region"))
    return ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts)


def _failing(views: Iterable[View], now: float) -> str:
    items = []
    for view in views:
        since = view["since"]
        lasts = f" for {format_duration(max(0, round(now - since)))}" if since else ""
        items.append(
            f"<li><b>{escape(_what(view))}</b> has been failing{escape(lasts)}"
            f'<p class="reason">{escape(view["reason"])}</p></li>\n'
        )
    if not items:
        return ""
    return f'<section class="trouble"><h2>Failing now</h2><ul>\n{"".join(items)}</ul></section>\n'


def _what(view: View) -> str:
    place = where(view)
    return f"{view['title']}, {place}" if place else str(view["title"])


def _region(region: Mapping[str, Any], views: Mapping[str, View], may_run: bool) -> str:
    members = [
        view
        for view in views.values()
        if (view["region"], view["region_id"]) == (region["code"], region["id"])
    ]
    order = {name: place for place, name in enumerate(_names(region))}
    members.sort(key=lambda view: order.get(view["name"], len(order)))
    rows = "".join(_row(view, may_run) for view in members)
    heads = ("Probe", "Of", "State", "Last", "Median", "95 %", "Failed", "Found", "Last error")
    head = "".join(f'<th scope="col">{each}</th>' for each in heads)
    title = f"{escape(region['code'])} <small>region {escape(region['id'])}</small>"
    return (
        f'<section class="plain-region"><h2>{title}</h2><div class="scroll">'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div></section>\n"
    )


def _names(region: Mapping[str, Any]) -> list[str]:
    """The probes of a region in the order they are shown in."""
    names = [name for node in region["nodes"] for name in node["probes"]]
    for matrix in region["matrices"]:
        names += [name for row in matrix["cells"].values() for name in row.values()]
    return names


def _row(view: View, may_run: bool) -> str:
    name = escape(view["title"])
    if may_run and not view["continuous"]:
        path = f"/debug/probe-run?name={quote(view['name'], safe='', errors='replace')}"
        name = f'<a href="{escape(path)}" title="Run this probe now">{name}</a>'
    cells = (
        name,
        escape(_of(view)),
        f'<span class="state {view["state"]}">{STATES[view["state"]]}</span>',
        _ms(view["latency"]),
        _ms(view["p50"]),
        _ms(view["p95"]),
        f"{view['failures']} of {view['runs']}",
        escape("; ".join(facts(view["findings"]))),
        escape(view["reason"]),
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n"


def _of(view: View) -> str:
    if view["to"] and view["to"] != view["node"]:
        return f"{view['node']} → {view['to']}"
    return str(view["hostname"] or view["node"])


def facts(findings: Mapping[str, Any]) -> list[str]:
    """Put what a check found into words."""
    told = []
    for key, words in FACTS.items():
        value = findings.get(key)
        if value is None or value == "":
            continue
        if isinstance(value, float) and not words.endswith(":.1%} lost"):
            value = round(value, 1)
        if isinstance(value, str) and ":.1%" in words:
            continue
        told.append(words.format(value))
    return told


def _failures(failures: Iterable[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{_utc(each['at'])}</td><td>{each['count']} \N{MULTIPLICATION SIGN}</td>"
        f"<td>{escape(each['title'])}</td>"
        f"<td>{escape(each['where'])}</td><td>{escape(each['reason'])}</td></tr>\n"
        for each in failures
    )
    if not rows:
        return ""
    return (
        '<section class="plain-region"><h2>Last failures</h2><div class="scroll">'
        f"<table><tbody>{rows}</tbody></table></div></section>\n"
    )


def _ms(milliseconds: float | None) -> str:
    return "\N{EN DASH}" if milliseconds is None else f"{milliseconds:.1f} ms"


def _utc(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
