"""Tests of :mod:`derp.net.cert_files`: what is taken, made, or refused with which sentence."""

from __future__ import annotations

import stat
from base64 import encodebytes
from datetime import timedelta
from pathlib import Path
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError
from derp.net import cert_files
from derp.net.cert_files import (
    KeyedChain,
    complaints,
    covers,
    file_base,
    load_manual,
    parse_ip,
    parse_keyed_chain,
)
from derp.net.first_files import FirstFiles
from tests.certificate_files import NOW, Issued, issue
from tests.vectors import load

TLS = load("tls.json")
HOST = "relay.example.test"
RELAY = issue([HOST])
OTHER = issue([HOST])


def chain_of(*issued: Issued) -> KeyedChain:
    """Make a chain of certificates, the first one's key with it."""
    return KeyedChain(tuple(each.certificate for each in issued), issued[0].key_pem())


class HostnameTests(SynchronousTestCase):
    """Names of hosts and files."""

    def test_file_base(self) -> None:
        """Only letters, digits, dash and dot stay."""
        for hostname, base in (
            ("relay.example.test", "relay.example.test"),
            ("127.0.0.1", "127.0.0.1"),
            ("2001:db8::7", "2001db87"),
            ("a-b_c/../d", "a-bc..d"),
            ("\u00e4.test", ".test"),
        ):
            self.assertEqual(file_base(hostname), base)

    def test_parse_ip(self) -> None:
        """Addresses are addresses, everything else is a name."""
        self.assertEqual(str(parse_ip("2001:DB8::7")), "2001:db8::7")
        for name in (HOST, "", "1.2.3", "fe80::1%eth0", "[::1]", "127.0.0.1:443"):
            self.assertIsNone(parse_ip(name))


class LoadManualTests(SynchronousTestCase):
    """Files given by the operator."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def put(self, chain: bytes | None, key: bytes | None, base: str = HOST) -> None:
        for content, ending in ((chain, "crt"), (key, "key")):
            if content is not None:
                (self.directory / f"{base}.{ending}").write_bytes(content)

    def load(self, hostname: str = HOST) -> KeyedChain:
        return load_manual(str(self.directory), hostname, NOW, FirstFiles())

    def refusal(self, hostname: str = HOST) -> str:
        return str(self.assertRaises(ConfigError, self.load, hostname))

    def test_key_forms(self) -> None:
        """PKCS#8, PKCS#1 and SEC1 keys are read."""
        keys = (
            ec.generate_private_key(ec.SECP256R1()),
            ec.generate_private_key(ec.SECP384R1()),
            rsa.generate_private_key(65537, 2048),
        )
        for key in keys:
            issued = issue([HOST], key=key)
            for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
                self.put(issued.pem, issued.key_pem(form))
                self.assertEqual(self.load().leaf, issued.certificate)
        issued = issue([HOST], key=ed25519.Ed25519PrivateKey.generate())
        self.put(issued.pem, issued.key_pem())
        self.assertEqual(self.load().leaf, issued.certificate)

    def test_chain(self) -> None:
        """Certificates keep their order; text and foreign blocks around them are dropped."""
        issuer = issue(None, common_name="issuer")
        leaf = issue([HOST], issuer=issuer)
        parameters = (
            b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        )
        self.put(
            b"Subject: relay\n" + leaf.pem + b"\nIssuer:\n" + issuer.pem,
            b"Bag Attributes\n" + parameters + leaf.key_pem(PrivateFormat.TraditionalOpenSSL),
        )
        chain = self.load()
        self.assertEqual(chain.certificates, (leaf.certificate, issuer.certificate))
        self.assertEqual(chain.chain_pem, leaf.pem + issuer.pem)
        self.assertEqual(chain.key_pem, leaf.key_pem(PrivateFormat.TraditionalOpenSSL))

    def test_p224(self) -> None:
        """As in the reference's own test, P-224 files for an IP hostname load."""
        issued = issue(["127.0.0.1"], key=ec.generate_private_key(ec.SECP224R1()))
        self.put(issued.pem, issued.key_pem(), "127.0.0.1")
        self.assertEqual(self.load("127.0.0.1").leaf, issued.certificate)

    def test_key_is_not_shown(self) -> None:
        """A chain can be logged without its key."""
        self.put(RELAY.pem, RELAY.key_pem())
        self.assertNotIn("PRIVATE", repr(self.load()))

    def test_missing(self) -> None:
        """For a DNS hostname a missing file stops the start, and nothing is made."""
        self.assertIn(f"--certdir: {self.directory / HOST}.crt is missing", self.refusal())
        self.put(RELAY.pem, None)
        self.assertIn(f"{HOST}.key is missing", self.refusal())
        self.assertEqual([each.name for each in self.directory.iterdir()], [f"{HOST}.crt"])

    def test_no_directory_named(self) -> None:
        """An empty --certdir is told first."""
        text = str(self.assertRaises(ConfigError, load_manual, "", HOST, NOW, FirstFiles()))
        self.assertIn("--certdir is empty", text)

    def test_unreadable(self) -> None:
        """A directory under the file's name is an error with its path."""
        (self.directory / f"{HOST}.crt").mkdir()
        self.assertIn(f"cannot read {self.directory / HOST}.crt", self.refusal())

    def test_too_long(self) -> None:
        """A file that cannot be a certificate is not taken whole."""
        self.put(b" " * (1024 * 1024 + 1), RELAY.key_pem())
        self.assertIn("over 1 MiB", self.refusal())

    def test_no_certificate(self) -> None:
        """Files without a certificate, or with a broken one."""
        broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        for content, said in (
            (b"", "is empty;"),
            (b"hello", "holds no PEM certificate;"),
            (RELAY.key_pem(), "holds a private key and no certificate;"),
            (broken, "is no PEM certificate chain ("),
            (RELAY.pem[:300], "is no PEM certificate chain (MalformedFraming);"),
        ):
            self.put(content, RELAY.key_pem())
            self.assertIn(f"{HOST}.crt {said}", self.refusal())
            self.assertNotIn("http", self.refusal(), "the cure is ours to say")

    def test_broken_fields(self) -> None:
        """What only shows when a field is looked at shows at once: version, names, extensions."""
        der = RELAY.certificate.public_bytes(Encoding.DER)
        common_name = b"\x06\x03\x55\x04\x03\x0c"
        alternative_names = bytes.fromhex("0603551d11")
        subject = der.rindex(common_name) + len(common_name) - 1
        for broken in (
            der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x58", 1),
            der.replace(common_name, common_name[:-1] + b"\x09", 1),
            der[:subject] + b"\x09" + der[subject + 1 :],
            der.replace(alternative_names, bytes.fromhex("0603551d13"), 1),
        ):
            self.assertNotEqual(broken, der)
            pem = b"-----BEGIN CERTIFICATE-----\n" + encodebytes(broken)
            self.put(pem + b"-----END CERTIFICATE-----\n", RELAY.key_pem())
            self.assertIn(f"{HOST}.crt is no PEM certificate chain (", self.refusal())

    def test_no_key(self) -> None:
        """Files without a key, or with a broken one, whose content stays out of the error."""
        self.put(RELAY.pem, RELAY.pem)
        self.assertIn(f"{HOST}.key holds no PEM private key", self.refusal())
        secret = b"c2VjcmV0c2VjcmV0"
        self.put(None, b"-----BEGIN PRIVATE KEY-----\n" + secret + b"\n-----END PRIVATE KEY-----\n")
        self.assertIn(f"the key in {self.directory / HOST}.key cannot be read", self.refusal())
        self.assertNotIn(secret.decode(), self.refusal())

    def test_encrypted_key(self) -> None:
        """Nobody is there to type a passphrase."""
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            self.put(RELAY.pem, RELAY.key_pem(form, BestAvailableEncryption(b"x")))
            self.assertIn("is encrypted", self.refusal())

    def test_key_of_another(self) -> None:
        """The key must be the first certificate's."""
        self.put(RELAY.pem, OTHER.key_pem())
        self.assertIn("is not that of the first certificate", self.refusal())
        self.put(OTHER.pem + RELAY.pem, RELAY.key_pem())
        self.assertIn("its own certificate first", self.refusal())

    def test_other_name(self) -> None:
        """A certificate for another host names both; derper exits, too."""
        failure = TLS["start_failures"][2]
        issued = issue(["other.example.test", "127.0.0.1"], common_name=HOST)
        self.put(issued.pem, issued.key_pem())
        text = self.refusal(failure["hostname_flag"])
        self.assertIn(f"--hostname {HOST}: ", text)
        self.assertIn("is for other.example.test, 127.0.0.1;", text)
        self.assertNotIn("make its own", text)

    def test_expired(self) -> None:
        """Dates do not keep a relay from starting."""
        issued = issue([HOST], ends=timedelta(minutes=-1))
        self.put(issued.pem, issued.key_pem())
        self.assertEqual(self.load().leaf, issued.certificate)


