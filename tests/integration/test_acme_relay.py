"""A whole relay that gets its certificates from Pebble."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import PrivateFormat
from twisted.internet.defer import Deferred, gatherResults

from derp.acme_service import ACMEService
from derp.config import CertMode, Config
from derp.net.certificate_cache import usable
from derp.services import RelayService
from derp.wire.messages import Health, ReceivedPacket
from tests.certificate_files import NOW, Issued, issue
from tests.free_ports import free_ports
from tests.integration.relay_case import HOST, RelayTestCase, reactor
from tests.integration.test_acme_pebble import EAB_KEY, HOOK
from tests.integration.tls_peek import peek
from tests.pebble import Pebble, missing_pebble

NAME = "derp.example.test"


def issue_now(name: str, *, begins: timedelta, ends: timedelta) -> Issued:
    """Issue a certificate with dates relative to the real time."""
    shift = timedelta(seconds=time.time() - NOW)
    return issue([name], begins=begins + shift, ends=ends + shift)


def write_autocert(certdir: Path, name: str, issued: Issued) -> None:
    """Put a certificate where and how Go's autocert does: key (SEC1), then the chain."""
    certdir.mkdir(parents=True, mode=0o700)
    path = certdir / name
    path.write_bytes(issued.key_pem(PrivateFormat.TraditionalOpenSSL) + issued.pem)
    path.chmod(0o600)


