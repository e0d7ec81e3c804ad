"""
Which clock for what: elapsed time is the reactor's, the time of day is a ``wall_time``.

Nobody reads a clock of the system by himself, but for the few places named here.
"""

import ast
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from tests.test_layers import Sources, our_sources

STEADY = {"derp.net.steady_time", "derp.doctor.quick", "derp.net.systemd_notify"}
"""
These may read the clock that nobody sets: what makes it the reactor's; the health check, which has
no reactor; and what tells systemd.
"""
STEADY_CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "clock_gettime", "CLOCK_MONOTONIC"}
WALL_CLOCKS = {"time", "time_ns", "localtime", "ctime"}
WALL_CLOCKS_OF_DATES = {"now", "utcnow", "today"}
DATED = {"fromtimestamp", "gmtime"}
"""What takes Unix seconds."""
HANDED_IN = "wall_time"


def misread(sources: Sources) -> list[str]:
    """Clocks that are read where they should be handed in, or taken for one another."""
    return [
        f"{module}:{line}: {problem}"
        for module, text in sources.items()
        for line, problem in sorted(_misread(module, ast.parse(text)))
    ]


def _misread(module: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    handed_in = {id(default) for default in _defaults(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield node.lineno, "import time as a whole, so that it is seen which clock is read"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, name = node.value.id, node.attr
            if owner == "time" and name in WALL_CLOCKS and id(node) not in handed_in:
                yield node.lineno, f"time.{name}: let it be handed in as {HANDED_IN}"
            if owner == "time" and name in STEADY_CLOCKS and module not in STEADY:
                yield node.lineno, f"time.{name}: ask the reactor"
            if owner in ("datetime", "date") and name in WALL_CLOCKS_OF_DATES:
                yield node.lineno, f"{owner}.{name}: let it be handed in as {HANDED_IN}"
        elif isinstance(node, ast.keyword) and node.arg == HANDED_IN and _is_elapsed(node.value):
            yield node.value.lineno, f"{HANDED_IN} is the reactor's time"
        elif isinstance(node, ast.Call) and _called(node) in DATED and _is_elapsed(node):
            yield node.lineno, "a date of the reactor's time"


def _defaults(tree: ast.AST) -> Iterator[ast.expr]:
    """What parameters and fields called :data:`HANDED_IN` are if they are not given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arguments):
            by_place = [*node.posonlyargs, *node.args]
            known: list[tuple[ast.arg, ast.expr | None]]
            known = [*zip(reversed(by_place), reversed(node.defaults), strict=False)]
            known += zip(node.kwonlyargs, node.kw_defaults, strict=True)
            yield from (value for arg, value in known if value and arg.arg == HANDED_IN)
        elif isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == HANDED_IN:
            yield from filter(None, [node.value])


def _is_elapsed(value: ast.AST) -> bool:
    """Whether something called ``seconds`` of an object is in it."""
    return any(
        isinstance(each, ast.Attribute) and each.attr == "seconds" for each in ast.walk(value)
    )


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


BAD = {
    "derp.net.a": "import time\ndef f():\n    return time.time()",
    "derp.net.b": "from time import time",
    "derp.net.c": "import time\ndef f(now=time.time, *, then=time.time_ns): pass",
    "derp.net.d": "import time\nclass C:\n    now: object = time.time",
    "derp.net.e": "import time\ndeadline = time.monotonic() + 5",
    "derp.net.f": "from datetime import UTC, datetime\nmoment = datetime.now(UTC)",
    "derp.net.g": "made = f(clock, wall_time=self._clock.seconds)",
    "derp.net.h": "moment = datetime.fromtimestamp(int(reactor.seconds()), UTC)",
}
GOOD = {
    "derp.net.a": "import time\ndef f(clock, wall_time=time.time): return wall_time()",
    "derp.net.b": "import time\ndef f(*, a, wall_time=time.time, b=1): pass",
    "derp.net.c": "import time\nclass C:\n    wall_time: object = time.time",
    "derp.net.d": "import time\nmonth = time.gmtime(self._wall_time())",
    "derp.net.e": "moment = datetime.fromtimestamp(wall_time(), UTC)",
    "derp.net.steady_time": "import time\ndef f(seconds=time.monotonic): pass",
}


class ClockTests(SynchronousTestCase):
    """The rule, and our sources."""

    def test_sources(self) -> None:
        """They keep it."""
        self.assertEqual(misread(our_sources()), [])

    def test_bad(self) -> None:
        """Each way to break it is found; one of them breaks it twice."""
        blamed = [line.split(":")[0] for line in misread(BAD)]
        self.assertEqual(blamed, sorted([*BAD, "derp.net.c"]))

    def test_good(self) -> None:
        """What is handed in, and the places that are named, are not blamed."""
        self.assertEqual(misread(GOOD), [])
