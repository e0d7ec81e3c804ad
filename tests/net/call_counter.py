"""
How many calls a piece of code makes: a price that is the same on every machine and every day.

Seconds depend on the machine and on who else uses it; in interpreted code they follow the number
of calls, and that number can be held to. ``sys.setprofile`` tells of every call of a Python
function and of a C function or method. It does not tell of calls of types (``bytes(...)``,
``range(...)``), of operators, or of C that calls C. A comprehension was a call until Python 3.11.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

_KERNEL = ("socket.", "epoll.")
"""Where the methods of C belong that are a system call each."""


def count_calls(run: Callable[[], object]) -> Counter[str]:
    """
    Run a function and count the calls made meanwhile, itself included.

    The garbage collector is held off: whose finalizers it calls, and when, is chance.

    :return: how often each function was called, by qualified name.
    """
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            calls[called.__qualname__] += 1

    before, collecting = sys.getprofile(), gc.isenabled()
    gc.disable()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
        if collecting:
            gc.enable()
    calls["setprofile"] -= 1  # the one that ends the count
    return +calls


def count_lines(run: Callable[[], object]) -> int:
    """
    Run a function and count the lines of Python that are executed meanwhile.

    It sees what calls do not show: a loop that does more by itself. A line counts as often as
    the interpreter comes to it, which Python versions see slightly differently.
    """
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before, collecting = sys.gettrace(), gc.isenabled()
    gc.disable()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
        if collecting:
            gc.enable()
    return lines


def kernel_calls(calls: Counter[str]) -> dict[str, int]:
    """Those of them that ask the kernel for something about a socket."""
    return {name: n for name, n in calls.items() if name.startswith(_KERNEL)}


def record_lengths(ciphertext: bytes) -> Iterable[int]:
    """Lengths of the TLS records in a stream, headers not counted (RFC 8446 section 5.1)."""
    while ciphertext:
        length = int.from_bytes(ciphertext[3:5], "big")
        yield length
        ciphertext = ciphertext[5 + length :]
