"""The doctor on the relay's own machine: files, sockets, limits, each made bad in turn."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from derp.config import CertMode, Config, ListeningPlace, PlaceKind
from derp.doctor.finding import Finding, Verdict
from derp.doctor.local_admission import examine_admission
from derp.doctor.local_files import examine_certificates, examine_key_file
from derp.doctor.local_limits import examine_kernel, examine_open_files
from derp.doctor.local_ports import examine_listeners
from derp.doctor.local_relay import LocalRelay, examine_settings
from derp.doctor.local_rounds import local_patient, local_rounds
from derp.doctor.patient import Chart, Patient
from derp.net.key_file import format_key_file
from derp.net.server_check import is_ip_literal
from derp.wire.keys import generate_private
from derp.wire.node_json import PIN_PREFIX
from tests.doctor.doctor_case import CA, NAME, DoctorTestCase
from tests.integration.relay_case import HOST, reactor
from tests.net.admission_fakes import ALLOW, DENY, FakeServer, respond
from tests.net.closed_ports import closed_tcp_port
from tests.net.relay_fakes import make_credentials
from tests.net.unhurried import Unhurried

OK, WARN, FAIL, SKIP = Verdict.OK, Verdict.WARN, Verdict.FAIL, Verdict.SKIP
Examine = Callable[..., Coroutine[Deferred[Any], Any, Sequence[Finding]]]


class LocalTestCase(DoctorTestCase):
    """One examination at a time."""

    async def local(self, examine: Examine, relay: LocalRelay, chart: Chart | None = None) -> Any:
        """Run it."""
        patient = Patient(reactor=Unhurried(reactor), host=NAME)
        return list(await examine(relay, patient, chart or Chart()))

    def relay(self, **fields: Any) -> LocalRelay:
        """A relay with these settings, that runs as us."""
        return LocalRelay(config=self.config(**fields), pid=os.getpid(), uid=os.geteuid())


class FileTests(LocalTestCase):
    """The key file, and certificates."""

    def with_key(self) -> tuple[LocalRelay, Path]:
        """A relay with a key file that is as it should be."""
        relay = self.relay()
        assert relay.config is not None
        path = Path(relay.config.key_file)
        path.parent.mkdir(parents=True)
        path.write_bytes(format_key_file(generate_private()))
        path.chmod(0o600)
        return relay, path

    async def test_key(self) -> None:
        """A good one; the secret is not in the report."""
        relay, path = self.with_key()
        finding = self.assert_found(await self.local(examine_key_file, relay), OK, ", private")
        self.assertNotIn("privkey", f"{finding}")
        secret = path.read_text().partition("privkey:")[2][:64]
        self.assertNotIn(secret, f"{finding}")

    async def test_key_permissions(self) -> None:
        """Open to all, open to a group, and somebody else's."""
        relay, path = self.with_key()
        path.chmod(0o644)
        found = await self.local(examine_key_file, relay)
        self.assert_found(found, FAIL, "open to everybody on this machine (0644)", "chmod 600")
        path.chmod(0o640)
        found = await self.local(examine_key_file, relay)
        self.assert_found(found, WARN, "open to its group (0640)", "chmod 600")
        path.chmod(0o600)
        found = await self.local(examine_key_file, replace(relay, uid=os.geteuid() + 12345))
        self.assert_found(found, WARN, "the relay runs as user ", "chown")

    async def test_bad_key(self) -> None:
        """Missing, and none. Nothing is made or changed."""
        relay, path = self.with_key()
        path.unlink()
        self.assert_found(
            await self.local(examine_key_file, relay), WARN, "is missing", "makes one"
        )
        self.assertFalse(path.exists())
        path.write_text("{}")
        found = await self.local(examine_key_file, relay)
        self.assert_found(found, FAIL, "holds no PrivateKey", "backup")
        self.assertEqual(path.read_text(), "{}")

    async def test_unreadable_key(self) -> None:
        """A directory where the file should be."""
        relay, path = self.with_key()
        path.unlink()
        path.mkdir()
        found = await self.local(examine_key_file, relay)
        self.assert_found(found, FAIL, "cannot be read here", "chown")

    async def test_manual_certificate(self) -> None:
        """Good; readable by all; missing; another one than is served."""
        relay = self.relay(hostname=NAME)
        assert relay.config is not None
        found = await self.local(examine_certificates, relay)
        self.assert_found(found, FAIL, "is missing", "put the certificate there")
        credentials = make_credentials([NAME], CA)
        self.put_certificate(relay.config, credentials)
        found = await self.local(examine_certificates, relay)
        self.assert_found(found, OK, "1 in the chain")
        found = await self.local(examine_certificates, relay, Chart(chain=[b"another"]))
        self.assert_found(found, WARN, "is not the one that is served", "proxy")
        key = Path(relay.config.certdir) / f"{NAME}.key"
        key.chmod(0o604)
        found = await self.local(examine_certificates, relay)
        self.assert_found(found, FAIL, f"{NAME}.key is open to everybody", "chmod 600")
        key.unlink()
        found = await self.local(examine_certificates, relay)
        self.assert_found(found, FAIL, f"{NAME}.key is missing")

    async def test_expiring_files(self) -> None:
        """What will soon be served in vain."""
        relay = self.relay(hostname=NAME)
        assert relay.config is not None
        self.put_certificate(relay.config, make_credentials([NAME], CA, ends=timedelta(days=3)))
        found = await self.local(examine_certificates, relay)
        self.assert_found(found, WARN, "the certificate expires on")

    async def test_address(self) -> None:
        """For an address the relay makes what is missing; its pin is known from the files."""
        relay = self.relay()
        assert relay.config is not None
        Path(relay.config.certdir).mkdir(parents=True)
        found = await self.local(examine_certificates, relay)
        self.assert_found(found, WARN, f"no certificate for {HOST} yet", "makes one")
        self.start_relay(relay.config)
        patient = local_patient(
            replace(relay, config=replace(relay.config, port=1)), HOST, reactor, {}
        )
        assert patient is not None
        self.assertTrue(patient.cert_name.startswith(PIN_PREFIX))
        self.assertTrue(is_ip_literal(patient.host))

    async def test_acme(self) -> None:
        """Nothing got yet, and a directory that cannot be written."""
        relay = self.relay(certmode=CertMode.LETSENCRYPT, hostname=NAME)
        assert relay.config is not None
        place = Path(relay.config.certdir)
        place.mkdir(parents=True)
        found = await self.local(examine_certificates, relay)
        self.assert_found(found, WARN, f"no certificate for {NAME} has been got", "ports 443 or 80")
        (place / NAME).write_text("x")
        found = await self.local(examine_certificates, relay)
        self.assert_found(found, OK, "writable, with a certificate")
        (place / "acme_account+key").write_text("secret")
        (place / "acme_account+key").chmod(0o644)
        found = await self.local(examine_certificates, relay)
        self.assert_found(found, FAIL, "acme_account+key is open to everybody")


