"""What the doctor has found, for people and for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final

from derp.doctor.examination import Examined, worst
from derp.doctor.finding import Finding, Verdict
from derp.quoting import quoted
from derp.wire.node_json import RelayNode, derp_map, format_headscale_yaml, format_policy_block

_COLOURS: Final = {
    Verdict.OK: "32",
    Verdict.WARN: "33",
    Verdict.FAIL: "1;31",
    Verdict.SKIP: "2",
}
_INDENT: Final = 2
_VERDICT_WIDTH: Final = 6


def as_text(
    who: str,
    results: Sequence[Examined],
    node: RelayNode | None,
    *,
    seconds: float,
    colour: bool,
    width: int,
) -> str:
    """
    Lay a report out: a line for each finding, its cure below, a summary, the map entry.

    :param who: what was examined.
    :param colour: whether the terminal knows colours.
    :param width: columns to fill.
    """
    column = max((len(each.name) for each in results), default=0) + 2
    lines = [f"derper doctor: {who}", ""]
    for each in results:
        for position, finding in enumerate(each.findings):
            name = each.name if not position else ""
            lines += _lines(name, finding, column, colour=colour, width=width)
    lines += ["", f"{_summary(results)} ({seconds:.1f} s)"]
    if node is not None:
        lines += ["", *_entry(node, healthy=worst(results) is not Verdict.FAIL)]
    return "\n".join(lines) + "\n"


def _lines(name: str, finding: Finding, column: int, *, colour: bool, width: int) -> Iterator[str]:
    word = f"{finding.verdict:<{_VERDICT_WIDTH}}"
    if colour:
        word = f"\x1b[{_COLOURS[finding.verdict]}m{word}\x1b[0m"
    head = f"{' ' * _INDENT}{word}{name:<{column}}"
    indent = " " * (_INDENT + _VERDICT_WIDTH + column)
    room = max(40, width - len(indent))
    first, *rest = _wrapped(finding.said, room)
    yield f"{head}{first}"
    yield from (indent + line for line in rest)
    if finding.cure:
        first, *rest = _wrapped(finding.cure, room - 3)
        yield f"{indent}-> {first}"
        yield from (f"{indent}   {line}" for line in rest)


def _wrapped(text: str, room: int) -> list[str]:
    safe = text if text.isprintable() else quoted(text)
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(safe, room, **options) or [""]


def counts(results: Sequence[Examined]) -> dict[str, int]:
    """How many findings there are of each verdict."""
    verdicts = [finding.verdict for each in results for finding in each.findings]
    return {verdict.value: verdicts.count(verdict) for verdict in Verdict}


def _summary(results: Sequence[Examined]) -> str:
    number = counts(results)
    said = f"{number['ok']} ok, {number['warn']} to look at, {number['fail']} wrong"
    if number["skip"]:
        said += f", {number['skip']} not examined"
    return said


def _entry(node: RelayNode, *, healthy: bool) -> list[str]:
    once = "" if healthy else "once the above is cured, "
    text = f"To use it, {once}add this to the tailnet policy file:"
    lines = [text[0].upper() + text[1:], ""]
    lines += ["  " + line for line in format_policy_block(node).splitlines()]
    lines += ["", "or, for Headscale, to a file named in derp.paths:", ""]
    return lines + ["  " + line for line in format_headscale_yaml(node).splitlines()]


def as_json(
    who: str, results: Sequence[Examined], node: RelayNode | None, *, seconds: float
) -> str:
    """
    The same as one JSON object.

    ``verdict`` is the worst one; ``derpMap`` stands as in a tailnet policy file.
    """
    document: dict[str, Any] = {
        "examined": who,
        "verdict": worst(results).value,
        "seconds": round(seconds, 3),
        "counts": counts(results),
        "findings": [
            {
                "examination": each.name,
                "verdict": finding.verdict.value,
                "said": finding.said,
                "cure": finding.cure,
                "facts": dict(finding.facts),
            }
            for each in results
            for finding in each.findings
        ],
    }
    if node is not None:
        document["derpMap"] = derp_map(node)
        document["headscale"] = format_headscale_yaml(node)
    return json.dumps(document, indent=2) + "\n"
