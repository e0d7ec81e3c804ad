"""Files of ``--certmode manual`` replaced while the relay is in use."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.task import cooperate

from derp.services import RelayService
from derp.wire.messages import Health
from tests.certificate_files import NOW, Issued, issue
from tests.integration.relay_case import HOST, RelayTestCase, reactor
from tests.integration.tls_peek import peek

NAME = "derp.example.test"
WITHIN_S = 5.0


def fresh(name: str = NAME, **dates: timedelta) -> Issued:
    """A certificate that is valid now, or as the dates from now say."""
    shift = timedelta(seconds=time.time() - NOW)
    ends = dates.get("ends", timedelta(days=90))
    return issue([name], begins=shift - timedelta(days=1), ends=shift + ends)


def put(certdir: Path, issued: Issued | None, key: Issued | None = None) -> None:
    """Replace both files, one after the other, as certbot's hooks do."""
    for path, content in (
        (certdir / f"{NAME}.crt", issued.pem if issued else b"not a certificate"),
        (certdir / f"{NAME}.key", (key or issued or fresh()).key_pem()),
    ):
        spare = path.with_suffix(".new")
        spare.write_bytes(content)
        os.rename(spare, path)


class CertificateSwapTests(RelayTestCase):
    """Who is connected stays, who connects gets the new one, mistakes change nothing."""

    def start(self, issued: Issued) -> RelayService:
        """Start a relay with this certificate."""
        config = self.config(hostname=NAME)
        self.certdir = Path(config.certdir)
        self.certdir.mkdir(parents=True)
        put(self.certdir, issued)
        service = self.start_relay(config)
        self.port = self.port_of(service)
        return service

    async def leaf(self) -> x509.Certificate:
        """The certificate a new connection gets."""
        return await peek(reactor, HOST, self.port, NAME)

    async def test_under_load(self) -> None:
        """Handshakes go on all the time; none fails; the new leaf is there within 5 seconds."""
        first, second = fresh(), fresh()
        steady = self.steady_time()
        self.start(first)
        client, heard = await self.client(
            self.port, target=f"https://{NAME}:{self.port}/derp", dial_host=HOST
        )
        seen: list[x509.Certificate] = []

        def load() -> Any:
            while True:
                yield Deferred.fromCoroutine(self.leaf()).addCallback(seen.append)

        loads = [cooperate(load()) for _ in range(3)]
        await self.until(lambda: len(seen) > 5, "handshakes")
        self.assertEqual(set(seen), {first.certificate})
        put(self.certdir, second)
        changed = steady.seconds()
        await self.until(lambda: second.certificate in seen, "the new certificate")
        self.assertLess(steady.seconds() - changed, WITHIN_S)
        for each in loads:
            each.stop()
        self.assertEqual(await self.leaf(), second.certificate)
        client.send(client.public_key, b"still here")
        self.assertEqual((await heard.next()).packet, b"still here")

    async def test_mistakes(self) -> None:
        """Garbage, another's key, another's name: told, counted, and the old one stays."""
        first = fresh()
        service = self.start(first)
        lines = self.log_lines()
        assert service.certificates is not None
        status = service.certificates.statuses()[0]
        wrong = (
            (None, None, "holds no PEM certificate"),
            (fresh(), fresh(), "is not that of the first certificate"),
            (fresh("other.example.test"), None, "is for other.example.test"),
        )
        for count, (issued, key, said) in enumerate(wrong, 1):
            put(self.certdir, issued, key)
            service.reloader.reload_all()
            self.assertEqual(status.failures, count)
            self.assertIn(said, lines[-1])
            self.assertEqual(await self.leaf(), first.certificate)
        put(self.certdir, first)
        service.reloader.reload_all()
        self.assertEqual(status.last_error, "")

    async def test_health(self) -> None:
        """A certificate that ends within the day is told; a new one takes it back."""
        service = self.start(fresh(ends=timedelta(hours=3)))
        _, heard = await self.client(
            self.port, target=f"https://{NAME}:{self.port}/derp", dial_host=HOST
        )
        message = await heard.next()
        self.assertIsInstance(message, Health)
        self.assertIn("expires in 2 h and is not renewed", message.problem)
        put(self.certdir, fresh())
        service.reloader.reload_all()
        self.assertEqual(await heard.next(), Health(""))
