"""Tests for :mod:`derp.net.tailscaled_socket`."""

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from derp.net.tailscaled_socket import default_socket


class DefaultSocketTests(SynchronousTestCase):
    """:func:`derp.net.tailscaled_socket.default_socket`."""

    def system(self, *paths: str) -> Callable[[str], bool]:
        return set(paths).__contains__

    def test_places(self) -> None:
        """Of each kind of system its own; never a directory that anybody may write to."""
        table = {
            ("/var/run",): "/var/run/tailscale/tailscaled.sock",
            (): "tailscaled.sock",
            ("/var/run", "/tmp/tailscale/tailscaled.sock"): "/var/run/tailscale/tailscaled.sock",
            ("/var/run", "/usr/syno"): "/var/packages/Tailscale/etc/tailscaled.sock",
            (
                "/usr/syno",
                "/var/packages/Tailscale/var",
            ): "/var/packages/Tailscale/var/tailscaled.sock",
            ("/var/run", "/etc/config/uLinux.conf"): "/tmp/tailscale/tailscaled.sock",
            ("/gokrazy",): "/perm/tailscaled/tailscaled.sock",
        }
        for paths, socket in table.items():
            self.assertEqual(default_socket(self.system(*paths)), socket)
