"""
The prober at one moment, as one JSON-able dict: what the page shows, and says to who asks.

.. code-block:: text

   now, interval      Unix seconds; seconds of one sparkline point
   summary            total, failing, pending, ok, state
   map                the view of the probe of the DERP map, or None
   regions            [{code, id, state, failing, total,
                        nodes: [{name, hostname, state, probes: [name…], facts: {…}}],
                        matrices: [{class, title, nodes: [name…], cells: {from: {to: name}}}]}]
   probes             {name: view}, see derp.prober.probe_view
   failures           the last ones of all probes, newest first:
                      [{at, name, title, where, reason, count, first}]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from derp.prober.probe_view import (
    BUCKET_S,
    MAX_SENTENCE,
    PAIR_SUFFIXES,
    TITLES,
    ViewMemory,
    probe_view,
    shown,
)

MAX_FAILURES: Final = 20
"""Failures in the list, over all probes."""

_PASSING: Final = re.compile(
    r"\[[\w+/]{5}\]|\d+(\.\d+)?(?= (s|ms|days|times|requests|of the last)\b)"
)
"""What of a sentence differs from run to run: throw-away keys, spans, how often."""

View = Mapping[str, Any]


class Views:
    """The views of all probes of a prober, each made when it is asked for and kept until then."""

    def __init__(self) -> None:
        self._views: dict[str, dict[str, Any]] = {}
        self._memories: dict[str, ViewMemory] = {}

    def of(self, probes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """All of them, by name."""
        for name, probe in probes.items():
            if name not in self._views:
                memory = self._memories.setdefault(name, ViewMemory())
                self._views[name] = probe_view(probe, memory)
        return {name: self._views[name] for name in probes}

    def spoil(self, probe: Any) -> None:
        """A probe is not what it was."""
        self._views.pop(probe.name, None)
        if probe.removed:
            self._memories.pop(probe.name, None)
        else:
            self._memories.setdefault(probe.name, ViewMemory()).note(probe.history)


def snapshot(prober: Any, now: float, views: Views | None = None) -> dict[str, Any]:
    """
    Describe a prober.

    :param now: Unix seconds.
    :param views: of its probes, those that are still right.
    """
    found = (views or Views()).of(prober.probes)
    return {
        "now": now,
        "bucket": BUCKET_S,
        "summary": summary(found.values()),
        "map": next((name for name, view in found.items() if view["class"] == "derp_map"), None),
        "regions": regions(found.values()),
        "probes": found,
        "failures": last_failures(prober.probes.values(), found),
    }


def summary(views: Iterable[View]) -> dict[str, Any]:
    """Count states."""
    counts = {"ok": 0, "failing": 0, "pending": 0}
    for view in views:
        counts[view["state"]] += 1
    return {"total": sum(counts.values()), **counts, "state": worst(counts)}


def worst(counts: Mapping[str, int]) -> str:
    """The state of several probes together: any failure counts, and one success is enough."""
    if counts["failing"]:
        return "failing"
    return "ok" if counts["ok"] else "pending"


def headline(counts: Mapping[str, Any]) -> str:
    """The page in one sentence."""
    total, failing = counts["total"], counts["failing"]
    if not total:
        return "No probes yet"
    if failing:
        return f"{failing} of {total} failing"
    if not counts["ok"]:
        return "Waiting for first results"
    return "All healthy"


def regions(views: Iterable[View]) -> list[dict[str, Any]]:
    """Lay probes out by region and node, in an order that does not change with their state."""
    by_region: dict[tuple[str, str], list[View]] = {}
    for view in views:
        if view["region"] or view["region_id"]:
            by_region.setdefault((view["region_id"], view["region"]), []).append(view)
    return [
        _region(code, region_id, members)
        for (region_id, code), members in sorted(by_region.items(), key=_region_order)
    ]


def _region_order(item: tuple[tuple[str, str], Any]) -> tuple[int, str, str]:
    (region_id, code), _ = item
    number = int(region_id) if region_id.isdecimal() and region_id.isascii() else 1 << 62
    return number, region_id, code


def _region(code: str, region_id: str, members: list[View]) -> dict[str, Any]:
    names = sorted({view["node"] for view in members} | {view["to"] for view in members} - {""})
    return {
        "code": code,
        "id": region_id,
        **summary(members),
        "nodes": [_node(name, members) for name in names],
        "matrices": _matrices(members),
    }


def _node(name: str, members: list[View]) -> dict[str, Any]:
    """A node, with the probes that are of it alone; pairs with others are in a matrix."""
    own = [view for view in members if view["node"] == name and view["to"] in ("", name)]
    own.sort(key=lambda view: (_class_order(view["class"]), view["family"], view["name"]))
    hostnames = [view["hostname"] for view in members if view["node"] == name and view["hostname"]]
    return {
        "name": name,
        "hostname": hostnames[0] if hostnames else "",
        "state": summary(own)["state"],
        "probes": [view["name"] for view in own],
    }


def _class_order(probe_class: str) -> int:
    order = list(TITLES)
    return order.index(probe_class) if probe_class in TITLES else len(order)


def _matrices(members: list[View]) -> list[dict[str, Any]]:
    """One matrix for each class of pairs that has any of different nodes."""
    found = []
    for probe_class in PAIR_SUFFIXES:
        pairs = [view for view in members if view["class"] == probe_class and view["to"]]
        if all(view["node"] == view["to"] for view in pairs):
            continue
        cells: dict[str, dict[str, str]] = {}
        for view in pairs:
            cells.setdefault(view["node"], {})[view["to"]] = view["name"]
        nodes = sorted({view["node"] for view in pairs} | {view["to"] for view in pairs})
        found.append(
            {"class": probe_class, "title": TITLES[probe_class], "nodes": nodes, "cells": cells}
        )
    return found


def where(view: View) -> str:
    """What a probe is about, for people: ``derp1.example.com (nyc)`` or ``1a → 1b (nyc)``."""
    place = view["hostname"] or view["node"]
    if view["to"] and view["to"] != view["node"]:
        place = f"{view['node']} → {view['to']}"
    if not place:
        return ""
    return f"{place} ({view['region']})" if view["region"] else str(place)


def last_failures(probes: Iterable[Any], views: Mapping[str, View]) -> list[dict[str, Any]]:
    """
    The newest failures of all probes, each with its reason.

    What a probe failed of again and again is there once, as it was said last, with how often and
    since when.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for probe in probes:
        view = views.get(probe.name)
        for at, sentence in probe.history.failures if view is not None else ():
            what = _PASSING.sub("", sentence)
            same = found.setdefault((probe.name, what), {"count": 0, "first": at})
            same["count"] += 1
            same["at"] = at
            same["reason"] = sentence
    newest = sorted(found.items(), key=lambda item: (item[1]["at"], item[0]), reverse=True)
    return [
        {
            **told,
            "name": name,
            "title": views[name]["title"],
            "where": where(views[name]),
            "reason": shown(told["reason"], MAX_SENTENCE),
        }
        for (name, _), told in newest[:MAX_FAILURES]
    ]
