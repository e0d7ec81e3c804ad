"""
``derpprobe``: the prober as a program of its own, started as Go's derpprobe is.

Exit codes: those of :mod:`derp.program`; 0 after SIGTERM and SIGINT, and with ``-once`` if all
is good; 1 with ``-once`` if a probe is bad.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from derp.probe_tap import Options, make_start
from derp.program import run_script


class ScriptOptions(Options):
    """The same flags, on a command line of our own."""

    synopsis = "Usage: derpprobe [flags]"


def run(argv: Sequence[str]) -> int:
    """Run a prober to its end; returns the exit code."""
    return run_script(ScriptOptions(), argv, make_start)


def main() -> NoReturn:
    """Entry point of the script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
