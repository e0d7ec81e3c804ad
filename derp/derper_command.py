"""
The ``derper`` command: the relay, unless the first word says ``doctor`` or ``health``.

A first word without a dash is nothing that Go's flags would accept, so that no command line of
derper's is taken for something else. What is not asked for is not imported: a health check is
over before a relay would be loaded.

Loading one takes a second, in which SIGTERM and SIGINT end the process at once with 0: nothing has
been begun, so that there is nothing to end in order. SIGHUP and SIGUSR2, which would kill, ask for
nothing yet. Without that a container, whose first process
the kernel spares from signals it does not handle, would be killed ten seconds later.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Entry point of the script."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Do what the first word says; gives the exit code."""
    verb = argv[0] if argv else ""
    if verb == "health":
        from derp.health_script import run as check_health

        return check_health(argv[1:])
    if verb == "doctor":
        from derp.doctor_script import run as examine

        return examine(argv[1:])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)  # until derp.net.process_end takes them over
    for number in (signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # likewise
    from derp.derper_script import run as relay

    return relay(argv)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)


if __name__ == "__main__":
    main()
