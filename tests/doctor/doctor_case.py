"""A relay under examination: real sockets and TLS, in this process."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any, NoReturn

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from derp.config import Config
from derp.doctor.doors import Doors
from derp.doctor.examination import examine
from derp.doctor.finding import Finding, Verdict
from derp.doctor.patient import Chart, Patient
from derp.doctor.quick import check
from derp.doctor.rounds import rounds
from derp.services import RelayService
from tests.certificate_files import issue
from tests.integration.relay_case import HOST, RelayTestCase, reactor
from tests.integration.waiting import in_time
from tests.net.relay_fakes import Credentials, make_credentials
from tests.net.unhurried import Unhurried

NAME = "relay.test"
"""What certificates of the tests are made for."""


CA = make_credentials(["Test CA"], ca=True)
LEAF = make_credentials([NAME], CA)


def no_such_name(name: str, port: object) -> NoReturn:
    """What the system's resolver says of a name that is not there."""
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class NamingReactor(Unhurried):
    """The reactor, with names of one's own, and time enough."""

    def __init__(self, names: dict[str, list[str]] | None) -> None:
        super().__init__(reactor, NameTable(names))


@implementer(IHostnameResolver)
class NameTable:
    """Knows these names; ``None`` never answers."""

    def __init__(self, names: dict[str, list[str]] | None) -> None:
        self._names = names

    def resolveHostName(  # type: ignore[override]
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        """See ``IHostnameResolver``."""
        if self._names is None:
            return
        for ip in self._names.get(hostName, []):
            kind = IPv6Address if ":" in ip else IPv4Address
            if kind in addressTypes:
                resolutionReceiver.addressResolved(kind("TCP", ip, portNumber))
        resolutionReceiver.resolutionComplete()


class DoctorTestCase(RelayTestCase):
    """Starts what a test asks for, and examines it."""

    def ca_file(self) -> str:
        """Roots to trust: the CA of the tests."""
        path = Path(self.mktemp())
        path.write_bytes(CA.pem)
        return str(path)

    def put_certificate(self, config: Config, credentials: Credentials = LEAF) -> None:
        """Put a certificate where the relay looks for it."""
        place = Path(config.certdir)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{config.hostname}.crt").write_bytes(credentials.pem)
        key = place / f"{config.hostname}.key"
        form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key.write_bytes(credentials.key.private_bytes(*form))
        key.chmod(0o600)

    def start_healthy(self, **fields: Any) -> RelayService:
        """Start a relay that clients accept who trust the CA of the tests."""
        config = self.config(hostname=NAME, **fields)
        self.put_certificate(config)
        return self.start_relay(config)

    def patient(self, port: int, **fields: Any) -> Patient:
        """One to examine; with no ports but this one, if not told otherwise."""
        known: dict[str, Any] = {
            "reactor": NamingReactor({NAME: [HOST]}),
            "host": NAME,
            "port": port,
            "ca_file": self.ca_file(),
            "http_port": None,
            "stun_port": None,
            "timeout": 2.0,
            "getaddrinfo": no_such_name,
        }
        return Patient(**(known | fields))

    def relay_patient(self, service: RelayService, **fields: Any) -> Patient:
        """A relay of :meth:`start_healthy` as one to examine, all its ports included."""
        known: dict[str, Any] = {
            "http_port": self.port_of(service, "--http-port"),
            "stun_port": self.port_of(service, "--stun-port") if service.stun else None,
        }
        return self.patient(self.port_of(service), **(known | fields))

    async def examined(self, patient: Patient, upto: str = "") -> dict[str, list[Finding]]:
        """
        All findings, by examination.

        :param upto: the last examination to be made; empty makes all.
        """
        self.chart = Chart()
        todo = rounds(patient)
        names = [each.name for each in todo]
        todo = todo[: names.index(upto) + 1] if upto else todo
        running = Deferred.fromCoroutine(examine(todo, patient, self.chart))
        results = await in_time(reactor, running, "the end of a pass")
        return {each.name: list(each.findings) for each in results}

    def assert_found(
        self, findings: list[Finding], verdict: Verdict, said: str, cure: str = ""
    ) -> Finding:
        """One of the findings is this one; it has a cure, unless all is well."""
        shown = "\n".join(f"{each.verdict}: {each.said} -> {each.cure}" for each in findings)
        matching = [each for each in findings if each.verdict is verdict and said in each.said]
        self.assertEqual(len(matching), 1, f"wanted {verdict}: {said}; found\n{shown}")
        self.assertIn(cure, matching[0].cure)
        if verdict in (Verdict.WARN, Verdict.FAIL):
            self.assertNotEqual(matching[0].cure, "")
        return matching[0]

    def certdir(self, config: Config, **issued: Any) -> None:
        """Put a self-signed certificate for :data:`NAME` where the relay looks for it."""
        place = Path(config.certdir)
        place.mkdir(parents=True, exist_ok=True)
        certificate = issue([NAME], **issued)
        (place / f"{NAME}.crt").write_bytes(certificate.pem)
        key = place / f"{NAME}.key"
        key.write_bytes(certificate.key_pem())
        key.chmod(0o600)

    def doors(self, service: RelayService, **fields: Any) -> Doors:
        """Where a relay in this process is."""
        config = service.config
        known: dict[str, Any] = {
            "hostname": config.hostname,
            "host": HOST,
            "port": self.port_of(service),
            "tls": config.tls,
            "stun": (HOST, self.port_of(service, "--stun-port")) if service.stun else None,
        }
        return Doors(**(known | fields))

    async def health(
        self, doors: Doors, now: float | None = None, timeout: float = 30.0
    ) -> Finding:
        """
        Check it from a thread, while the relay goes on here.

        :param now: what time it is, for certificates of :meth:`certdir`.
        """
        clock = time.time if now is None else lambda: now
        finding: Finding = await deferToThread(check, doors, timeout, clock)
        return finding
