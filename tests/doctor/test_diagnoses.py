"""Broken set-ups: each has a diagnosis of its own, and a cure."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from email.utils import formatdate
from typing import Any

from OpenSSL import SSL

from derp.doctor.finding import Finding, Verdict
from derp.doctor.patient import Patient
from derp.doctor.rounds import node_of
from derp.wire.frames import encode_frame, encode_health
from derp.wire.handshake import encode_server_key
from derp.wire.keys import generate_private, public_of
from derp.wire.node_json import pin_of
from tests.doctor.doctor_case import CA, LEAF, NAME, DoctorTestCase, NamingReactor
from tests.doctor.fronts import (
    Front,
    STUNServer,
    answers,
    forwards,
    listen,
    listen_udp,
)
from tests.integration.relay_case import HOST, MESH_KEY, reactor
from tests.net.closed_ports import closed_tcp_port, closed_udp_port
from tests.net.relay_fakes import (
    SWITCHING,
    FakeRelay,
    FakeRelayFactory,
    ServerTLS,
    make_credentials,
    metacert,
    over_tls,
)
from tests.net.udp_sockets import NO_IPV6

OK, WARN, FAIL, SKIP = Verdict.OK, Verdict.WARN, Verdict.FAIL, Verdict.SKIP
DAY = timedelta(days=1)
GREETING = encode_server_key(public_of(bytes(range(101, 133))))
"""Without a line's end, as others here: the front makes more of it (see ``answers``)."""


class NetTests(DoctorTestCase):
    """DNS and TCP."""

    async def test_no_such_name(self) -> None:
        """A name without an address ends it all, and says so once."""
        found = await self.examined(self.patient(443, host="missing.test", stun_port=3478))
        self.assert_found(found["DNS"], FAIL, "missing.test has no A or AAAA record", "make one")
        self.assertIsNone(node_of(self.patient(443), self.chart))
        for name in ("TCP", "TLS", "upgrade", "login", "STUN"):
            self.assertEqual([each.verdict for each in found[name]], [SKIP], name)

    async def test_dns_is_silent(self) -> None:
        """A resolver that does not answer is told from a name that is not there."""
        patient = self.patient(443, reactor=NamingReactor(None), timeout=0.1)
        found = await self.examined(patient)
        self.assert_found(found["DNS"], FAIL, "DNS server does not answer", "/etc/resolv.conf")

    async def test_no_dns(self) -> None:
        """So is a machine that can ask no DNS server."""

        def no_server(name: str, port: object) -> None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        found = await self.examined(self.patient(443, host="missing.test", getaddrinfo=no_server))
        self.assert_found(
            found["DNS"], FAIL, "no DNS server can be asked (Temporary", "resolv.conf"
        )

    async def test_private_address(self) -> None:
        """A private address beside a public one in the DNS."""
        names = NamingReactor({NAME: ["10.0.0.7", "8.8.8.8"]})
        found = await self.examined(self.patient(1, reactor=names, timeout=0.05))
        self.assert_found(found["DNS"], WARN, "10.0.0.7 is not public", "private address")

    async def test_refused(self) -> None:
        """A port that nobody listens on; STUN is examined all the same."""
        stun = listen_udp(self, STUNServer(socket.inet_aton(HOST)))
        port = closed_tcp_port(self)
        found = await self.examined(self.patient(port, stun_port=stun))
        self.assert_found(found["TCP"], FAIL, f"{HOST}:{port}: connection refused", "start")
        self.assert_found(found["TLS"], SKIP, "not reached")
        self.assert_found(found["STUN"], OK, "says we are")
        self.assert_found(found["home"], FAIL, "but there is no relay behind it", "-stun=false")

    async def test_one_of_two(self) -> None:
        """One address of the name works and the other does not."""
        service = self.start_healthy()
        names = NamingReactor({NAME: [HOST, "127.0.0.99"]})
        found = await self.examined(self.relay_patient(service, reactor=names))
        self.assert_found(found["TCP"], OK, "is open")
        self.assert_found(found["TCP"], FAIL, "dial this address wait in vain", "out of the DNS")
        self.assert_found(found["login"], OK, "admitted")

    async def test_many_addresses(self) -> None:
        """Of a name with a lot of addresses the first four count, as for clients."""
        names = NamingReactor({NAME: [f"127.0.0.{last}" for last in range(2, 60)]})
        found = await self.examined(self.patient(1, reactor=names))
        self.assertEqual(len(found["TCP"]), 4)

    async def test_unanswered(self) -> None:
        """A port that takes connections and never speaks: every step has its deadline."""
        silent = listen(self, lambda front: None)
        found = await self.examined(self.patient(silent, timeout=0.2))
        self.assert_found(found["TCP"], OK, "is open")
        self.assert_found(found["TLS"], FAIL, "handshake is not answered within 0.2 s")
        self.assertIn("its first certificate just now", found["TLS"][0].cure)
        self.assert_found(found["upgrade"], SKIP, "there is no TLS")


