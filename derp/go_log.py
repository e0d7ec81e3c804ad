"""
The log as Go programs write it: each event behind ``2006/01/02 15:04:05``, local time.

What reads derper's log today (a grep, a journal's filter) finds its lines in the same form.
"""

from __future__ import annotations

from datetime import datetime
from typing import TextIO

from twisted.logger import FileLogObserver, LogEvent, eventAsText, globalLogBeginner


def format_event(event: LogEvent) -> str | None:
    """One event with its traceback, if it has one; ``None`` if it says nothing."""
    text = eventAsText(event, includeTimestamp=False, includeSystem=False).strip("\n")
    if not text:
        return None
    time = datetime.fromtimestamp(event["log_time"])
    return f"{time:%Y/%m/%d %H:%M:%S} {text}\n"


def begin_logging(file: TextIO) -> None:
    """Write all events to a file from now on; stdout and stderr stay what they are."""
    observer = FileLogObserver(file, format_event)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
