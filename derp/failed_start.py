"""
How a start under twistd fails: one sentence where the operator sees it, and exit code 1.

twistd alone would print the whole help for a wrong flag, a traceback for anything else, and
leave its pid file behind.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from twisted.logger import Logger
from twisted.python import usage

from derp.errors import ConfigError
from derp.goflag import FlagError

log = Logger()


@contextmanager
def ending_the_start(program: str, twistd: usage.Options | None) -> Iterator[None]:
    """
    Turn an operator's error into a sentence, and exit.

    :param program: what twistd calls us.
    :param twistd: its own options. Once it is a daemon, ``statusPipe`` in them leads to the
        process on the terminal, which shows 98 bytes; stderr leads nowhere and the log is read.
    """
    try:
        yield
    except ConfigError as error:
        sentence = f"{program}: {error}"
        if isinstance(error, FlagError):
            sentence += f"\n(twistd {program} --help lists the flags)"
        remove_pid_file(twistd)
        _tell(twistd, sentence)
        raise SystemExit(1) from None


def _tell(twistd: usage.Options | None, sentence: str) -> None:
    pipe = twistd.get("statusPipe") if twistd else None
    if pipe is None:
        print(sentence, file=sys.__stderr__, flush=True)  # sys.stderr is the log by now
    else:
        log.critical("{sentence}", sentence=sentence)
        os.write(pipe, b"1 " + sentence.encode("ascii", "replace")[:98])


def remove_pid_file(twistd: usage.Options | None) -> None:
    """Remove the pid file of this process; twistd leaves it behind when a start ends early."""
    path = twistd.get("pidfile") if twistd else None
    with suppress(OSError):
        if path and Path(path).read_bytes() == b"%d" % os.getpid():
            os.unlink(path)
