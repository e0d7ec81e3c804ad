"""
Whose fault it is, as types.

==================  ===========================================================
:exc:`ProtocolError`  the remote side broke the protocol: count, log once, close
:exc:`ConfigError`    the operator gave us something unusable: one sentence, exit 1
``ValueError``        our own bug; never caught to hide it
==================  ===========================================================

A packet that is lost is none of these: it is a counted
:class:`derp.core.stats.DropReason`.
"""


class DERPError(Exception):
    """Root of the errors this package raises on purpose."""


class ProtocolError(DERPError):
    """The remote side sent something the protocol does not allow."""


class ConfigError(DERPError):
    """A flag, file or environment variable is unusable; the text names it and the cure."""
