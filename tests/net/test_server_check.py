"""Tests of :mod:`derp.net.server_check` by TLS handshakes in memory."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from OpenSSL import SSL
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError
from derp.net.server_check import (
    CertificateRefused,
    ServerCheck,
    check_pin,
    explain_tls_error,
    peer_chain,
)
from derp.wire.node_json import pin_of
from tests.net.relay_fakes import ServerTLS, make_credentials, metacert

HOST = "derp.example.com"
CA = make_credentials(["Test CA"], ca=True)
LEAF = make_credentials([HOST, "192.0.2.1", "2001:db8::1"], CA)
LONE = make_credentials([HOST, "192.0.2.1"])
META = metacert()
VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)


@dataclass
class Met:
    """What came of a handshake."""

    chain: list[bytes]
    error: SSL.Error | None
    server_error: SSL.Error | None
    server_name: bytes | None


def meet(check: ServerCheck, tls: ServerTLS) -> Met:
    """Run one handshake between a client that checks and a server."""
    client = check.clientConnectionForTLS(Protocol())
    server = tls.serverConnectionForTLS(Protocol())
    client.set_connect_state()
    server.set_accept_state()
    errors: dict[SSL.Connection, SSL.Error | None] = {client: None, server: None}
    for _ in range(6):
        for ours, theirs in ((client, server), (server, client)):
            try:
                ours.do_handshake()
            except SSL.WantReadError:
                pass
            except SSL.Error as error:
                errors[ours] = errors[ours] or error
            with contextlib.suppress(SSL.WantReadError):
                theirs.bio_write(ours.bio_read(1 << 16))
    return Met(peer_chain(client), errors[client], errors[server], tls.server_names[-1])


class ServerCheckTestCase(SynchronousTestCase):
    """Certificates met by a client that trusts the test's own CA."""

    def setUp(self) -> None:
        self.ca_file = self.mktemp()
        with open(self.ca_file, "wb") as file:
            file.write(CA.pem)

    def check(self, name: str = HOST, **options: Any) -> ServerCheck:
        return ServerCheck(name, **{"ca_file": self.ca_file, **options})

    def accepts(self, check: ServerCheck, tls: ServerTLS) -> Met:
        met = meet(check, tls)
        self.assertIsNone(met.error, check.problem)
        check.check_handshake(met.chain)
        return met

    def refuses(self, check: ServerCheck, tls: ServerTLS) -> str:
        """The handshake ends with an alert to the server, and with an explanation."""
        met = meet(check, tls)
        self.assertIsNotNone(met.error)
        self.assertIsNotNone(met.server_error, "the server hears of it")
        self.assertIsInstance(check.problem, CertificateRefused)
        return str(check.problem)


