"""A DERP relay for Tailscale networks, on Twisted."""

__version__ = "0.1.0.dev0"
