"""Tests for :mod:`derp.net.http_url`."""

from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError
from derp.net.http_url import (
    check_admission_url,
    check_directory_url,
    check_setec_url,
    shown,
)


class HTTPURLTests(SynchronousTestCase):
    """URLs that could be asked, and what the log has of them."""

    def test_admission(self) -> None:
        """What can be asked passes as it is, what cannot stops the start."""
        for url in ("http://a.test", "https://u:p@a.test:8443/verify?x=1", "HTTP://[::1]:80/"):
            self.assertEqual(check_admission_url(url), url)
        for url in (
            "",
            "a.test",
            "//a.test/",
            "ftp://a.test",
            "http://",
            "http://a:99999",
            "http://a b/",
        ):
            self.assertRaises(ConfigError, check_admission_url, url)
        error = self.assertRaises(ConfigError, check_admission_url, "ftp://me:secret@a.test")
        self.assertNotIn("secret", str(error))

    def test_directory(self) -> None:
        """ACME is HTTPS."""
        for url in ("https://a.test/dir", "HTTPS://[::1]:14000/dir"):
            self.assertEqual(check_directory_url(url), url)
        for url in ("a.test", "http://a.test/", "https://", "https:///d", "https://a b/d"):
            with self.assertRaisesRegex(ConfigError, "--acme-directory: ", msg=url):
                check_directory_url(url)

    def test_shown(self) -> None:
        """Nothing that may be secret."""
        self.assertEqual(shown("https://u:p@a.test:1/verify?token=1#x"), "https://a.test:1/verify")

    def test_setec(self) -> None:
        """One slash at the end is taken off; what is no URL is refused."""
        self.assertEqual(check_setec_url("https://setec.test/"), "https://setec.test")
        self.assertEqual(check_setec_url("http://a.test:80/x"), "http://a.test:80/x")
        for url in ("setec.test", "ftp://a", "http://", "http://a b", "http://a:x", "http://a\n"):
            with self.assertRaisesRegex(ConfigError, "--secrets-url: ", msg=url):
                check_setec_url(url)