class ChainTests(ServerCheckTestCase):
    """Certificates of a CA."""

    def test_accepted(self) -> None:
        """A chain to a trusted root, made for the name, in either TLS version."""
        for version in VERSIONS:
            met = self.accepts(self.check(), ServerTLS(LEAF, maximum=version))
            self.assertEqual(met.chain, [LEAF.der])

    def test_meta_certificate(self) -> None:
        """The meta certificate at the end of the chain does no harm, and can be read."""
        for version in VERSIONS:
            met = self.accepts(self.check(), ServerTLS(LEAF, [META], version))
            self.assertEqual(met.chain, [LEAF.der, META])

    def test_intermediate(self) -> None:
        """Certificates behind the leaf help to find the root."""
        middle = make_credentials(["Middle CA"], CA, ca=True)
        leaf = make_credentials([HOST], middle)
        self.accepts(self.check(), ServerTLS(leaf, [middle.der, META]))
        text = self.refuses(self.check(), ServerTLS(leaf, [META]))
        self.assertIn("an intermediate certificate is missing", text)
        self.assertIn("serve the whole chain", text)

    def test_addresses(self) -> None:
        """An IP literal is looked for among the addresses, and not sent as a name."""
        for ip in ("192.0.2.1", "2001:db8::1"):
            met = self.accepts(self.check(ip), ServerTLS(LEAF))
            self.assertIsNone(met.server_name)
        self.assertIn("192.0.2.2", self.refuses(self.check("192.0.2.2"), ServerTLS(LEAF)))

    def test_server_name(self) -> None:
        """A name is sent, without the dot at its end, and matched without it."""
        for name in (HOST, HOST + "."):
            met = self.accepts(self.check(name), ServerTLS(LEAF))
            self.assertEqual(met.server_name, HOST.encode())

    def test_other_name(self) -> None:
        """A certificate for another name: expected, presented and cure are in the error."""
        text = self.refuses(self.check("relay.example.org"), ServerTLS(LEAF))
        self.assertIn("expected a certificate for relay.example.org", text)
        self.assertIn(HOST, text)
        self.assertIn("192.0.2.1", text)
        self.assertIn("CertName", text)

    def test_cert_name(self) -> None:
        """A plain CertName is checked instead of the host name, which is still asked for."""
        check = self.check("front.example", cert_name=HOST)
        met = self.accepts(check, ServerTLS(LEAF))
        self.assertEqual(met.server_name, b"front.example")
        self.refuses(self.check(HOST, cert_name="front.example"), ServerTLS(LEAF))

    def test_self_signed(self) -> None:
        """For a self-signed certificate the pin to write into CertName is offered."""
        text = self.refuses(self.check(), ServerTLS(LONE, [META]))
        self.assertIn("self-signed", text)
        self.assertIn(pin_of(LONE.der), text)

    def test_unknown_root(self) -> None:
        """A chain to a root nobody trusts is refused, with and without the root."""
        other = make_credentials(["Other CA"], ca=True)
        leaf = make_credentials([HOST], other)
        for extra in ((), (other.der,)):
            text = self.refuses(self.check(), ServerTLS(leaf, extra))
            self.assertIn("SSL_CERT_FILE", text)
            self.assertIn("trusted", text)

    def test_dates(self) -> None:
        """Certificates of the past and of the future are refused, with their dates."""
        day = timedelta(days=1)
        for begins, ends, why in (
            (-9 * day, -1 * day, "it has expired"),
            (1 * day, 9 * day, "it is not valid yet"),
        ):
            leaf = make_credentials([HOST], CA, begins=begins, ends=ends)
            text = self.refuses(self.check(), ServerTLS(leaf))
            self.assertIn(why, text)
            self.assertIn(f"{leaf.certificate.not_valid_after_utc:%Y-%m-%d}", text)
            self.assertIn("renew it", text)

    def test_no_names(self) -> None:
        """A common name is no name (RFC 6125, and Go)."""
        leaf = make_credentials(["192.0.2.9"], CA)
        self.assertIn("192.0.2.9", self.refuses(self.check(), ServerTLS(leaf)))

    def test_insecure(self) -> None:
        """With checks turned off anything is taken."""
        check = self.check("whatever.example", insecure=True, cert_name="sha256-raw:00")
        self.accepts(check, ServerTLS(LONE))


class LifeTests(ServerCheckTestCase):
    """What is left of a check."""

    def test_freed_at_once(self) -> None:
        """Roots take a megabyte: they go with the check, without the garbage collector."""
        check = self.check()
        meet(check, ServerTLS(LEAF))
        gone = weakref.ref(check)
        gc.disable()
        self.addCleanup(gc.enable)
        del check
        self.assertIsNone(gone())

    def test_roots_when_needed(self) -> None:
        """A connection that never comes to its handshake has read no roots."""
        read: list[SSL.Context] = []
        self.patch(SSL.Context, "set_default_verify_paths", lambda it: read.append(it))
        check = ServerCheck(HOST)
        self.assertEqual(len(read), 0)
        check.clientConnectionForTLS(Protocol())
        self.assertEqual(len(read), 1)


class TrustTests(ServerCheckTestCase):
    """Where trusted roots come from."""

    def test_system_roots(self) -> None:
        """``SSL_CERT_FILE`` replaces the system's roots, as for everything with OpenSSL."""
        self.refuses(ServerCheck(HOST), ServerTLS(LEAF))
        with patch.dict(os.environ, SSL_CERT_FILE=self.ca_file):
            self.accepts(ServerCheck(HOST), ServerTLS(LEAF))

    def test_bad_ca_file(self) -> None:
        """A file that cannot be read, or holds no certificate, is named."""
        empty = self.mktemp()
        with open(empty, "wb"):
            pass
        for path in (self.mktemp(), empty):
            error = self.assertRaises(ConfigError, ServerCheck, HOST, ca_file=path)
            self.assertIn(path, str(error))