class AdmissionTests(LocalTestCase):
    """Those who are asked about clients."""

    async def answering(self, answer: bytes, path: str = "") -> FakeServer:
        """A server that answers so."""
        server = (
            await FakeServer(answer).listen(path) if path else await FakeServer(answer).listen()
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        return server

    async def test_nobody(self) -> None:
        """A relay that is open to all says so."""
        found = await self.local(examine_admission, self.relay())
        self.assert_found(found, WARN, "admits everybody", "--verify-clients")

    async def test_no_socket(self) -> None:
        """A socket that is not there: nobody would be admitted."""
        relay = self.relay(verify_clients=True, socket=("/nowhere/tailscaled.sock",))
        found = await self.local(examine_admission, relay)
        self.assert_found(found, FAIL, "no socket /nowhere/tailscaled.sock", "mount the directory")

    async def test_tailscaled(self) -> None:
        """One that runs, with its version; one that is stopped; one that is broken."""
        for body, verdict, said in (
            (b'{"Version":"1.96.4","BackendState":"Running"}', OK, "tailscaled 1.96.4 is running"),
            (b'{"Version":"1.96.4","BackendState":"Stopped"}', FAIL, "1.96.4 is Stopped"),
            (b"[]", FAIL, "no JSON object"),
        ):
            path = self.mktemp()
            await self.answering(respond(body), path)
            found = await self.local(
                examine_admission, self.relay(verify_clients=True, socket=(path,))
            )
            self.assert_found(found, verdict, said)

    async def test_dead_socket(self) -> None:
        """A socket that nobody listens on any more."""
        path = self.mktemp()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        found = await self.local(examine_admission, self.relay(verify_clients=True, socket=(path,)))
        self.assert_found(found, FAIL, "tailscaled does not answer", "running")

    async def test_url(self) -> None:
        """One that refuses strangers is well; others are not."""
        for answer, verdict, said in (
            (DENY, OK, "answers, and refuses a stranger"),
            (ALLOW, WARN, "admits a key that was just made up"),
            (respond(b"", "500 Oops"), FAIL, "500 Oops"),
        ):
            server = await self.answering(answer)
            relay = self.relay(verify_client_url=(server.url,))
            self.assert_found(await self.local(examine_admission, relay), verdict, said)

    async def test_dead_url(self) -> None:
        """One that cannot be reached, and what that means for clients."""
        url = f"http://{HOST}:{closed_tcp_port(self)}/verify?token=secret"
        for fail_open, what in ((True, "everybody is admitted"), (False, "everybody is refused")):
            relay = self.relay(verify_client_url=(url,), verify_client_url_fail_open=fail_open)
            found = await self.local(examine_admission, relay)
            finding = self.assert_found(found, FAIL, what)
            self.assertNotIn("secret", f"{finding}")

    async def test_list(self) -> None:
        """A list of keys: good, empty, and wrong."""
        path = Path(self.mktemp())
        relay = self.relay(allow_clients=str(path))
        path.write_text(f"nodekey:{'ab' * 32}\n")
        self.assert_found(await self.local(examine_admission, relay), OK, "1 keys are admitted")
        path.write_text("# nobody\n")
        self.assert_found(await self.local(examine_admission, relay), WARN, "holds no key")
        path.write_text("sesame\n")
        found = await self.local(examine_admission, relay)
        self.assert_found(found, FAIL, '"sesame" is no node key', "one key per line")


class SystemTests(LocalTestCase):
    """Ports, limits, processes: the real ones, and a ``/proc`` of the tests'."""

    def proc(self, **files: str) -> LocalRelay:
        """A relay on a system that shows these files; ``__`` stands for a slash."""
        place = Path(self.mktemp()).absolute()
        for name, content in files.items():
            path = place / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return replace(self.relay(), proc=str(place))

    async def test_kernel(self) -> None:
        """Enough, too little, and a table that is nearly full."""
        relay = self.proc(
            sys__net__core__rmem_max="65536\n",
            sys__net__core__somaxconn="4096\n",
            sys__net__netfilter__nf_conntrack_max="1000\n",
            sys__net__netfilter__nf_conntrack_count="900\n",
        )
        found = await self.local(examine_kernel, relay)
        self.assert_found(found, WARN, "net.core.rmem_max is 65536", "sysctl -w net.core.rmem_max=")
        self.assert_found(found, OK, "net.core.somaxconn is 4096")
        self.assert_found(found, WARN, "900 of 1000 connections are tracked", "notrack")
        self.assertEqual(len(found), 3)
        self.assert_found(await self.local(examine_kernel, self.proc()), SKIP, "no limits")

    async def test_open_files(self) -> None:
        """Of the relay's process, by number and without end; else our own."""
        line = "Max open files            {}                 4096                 files\n"
        for limit, verdict, said in (
            ("1024", WARN, "at most 1024 files"),
            ("65536", OK, "65536 files may be open"),
            ("unlimited", OK, "any number"),
        ):
            relay = self.proc(**{f"{os.getpid()}__limits": line.format(limit)})
            self.assert_found(await self.local(examine_open_files, relay), verdict, said)
        found = await self.local(examine_open_files, LocalRelay())
        self.assertEqual(len(found), 1)

    async def test_listening(self) -> None:
        """Our own ports are ours; a closed one is missed."""
        service = self.start_relay(self.config())
        config = replace(
            service.config,
            port=self.port_of(service),
            http_port=self.port_of(service, "--http-port"),
            stun_port=self.port_of(service, "--stun-port"),
        )
        relay = LocalRelay(config=config, pid=os.getpid(), uid=os.geteuid())
        found = await self.local(examine_listeners, relay)
        for flag in ("-a", "--http-port", "--stun-port"):
            self.assert_found(found, OK, f"({flag}) is the relay's")
        found = await self.local(examine_listeners, replace(relay, pid=None))
        self.assert_found(found, WARN, "(-a) is open, by", "is that the relay?")
        port = closed_tcp_port(self)
        gone = ListeningPlace(PlaceKind.UNIX, path="/nowhere/derp.sock")
        relay = replace(relay, config=replace(config, http_port=port, listen=(gone,)))
        found = await self.local(examine_listeners, relay)
        self.assert_found(found, FAIL, f"nobody listens on TCP port {port} (--http-port)", "log")
        self.assert_found(found, FAIL, "unix socket /nowhere/derp.sock", "removes it")

    async def test_taken_port(self) -> None:
        """Another program has the relay's port."""
        with socket.create_server((HOST, 0)) as taken:
            port = taken.getsockname()[1]
            relay = LocalRelay(
                config=Config(port=port, http_port=-1, stun=False), pid=1 << 23, uid=os.geteuid()
            )
            found = await self.local(examine_listeners, relay)
        self.assert_found(found, FAIL, f"TCP port {port} (-a) is taken by", "another port")

    async def test_settings(self) -> None:
        """No process; settings that stop a start; flags without effect."""
        found = await self.local(examine_settings, LocalRelay(problem="--certdir is empty"))
        self.assert_found(found, WARN, "no such derper process", "start it")
        self.assert_found(found, FAIL, "--certdir is empty", "derper doctor --local --")
        relay = self.relay(notices=("--socket has no effect without --verify-clients",))
        found = await self.local(examine_settings, relay)
        self.assert_found(found, OK, "runs as process")
        self.assert_found(found, WARN, "--socket has no effect")

    async def test_without_settings(self) -> None:
        """What needs settings is left out where there are none, and nothing breaks."""
        names = set()
        for examination in local_rounds(LocalRelay(), over_network=False):
            patient = Patient(reactor=reactor, host=NAME)
            found = list(await examination.run(patient, Chart()))
            self.assertNotEqual(found, [], examination.name)
            names.update(examination.name for each in found if each.verdict is SKIP)
        self.assertEqual(names, {"listening", "key file", "cert files", "admission"})
        self.assertIsNone(local_patient(LocalRelay(), "", reactor, {}))