class ACMERelayTests(RelayTestCase):
    """From the first handshake to renewal."""

    skip = missing_pebble()

    def setUp(self) -> None:
        self.tls_port, self.http_port = free_ports(2)

    def pebble(self, **options: Any) -> Pebble:
        """An authority that is not started yet, and stopped after the test."""
        options.setdefault("http_port", self.http_port)
        options.setdefault("tls_port", self.tls_port)
        pebble = Pebble(Path(self.mktemp()).absolute(), **options)
        self.addCleanup(lambda: Deferred.fromCoroutine(pebble.stop()))
        return pebble

    def acme(self, pebble: Pebble, **fields: Any) -> Config:
        """A relay that asks this authority."""
        config = self.config(
            certmode=CertMode.LETSENCRYPT,
            hostname=NAME,
            port=self.tls_port,
            http_port=self.http_port,
            acme_directory=pebble.url,
            acme_ca_file=str(pebble.ca_file),
        )
        return replace(config, **fields)

    def certificates(self, service: RelayService) -> ACMEService:
        """A relay's certificates."""
        found = service.certificates
        assert isinstance(found, ACMEService)
        return found

    async def peek(self, name: str | None = NAME) -> x509.Certificate:
        """Shake hands and look at the leaf."""
        return await peek(reactor, HOST, self.tls_port, name)

    async def test_first_handshake(self) -> None:
        """
        Three clients come at once, one order is made, the chain leads to the authority's root.
        What is on disk is what autocert writes; another relay serves it with the authority gone.
        """
        pebble = self.pebble()
        await pebble.start()
        config = self.acme(pebble)
        service = self.start_relay(config)
        root = await pebble.root()
        clients = await gatherResults(
            [
                Deferred.fromCoroutine(
                    self.client(
                        self.tls_port,
                        target=f"https://{NAME}:{self.tls_port}/derp",
                        dial_host=HOST,
                        ca_file=str(root),
                        insecure_for_tests=False,
                    )
                )
                for _ in range(3)
            ]
        )
        status = self.certificates(service).statuses()[0]
        self.assertEqual((status.attempts, status.failures, status.last_error), (1, 0, ""))
        self.assert_autocert_file(Path(config.certdir) / NAME)
        leaf = await self.peek()
        await gatherResults([client.close() for client, _ in clients])
        await service.stopService()
        await pebble.stop()
        again = self.start_relay(config)
        self.assertEqual(await self.peek(), leaf)
        self.assertEqual(self.certificates(again).statuses()[0].attempts, 0)

    def assert_autocert_file(self, path: Path) -> None:
        """Check what Go's autocert checks, and the modes it sets."""
        content = path.read_bytes()
        self.assertTrue(content.startswith(b"-----BEGIN EC PRIVATE KEY-----\n"))
        self.assertTrue(content.endswith(b"-----END CERTIFICATE-----\n"))
        self.assertEqual(content.count(b"BEGIN CERTIFICATE"), 3)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(path.parent.stat().st_mode & 0o777, 0o700)
        account = path.with_name("acme_account+key")
        self.assertTrue(account.read_bytes().startswith(b"-----BEGIN EC PRIVATE KEY-----\n"))
        self.assertEqual(account.stat().st_mode & 0o777, 0o600)

    async def test_plain_port_closed(self) -> None:
        """With --http-port=-1 tls-alpn-01 alone does."""
        pebble = self.pebble(http_port=1)
        await pebble.start()
        self.start_relay(self.acme(pebble, http_port=-1))
        self.assertIn(NAME, str((await self.peek()).extensions))

    async def test_tls_port_unreachable(self) -> None:
        """If tls-alpn-01 fails, a new order is made and proven by http-01."""
        pebble = self.pebble(tls_port=1)
        await pebble.start()
        service = self.start_relay(self.acme(pebble))
        self.assertIn(NAME, str((await self.peek()).extensions))
        self.assertEqual(self.certificates(service).statuses()[0].failures, 0)

    async def test_dns_hook(self) -> None:
        """With both ports unreachable dns-01 by a command does."""
        pebble = self.pebble(tls_port=1, http_port=1)
        await pebble.start()
        script = Path(self.mktemp()).absolute()
        script.write_text(HOOK.replace("PORT", str(pebble.dns_management)))
        hook = (sys.executable, str(script))
        self.start_relay(self.acme(pebble, http_port=-1, acme_dns_hook=hook))
        self.assertIn(NAME, str((await self.peek()).extensions))

    async def test_external_account(self) -> None:
        """An account the authority knows from elsewhere, with a key in either base64."""
        pebble = self.pebble(external={"kid-1": EAB_KEY})
        await pebble.start()
        self.start_relay(self.acme(pebble, acme_eab_kid="kid-1", acme_eab_key=EAB_KEY))
        self.assertIn(NAME, str((await self.peek()).extensions))

    async def test_address(self) -> None:
        """A certificate for the address that is dialed without a name; a configured one, too."""
        pebble = self.pebble()
        await pebble.start()
        config = self.acme(pebble, hostname=HOST, acme_ip_certs=True)
        service = self.start_relay(config)
        self.assertIn(HOST, str((await self.peek(None)).extensions))
        self.assertEqual(
            sorted(os.listdir(config.certdir)),
            ["127.0.0.1.crt", "127.0.0.1.key", "acme-account.key"],
        )
        await service.stopService()
        config = replace(config, host="0.0.0.0", acme_ip_address=("127.0.0.2",))
        behind_nat = self.start_relay(config)
        found = self.certificates(behind_nat)
        await self.until(lambda: found.addresses and found.addresses.served("127.0.0.2"), "it")
        self.assertIn("127.0.0.2", str((await self.peek(None)).extensions))

    async def test_renewal_under_traffic(self) -> None:
        """
        Certificates of a few seconds: they are renewed by themselves, new connections get the
        new one, and an old connection never notices.
        """
        pebble = self.pebble(validity_s=6)
        await pebble.start()
        service = self.start_relay(self.acme(pebble))
        first = await self.peek()
        sender, _ = await self.client(
            self.tls_port, target=f"https://{NAME}:{self.tls_port}/derp", dial_host=HOST
        )
        receiver, heard = await self.client(
            self.tls_port, target=f"https://{NAME}:{self.tls_port}/derp", dial_host=HOST
        )
        status = self.certificates(service).statuses()[0]

        def renewed() -> bool:
            sender.send(receiver.public_key, b"still here")
            return status.attempts > 1

        await self.until(renewed, "a renewal")
        second = await self.peek()
        self.assertNotEqual(first.serial_number, second.serial_number)
        self.assertLess(first.not_valid_after_utc, second.not_valid_after_utc)
        sender.send(receiver.public_key, b"after it")
        last = ReceivedPacket(sender.public_key, b"after it")
        while await heard.next() != last:
            pass  # its predecessors; Health, too, if the machine was too slow for such short lives
        self.assertEqual(status.failures, 0)

    async def test_authority_down(self) -> None:
        """
        Nothing on disk and the authority down: the handshake is refused, the log has the next
        attempt, the plain port works.
        """
        lines = self.log_lines()
        pebble = self.pebble()
        service = self.start_relay(self.acme(pebble))
        await self.assertFailure(Deferred.fromCoroutine(self.peek()), Exception)
        said = "\n".join(lines)
        self.assertIn(f"cannot get a certificate for {NAME}: cannot reach {pebble.url}", said)
        self.assertIn("next attempt in 6", said)
        status = self.certificates(service).statuses()[0]
        self.assertEqual((status.attempts, status.failures), (1, 1))
        answer = await self.get(self.http_port, "/generate_204")
        self.assertEqual(answer.status, 204)
        await self.assertFailure(Deferred.fromCoroutine(self.peek()), Exception)
        self.assertEqual(status.attempts, 1, "the second handshake does not ask again")

    async def test_cached_certificate_and_health(self) -> None:
        """
        A directory of autocert's is served without the authority. Its certificate ends within
        the day and cannot be renewed: clients hear that behind ServerInfo, and when it is over.
        """
        pebble = self.pebble()
        config = self.acme(pebble)
        nearly_over = issue_now(NAME, begins=timedelta(days=-89), ends=timedelta(hours=20))
        write_autocert(Path(config.certdir), NAME, nearly_over)
        service = self.start_relay(config)
        self.assertEqual(await self.peek(), nearly_over.certificate)
        _, heard = await self.client(
            self.tls_port, target=f"https://{NAME}:{self.tls_port}/derp", dial_host=HOST
        )
        message = await heard.next()
        self.assertIsInstance(message, Health)
        self.assertIn(f"({NAME}) expires in 19 h", message.problem)
        status = self.certificates(service).statuses()[0]
        await self.until(lambda: status.failures, "the failed renewal")
        await pebble.start()
        hosts = self.certificates(service).hosts
        assert hosts is not None
        service.reloader.reload_all()  # SIGHUP: try again now, and not when the pause is over
        self.assertEqual(await heard.next(), Health(""))
        self.assertEqual(status.last_error, "")
        self.assertTrue(usable(hosts.current()[NAME], NAME, time.time()))

    async def test_authority_dies_in_an_order(self) -> None:
        """The old certificate is served on, and the reason is told."""
        pebble = self.pebble()
        await pebble.start()
        config = self.acme(pebble, metrics_addr=f"{HOST}:0")
        old = issue_now(NAME, begins=timedelta(days=-70), ends=timedelta(days=20))
        write_autocert(Path(config.certdir), NAME, old)
        service = self.start_relay(config)
        found = self.certificates(service)
        dying: Any = found._tls_alpn
        dying.present = lambda *_: Deferred.fromCoroutine(pebble.stop())
        status = found.statuses()[0]
        await self.until(lambda: status.failures, "the failed renewal")
        self.assertIn("cannot reach", status.last_error)
        self.assertEqual(await self.peek(), old.certificate)
        metrics = (await self.metrics_of(service)).decode()
        self.assertIn(
            'derp_certificate_attempts_total{name="derp.example.test",result="failure",'
            'source="acme"} 1.0',
            metrics,
        )
        self.assertEqual(
            self.value(metrics, "derp_certificate_not_after_timestamp_seconds"),
            old.certificate.not_valid_after_utc.timestamp(),
        )

    async def metrics_of(self, service: RelayService) -> bytes:
        """Read /metrics, and look at the plain port's debug page."""
        answer = await self.get(self.http_port, "/debug/")
        self.assertIn(b"<b>Certificate:</b> acme certificate for derp.example.test", answer.body)
        page = await self.get(self.port_of(service, "--metrics-addr"), "/metrics")
        return page.body

    def value(self, text: str, name: str) -> float:
        """The value of the only sample of a metric."""
        line = next(each for each in text.splitlines() if each.startswith(f"{name}{{"))
        return float(line.rpartition(" ")[2])
