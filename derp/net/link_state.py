"""What a link to another relay of the mesh can be, and why there may be none."""

from __future__ import annotations

from enum import Enum


class LinkState(Enum):
    """See the table of :mod:`derp.net.mesh_link`."""

    CONNECTING = "connecting"
    LOGGING_IN = "logging in"
    UP = "up"
    WAITING = "down"
    ITSELF = "this relay itself"
    STOPPED = "stopped"


class LinkFailure(Enum):
    """Why there is no link, for metrics."""

    UNREACHABLE = "unreachable"
    """No connection to a relay came about."""
    REFUSED = "refused"
    """A relay answered, and closed instead of telling us its clients: a wrong mesh key."""
    SILENT = "silent"
    """It answered, and then told us nothing."""
    LOST = "lost"
    """The link was up, and broke."""