class CertificateTests(DoctorTestCase):
    """What clients think of the certificate."""

    async def with_certificate(self, credentials: Any, **fields: Any) -> dict[str, list[Finding]]:
        """Examine a relay that serves it."""
        config = self.config(hostname=fields.get("host", NAME))
        self.put_certificate(config, credentials)
        service = self.start_relay(config)
        return await self.examined(self.relay_patient(service, **fields))

    async def test_self_signed(self) -> None:
        """Unpinned it fails, but what is behind it is examined nevertheless."""
        alone = make_credentials([NAME])
        found = await self.with_certificate(alone)
        self.assert_found(found["TLS"], FAIL, "self-signed", "get one from a CA")
        self.assert_found(found["login"], OK, "came through")
        node = node_of(self.patient(1), self.chart)
        assert node is not None
        self.assertEqual(node.cert_name, pin_of(alone.der))
        found = await self.with_certificate(alone, cert_name=pin_of(alone.der))
        self.assert_found(found["TLS"], OK, "as pinned")

    async def test_insecure(self) -> None:
        """With --insecure it is no matter."""
        found = await self.with_certificate(make_credentials([NAME]), insecure=True)
        self.assert_found(found["TLS"], OK, "not asked whether")
        self.assert_found(found["login"], OK, "came through")

    async def test_wrong_pin(self) -> None:
        """The pin of another certificate; the cure has the right one."""
        wrong = pin_of(b"another")
        alone = make_credentials([NAME])
        found = await self.with_certificate(alone, cert_name=wrong)
        self.assert_found(found["TLS"], FAIL, f"pinned is {wrong}", pin_of(alone.der))

    async def test_pinned_chain(self) -> None:
        """A pin for a certificate that does not come alone."""
        chain = ServerTLS(LEAF, [CA.der])
        port = listen(self, answers("HTTP/1.1 404 Not Found\n\n"), chain)
        found = await self.examined(self.patient(port, cert_name=pin_of(LEAF.der)))
        self.assert_found(found["TLS"], FAIL, "a pin fits a single certificate", "alone")

    async def test_wrong_name(self) -> None:
        """A certificate for somebody else."""
        other = make_credentials(["other.test", "www.other.test"], CA)
        port = listen(self, answers("HTTP/1.1 404 Not Found\n\n"), ServerTLS(other))
        found = await self.examined(self.patient(port))
        said = "is for other.test, www.other.test, not for relay.test"
        self.assert_found(found["TLS"], FAIL, said, "get one for this name")

    async def test_expired(self) -> None:
        """It was valid until yesterday."""
        found = await self.with_certificate(make_credentials([NAME], CA, ends=-1 * DAY))
        self.assert_found(found["TLS"], FAIL, "has expired on", "renew it")
        self.assertEqual(len([each for each in found["TLS"] if each.verdict is FAIL]), 1)
        self.assert_found(found["home"], FAIL, "but clients refuse its certificate", "-stun=false")

    async def test_expires_soon(self) -> None:
        """Trusted, but not for long."""
        soon = make_credentials([NAME], CA, begins=-80 * DAY, ends=10 * DAY)
        found = await self.with_certificate(soon)
        self.assert_found(found["TLS"], OK, "issued by CN=Test CA")
        self.assert_found(found["TLS"], WARN, "10 days more", "renew it")

    async def test_short_life(self) -> None:
        """A certificate for six days is fresh with four of them left, and late with one."""
        fresh = make_credentials([NAME], CA, begins=-2 * DAY, ends=4 * DAY)
        found = await self.with_certificate(fresh)
        self.assert_found(found["TLS"], OK, "4 days more")
        late = make_credentials([NAME], CA, begins=-5 * DAY, ends=1 * DAY)
        found = await self.with_certificate(late)
        self.assert_found(found["TLS"], WARN, "24 hours more", "renew it")

    async def test_not_yet(self) -> None:
        """Of tomorrow: somebody's clock is wrong."""
        found = await self.with_certificate(make_credentials([NAME], CA, begins=DAY))
        self.assert_found(found["TLS"], FAIL, "valid only from", "check the clocks")

    async def test_unknown_issuer(self) -> None:
        """The intermediate is missing, or nobody knows the CA."""
        stranger = make_credentials(["Somebody"], ca=True)
        port = listen(
            self,
            answers("HTTP/1.1 404 Not Found\n\n"),
            ServerTLS(make_credentials([NAME], stranger)),
        )
        found = await self.examined(self.patient(port))
        self.assert_found(found["TLS"], FAIL, "nobody vouches for CN=Somebody", "fullchain.pem")

    async def test_no_meta_certificate(self) -> None:
        """TLS ends before the relay: no fast start, and no failure."""
        inner = self.port_of(self.start_relay(self.config(tls=False, stun=False)))
        found = await self.examined(self.patient(listen(self, forwards(inner), ServerTLS(LEAF))))
        self.assert_found(found["TLS"], WARN, "no meta certificate", "TCP through")
        self.assert_found(found["fast start"], SKIP, "not possible")
        self.assert_found(found["login"], OK, "came through")

    async def test_no_sni(self) -> None:
        """A relay that is dialed by its address, behind one who routes by name."""
        credentials = make_credentials([HOST], CA)
        port = listen(self, answers("HTTP/1.1 404 Not Found\n\n"), NamesOnly(credentials))
        found = await self.examined(self.patient(port, host=HOST))
        self.assert_found(found["TLS"], FAIL, "clients that send no server name", "-hostname")

    async def test_refused_without_name(self) -> None:
        """A relay with a name need not serve those who do not say it."""
        port = listen(self, answers("HTTP/1.1 404 Not Found\n\n"), NamesOnly(LEAF))
        found = await self.examined(self.patient(port))
        self.assert_found(found["SNI"], OK, "is refused")

    async def test_other_site_without_name(self) -> None:
        """A proxy's own certificate for those who send no name."""
        port = listen(self, answers("HTTP/1.1 404 Not Found\n\n"), DefaultSite(LEAF))
        found = await self.examined(self.patient(port))
        self.assert_found(found["TLS"], OK, "issued by CN=Test CA")
        self.assert_found(found["SNI"], WARN, "another certificate", "proxy's own")

    async def test_no_tls(self) -> None:
        """A port without TLS where TLS is expected."""
        port = listen(self, answers("HTTP/1.1 400 Bad Request\n\n", then_close=True))

        def rude(front: Front) -> None:
            front.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        plain = listen(self, rude)
        for each in (port, plain):
            found = await self.examined(self.patient(each, timeout=0.3))
            self.assert_found(found["TLS"], FAIL, "no TLS with the name")

    async def test_secrets_are_kept(self) -> None:
        """A mesh key is not told to whoever has no good certificate."""
        service = self.start_relay(self.config(mesh_key=MESH_KEY))
        found = await self.examined(self.relay_patient(service, host=HOST, mesh_key=MESH_KEY))
        self.assert_found(found["login"], SKIP, "a key is not shown")


