"""
A line chart as SVG text: panels side by side, axes with round ticks, lines with markers.

Written by hand because it is all the suite needs of a plotting library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]
"""Okabe and Ito's palette: told apart by colour-blind readers too."""
PANEL_WIDTH, PANEL_HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 60
LEGEND = 22


@dataclass(frozen=True)
class Line:
    """One server's points, in order of x."""

    label: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    grey: bool = False


@dataclass(frozen=True)
class Axis:
    """What an axis shows. ``ticks`` of ``None`` are chosen; labels are ``(place, text)``."""

    title: str
    logarithmic: bool = False
    ticks: Sequence[tuple[float, str]] | None = None


@dataclass(frozen=True)
class Panel:
    """One diagram."""

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line] = field(default_factory=list)


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Give ticks at 1, 2 or 5 times a power of ten, from at most ``low`` to at least ``high``."""
    span = max(high - low, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= about)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def decade_ticks(low: float, high: float) -> list[float]:
    """Give powers of ten (with 2 and 5 between when few) around ``low..high``, both positive."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    ticks = [10.0**power * factor for power in range(first, last + 1) for factor in factors]
    below = max((tick for tick in ticks if tick <= low), default=ticks[0])
    above = min((tick for tick in ticks if tick >= high), default=ticks[-1])
    return [tick for tick in ticks if below <= tick <= above]


class _Scale:
    """Places values of one axis on its stretch of the picture."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        self._log = axis.logarithmic
        self._start, self._end = start, end
        if axis.ticks is not None:
            self.ticks = list(axis.ticks)
        elif self._log:
            positive = [value for value in values if value > 0] or [1.0]
            places = decade_ticks(min(positive), max(positive))
            self.ticks = [(place, f"{place:,g}") for place in places]
        else:
            places = round_ticks(min([0.0, *values]), max([1e-9, *values]))
            self.ticks = [(place, f"{place:,g}") for place in places]
        ends = [self._value(place) for place, _ in self.ticks]
        self._low, self._high = min(ends), max(ends)

    def _value(self, value: float) -> float:
        return math.log10(value) if self._log else value

    def __call__(self, value: float) -> float:
        lowest = 10**self._low if self._log else value
        share = (self._value(max(value, lowest)) - self._low) / ((self._high - self._low) or 1)
        return self._start + share * (self._end - self._start)


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{escape(text)}</text>'


def _line(line: Line, colour: str, x: _Scale, y: _Scale) -> list[str]:
    places = [(x(a), y(b)) for a, b in line.points]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    drawn = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>']
    if not line.dashed:
        drawn += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in places]
    return drawn


def _axes(panel: Panel, x: _Scale, y: _Scale, left: float, top: float) -> list[str]:
    right, bottom = left + PANEL_WIDTH, top + PANEL_HEIGHT
    drawn = [_text((left + right) / 2, top - 12, panel.title, 'class="title"')]
    for place, label in y.ticks:
        at = y(place)
        drawn.append(f'<path d="M{left} {at:.1f}H{right}" class="grid"/>')
        drawn.append(_text(left - 6, at + 4, label, 'text-anchor="end"'))
    for place, label in x.ticks:
        at = x(place)
        drawn.append(f'<path d="M{at:.1f} {bottom}V{top}" class="grid"/>')
        drawn.append(_text(at, bottom + 16, label, 'text-anchor="middle"'))
    drawn.append(f'<path d="M{left} {top}V{bottom}H{right}" class="axis"/>')
    drawn.append(_text((left + right) / 2, bottom + 36, panel.x.title, 'text-anchor="middle"'))
    turn = f'text-anchor="middle" transform="rotate(-90 {left - 54} {(top + bottom) / 2})"'
    drawn.append(_text(left - 54, (top + bottom) / 2, panel.y.title, turn))
    return drawn


def _legend(labels: Sequence[str], colours: dict[str, str], top: float) -> list[str]:
    drawn, left = [], float(LEFT)
    for label in labels:
        drawn.append(f'<path d="M{left} {top}h24" stroke="{colours[label]}" stroke-width="3"/>')
        drawn.append(_text(left + 30, top + 4, label))
        left += 48 + 7.5 * len(label)
    return drawn


def chart(title: str, panels: Sequence[Panel]) -> str:
    """Draw panels side by side under one title, with one legend for all."""
    labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    coloured = [
        label
        for label in labels
        if not any(line.grey for panel in panels for line in panel.lines if line.label == label)
    ]
    colours = dict.fromkeys(labels, "#777777")
    colours |= {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(coloured)}
    width = len(panels) * (LEFT + PANEL_WIDTH + RIGHT)
    height = TOP + LEGEND + 24 + PANEL_HEIGHT + BOTTOM
    body = [_text(width / 2, 22, title, 'class="title"'), *_legend(labels, colours, TOP)]
    for number, panel in enumerate(panels):
        left = number * (LEFT + PANEL_WIDTH + RIGHT) + LEFT
        top = TOP + LEGEND + 24
        xs = [a for line in panel.lines for a, _ in line.points]
        ys = [b for line in panel.lines for _, b in line.points]
        x = _Scale(panel.x, xs, left, left + PANEL_WIDTH)
        y = _Scale(panel.y, ys, top + PANEL_HEIGHT, top)
        body += _axes(panel, x, y, left, top)
        for line in panel.lines:
            body += _line(line, colours[line.label], x, y)
    style = (
        "text{font:12px sans-serif;fill:#222}.title{font-weight:bold;text-anchor:middle}"
        ".grid{stroke:#ddd;fill:none}.axis{stroke:#222;fill:none}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">\n<style>{style}</style>\n'
        f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )
