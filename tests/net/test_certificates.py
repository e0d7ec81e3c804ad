"""Tests of :mod:`derp.net.certificates` against the recorded handshakes of the reference."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError
from derp.net.cert_files import KeyedChain, load_manual
from derp.net.certificates import (
    NO_APPLICATION_PROTOCOL,
    UNRECOGNIZED_NAME,
    CertificateChooser,
    HandshakeRefused,
    ManualCertificates,
)
from derp.net.first_files import FirstFiles
from derp.wire.client_hello import ClientHello, parse_client_hello
from derp.wire.keys import parse_node_public
from derp.wire.metacert import find_server_key, is_metacert
from derp.wire.node_json import format_node_line, pin_of
from tests.certificate_files import NOW, Issued, issue
from tests.tls_clients import Handshake, client_context, client_hello, shake_hands
from tests.vectors import load

TLS = load("tls.json")
BY_ADDRESS, BY_NAME = TLS["groups"]
SERVER_PUBLIC = parse_node_public(TLS["server_public"])
HOST = BY_NAME["hostname_flag"]
LOCAL_IP = "127.0.0.1"

TLS_1_1 = ssl.TLSVersion.TLSv1_1
TLS_1_2 = ssl.TLSVersion.TLSv1_2
CLIENTS: dict[str, tuple[str | None, list[str], ssl.TLSVersion | None]] = {
    "no SNI, no ALPN": (None, [], None),
    "SNI example.com": ("example.com", [], None),
    "ALPN h2, http/1.1": (None, ["h2", "http/1.1"], None),
    "ALPN http/1.1": (None, ["http/1.1"], None),
    "ALPN h2 only": (None, ["h2"], None),
    "ALPN unknown protocol only": (None, ["foo/1"], None),
    "max TLS 1.2": (None, [], TLS_1_2),
    "max TLS 1.1": (None, [], TLS_1_1),
    "right SNI": (HOST, [], None),
    "no SNI": (None, [], None),
    "wrong SNI": ("other.example.test", [], None),
    "SNI in other case": ("Relay.Example.Test", [], None),
}
"""The recorded ClientHellos: name, protocols, newest version."""

CIPHERS = {"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256"}
GO_CIPHERS = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305"


def keyed(issued: Issued) -> KeyedChain:
    """Make a chain of one certificate."""
    return KeyedChain((issued.certificate,), issued.key_pem())


def connect(
    chooser: CertificateChooser,
    server_name: str | None = None,
    alpn: list[str] | None = None,
    maximum: ssl.TLSVersion | None = None,
) -> Handshake:
    """Do what the transport does: read the hello, ask, and go on with that context."""
    ciphers = "ALL:@SECLEVEL=0" if maximum == TLS_1_1 else GO_CIPHERS
    client = client_context(alpn or [], maximum, ciphers)
    hello = parse_client_hello(client_hello(client, server_name))
    assert hello is not None
    context = chooser.pick(hello, LOCAL_IP)
    assert isinstance(context, ssl.SSLContext)
    return shake_hands(context, client, server_name)


class RecordedHandshakeTests(SynchronousTestCase):
    """The same ClientHellos, to our certificates."""

    def certificates(self, group: dict[str, Any]) -> ManualCertificates:
        directory = self.mktemp()
        if not group["generated_files"]:
            issued = issue([HOST])
            Path(directory).mkdir()
            Path(directory, f"{HOST}.crt").write_bytes(issued.pem)
            Path(directory, f"{HOST}.key").write_bytes(issued.key_pem())
        chain = load_manual(directory, group["hostname_flag"], NOW, FirstFiles())
        return ManualCertificates(group["hostname_flag"], chain, SERVER_PUBLIC, NOW)

    def test_accepted(self) -> None:
        """Version, ALPN and chain are the reference's wherever it accepts; h2 alone excepted."""
        count = 0
        for group in TLS["groups"]:
            chooser = self.certificates(group)
            for case in group["handshakes"]:
                if case["result"] != "ok" or case["alpn"] == "h2":
                    continue
                count += 1
                seen = connect(chooser, *CLIENTS[case["client_hello"]])
                self.assertEqual(seen.version, f"TLSv{case['version']}")
                self.assertEqual(seen.alpn or "", case["alpn"])
                self.assertEqual(len(seen.chain), case["chain_length"])
                self.assertEqual(seen.chain[0], chooser.served.leaf_der)
                self.assertIn(case["last_cert_cn"].encode(), seen.chain[-1])
                self.assertEqual(find_server_key(seen.chain), (SERVER_PUBLIC, 2))
                if case["version"] == "1.2":
                    self.assertEqual(seen.cipher, CIPHERS[case["cipher"]])
        self.assertEqual(count, 6)

    def test_refused(self) -> None:
        """Who is refused there is refused here, with the alert of our table."""
        alerts = {
            "remote error: tls: no application protocol": NO_APPLICATION_PROTOCOL,
            "remote error: tls: internal error": UNRECOGNIZED_NAME,
        }
        count = 0
        for group in TLS["groups"]:
            chooser = self.certificates(group)
            for case in group["handshakes"]:
                alert = alerts.get(case.get("client_error", ""))
                if alert is None:
                    continue
                count += 1
                client = CLIENTS[case["client_hello"]]
                error = self.assertRaises(HandshakeRefused, connect, chooser, *client)
                self.assertEqual(error.alert, alert, case["client_hello"])
        self.assertEqual(count, 4)

    def test_old_version(self) -> None:
        """TLS 1.1 gets a context, whose alert is the recorded one."""
        chooser = self.certificates(BY_ADDRESS)
        error = self.assertRaises(ssl.SSLError, connect, chooser, *CLIENTS["max TLS 1.1"])
        self.assertEqual(error.reason, "TLSV1_ALERT_PROTOCOL_VERSION")

    def test_h2_alone(self) -> None:
        """A deviation: over HTTP/2 there would be no upgrade, so it is not agreed to."""
        chooser = self.certificates(BY_ADDRESS)
        error = self.assertRaises(HandshakeRefused, connect, chooser, *CLIENTS["ALPN h2 only"])
        self.assertEqual(error.alert, NO_APPLICATION_PROTOCOL)

    def test_pinned_client(self) -> None:
        """What a pinned client counts, meta certificates left out, is exactly the pinned leaf."""
        chooser = self.certificates(BY_ADDRESS)
        seen = connect(chooser)
        counted = [der for der in seen.chain if not is_metacert(der)]
        self.assertEqual([pin_of(der) for der in counted], [chooser.pin()])


class ManualCertificatesTests(SynchronousTestCase):
    """Choice, replacement, and what is told about the certificate."""

    def setUp(self) -> None:
        self.issued = issue([HOST, "192.0.2.1"])
        self.chooser = ManualCertificates(HOST, keyed(self.issued), SERVER_PUBLIC, NOW)

    def refusal(self, hello: ClientHello) -> HandshakeRefused:
        return self.assertRaises(HandshakeRefused, self.chooser.pick, hello, LOCAL_IP)

    def test_reasons(self) -> None:
        """The reasons name what was asked for, and what would have been right."""
        reason = self.refusal(ClientHello("other.test")).reason
        self.assertIn("'other.test'", reason)
        self.assertIn(repr(HOST), reason)
        self.assertIn("no name", self.refusal(ClientHello()).reason)
        self.assertIn("'acme-tls/1'", self.refusal(ClientHello(HOST, (b"acme-tls/1",))).reason)
        self.assertEqual(str(self.refusal(ClientHello())), self.refusal(ClientHello()).reason)

    def test_reasons_are_short(self) -> None:
        """A client cannot fill the log with protocols, nor break its lines."""
        reason = self.refusal(ClientHello(HOST, (b"\n" * 255,) * 50)).reason
        self.assertLess(len(reason), 400)
        self.assertNotIn("\n", reason)

    def test_protocols_come_first(self) -> None:
        """Of two reasons to refuse the reference names the protocols."""
        alert = self.refusal(ClientHello("other.test", (b"h2",))).alert
        self.assertEqual(alert, NO_APPLICATION_PROTOCOL)

    def test_same_context(self) -> None:
        """All connections share one context until it is replaced."""
        hello = ClientHello(HOST, (b"h2", b"http/1.1"))
        first = self.chooser.pick(hello, LOCAL_IP)
        self.assertIs(self.chooser.pick(ClientHello(HOST), "192.0.2.1"), first)

    def test_replace(self) -> None:
        """The next connection gets the new certificate with a new meta certificate."""
        before, old = connect(self.chooser, HOST), self.chooser.served
        other = issue([HOST])
        self.chooser.replace(keyed(other), NOW + 60)
        after = connect(self.chooser, HOST)
        self.assertEqual(before.chain[0], old.leaf_der)
        self.assertEqual(after.chain[0], other.certificate.public_bytes(Encoding.DER))
        self.assertNotEqual(after.chain[1], before.chain[1])
        self.assertEqual(find_server_key(after.chain), (SERVER_PUBLIC, 2))
        self.assertEqual(self.chooser.pin(), pin_of(after.chain[0]))

    def test_bad_replacement(self) -> None:
        """A certificate OpenSSL refuses is told in a sentence, and the old one stays."""
        weak = issue([HOST], key=rsa.generate_private_key(65537, 1024))
        before = self.chooser.served
        error = self.assertRaises(ConfigError, self.chooser.replace, keyed(weak), NOW)
        self.assertIn(f"--hostname {HOST}: OpenSSL refuses", str(error))
        self.assertIs(self.chooser.served, before)
        self.assertRaises(ConfigError, ManualCertificates, HOST, keyed(weak), SERVER_PUBLIC, NOW)

    def test_dates_and_fingerprint(self) -> None:
        """Dates are Unix seconds; the fingerprint is what the pin holds."""
        served = self.chooser.served
        self.assertEqual(served.not_before, NOW - 3600)
        self.assertEqual(served.not_after, NOW + 90 * 86400)
        self.assertEqual(self.chooser.pin(), "sha256-raw:" + served.fingerprint)

    def test_node_line(self) -> None:
        """Only an IP hostname has a line to print, whoever made its certificate."""
        self.assertIsNone(self.chooser.node_line())
        by_address = ManualCertificates("192.0.2.1", keyed(self.issued), SERVER_PUBLIC, NOW)
        expected = format_node_line("192.0.2.1", by_address.pin())
        self.assertEqual(by_address.node_line(), expected)

    def test_tickets(self) -> None:
        """The number of session tickets is passed on, and kept across a replacement."""
        chooser = ManualCertificates(HOST, keyed(self.issued), SERVER_PUBLIC, NOW, num_tickets=1)
        chooser.replace(keyed(self.issued), NOW)
        self.assertGreater(connect(chooser, HOST).bytes_after_finished, 0)
        self.assertEqual(connect(self.chooser, HOST).bytes_after_finished, 0)

    def test_no_key_in_repr(self) -> None:
        """Nothing that may be logged shows key or certificate bytes."""
        self.assertNotIn("PRIVATE", repr(self.chooser.served))
        self.assertNotIn("leaf_der", repr(self.chooser.served))
