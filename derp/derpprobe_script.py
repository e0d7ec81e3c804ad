"""
``derpprobe``: the prober as a program of its own, started as Go's derpprobe is.

In the foreground, without a pid file, with its log on stderr.

Exit codes: 0 after SIGTERM, SIGINT, ``-version`` and ``-h``, and with ``-once`` if all is good;
2 for a wrong flag, with the usage on stderr; 1 for whatever else stops the start, with one
sentence, and with ``-once`` if a probe is bad.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from derp.errors import ConfigError
from derp.go_log import begin_logging
from derp.goflag import FlagError
from derp.probe_tap import PROGRAM, Options, make_start


class ScriptOptions(Options):
    """The same flags, on a command line of our own."""

    synopsis = f"Usage: {PROGRAM} [flags]"


def run(argv: Sequence[str]) -> int:
    """Run a prober to its end; returns the exit code."""
    options = ScriptOptions()
    try:
        options.read(argv)
    except FlagError as error:
        print(f"{options}\n{PROGRAM}: {error}", file=sys.stderr, flush=True)
        return 2
    except (ConfigError, OSError) as error:
        return _refuse(str(error))
    begin_logging(sys.stderr)
    from twisted.internet import reactor

    try:
        service = make_start(options)
        service.privilegedStartService()
        service.startService()
    except OSError as error:
        return _refuse(str(error))
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return service.exit_code


def _refuse(sentence: str) -> int:
    print(f"{PROGRAM}: {sentence}", file=sys.stderr, flush=True)
    return 1


def main() -> NoReturn:
    """Entry point of the script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