class NamesOnly(ServerTLS):
    """Refuses whoever sends no server name."""

    def __init__(self, credentials: Any) -> None:
        super().__init__(credentials)
        own, nothing = self.context, SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context = nothing

        def choose(connection: SSL.Connection) -> None:
            if connection.get_servername():
                connection.set_context(own)

        nothing.set_tlsext_servername_callback(choose)


class DefaultSite(ServerTLS):
    """Has another certificate for those who send no name."""

    def __init__(self, credentials: Any) -> None:
        super().__init__(credentials)
        own, default = self.context, ServerTLS(make_credentials(["default.test"])).context
        self.context = default

        def choose(connection: SSL.Connection) -> None:
            if connection.get_servername():
                connection.set_context(own)

        default.set_tlsext_servername_callback(choose)


def without_upgrade(head: bytes) -> bytes:
    """What a proxy passes on that knows of no upgrades."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(
        line for line in lines if not line.startswith((b"Upgrade:", b"Connection:"))
    )


class UpgradeTests(DoctorTestCase):
    """What is in front of the relay, and what it does to the upgrade."""

    async def behind(
        self, behave: Callable[[Front], object], upto: str = "upgrade", **fields: Any
    ) -> dict[str, list[Finding]]:
        """Examine what behaves so."""
        port = listen(self, behave, ServerTLS(LEAF))
        return await self.examined(self.patient(port, **fields), upto)

    def relay_behind(self) -> int:
        """A relay without TLS for a proxy; its port."""
        return self.port_of(self.start_relay(self.config(tls=False, stun=False)))

    async def test_stripped(self) -> None:
        """A proxy that takes Upgrade away; who it is comes from its headers."""
        inner = self.relay_behind()

        def name(data: bytes) -> bytes:
            return data.replace(b"\r\n", b"\r\nServer: nginx/1.26.0\r\nVia: 1.1 edge\r\n", 1)

        stripped = forwards(inner, request=without_upgrade, answer=name)
        found = await self.behind(stripped, upto="WebSocket")
        finding = self.assert_found(
            found["upgrade"], FAIL, "a proxy has stripped it (HTTP 426", "proxy_set_header"
        )
        self.assertIn("through nginx/1.26.0 (server), 1.1 edge (via)", finding.said)
        self.assert_found(found["login"], SKIP, "no relay to log in to")
        self.assert_found(found["WebSocket"], WARN, "no WebSocket (HTTP 426")

    async def test_refusals(self) -> None:
        """Each status means something else."""
        for head, said, cure in (
            ("200 OK", "a web page comes instead", "Upgrade"),
            ("301 Moved\nLocation: https://elsewhere.test/", "redirected to https://else", "path"),
            ("403 Forbidden\ncf-ray: 8f2-FRA", "refuses the upgrade (HTTP 403 Forb", "/derp"),
            ("404 Not Found", "there is no DERP at this path", "-derp=false"),
            ("502 Bad Gateway\nServer: caddy", "has no relay behind it", "start the relay"),
            ("400 Bad Request", "the upgrade is refused (HTTP 400 Bad Request)", "Upgrade"),
        ):
            found = await self.behind(answers(f"HTTP/1.1 {head}\n\n"))
            finding = self.assert_found(found["upgrade"], FAIL, said)
            self.assertTrue(cure.lower() in finding.cure.lower() or cure == "path", finding.cure)
            if "cf-ray" in head:
                self.assertIn("through Cloudflare (cf-ray)", finding.said)

    async def test_buffering(self) -> None:
        """A proxy that keeps the answer until there is more of it, which there never is."""
        found = await self.behind(forwards(self.relay_behind(), answer=lambda _: b""), timeout=0.3)
        self.assert_found(found["upgrade"], FAIL, "something holds it back", "proxy_buffering off")

    async def test_held_greeting(self) -> None:
        """One that passes the head of the answer and keeps what is behind."""

        def head_only(data: bytes) -> bytes:
            head, blank, _ = data.partition(b"\r\n\r\n")
            return head + blank if blank else b""

        found = await self.behind(forwards(self.relay_behind(), answer=head_only), timeout=0.3)
        said = "behind the 101 comes nothing where the relay's greeting should be"
        self.assert_found(found["upgrade"], FAIL, said, "proxy_buffering off")

    async def test_cut_short(self) -> None:
        """Closed without a word, in the head, and behind it."""
        for sent, said in (
            ("", "closed without an answer"),
            ("HTTP/1.1 101 Switching\nUpg", "is cut off inside its head"),
            ("HTTP/1.1 101 Switching\nUpgrade: DERP\n\n", "comes the connection closed"),
            ("HTTP/1.1 101 Switching\n\n\x01\x00\x00", "the relay's greeting is cut off"),
        ):
            found = await self.behind(answers(sent, then_close=True))
            self.assert_found(found["upgrade"], FAIL, said)

    async def test_http2_only(self) -> None:
        """A front that speaks HTTP/2 whatever the client offers."""
        settings = "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"
        found = await self.behind(answers(settings))
        self.assert_found(found["upgrade"], FAIL, "speaks HTTP/2 only", "ALPN")

    async def test_other_protocols(self) -> None:
        """No HTTP, and a 101 to something that is not DERP."""
        found = await self.behind(answers("SSH-2.0-OpenSSH_9.7\n"))
        self.assert_found(found["upgrade"], FAIL, "an SSH server", "host and port")
        found = await self.behind(answers("\x15\x03\x01\x00\x02\x02\x16"))
        self.assert_found(found["upgrade"], FAIL, "TLS instead of HTTP", "without http://")
        found = await self.behind(answers("HTTP/1.1 101 Switching\nUpgrade: DERP\n\n\x09\x08\x07"))
        self.assert_found(found["upgrade"], FAIL, "is no DERP greeting (09 08 07)", "host and path")
        wrong = "\x01\x00\x00\x00\x28" + "DERPderp" + "k" * 32
        found = await self.behind(answers(f"HTTP/1.1 101 Switching\n\n{wrong}"))
        self.assert_found(found["upgrade"], FAIL, "is no DERP greeting (01 00 00 00 28")

    async def test_changed_header(self) -> None:
        """The upgrade passes, changed on its way."""
        text = GREETING.decode("latin-1")
        found = await self.behind(answers(f"HTTP/1.1 101 X\nUpgrade: websocket\n\n{text}"))
        self.assert_found(found["upgrade"], WARN, "Upgrade: DERP was changed")

    async def test_mixed_relays(self) -> None:
        """Header, greeting and meta certificate must name one relay."""
        text = GREETING.decode("latin-1")
        key = bytes(range(64, 96)).hex()
        told = f"HTTP/1.1 101 X\nUpgrade: DERP\nDerp-Public-Key: {key}\n\n"
        found = await self.behind(answers(told + text))
        self.assert_found(found["upgrade"], FAIL, "name different keys", "mixes two relays")
        other = encode_server_key(public_of(bytes(range(64, 96)))).decode("latin-1")
        behave = answers(f"HTTP/1.1 101 X\nUpgrade: DERP\n\n{other}")
        port = listen(self, behave, ServerTLS(LEAF, [metacert()]))
        found = await self.examined(self.patient(port), "upgrade")
        self.assert_found(found["upgrade"], FAIL, "not the one that its meta certificate names")

    async def test_two_homes(self) -> None:
        """The name's IPv4 and IPv6 address belong to different machines."""
        first, second = self.relay_behind(), self.relay_behind()
        port = listen(self, forwards(first), ServerTLS(LEAF))
        listen(self, forwards(second), ServerTLS(LEAF), place=("::1", port))
        names = NamingReactor({NAME: [HOST, "::1"]})
        found = await self.examined(self.patient(port, reactor=names), "upgrade")
        self.assert_found(found["upgrade"], FAIL, "lead to different relays", "one relay")

    test_two_homes.skip = NO_IPV6 or None  # type: ignore[attr-defined]

    async def test_fast_start(self) -> None:
        """A front that answers HTTP to those who will not read it."""
        text = SWITCHING.decode() + GREETING.decode("latin-1")
        behave = answers(text.replace("\r\n", "\n"))
        port = listen(self, behave, ServerTLS(LEAF, [metacert()]))
        found = await self.examined(self.patient(port), "fast start")
        self.assert_found(found["upgrade"], OK, "greeted by")
        self.assert_found(found["fast start"], FAIL, "answered with HTTP 101", "TCP through")

    async def test_no_web_socket(self) -> None:
        """A proxy that passes one upgrade and not the other."""
        inner = self.relay_behind()

        def behave(front: Front) -> None:
            if b"Sec-WebSocket-Key" in front.received:
                answers("HTTP/1.1 403 Forbidden\n\n")(front)
            else:
                forwards(inner)(front)

        found = await self.behind(behave, upto="WebSocket")
        self.assert_found(found["WebSocket"], WARN, "no WebSocket (HTTP 403 Forbidden)", "pass Web")
        self.assert_found(found["login"], OK, "came through")

    async def test_web_socket_of_others(self) -> None:
        """A WebSocket that is none of DERP's."""

        def accept(front: Front) -> None:
            from base64 import b64encode
            from hashlib import sha1

            key = front.received.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
            digest = sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            accept = b64encode(digest).decode()
            answers(
                "HTTP/1.1 101 X\nUpgrade: websocket\nConnection: Upgrade\n"
                f"Sec-WebSocket-Accept: {accept}\n\n"
            )(front)

        def behave(front: Front) -> None:
            if b"Sec-WebSocket-Key" in front.received:
                accept(front)

        found = await self.behind(behave, upto="WebSocket", timeout=0.5)
        self.assert_found(found["WebSocket"], WARN, "without its subprotocol derp")


