"""Tests for :mod:`derp.addresses`."""

import socket

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.addresses import check_port, parse_listen_address, resolve_host
from derp.errors import ConfigError

NAMES = {"relay.example.test": "192.0.2.7", "six.example.test": "2001:db8::7"}


def resolve(name: str) -> str:
    """A resolver that asks no network."""
    if name not in NAMES:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return NAMES[name]


READ = {
    ":443": ("", 443),
    ":0": ("", 0),
    ":65535": ("", 65535),
    ":https": ("", 443),
    ":http": ("", 80),
    "0.0.0.0:80": ("0.0.0.0", 80),
    "192.0.2.1:https": ("192.0.2.1", 443),
    "[::]:443": ("::", 443),
    "[2001:DB8::1]:443": ("2001:db8::1", 443),
    "[fe80::1%eth0]:443": ("fe80::1%eth0", 443),
    "relay.example.test:8443": ("192.0.2.7", 8443),
    "six.example.test:8443": ("2001:db8::7", 8443),
}
REFUSED = {
    "": "invalid server address",
    "443": "invalid server address",
    "192.0.2.1": "invalid server address",
    "::1:443": "invalid server address",
    "::1": "invalid server address",
    "[::1]": "invalid server address",
    "[::1]443": "invalid server address",
    "[192.0.2.1]:443": "invalid server address",
    "[::1:443": "invalid server address",
    "::1]:443": "invalid server address",
    ":[443]": "invalid server address",
    ":": 'no port ""',
    "192.0.2.1:": 'no port ""',
    ":-1": 'no port "-1"',
    ":65536": "no port 65536",
    ":9999999999": "no port",
    ":ssh": 'no port "ssh"',
    ": 443": "no port",
    ":\u0664\u0664\u0663": "no port",
    "nowhere.example.test:443": "Name or service not known",
    "192.0.2.256:443": "neither an IP address nor a name of one",
    "http://192.0.2.1:443": "invalid server address",
}


class ParseListenAddressTests(SynchronousTestCase):
    """:func:`derp.addresses.parse_listen_address`."""

    def test_read(self) -> None:
        """Addresses, names and named ports, as Go's listeners take them."""
        self.assertEqual({text: parse_listen_address("-a", text, resolve) for text in READ}, READ)

    def test_refused(self) -> None:
        """Each sentence names the flag and what is wrong."""
        for text, sentence in REFUSED.items():
            with self.subTest(text=text):
                error = self.assertRaises(ConfigError, parse_listen_address, "-a", text, resolve)
                self.assertTrue(str(error).startswith("-a: "), str(error))
                self.assertIn(sentence, str(error))

    @given(st.text(max_size=20) | st.text("0123456789abc:.[]%", max_size=20))
    def test_anything(self, text: str) -> None:
        """No text raises anything else."""
        try:
            host, port = parse_listen_address("-a", text, resolve)
        except ConfigError as error:
            self.assertTrue(str(error).isprintable(), str(error))
            return
        self.assertTrue(0 <= port <= 65535 and "[" not in host)

    def test_name_that_is_no_name(self) -> None:
        """A label longer than DNS allows is refused by the codec, and like any other by us."""
        text = "a" * 70 + ".test:443"
        self.assertRaises(ConfigError, parse_listen_address, "-a", text, resolve_host)


class ResolveHostTests(SynchronousTestCase):
    """:func:`derp.addresses.resolve_host`."""

    def test_ipv4_first(self) -> None:
        """Of several addresses the IPv4 one is listened on, as in Go."""

        def both(*args: object, **kwargs: object) -> list[tuple[object, ...]]:
            return [
                (socket.AF_INET6, 1, 6, "", ("::1", 0, 0, 0)),
                (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0)),
            ]

        self.patch(socket, "getaddrinfo", both)
        self.assertEqual(resolve_host("localhost"), "127.0.0.1")


class CheckPortTests(SynchronousTestCase):
    """:func:`derp.addresses.check_port`."""

    def test_bounds(self) -> None:
        """0 (any free port) to 65535."""
        self.assertEqual([check_port("--x", port) for port in (0, 65535)], [0, 65535])
        for port in (-1, 65536):
            error = self.assertRaises(ConfigError, check_port, "--stun-port", port)
            self.assertIn(f"--stun-port: there is no port {port}", str(error))
