"""How a connection to a relay fails; each text names the relay and says why."""

from __future__ import annotations

from derp.errors import DERPError


class RelayError(DERPError):
    """A connection to a relay failed or ended."""


class ConnectFailed(RelayError):
    """The connection was lost or given up before ClientInfo could be sent."""


class LoginRefused(RelayError):
    """The relay closed the connection instead of answering the login."""
