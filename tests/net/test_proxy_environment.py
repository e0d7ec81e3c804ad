"""Tests of :mod:`derp.net.proxy_environment`."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError
from derp.net.proxy_environment import Proxy, ProxyEnvironment

PROXY = {"HTTP_PROXY": "http://p.test:1", "HTTPS_PROXY": "http://p.test:2"}


class ProxyEnvironmentTests(SynchronousTestCase):
    """:class:`derp.net.proxy_environment.ProxyEnvironment`."""

    def port(self, url: str, **environ: str) -> int | None:
        proxy = ProxyEnvironment(PROXY | environ).proxy_for(url)
        return None if proxy is None else proxy.port

    def test_none(self) -> None:
        """Without variables there is none."""
        self.assertIsNone(ProxyEnvironment({}).proxy_for("http://a.test"))
        self.assertIsNone(ProxyEnvironment({"HTTP_PROXY": ""}).proxy_for("http://a.test"))

    def test_schemes(self) -> None:
        """Each scheme has its own; small letters count if large ones are not there."""
        self.assertEqual(self.port("http://a.test"), 1)
        self.assertEqual(self.port("https://a.test"), 2)
        environ = {"http_proxy": "a:1", "HTTP_PROXY": "b:2"}
        proxy = ProxyEnvironment(environ).proxy_for("http://a.test")
        self.assertEqual(proxy, Proxy("b", 2))
        proxy = ProxyEnvironment({"https_proxy": "https://u%40:p@a"}).proxy_for("https://a.test")
        self.assertEqual(proxy, Proxy("a", 443, True, ("u@", "p")))

    def test_local(self) -> None:
        """What is on this machine is not sent elsewhere."""
        for host in ("localhost", "127.0.0.1", "127.1.2.3", "[::1]"):
            self.assertIsNone(self.port(f"http://{host}:8080/x"))

    def test_no_proxy(self) -> None:
        """Names with all below, addresses, networks, ports."""
        table: list[tuple[str, str, bool]] = [
            ("a.test", "http://a.test", True),
            ("A.test", "http://a.TEST.", True),
            ("a.test", "http://b.a.test", True),
            ("a.test", "http://ba.test", False),
            (".a.test", "http://b.a.test", True),
            (".a.test", "http://a.test", False),
            ("*.a.test", "http://b.a.test", True),
            ("*", "http://b.test", True),
            ("b.test, a.test", "http://a.test", True),
            ("a.test:80", "http://a.test", True),
            ("a.test:81", "http://a.test", False),
            ("a.test:443", "https://a.test", True),
            ("192.0.2.1", "http://192.0.2.1", True),
            ("192.0.2.1", "http://192.0.2.10", False),
            ("192.0.2.0/24", "http://192.0.2.10", True),
            ("192.0.2.0/24", "http://198.51.100.1", False),
            ("192.0.2.0/24", "http://a.test", False),
            ("rubbish/99", "http://192.0.2.10", False),
            ("2001:db8::1", "http://[2001:db8:0::1]", True),
            ("[2001:db8::1]:80", "http://[2001:db8::1]", True),
            ("[2001:db8::1]:81", "http://[2001:db8::1]", False),
            ("2001:db8::/32", "http://[2001:db8::1]", True),
            ("", "http://a.test", False),
            (",", "http://a.test", False),
        ]
        for value, url, exempt in table:
            self.assertEqual(self.port(url, NO_PROXY=value) is None, exempt, (value, url))

    def test_cgi(self) -> None:
        """In a CGI script a client could set the variable by a header."""
        self.assertIsNone(self.port("http://a.test", REQUEST_METHOD="GET"))
        self.assertEqual(self.port("https://a.test", REQUEST_METHOD="GET"), 2)

    def test_unusable(self) -> None:
        """What is no HTTP proxy is named by its variable, and never repeated."""
        for value in ("socks5://u:secret@a", "http://", "http://a:x", "http://a:99999"):
            for name in ("HTTPS_PROXY", "https_proxy"):
                error = self.assertRaises(ConfigError, ProxyEnvironment, {name: value})
                self.assertIn(f"environment variable {name} ", str(error))
                self.assertNotIn("secret", str(error))

    @given(st.text(), st.text())
    def test_anything(self, proxy: str, exempt: str) -> None:
        """Garbage in the environment raises nothing but the operator's error."""
        try:
            environment = ProxyEnvironment({"HTTP_PROXY": proxy, "NO_PROXY": exempt})
        except ConfigError:
            return
        environment.proxy_for("http://192.0.2.1:81/")