class LoginTests(DoctorTestCase):
    """Logging in, and relaying."""

    def fake_relay(self, make: Callable[[], FakeRelay]) -> Patient:
        """Examine a scripted relay."""
        factory = FakeRelayFactory(make)
        port = reactor.listenTCP(0, over_tls(factory, ServerTLS(LEAF)), interface=HOST)
        self.addCleanup(port.stopListening)
        return self.patient(port.getHost().port, timeout=0.4)

    async def test_strangers_refused(self) -> None:
        """Admission is no fault; the cure says how to examine all the same."""
        service = self.start_healthy(allow_clients=self.nobody())
        found = await self.examined(self.relay_patient(service))
        self.assert_found(found["login"], OK, "admits no strangers", "--mesh-psk-file")

    async def test_wrong_keys(self) -> None:
        """Keys that should open, and do not."""
        service = self.start_healthy(allow_clients=self.nobody(), mesh_key=MESH_KEY)
        found = await self.examined(self.relay_patient(service, mesh_key=bytes(range(32))))
        self.assert_found(found["login"], FAIL, "with this mesh key", "--mesh-psk-file")
        found = await self.examined(self.relay_patient(service, private_key=generate_private()))
        self.assert_found(found["login"], FAIL, "not admit the key of --key-file", "tailnet")

    def nobody(self) -> str:
        """A file that admits nobody."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("# nobody\n")
        return path

    async def test_two_relays(self) -> None:
        """A balancer that sends every other client to another relay."""
        ports = [
            self.port_of(self.start_relay(self.config(tls=False, stun=False))) for _ in range(2)
        ]

        def behave(front: Front) -> None:
            if b"Upgrade: DERP" in front.received:
                ports.reverse()
            forwards(ports[0])(front)

        port = listen(self, behave, ServerTLS(LEAF))
        found = await self.examined(self.patient(port))
        said = "lead to two relays that do not know each other"
        self.assert_found(found["login"], FAIL, said, "mesh")

    async def test_swallowed_packets(self) -> None:
        """A relay that admits and does not relay."""
        found = await self.examined(self.fake_relay(FakeRelay))
        self.assert_found(found["login"], OK, "admitted in")
        self.assert_found(found["login"], FAIL, "is lost (0.4 s, two attempts)", "--monthly-quota")

    async def test_unwell(self) -> None:
        """A relay that says itself what is wrong."""

        class Ailing(FakeRelay):
            def _frame(self, frame_type: int, payload: bytes) -> None:
                known = self.client_info
                super()._frame(frame_type, payload)
                if known is None:
                    self.send(encode_health("certificate expired"))

        found = await self.examined(self.fake_relay(Ailing))
        self.assert_found(found["login"], FAIL, "it is not well: certificate expired")

    async def test_gone(self) -> None:
        """A relay that says that the second client is not there."""

        class Forgetful(FakeRelay):
            def _frame(self, frame_type: int, payload: bytes) -> None:
                super()._frame(frame_type, payload)
                if frame_type == 4:
                    self.send(encode_frame(8, payload[:32] + b"\x01"))

        found = await self.examined(self.fake_relay(Forgetful))
        self.assert_found(found["login"], FAIL, "the other client is not there")

    async def test_silent_login(self) -> None:
        """A relay that greets, and never answers the login."""

        class Silent(FakeRelay):
            def _frame(self, frame_type: int, payload: bytes) -> None:
                """Say nothing."""

        found = await self.examined(self.fake_relay(Silent))
        self.assert_found(found["login"], FAIL, "does not answer the login within", "tailscaled")


class STUNTests(DoctorTestCase):
    """STUN, on its own: whatever TCP does."""

    async def asked(self, server: STUNServer) -> list[Finding]:
        """What is found about a server."""
        patient = self.patient(1, stun_port=listen_udp(self, server), timeout=0.8)
        return (await self.examined(patient))["STUN"]

    async def test_silent(self) -> None:
        """UDP that does not pass."""
        finding = self.assert_found(
            await self.asked(STUNServer(None)), FAIL, "no STUN answer", "security group"
        )
        self.assertIn("/udp", finding.cure)

    async def test_closed(self) -> None:
        """A port that nobody listens on."""
        port = closed_udp_port(self)
        found = await self.examined(self.patient(1, stun_port=port))
        self.assert_found(found["STUN"], FAIL, "nobody listens on UDP", "start the relay with STUN")

    async def test_docker(self) -> None:
        """The address of Docker's bridge, as its userland proxy makes it."""
        found = await self.asked(STUNServer(socket.inet_aton("172.17.0.1")))
        self.assert_found(found, FAIL, "of Docker's networks", "--network host")

    async def test_private(self) -> None:
        """An address somebody in between has put in."""
        found = await self.asked(STUNServer(socket.inet_aton("192.168.1.9")))
        self.assert_found(found, WARN, "private (192.168.0.0/16) and not ours (127.0.0.1)", "SNAT")

    async def test_garbage(self) -> None:
        """An answer that cannot be read."""
        found = await self.asked(STUNServer(bytes(4), garbage=b"\x00\x20\x00\x08\x00\x07\x00\x00"))
        self.assert_found(found, FAIL, "cannot be read", "what else answers")

    async def test_lossy(self) -> None:
        """It answers, but not every request."""
        found = await self.asked(STUNServer(socket.inet_aton(HOST), drop=1))
        self.assert_found(found, WARN, "one request got lost", "packet loss")


class HTTPTests(DoctorTestCase):
    """``/generate_204``, the plain port, and clocks."""

    async def examine_plain(self, behave: Callable[[Front], object]) -> list[Finding]:
        """What is found on a plain port that behaves so."""
        patient = self.relay_patient(self.start_healthy(), http_port=listen(self, behave))
        return (await self.examined(replace(patient, timeout=0.6)))["plain HTTP"]

    async def test_redirected(self) -> None:
        """A proxy that sends everything to https."""
        behave = answers("HTTP/1.1 308 Permanent Redirect\nServer: Caddy\n\n")
        found = await self.examine_plain(behave)
        finding = self.assert_found(found, WARN, "HTTP 308 Permanent Redirect, not 204", "redirect")
        self.assertIn("through Caddy (server)", finding.said)
        self.assertFalse(self.chart.plain_port_well)

    async def test_faked(self) -> None:
        """A 204 of somebody who does not know the challenge."""
        found = await self.examine_plain(answers("HTTP/1.1 204 No Content\n\n"))
        self.assert_found(found, WARN, "without the response to the challenge", "the relay itself")

    async def test_silent_or_strange(self) -> None:
        """No answer, or no HTTP."""
        found = await self.examine_plain(lambda front: None)
        self.assert_found(found, WARN, "does not answer /generate_204 (silent)")
        found = await self.examine_plain(answers("SSH-2.0-x\n"))
        self.assert_found(found, WARN, "an SSH server")

    async def test_closed(self) -> None:
        """No plain port: worth a word, and left out of the map."""
        port = closed_tcp_port(self)
        patient = self.relay_patient(self.start_healthy(), http_port=port)
        found = (await self.examined(patient))["plain HTTP"]
        self.assert_found(found, WARN, f"port {port}: connection refused", "CanPort80")

    async def test_main_port(self) -> None:
        """A proxy that sends only /derp to the relay."""
        inner = self.port_of(self.start_relay(self.config(tls=False, stun=False)))

        def behave(front: Front) -> None:
            if front.path == "/derp":
                forwards(inner)(front)
            else:
                answers("HTTP/1.1 404 Not Found\n\n")(front)

        port = listen(self, behave, ServerTLS(LEAF))
        found = await self.examined(self.patient(port))
        self.assert_found(found["generate_204"], WARN, "HTTP 404 Not Found, not 204")
        self.assert_found(found["login"], OK, "came through")

    async def test_clock_skew(self) -> None:
        """A relay whose clock is far off, and one that is a little."""
        now = time.time()
        for seconds, verdict, said in (
            (-7200, FAIL, "hours behind this machine's: certificates"),
            (86400 * 30, FAIL, "30 days ahead of"),
            (90, WARN, " s ahead of this machine's"),
            (3, OK, "agrees"),
        ):
            date = formatdate(now + seconds, usegmt=True)
            behave = answers(f"HTTP/1.1 204 No Content\nDate: {date}\n\n")
            port = listen(self, behave, ServerTLS(LEAF))
            patient = self.patient(port, wall_time=lambda: now)
            found = (await self.examined(patient))["clock"]
            self.assert_found(found, verdict, said)

    async def test_no_date(self) -> None:
        """A server without a clock to show."""
        port = listen(self, answers("HTTP/1.1 204 No Content\n\n"), ServerTLS(LEAF))
        self.assert_found((await self.examined(self.patient(port)))["clock"], SKIP, "has a Date")
