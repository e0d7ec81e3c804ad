"""
derper's own Prometheus text form (``/debug/varz``), with its name rules.

A raw name says the type and sometimes a label: ``gauge_X``, ``counter_X``, ``histogram_X``,
then ``labelmap_L_X`` for label ``L``. What is left, behind the names of the sets around it,
is cleaned into a metric name. Source: tailscale ``tsweb/varz`` ``WritePrometheusExpvar``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from derp.core.stats import Histogram
from derp.net.expvar import (
    Computed,
    LabelMap,
    MemoryStats,
    MultiLabelMap,
    Variable,
    format_number,
)

PROGRAM: Final = "derper"
"""Label ``binary`` of the metric ``version``."""

_TYPES: Final = ("gauge", "counter", "histogram")
_SORTED_WITHOUT: Final = ("gauge_", "counter_", "labelmap_", "histogram_")
_NOT_ALLOWED: Final = re.compile(r"[^a-zA-Z0-9_:]")
_LABEL_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@dataclass(frozen=True, slots=True)
class Name:
    """What a raw name says."""

    full: str
    """The metric's name."""
    type: str
    """Prometheus type, empty if not declared."""
    label: str
    """Name of the label, empty if not declared."""

    def typed(self, default: str = "") -> list[str]:
        """The TYPE line, if a type is declared or there is a default one."""
        kind = self.type or default
        return [f"# TYPE {self.full} {kind}"] if kind else []


def varz(variables: Mapping[str, Variable]) -> str:
    """Print variables, sorted by name without the first prefix that matches."""
    lines: list[str] = []
    for key in sorted(variables, key=_sort_key):
        lines += _lines("", key, variables[key])
    return "\n".join(lines) + "\n" if lines else ""


def parse_name(parent: str, key: str) -> Name:
    """
    Take a raw name apart.

    :param parent: names of the sets around it, each with an underscore behind.
    """
    kind = label = ""
    for prefix in _TYPES:
        if key.startswith(f"{prefix}_"):
            kind = prefix
            key = key[len(prefix) + 1 :]
            break
    if key.startswith("labelmap_"):
        first, separator, rest = key.removeprefix("labelmap_").partition("_")
        if separator:
            label, key = first, rest
    return Name(_clean(parent + key), kind, label)


def _sort_key(key: str) -> str:
    prefix = next((prefix for prefix in _SORTED_WITHOUT if key.startswith(prefix)), "")
    return key.removeprefix(prefix)


def _clean(name: str) -> str:
    printable = "".join(char for char in name if " " <= char <= "~")
    name = _NOT_ALLOWED.sub("_", printable)
    return f"_{name}" if not name or name[0].isdigit() else name


def _lines(parent: str, key: str, value: object) -> Iterator[str]:
    name = parse_name(parent, key)
    match value:
        case bool():
            yield _skipping(name, value)
        case int():
            yield from name.typed("counter")
            yield f"{name.full} {value}"
        case float():
            yield from name.typed("gauge")
            yield f"{name.full} {format_number(value)}"
        case Computed():
            yield from _computed(name, value.value)
        case LabelMap():
            yield from _label_map(name, value)
        case MultiLabelMap():
            yield from _multi_label_map(name, value)
        case Histogram():
            yield from _histogram(name, value)
        case MemoryStats():
            yield from _memory_stats(name, value)
        case dict():
            for member in sorted(value):
                yield from _lines(f"{name.full}_", member, value[member])
        case _:
            yield _skipping(name, value)


def version_sample(version: str, program: str) -> str:
    """The line that says what runs here; without its end."""
    return _sample("version", {"version": version, "binary": program}, 1)


def _skipping(name: Name, value: object) -> str:
    kind = type(value).__name__
    return f'# skipping expvar "{name.full}" (Python type {kind}) with undeclared Prometheus type'


def _computed(name: Name, value: object) -> Iterator[str]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from name.typed()
        yield f"{name.full} {format_number(value)}"
    elif name.type:
        yield f"# skipping expvar func {name.full!r} returning a {type(value).__name__}"
    elif isinstance(value, str) and name.full.endswith("version"):
        if name.full == "version":
            yield version_sample(value, PROGRAM)
        else:
            yield _sample(name.full, {"version": value}, 1)
    else:
        yield _skipping(name, value)


def _label_map(name: Name, value: LabelMap) -> Iterator[str]:
    label = value.label or name.label or "label"
    yield from name.typed()
    for key in sorted(value.values):
        yield _sample(name.full, {label: key}, value.values[key])


def _multi_label_map(name: Name, value: MultiLabelMap) -> Iterator[str]:
    yield f"# TYPE {name.full} {value.kind}"
    yield f"# HELP {name.full} {value.description}"
    for key in sorted(value.values):
        labels = dict(zip(value.labels, key, strict=True))
        yield _sample(name.full, labels, value.values[key])


def _histogram(name: Name, value: Histogram) -> Iterator[str]:
    yield f"# TYPE {name.full} histogram"
    counts = value.cumulative()
    for bound, count in zip((*map(format_number, value.bounds), "+Inf"), counts, strict=True):
        yield _sample(f"{name.full}_bucket", {"le": bound}, count)
    yield f"{name.full}_sum {format_number(value.total)}"
    yield f"{name.full}_count {counts[-1]}"


def _memory_stats(name: Name, value: MemoryStats) -> Iterator[str]:
    for member, kind, description, number in (
        ("heap_alloc", "gauge", "bytes of anonymous memory in use", value.heap_alloc),
        ("sys", "gauge", "bytes of memory the system has given the process", value.sys),
        ("num_gc", "counter", "garbage collections so far, of any generation", value.num_gc),
    ):
        full = f"{name.full}_{member}"
        yield f"# HELP {full} {description}"
        yield f"# TYPE {full} {kind}"
        yield f"{full} {number}"


def _sample(full: str, labels: Mapping[str, str], value: int) -> str:
    text = ",".join(f'{key}="{_escape(labels[key])}"' for key in labels)
    return f"{full}{{{text}}} {value}"


def _escape(label_value: str) -> str:
    return label_value.translate(_LABEL_ESCAPES)
