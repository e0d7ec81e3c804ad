"""
The ``derper`` command: the relay, unless the first word says ``doctor`` or ``health``.

A first word without a dash is nothing that Go's flags would accept, so that no command line of
derper's is taken for something else. What is not asked for is not imported: a health check is
over before a relay would be loaded.
"""

from __future__ import annotations

import sys
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
    from derp.derper_script import run as relay

    return relay(argv)


if __name__ == "__main__":
    main()
