"""The limit on open files: raised as far as the system lets us, for each client takes one."""

from __future__ import annotations

import resource

from twisted.logger import Logger

log = Logger()

COMFORTABLE = 4096
"""Below this many descriptors the operator is told."""


def raise_open_file_limit() -> int:
    """
    Raise the soft limit to the hard one.

    :return: the limit now in force.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError) as error:
            log.warn(
                "cannot raise the limit on open files from {soft} to {hard}: {error}",
                soft=soft,
                hard=hard,
                error=error,
            )
        else:
            soft = hard
    if 0 <= soft < COMFORTABLE:
        log.warn(
            "at most {limit} files may be open, so fewer clients than that can be served; raise"
            " LimitNOFILE= (systemd) or --ulimit nofile= (Docker)",
            limit=soft,
        )
    return soft
