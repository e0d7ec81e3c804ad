"""Where tailscaled listens on this machine. Source: tailscale ``paths``."""

from __future__ import annotations

import os
from collections.abc import Callable


def default_socket(exists: Callable[[str], bool] = os.path.exists) -> str:
    """Where tailscaled's socket is on this kind of system."""
    if exists("/gokrazy"):
        return "/perm/tailscaled/tailscaled.sock"
    if exists("/usr/syno"):
        place = "var" if exists("/var/packages/Tailscale/var") else "etc"
        return f"/var/packages/Tailscale/{place}/tailscaled.sock"
    if exists("/etc/config/uLinux.conf"):  # QNAP
        return "/tmp/tailscale/tailscaled.sock"  # noqa: S108 - where tailscaled has it there
    if exists("/var/run"):
        return "/var/run/tailscale/tailscaled.sock"
    return "tailscaled.sock"
