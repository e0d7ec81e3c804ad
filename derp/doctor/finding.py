"""What an examination says: one sentence, how bad that is, and what helps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, but not for everybody, not as well as it could, or not for long."""
    FAIL = "fail"
    SKIP = "skip"
    """Not examined; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    verdict: Verdict
    said: str
    cure: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The same for programs; values that JSON knows."""


def ok(said: str, **facts: Any) -> Finding:
    """All is well."""
    return Finding(Verdict.OK, said, "", facts)


def warn(said: str, cure: str, **facts: Any) -> Finding:
    """See :attr:`Verdict.WARN`."""
    return Finding(Verdict.WARN, said, cure, facts)


def fail(said: str, cure: str, **facts: Any) -> Finding:
    """It does not work."""
    return Finding(Verdict.FAIL, said, cure, facts)


def skip(said: str) -> Finding:
    """See :attr:`Verdict.SKIP`."""
    return Finding(Verdict.SKIP, said)