class GenerateTests(SynchronousTestCase):
    """Files made for an IP hostname."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()) / "derper-certs"
        self.chain = self.directory / "2001db87.crt"
        self.key = self.directory / "2001db87.key"

    def test_name_alone(self) -> None:
        """A certificate that has the address as common name only: the way out is said."""
        issued = issue([], common_name="2001:db8::7")
        self.directory.mkdir(parents=True)
        self.chain.write_bytes(issued.pem)
        self.key.write_bytes(issued.key_pem())
        error = self.assertRaises(ConfigError, self.load)
        self.assertIn("no host at all", str(error))
        self.assertIn("move both files away and the relay will make its own", str(error))

    def load(self, now: float = NOW) -> KeyedChain:
        first_files = FirstFiles()
        chain = load_manual(str(self.directory), "2001:db8::7", now, first_files)
        first_files.write()
        return chain

    def test_made(self) -> None:
        """Directory and files appear with derper's names, modes and PEM labels."""
        chain = self.load()
        recorded = TLS["groups"][0]["generated_files"]
        for path, name in (
            (self.directory, "(directory)"),
            (self.chain, "127.0.0.1.crt"),
            (self.key, "127.0.0.1.key"),
        ):
            self.assertEqual(f"{stat.S_IMODE(path.stat().st_mode):04o}", recorded[name]["mode"])
            if name != "(directory)":
                content = path.read_text()
                self.assertEqual(content.splitlines()[0], recorded[name]["first_line"])
                self.assertEqual(content.count("-----BEGIN"), recorded[name]["pem_blocks"])
        self.assertTrue(covers(chain.leaf, "2001:db8::7"))
        self.assertEqual(complaints(chain, "2001:db8::7", NOW), [])

    def test_kept(self) -> None:
        """At the next start, even ten years later, the same files are served."""
        first = self.load()
        self.assertEqual(self.load(), first)
        self.assertEqual(self.load(NOW + 20 * 365 * 86400), first)

    def test_one_missing(self) -> None:
        """If one of the two is gone, both are made anew."""
        for missing in (self.chain, self.key):
            first = self.load()
            missing.unlink()
            self.assertNotEqual(self.load().leaf, first.leaf)

    def test_died_between_the_two(self) -> None:
        """A crash after the first of the two writes is mended by the next start."""
        write = cert_files.write_file
        for missing in (self.chain, self.key):
            self.load()
            missing.unlink()
            calls: list[Path] = []

            def write_once(path: Path, *rest: object, calls: list[Path] = calls) -> None:
                calls.append(path)
                if len(calls) > 1:
                    raise KeyboardInterrupt
                write(path, *rest)  # type: ignore[arg-type]

            with mock.patch.object(cert_files, "write_file", write_once):
                self.assertRaises(KeyboardInterrupt, self.load)
            self.assertFalse(missing.exists())
            self.load()

    def test_supplied_files_stay(self) -> None:
        """Files the operator put there are served, and not made over when they are wrong."""
        self.directory.mkdir(parents=True)
        issued = issue(["2001:db8::7"])
        self.chain.write_bytes(issued.pem)
        self.key.write_bytes(issued.key_pem())
        self.assertEqual(self.load().leaf, issued.certificate)
        wrong = issue(["2001:db8::8"])
        self.chain.write_bytes(wrong.pem)
        self.key.write_bytes(wrong.key_pem())
        self.assertIn("2001:db8::8", str(self.assertRaises(ConfigError, self.load)))
        self.assertEqual(self.chain.read_bytes(), wrong.pem)

    def test_cannot_write(self) -> None:
        """A certdir that cannot be made is an error naming it."""
        self.directory.parent.write_bytes(b"")
        text = str(self.assertRaises(ConfigError, self.load))
        self.assertIn(f"--certdir {self.directory}: cannot write 2001db87.crt", text)


