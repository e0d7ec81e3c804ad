"""Directories that Go's autocert and derper's ipcert.go read and write."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import PrivateFormat
from twisted.trial.unittest import SynchronousTestCase

from derp.net.acme_problem import ACMEError
from derp.net.cert_files import parse_keyed_chain
from derp.net.certificate_cache import AddressFiles, HostFiles
from derp.wire.jose import AccountKey
from tests.certificate_files import NOW, Issued, issue

NAME = "derp.example.com"
SEC1 = PrivateFormat.TraditionalOpenSSL


class CacheCase(SynchronousTestCase):
    """A directory."""

    def setUp(self) -> None:
        self.place = Path(self.mktemp())

    def put(self, name: str, content: bytes) -> None:
        """Put a file there."""
        self.place.mkdir(exist_ok=True)
        (self.place / name).write_bytes(content)

    def mode(self, name: str = "") -> int:
        """Mode of a file, or of the directory."""
        return (self.place / name).stat().st_mode & 0o777


def keyed(issued: Issued) -> bytes:
    """Key and certificate as autocert writes them."""
    return issued.key_pem(SEC1) + issued.pem


class HostFilesTests(CacheCase):
    """autocert's directory."""

    def test_load(self) -> None:
        """Key first, then leaf and issuer."""
        issuer = issue(None)
        leaf = issue([NAME], issuer=issuer)
        self.put(NAME, keyed(leaf) + issuer.pem)
        chain = HostFiles(self.place).load(NAME, NOW)
        assert chain is not None
        self.assertEqual(chain.certificates, (leaf.certificate, issuer.certificate))

    def test_rsa(self) -> None:
        """autocert's second file, for clients without ECDSA, has an RSA key or does not count."""
        files = HostFiles(self.place)
        self.assertIsNone(files.load_rsa(NAME, NOW))
        old = issue([NAME], key=rsa.generate_private_key(65537, 2048))
        self.put(f"{NAME}+rsa", keyed(old))
        chain = files.load_rsa(NAME, NOW)
        assert chain is not None
        self.assertEqual(chain.leaf, old.certificate)
        self.assertIsNone(files.load(NAME, NOW))
        self.assertIsNone(files.load_rsa(NAME, NOW + 91 * 86400))
        self.put(f"{NAME}+rsa", keyed(issue([NAME])))
        self.assertIsNone(files.load_rsa(NAME, NOW))
        self.assertIsNone(AddressFiles(self.place).load_rsa(NAME, NOW))

    def test_misses(self) -> None:
        """What cannot be served is as good as not there, and stays there."""
        ended = issue([NAME], begins=timedelta(days=-9), ends=timedelta(days=-1))
        contents = {
            "garbage": b"garbage",
            "empty": b"",
            "no key": issue([NAME]).pem,
            "another's key": issue([NAME]).key_pem(SEC1) + issue([NAME]).pem,
            "another name": keyed(issue(["other.example.com"])),
            "expired": keyed(ended),
            "not yet": keyed(issue([NAME], begins=timedelta(hours=1))),
            "RSA": keyed(issue([NAME], key=rsa.generate_private_key(65537, 2048))),
        }
        files = HostFiles(self.place)
        self.assertIsNone(files.load(NAME, NOW))
        for what, content in contents.items():
            self.put(NAME, content)
            self.assertIsNone(files.load(NAME, NOW), what)
            self.assertEqual((self.place / NAME).read_bytes(), content)

    def test_save(self) -> None:
        """To the byte what autocert takes back: nothing behind the last END line."""
        issued = issue([NAME])
        pem = issued.pem + b"\n\ntrailing words\n"
        key = issued.key_pem(SEC1)
        HostFiles(self.place).save(NAME, parse_keyed_chain(pem, key, "c", "k"))
        self.assertEqual((self.place / NAME).read_bytes(), key + issued.pem)
        self.assertEqual((self.mode(), self.mode(NAME)), (0o700, 0o600))
        self.assertEqual([each.name for each in self.place.iterdir()], [NAME])

    def test_account_key(self) -> None:
        """Made once and private; the old name is read, too."""
        files = HostFiles(self.place)
        key = files.account_key()
        self.assertEqual(files.account_key().thumbprint(), key.thumbprint())
        self.assertEqual(self.mode("acme_account+key"), 0o600)
        (self.place / "acme_account+key").rename(self.place / "acme_account.key")
        self.assertEqual(files.account_key().thumbprint(), key.thumbprint())

    def test_broken_account_key(self) -> None:
        """It is not replaced silently: limits hang on an account."""
        self.put("acme_account+key", b"garbage")
        error = self.assertRaises(ACMEError, HostFiles(self.place).account_key)
        self.assertIn("should hold the key of our ACME account", str(error))
        self.assertIn("move it away", str(error))


class AddressFilesTests(CacheCase):
    """ipcert.go's files."""

    def test_round_trip(self) -> None:
        """Names with dots for colons, modes as derper's, another account."""
        files = AddressFiles(self.place)
        for name, base in (("203.0.113.7", "203.0.113.7"), ("2001:db8::7", "2001.db8..7")):
            issued = issue([name])
            chain = parse_keyed_chain(issued.pem, issued.key_pem(SEC1), "c", "k")
            files.save(name, chain)
            self.assertEqual(self.mode(f"{base}.crt"), 0o644)
            self.assertEqual(self.mode(f"{base}.key"), 0o600)
            found = files.load(name, NOW)
            assert found is not None
            self.assertEqual(found.leaf, issued.certificate)
        self.put("acme-account.key", AccountKey.generate().pem())
        files.account_key()
        self.assertFalse((self.place / "acme_account+key").exists())

    def test_misses(self) -> None:
        """Half a pair, or one that does not fit."""
        files = AddressFiles(self.place)
        issued = issue(["203.0.113.7"])
        self.put("203.0.113.7.crt", issued.pem)
        self.assertIsNone(files.load("203.0.113.7", NOW))
        self.put("203.0.113.7.key", issue(["203.0.113.7"]).key_pem(SEC1))
        self.assertIsNone(files.load("203.0.113.7", NOW))
