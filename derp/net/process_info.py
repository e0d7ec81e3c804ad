"""
What the system knows of this process, read when asked (Linux: ``/proc``; elsewhere less).

Nothing here fails: what cannot be read is 0 or left out.
"""

from __future__ import annotations

import gc
import os
import re
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")

_SECRET_FLAGS: Final = frozenset({"acme-eab-key", "alert-url"})
_HIDDEN: Final = "<hidden>"
_IN_URL: Final = re.compile(r"//[^/@\s]+@")
"""User and password of a URL."""


def boot_time(proc: Path = PROC) -> int | None:
    """When the machine started, in Unix seconds; ``None`` if it does not say."""
    for line in _read(proc / "stat").splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    return None


def open_file_count(proc: Path = PROC) -> int:
    """How many file descriptors are open (the one that is counting included)."""
    try:
        return len(os.listdir(proc / "self/fd"))
    except OSError:
        return 0


def resident_bytes(proc: Path = PROC) -> int:
    """Memory the system has given this process."""
    return _memory_pages(proc)[0] * resource.getpagesize()


def heap_bytes(proc: Path = PROC) -> int:
    """The part of :func:`resident_bytes` that is not backed by files: heap and stacks."""
    resident, shared = _memory_pages(proc)
    return (resident - shared) * resource.getpagesize()


def collections() -> int:
    """Garbage collections so far, of any generation."""
    return sum(generation["collections"] for generation in gc.get_stats())


def network_bytes(proc: Path = PROC) -> tuple[int, int] | None:
    """
    Bytes received and sent by the process' network namespace (so: by all processes in it).

    ``net/netstat`` has pairs of lines, names and values, that begin with the same word.
    """
    lines = [line.split() for line in _read(proc / "self/net/netstat").splitlines()]
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if names and names[0] == "IpExt:":
            counters = dict(zip(names, values, strict=False))
            return int(counters.get("InOctets", 0)), int(counters.get("OutOctets", 0))
    return None


def shown_command_line(arguments: Sequence[str]) -> list[str]:
    """A command line as everybody with debug access may see it: secrets hidden."""
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        name, equals, _ = argument.lstrip("-").partition("=")
        is_secret = argument.startswith("-") and name in _SECRET_FLAGS
        if hide_next:
            shown.append(_HIDDEN)
        elif is_secret and equals:
            shown.append(f"{argument.partition('=')[0]}={_HIDDEN}")
        else:
            shown.append(_IN_URL.sub(f"//{_HIDDEN}@", argument))
        hide_next = is_secret and not equals and not hide_next
    return shown


def _memory_pages(proc: Path) -> tuple[int, int]:
    fields = _read(proc / "self/statm").split()
    return (int(fields[1]), int(fields[2])) if len(fields) > 2 else (0, 0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
