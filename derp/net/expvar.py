"""
Variables as Go's ``expvar`` publishes them, and their JSON form (``/debug/vars``).

A tree of variables is a ``dict`` from raw name to value. A raw name may begin with its
Prometheus type (``counter_``, ``gauge_``), which :mod:`derp.net.varz` takes off; JSON shows
it as it is. Which Python value stands for which kind of variable:

====================  ==================================================================
value                 kind
====================  ==================================================================
``int``, ``float``    number
``str``, ``list``     text, list of texts: JSON only
``dict``              set of variables
``Histogram``         histogram (:class:`derp.core.stats.Histogram`)
:class:`Computed`     function, whose result is read already
:class:`LabelMap`     numbers by the value of one label
:class:`MultiLabelMap`  numbers by the values of several labels
:class:`MemoryStats`  ``memstats``
====================  ==================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, Union

from derp.core.stats import Histogram


@dataclass(frozen=True, slots=True)
class Computed:
    """A variable without a declared kind of its own: its value says what it is."""

    value: object


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Numbers by the value of one label; an empty name is ``label``."""

    label: str
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MultiLabelMap:
    """Numbers by the values of several labels, in the order of their names."""

    kind: str
    """Prometheus type."""
    description: str
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], int]


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """What of Go's ``runtime.MemStats`` has a meaning in Python."""

    heap_alloc: int
    """Bytes of anonymous memory in use."""
    sys: int
    """Bytes of memory the system has given the process."""
    num_gc: int
    """Garbage collections so far, of any generation."""


Variable: TypeAlias = Union[  # noqa: UP007  (a forward reference does not work with "|")
    int,
    float,
    str,
    Sequence[str],
    Histogram,
    Computed,
    LabelMap,
    MultiLabelMap,
    MemoryStats,
    Mapping[str, "Variable"],
]


def format_number(value: float) -> str:
    """Print a number in as few digits as tell it apart, whole ones without a point."""
    return str(int(value)) if value == int(value) else repr(value)


def variables_json(variables: Mapping[str, Variable]) -> str:
    """
    Print variables as ``/debug/vars`` does.

    One variable per line, sorted by raw name on every level.
    """
    lines = [
        f"{json.dumps(key)}: {json.dumps(_plain(variables[key]))}" for key in sorted(variables)
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _plain(value: object) -> object:
    """What :mod:`json` knows to print."""
    match value:
        case float() if value == int(value):
            return int(value)
        case Computed():
            return _plain(value.value)
        case LabelMap():
            return dict(sorted(value.values.items()))
        case MultiLabelMap():
            return "MultiLabelMap"  # all that Go's expvar shows of it
        case MemoryStats():
            return {"HeapAlloc": value.heap_alloc, "Sys": value.sys, "NumGC": value.num_gc}
        case Histogram():
            return _plain_histogram(value)
        case dict():
            return {key: _plain(value[key]) for key in sorted(value)}
    return value


def _plain_histogram(histogram: Histogram) -> dict[str, object]:
    bounds = [*map(format_number, histogram.bounds), "+Inf"]
    counts = histogram.cumulative()
    return {
        **dict(zip(bounds, counts, strict=True)),
        "sum": _plain(histogram.total),
        "count": counts[-1],
    }
