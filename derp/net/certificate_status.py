"""What is known of a served certificate: for metrics, ``/debug/`` and the watchdog."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass
class CertificateStatus:
    """One name or address; times are Unix seconds, ``None`` where nothing happened yet."""

    name: str
    source: str
    """``manual``, ``self-signed``, ``acme``; bounded, since it becomes a label."""
    not_before: float | None = None
    not_after: float | None = None
    attempts: int = 0
    """How often a new certificate was asked for, or changed files were read."""
    failures: int = 0
    last_success: float | None = None
    last_failure: float | None = None
    last_error: str = ""
    """Empty once an attempt succeeded."""

    def succeeded(self, now: float) -> None:
        """An attempt brought a certificate that is served now."""
        self.attempts += 1
        self.last_success = now
        self.last_error = ""

    def failed(self, now: float, error: str) -> None:
        """An attempt did not; what was served is served on."""
        self.attempts += 1
        self.failures += 1
        self.last_failure = now
        self.last_error = error

    def describe(self) -> str:
        """One line for people."""
        parts = [f"{self.source} certificate for {self.name}"]
        if self.not_after is None:
            parts.append("none yet")
        else:
            parts.append(f"valid until {moment(self.not_after)}")
        if self.attempts:
            parts.append(f"{self.attempts} attempts, {self.failures} failed")
        if self.last_error:
            parts.append(f"last error: {self.last_error}")
        return "; ".join(parts)


def moment(seconds: float) -> str:
    """Write a time for people."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
