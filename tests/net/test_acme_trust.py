"""Tests of :mod:`derp.net.acme_trust`: whose certificates an authority's server may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError
from derp.net.acme_trust import AuthorityTrust
from tests.net.relay_fakes import Credentials, ServerTLS, make_credentials
from tests.net.test_server_check import meet

HOST = "ca.example.test"
OLD, NEW = make_credentials(["old root"], ca=True), make_credentials(["new root"], ca=True)


def trusts(trust: AuthorityTrust, root: Credentials) -> bool:
    """Whether a server is believed whose certificate is from this root."""
    creator: Any = trust.creatorForNetloc(HOST.encode(), 443)
    client: Any = mock.Mock()
    client.clientConnectionForTLS = lambda _: creator.clientConnectionForTLS(mock.MagicMock())
    return meet(client, ServerTLS(make_credentials([HOST], root))).error is None


class AuthorityTrustTests(SynchronousTestCase):
    """The roots of a file, which may change."""

    def setUp(self) -> None:
        """Trust the old root."""
        self.path = Path(self.mktemp())
        self.path.write_bytes(OLD.pem)
        self.trust = AuthorityTrust(str(self.path))

    def test_file(self) -> None:
        """Its roots are trusted, and nothing else."""
        self.assertTrue(trusts(self.trust, OLD))
        self.assertFalse(trusts(self.trust, NEW))

    def test_several(self) -> None:
        """A file may hold both while one takes the other's place."""
        self.path.write_bytes(OLD.pem + b"the next one:\n" + NEW.pem)
        self.trust.load()
        self.assertTrue(trusts(self.trust, OLD))
        self.assertTrue(trusts(self.trust, NEW))

    def test_read_again(self) -> None:
        """What it holds now counts for whoever asks from now on."""
        self.path.write_bytes(NEW.pem)
        self.assertTrue(trusts(self.trust, OLD))
        self.trust.load()
        self.assertFalse(trusts(self.trust, OLD))
        self.assertTrue(trusts(self.trust, NEW))

    def test_unusable(self) -> None:
        """A file without a root leaves what was trusted; at the start it is an error."""
        for content in (b"", b"nothing", NEW.pem[:200]):
            self.path.write_bytes(content)
            error = self.assertRaises(ConfigError, self.trust.load)
            self.assertIn("no PEM certificate can be read", str(error))
        self.path.unlink()
        self.assertIn("cannot read it", str(self.assertRaises(ConfigError, self.trust.load)))
        self.assertTrue(trusts(self.trust, OLD))
        self.assertRaises(ConfigError, AuthorityTrust, str(self.path))

    def test_system(self) -> None:
        """Without a file those of the system, which know neither."""
        trust = AuthorityTrust()
        trust.load()
        self.assertFalse(trusts(trust, OLD))
