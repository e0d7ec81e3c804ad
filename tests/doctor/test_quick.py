"""Tests for :mod:`derp.doctor.quick`: the health check against real relays."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

from derp.config import ListeningPlace, PlaceKind
from derp.doctor.doors import Doors
from derp.doctor.finding import Finding, Verdict
from tests.certificate_files import NOW
from tests.doctor.doctor_case import NAME, DoctorTestCase
from tests.integration.relay_case import HOST
from tests.net.closed_ports import closed_tcp_port, closed_udp_port

DAY = 86400.0
PATIENCE_S = 0.3, 2.0, 10.0
"""How long to wait for what never comes; what does come has to be there before."""


class HealthyTests(DoctorTestCase):
    """Relays that are well."""

    def assert_healthy(self, finding: Finding, *words: str) -> None:
        """It is well, and says how."""
        self.assertEqual(finding.verdict, Verdict.OK, finding.said)
        for word in words:
            self.assertIn(word, finding.said)

    async def test_all(self) -> None:
        """TLS, greeting, login and STUN; the relay has counted nothing against anybody."""
        lines = self.log_lines()
        service = self.start_relay(self.config())
        del lines[:]
        finding = await self.health(self.doors(service))
        self.assert_healthy(finding, "admits", "certificate for 36", "STUN answers")
        await self.until(lambda: not service.server.protocols, "the end of the check")
        stats, listener = service.relay.stats, service.listeners[0].stats
        self.assertEqual((stats.accepts, stats.logins_refused, stats.protocol_errors), (1, 0, 0))
        self.assertEqual((listener.handshake_failures, listener.rejected_connections), (0, 0))
        self.assertEqual(lines, [])

    async def test_name(self) -> None:
        """A name is asked for in TLS, without which the relay would refuse."""
        config = self.config(hostname=NAME)
        self.certdir(config)
        self.assert_healthy(await self.health(self.doors(self.start_relay(config)), NOW))

    async def test_admission(self) -> None:
        """Where keys are asked about, the greeting is enough, and nobody is asked or refused."""
        lines = self.log_lines()
        service = self.start_relay(self.config(verify_clients=True, socket=("/nowhere",)))
        del lines[:]
        finding = await self.health(self.doors(service, admits_strangers=False))
        self.assert_healthy(finding, "greets")
        await self.until(lambda: not service.server.protocols, "the end of the check")
        self.assertEqual(service.relay.stats.logins_refused, 0)
        self.assertEqual(lines, [])

    async def test_plain(self) -> None:
        """Without TLS, behind a proxy that has it."""
        service = self.start_relay(self.config(tls=False, stun=False))
        self.assert_healthy(await self.health(self.doors(service)), "admits")

    async def test_proxy_header(self) -> None:
        """A relay that believes PROXY headers from loopback takes a check without one."""
        from ipaddress import ip_network

        service = self.start_relay(self.config(trusted_proxies=(ip_network("127.0.0.0/8"),)))
        self.assert_healthy(await self.health(self.doors(service)), "admits")

    async def test_unix(self) -> None:
        """A unix socket beside the port is checked as well, and missed when it is gone."""
        place_of_its_own = tempfile.mkdtemp()  # self.mktemp() may be too long for a socket
        self.addCleanup(shutil.rmtree, place_of_its_own)
        path = f"{place_of_its_own}/derp.sock"
        place = ListeningPlace(PlaceKind.UNIX, path=path)
        service = self.start_relay(self.config(listen=(place,)))
        doors = self.doors(service, unix=(path,))
        self.assert_healthy(await self.health(doors), f"unix socket {path} admits")
        finding = await self.health(replace(doors, unix=(f"{path}.gone",)))
        self.assertEqual(finding.verdict, Verdict.FAIL)
        self.assertIn("No such file", finding.said)

    async def test_no_derp(self) -> None:
        """A server that is being retired is well if it is there."""
        service = self.start_relay(self.config(derp=False))
        self.assert_healthy(await self.health(self.doors(service, derp=False)), "is open")


class UnhealthyTests(DoctorTestCase):
    """Relays that are not."""

    async def assert_unhealthy(self, doors: Doors, words: str, **options: Any) -> None:
        """It is not well, for this reason."""
        finding = await self.health(doors, **options)
        self.assertEqual(finding.verdict, Verdict.FAIL, finding.said)
        self.assertIn(words, finding.said)

    async def assert_silent(self, doors: Callable[[], Doors], words: str, **options: Any) -> None:
        """
        This is waited for in vain; on a machine that stands still, something else first.

        :param doors: makes what is asked, anew each time.
        """
        for timeout in PATIENCE_S:
            finding = await self.health(doors(), timeout=timeout, **options)
            if words in finding.said:
                break
        self.assertEqual(finding.verdict, Verdict.FAIL, finding.said)
        self.assertIn(words, finding.said)

    def server(self, serve: Callable[[socket.socket], None]) -> Doors:
        """A server without TLS that does this to one connection."""
        listener = socket.create_server((HOST, 0))
        listener.settimeout(30)
        self.addCleanup(listener.close)

        def run() -> None:
            with closing(listener.accept()[0]) as connection:
                connection.recv(1000)
                serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join, 30)
        port = listener.getsockname()[1]
        return Doors(hostname=NAME, host=HOST, port=port, tls=False)

    async def test_dates(self) -> None:
        """A certificate that is expired, or not valid yet."""
        config = self.config(hostname=NAME)
        self.certdir(config, ends=timedelta(days=2))
        doors = self.doors(self.start_relay(config))
        await self.assert_unhealthy(doors, "expired 1.0 days ago", now=NOW + 3 * DAY)
        await self.assert_unhealthy(doors, "not valid yet", now=NOW - 3 * DAY)

    async def test_handshake(self) -> None:
        """A relay that has no certificate for its name any more."""
        config = self.config(hostname=NAME)
        self.certdir(config)
        doors = self.doors(self.start_relay(config), hostname="other.test")
        await self.assert_unhealthy(doors, "TLS handshake for other.test fails")

    async def test_nobody(self) -> None:
        """A port that nobody listens on."""
        doors = Doors(hostname=NAME, host=HOST, port=closed_tcp_port(self), tls=True)
        await self.assert_unhealthy(doors, "no connection (Connection refused)")

    async def test_no_relay(self) -> None:
        """A page, silence and garbage are told apart."""
        page = self.server(lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello"))
        await self.assert_unhealthy(page, "a web page comes instead")
        garbage = self.server(lambda sock: sock.sendall(b"SSH-2.0-x\r\n"))
        await self.assert_unhealthy(garbage, "an SSH server")

        def silence() -> Doors:
            return self.server(lambda sock: self.assertEqual(sock.recv(10), b""))

        await self.assert_silent(silence, "no answer")

    async def test_drowned(self) -> None:
        """An answer without an end is not read for ever."""

        def flood(sock: socket.socket) -> None:
            try:
                while True:
                    sock.sendall(b"HTTP/1.1 101 x\r\n" + b"x" * 65536)
            except OSError:
                pass

        await self.assert_unhealthy(self.server(flood), "an HTTP head without an end")

    async def test_login_refused(self) -> None:
        """A relay that should admit everybody and does not."""
        service = self.start_relay(self.config(allow_clients=self.empty_list()))
        await self.assert_unhealthy(self.doors(service), "closes instead of answering a login")

    def empty_list(self) -> str:
        """A file that admits nobody."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("# nobody\n")
        return path

    async def test_stun(self) -> None:
        """STUN that is dead makes the relay sick, unless it may fall silent."""
        service = self.start_relay(self.config())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
            deaf.bind((HOST, 0))
            doors = self.doors(service, stun=deaf.getsockname())
            await self.assert_silent(lambda: doors, "STUN on UDP port")
            may_be_silent = replace(doors, stun_may_be_silent=True)
            for timeout in PATIENCE_S:
                finding = await self.health(may_be_silent, timeout=timeout)
                if finding.verdict is Verdict.OK:
                    break
        self.assertEqual(finding.verdict, Verdict.OK, finding.said)
        closed = replace(doors, stun=(HOST, closed_udp_port(self)))
        await self.assert_unhealthy(closed, "Connection refused")