class PinTests(ServerCheckTestCase):
    """``sha256-raw:``"""

    NOW = LONE.certificate.not_valid_before_utc.timestamp() + 60

    def refuses_pin(
        self, chain: Sequence[bytes], pin: str, name: str = HOST, now: float = NOW
    ) -> str:
        return str(self.assertRaises(CertificateRefused, check_pin, chain, pin, name, now))

    def test_handshake(self) -> None:
        """A pinned self-signed certificate is taken, by name and by address, in either TLS."""
        for version in VERSIONS:
            for name in (HOST, "192.0.2.1"):
                check = self.check(name, cert_name=pin_of(LONE.der), wall_time=lambda: self.NOW)
                met = self.accepts(check, ServerTLS(LONE, [META], version))
                self.assertEqual(met.server_name, HOST.encode() if name == HOST else None)

    def test_other_certificate(self) -> None:
        """TLS itself succeeds with any certificate; the check behind it does not."""
        check = self.check(cert_name=pin_of(LEAF.der), wall_time=lambda: self.NOW)
        met = meet(check, ServerTLS(LONE, [META]))
        self.assertIsNone(met.error)
        error = self.assertRaises(CertificateRefused, check.check_handshake, met.chain)
        self.assertIn(pin_of(LEAF.der), str(error))
        self.assertIn(pin_of(LONE.der), str(error))

    def test_digits(self) -> None:
        """The digits are compared as text: upper case does not match, as in the reference."""
        pin = pin_of(LONE.der)
        check_pin([LONE.der], pin, HOST, self.NOW)
        for wrong in (pin[:11] + pin[11:].upper(), pin[:-1], pin + " ", "sha256-raw:"):
            self.refuses_pin([LONE.der], wrong)

    def test_one_certificate(self) -> None:
        """Exactly one, meta certificates not counted: a chain cannot be pinned."""
        pin = pin_of(LEAF.der)
        check_pin([META, LEAF.der, META], pin, HOST, self.NOW)
        self.assertIn("presented 2", self.refuses_pin([LEAF.der, CA.der], pin))
        self.assertIn("presented 0", self.refuses_pin([META], pin))
        self.assertIn("presented 0", self.refuses_pin([], pin))

    def test_dates(self) -> None:
        """Outside its validity a pinned certificate is worth nothing."""
        starts = LONE.certificate.not_valid_before_utc.timestamp()
        ends = LONE.certificate.not_valid_after_utc.timestamp()
        for now in (starts, ends):
            check_pin([LONE.der], pin_of(LONE.der), HOST, now)
        for now in (starts - 1, ends + 1):
            self.assertIn("renew", self.refuses_pin([LONE.der], pin_of(LONE.der), now=now))

    def test_names(self) -> None:
        """It must be made for the server, unless there is no name to ask for."""
        pin = pin_of(LONE.der)
        check_pin([LONE.der], pin, "", self.NOW)
        for name in ("other.example", "192.0.2.9", "2001:db8::1"):
            self.assertIn(name, self.refuses_pin([LONE.der], pin, name))

    def test_no_certificate(self) -> None:
        """Bytes that are none are refused, not raised about."""
        self.assertIn("cannot be read", self.refuses_pin([b"junk"], pin_of(b"junk")))


class ExplainTests(SynchronousTestCase):
    """TLS errors in words."""

    def test_hints(self) -> None:
        """OpenSSL's reason is kept, and said what it usually means."""
        for reason, hint in (
            ("tlsv1 unrecognized name", "no certificate for this name"),
            ("wrong version number", "http://"),
            ("bad thing", ""),
        ):
            text = explain_tls_error(SSL.Error([("SSL routines", "", reason)]))
            self.assertIn(reason, text)
            self.assertIn(hint, text)
        for odd in (SSL.Error(), SSL.Error([]), SSL.SysCallError(-1, "Unexpected EOF")):
            self.assertIn("TLS handshake failed", explain_tls_error(odd))

    def test_general_reason_behind(self) -> None:
        """Older OpenSSL puts a general reason last: the telling one is the one that is told."""
        reasons = [("", "", "wrong version number"), ("", "", "record layer failure")]
        text = explain_tls_error(SSL.Error(reasons))
        self.assertIn("wrong version number (this port does not speak TLS", text)