class CoversTests(SynchronousTestCase):
    """Which names a certificate is good for."""

    def check(self, names: list[str] | None, good: list[str], bad: list[str]) -> None:
        certificate = issue(names, common_name=HOST).certificate
        self.assertEqual([name for name in good if not covers(certificate, name)], [])
        self.assertEqual([name for name in bad if covers(certificate, name)], [])

    def test_names(self) -> None:
        """DNS names compare without case and without a final dot, as wholes."""
        self.check(
            ["Relay.Example.test", "b.test"],
            ["relay.example.test", "RELAY.example.TEST", "relay.example.test.", "b.test"],
            ["example.test", "x.relay.example.test", "relay.example", "", "."],
        )

    def test_wildcard(self) -> None:
        """A star stands for exactly one first label."""
        self.check(
            ["*.example.test", "r*.b.test", "c.*.test"],
            ["relay.example.test", "*.example.test"],
            ["example.test", "a.b.example.test", ".example.test", "relay.b.test", "c.d.test"],
        )

    def test_addresses(self) -> None:
        """An address needs an address entry of its own; a name never matches one."""
        self.check(["192.0.2.1", "2001:db8::7"], ["192.0.2.1", "2001:DB8:0::7"], ["192.0.2.2"])
        self.check(["a.test"], [], ["192.0.2.1"])
        self.check(["*.0.2.1"], [], ["192.0.2.1"])

    def test_common_name(self) -> None:
        """The common name does not count."""
        self.check(None, [], [HOST])
        self.check(["other.test"], [], [HOST])


class ComplaintsTests(SynchronousTestCase):
    """What is told although the relay starts."""

    def check(self, chain: KeyedChain, hostname: str, *expected: str) -> None:
        told = complaints(chain, hostname, NOW)
        self.assertEqual(len(told), len(expected), told)
        for text, part in zip(told, expected, strict=True):
            self.assertIn(part, text)

    def test_nothing(self) -> None:
        """A good certificate with weeks to go."""
        self.check(chain_of(RELAY), HOST)

    def test_dates(self) -> None:
        """Over, nearly over, and not yet begun."""
        self.check(chain_of(issue([HOST], ends=timedelta(0, -1))), HOST, "expired on 2026-11-20")
        self.check(chain_of(issue([HOST], ends=timedelta(13))), HOST, "expires on 2026-12-03 12:00")
        self.check(chain_of(issue([HOST], ends=timedelta(15))), HOST)
        self.check(chain_of(issue([HOST], begins=timedelta(0, 60))), HOST, "2026-11-20 12:01")

    def test_curve(self) -> None:
        """A curve no client agrees to."""
        odd = issue([HOST], key=ec.generate_private_key(ec.SECP224R1()))
        self.check(chain_of(odd), HOST, "secp224r1")

    def test_pinned_chain(self) -> None:
        """Behind an IP hostname a second certificate breaks the pin; behind a name it is normal."""
        issuer = issue(None)
        leaf = issue([HOST, "192.0.2.1"], issuer=issuer)
        self.check(chain_of(leaf, issuer), "192.0.2.1", "CertName")
        self.check(chain_of(leaf, issuer), HOST)


class ParseKeyedChainTests(SynchronousTestCase):
    """The parser on its own, as other certificate stores use it."""

    def test_names_in_errors(self) -> None:
        """Errors call chain and key what the caller calls them."""
        for chain, key in ((b"", RELAY.key_pem()), (RELAY.pem, b"")):
            error = self.assertRaises(ConfigError, parse_keyed_chain, chain, key, "THE", "THE")
            self.assertIn("THE", str(error))

    def test_leaf_der(self) -> None:
        """The DER kept is the first certificate's, the one clients are pinned to."""
        chain = parse_keyed_chain(RELAY.pem + OTHER.pem, RELAY.key_pem(), "chain", "key")
        self.assertEqual(chain.leaf_der, RELAY.certificate.public_bytes(Encoding.DER))
