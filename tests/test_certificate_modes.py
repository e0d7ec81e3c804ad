"""Which parts each mode of certificates is made of."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from derp import acme_service, manual_service
from derp.acme_service import ACMEService
from derp.certificate_modes import certificate_service
from derp.config import CertMode, Config
from derp.core.relay import Relay, RelayIdentity
from derp.errors import ConfigError
from derp.manual_service import ManualService
from derp.net.acme_client import GOOGLE, LETSENCRYPT, Profile
from derp.net.first_files import FirstFiles
from derp.net.reload import Reloader
from derp.wire.jose import AccountKey
from tests.certificate_files import NOW, issue
from tests.wall_clock import WallClock

IP = "203.0.113.7"


class CertificateServiceTests(SynchronousTestCase):
    """See :func:`derp.certificate_modes.certificate_service`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = WallClock(self.clock, NOW)
        self.relay = Relay(RelayIdentity(bytes(range(32))))
        self.reloader = Reloader(self.clock)
        self.config = Config(certdir=str(Path(self.mktemp())), hostname="derp.example.com")

    def make(self, **fields: Any) -> Any:
        """The certificates of a relay."""
        config = replace(self.config, **fields)
        first_files = FirstFiles()
        made = certificate_service(
            config,
            self.clock,
            self.relay,
            self.reloader,
            first_files,
            wall_time=self.wall.seconds,
        )
        first_files.write()
        return made

    def solvers(self, certificates: Any) -> list[str]:
        """Challenge types in the order they are tried."""
        return [each.challenge_type for each in certificates._solvers]

    def test_plain(self) -> None:
        """Without TLS there are none."""
        self.assertIsNone(self.make(tls=False))

    def test_manual(self) -> None:
        """Files, watched; no answers to authorities; txacme is not imported for it."""
        with mock.patch.dict(sys.modules):
            for name in [each for each in sys.modules if each.startswith(("txacme", "acme"))]:
                del sys.modules[name]
            made = self.make(certmode=CertMode.MANUAL, hostname=IP)
            self.assertNotIn("txacme", sys.modules)
        self.assertIsInstance(made, ManualService)
        self.assertIsNone(made.challenges)
        self.assertEqual([each.name for each in self.reloader.files], ["certificate"])
        self.assertEqual(made.statuses()[0].source, "self-signed")
        self.assertTrue(made.pin().startswith("sha256-raw:"))
        self.assertIn("pinned by CertName", made.describe())

    def test_node_line(self) -> None:
        """The DERPNode of an address stands in one line of the log, as scripts look for it."""
        made = self.make(certmode=CertMode.MANUAL, hostname=IP)
        with capturedLogs() as events:
            made.startService()
        self.addCleanup(made.stopService)
        lines = [line for line in map(formatEvent, events) if line and "DERPNode" in line]
        node = json.loads(lines[0].partition("DERPNode: ")[2])
        self.assertEqual((node["HostName"], node["CertName"]), (IP, made.pin()))

    def test_expired(self) -> None:
        """A start with an expired certificate says so loudly, and what to do; it is served."""
        self.make(certmode=CertMode.MANUAL, hostname=IP)
        self.clock.advance(3651 * 86400.0)
        said: list[str] = []
        log = mock.patch.object(
            manual_service.log, "critical", lambda text, **kw: said.append(text.format(**kw))
        )
        with log:
            made = self.make(certmode=CertMode.MANUAL, hostname=IP)
        self.assertIn(f"THE CERTIFICATE FOR {IP} HAS EXPIRED on 2036-11-17", said[0])
        self.assertIn("move its .crt and .key out of --certdir and start anew", said[0])
        made.watchdog.check()
        self.assertIn("has expired", self.relay.health.text)

    def test_hosts(self) -> None:
        """A name: the TLS port first, then the plain one, at Let's Encrypt."""
        made = self.make()
        self.assertIsInstance(made, ACMEService)
        self.assertEqual(self.solvers(made.hosts), ["tls-alpn-01", "http-01"])
        self.assertIsNone(made.addresses)
        self.assertIsNotNone(made.hosts.rotation)
        self.assertEqual(made._make_client(AccountKey.generate()).directory_url, LETSENCRYPT)
        self.assertIn("ACME at acme-v02.api.letsencrypt.org: acme certificate", made.describe())
        self.assertEqual(made.pin(), "")

    def test_profile(self) -> None:
        """Addresses get short-lived ones if there are such; a flag counts for names, too."""
        made = self.make(acme_ip_certs=True)
        self.assertIsNone(made.hosts._profile)
        self.assertEqual(made.addresses._profile, Profile("shortlived"))
        made = self.make(acme_ip_certs=True, acme_profile="tlsserver")
        wanted = Profile("tlsserver", "--acme-profile")
        self.assertEqual((made.hosts._profile, made.addresses._profile), (wanted, wanted))

    def test_ca_file(self) -> None:
        """The roots for the authority are read again, and what has failed is tried again."""
        path = Path(self.mktemp())
        path.write_bytes(issue(None).pem)
        made = self.make(acme_directory="https://ca.test/dir", acme_ca_file=str(path))
        (file,) = self.reloader.files
        self.assertEqual((file.name, file.flag), ("acme_ca", "--acme-ca-file"))
        forgiven: list[str] = []
        self.patch(made.hosts.flights, "forgive", lambda: forgiven.append("yes"))
        before = made._trust._policy
        self.assertIsNone(file.reload())
        self.assertIsNot(made._trust._policy, before)
        self.assertEqual(forgiven, ["yes"])
        path.write_bytes(b"")
        self.assertIn("--acme-ca-file", file.reload() or "")
        self.assertEqual(forgiven, ["yes"])

    def test_ways(self) -> None:
        """Without a plain port only TLS; with a hook only DNS."""
        self.assertEqual(self.solvers(self.make(http_port=-1).hosts), ["tls-alpn-01"])
        hooked = self.make(acme_dns_hook=(sys.executable,), acme_ip_certs=True)
        self.assertEqual(self.solvers(hooked.hosts), ["dns-01"])
        self.assertEqual(self.solvers(hooked.addresses), ["http-01", "tls-alpn-01"])

    def test_addresses(self) -> None:
        """Addresses instead of a name, or beside it."""
        only = self.make(hostname=IP, acme_ip_certs=True)
        self.assertIsNone(only.hosts)
        self.assertEqual(self.solvers(only.addresses), ["http-01", "tls-alpn-01"])
        self.assertIn("each on its first use", only.describe())
        both = self.make(acme_ip_certs=True, acme_ip_address=(IP,))
        self.assertIsNotNone(both.hosts)
        self.assertEqual([each.name for each in both.statuses()], ["derp.example.com", IP])

    def test_google(self) -> None:
        """Google's directory, and the account it knows."""
        made = self.make(
            certmode=CertMode.GCP, acme_eab_kid="kid", acme_eab_key="dGVzdC1rZXk=", acme_email="a@b"
        )
        client = made._make_client(AccountKey.generate())
        self.assertEqual(client.directory_url, GOOGLE)
        self.assertEqual(client._external.hmac_key, b"test-key")
        self.assertNotIn("test-key", repr(client._external))
        self.assertEqual(client._contact, ["mailto:a@b"])

    def test_contact_of_tailscale(self) -> None:
        """Their relays have a contact without saying so, as in the reference."""
        made = self.make(hostname="derp.tailscale.com")
        client = made._make_client(AccountKey.generate())
        self.assertEqual(client._contact, ["mailto:security@tailscale.com"])
        self.assertEqual(self.make()._make_client(AccountKey.generate())._contact, [])

    def test_other_authority(self) -> None:
        """--acme-directory, and a file of roots that has to be one."""
        url = "https://ca.test/directory"
        made = self.make(acme_directory=url)
        self.assertEqual(made._make_client(AccountKey.generate()).directory_url, url)
        self.assertIn("ACME at ca.test", made.describe())
        roots = Path(self.mktemp())
        for content, said in ((None, "cannot read it"), (b"garbage", "no PEM certificate")):
            if content is not None:
                roots.write_bytes(content)
            error = self.assertRaises(ConfigError, self.make, acme_ca_file=str(roots))
            self.assertIn(f'--acme-ca-file: "{roots}": {said}', str(error))

    def test_without_txacme(self) -> None:
        """Should it break, the relay says so loudly and renews by its own watch."""
        with mock.patch.dict(sys.modules, {"derp.net.acme_rotation": None}):
            made = self.make()
        self.assertIsNone(made.hosts.rotation)
        self.assertEqual(len(self.flushLoggedErrors(ImportError)), 1)

    def test_unwritable_directory(self) -> None:
        """Said at the start, since it costs certificates later."""
        said: list[str] = []
        made = self.make(certdir="/proc/nowhere/certs")
        with mock.patch.object(acme_service.log, "error", lambda text, **kw: said.append(text)):
            with mock.patch.object(acme_service.os, "access", lambda *_: False):
                made.startService()
        self.addCleanup(made.stopService)
        self.assertIn("the relay may not write there", said[0])

    def test_clock_is_set(self) -> None:
        """Whatever failed while the clock was wrong is tried again as soon as that is seen."""
        made = self.make()
        made.startService()
        self.addCleanup(made.stopService)
        forgiven: list[str] = []
        self.patch(made.hosts.flights, "forgive", lambda: forgiven.append("yes"))
        self.clock.advance(15)
        self.assertEqual(forgiven, [])
        self.wall.set_by(-3600.0)
        self.clock.advance(15)
        self.assertEqual(forgiven, ["yes"])

    def test_start_and_stop(self) -> None:
        """Nothing is asked of an authority at the start, and nothing ticks after the end."""
        made = self.make(acme_ip_certs=True)
        made.startService()
        self.clock.advance(60)
        self.assertEqual(made.hosts.statuses["derp.example.com"].attempts, 0)
        made.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
