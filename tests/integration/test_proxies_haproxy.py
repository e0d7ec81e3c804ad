"""HAProxy in front of a relay, as ``contrib/proxies/haproxy`` sets it up."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater

from derp.net.relay_errors import ConnectFailed
from derp.wire.frames import KEEP_ALIVE_S
from tests.integration.proxy_case import NAME, SOON, ProxyTestCase
from tests.integration.proxy_child import ProxyChild, missing
from tests.integration.relay_case import HOST, reactor

PATIENCE = "10m"
PATIENCE_S = 600
_HEARD_WITHIN_S = 0.05
SHORT = {
    "timeout client 1m": f"timeout client {SOON}",
    "timeout server 1m": f"timeout server {SOON}",
}


class HAProxyTestCase(ProxyTestCase):
    """Starts HAProxy as its unit file does: a master that reloads on SIGUSR2, and its workers."""

    skip = missing("haproxy", "haproxy")

    def install(self, text: str) -> list[str]:
        path = self.place / "haproxy.cfg"
        path.write_text(text)
        return ["haproxy", "-W", "-db", "-f", str(path)]

    async def reload(self, child: ProxyChild) -> None:
        """Send the signal until it is heard: one that comes as HAProxy falls asleep is not."""
        while "Reloading HAProxy" not in child.output:
            child.send("USR2")
            await deferLater(reactor, _HEARD_WITHIN_S)

    def machine(self) -> dict[str, str]:
        return {
            "log /dev/log local0": "log stdout format raw local0",
            "user haproxy": "",
            "group haproxy": "",
            "chroot /var/lib/haproxy": "",
            "maxconn 20000": "maxconn 200",
            "bind :::443 v4v6": f"bind {HOST}:{self.front}",
            "bind :::80 v4v6": f"bind {HOST}:{self.plain}",
        }

    def setUp(self) -> None:
        """The tunnel's patience must be longer than the relay is ever silent."""
        self.assertGreater(PATIENCE_S, 2 * KEEP_ALIVE_S)


class RecipeTests:
    """What both recipes have to do alike."""

    start_behind: Any
    start_proxy: Any
    check_cut: Any
    check_outlives_silence: Any

    async def test_silence(self) -> None:
        """timeout tunnel is what cuts a silent client."""
        self.start_behind()
        await self.start_proxy({f"timeout tunnel {PATIENCE}": f"timeout tunnel {SOON}"})
        await self.check_cut()

    async def test_patience(self) -> None:
        """All other timeouts may be as short as they like."""
        self.start_behind()
        await self.start_proxy(SHORT)
        await self.check_outlives_silence()


class PassthroughTests(RecipeTests, HAProxyTestCase):
    """TLS goes on to the relay, by the name in the ClientHello."""

    recipe_name = "haproxy/passthrough.cfg"
    passes_tls = True

    def machine(self) -> dict[str, str]:
        return super().machine() | {
            "127.0.0.1:8443": f"{HOST}:{self.relay_port()}",
            "127.0.0.1:8080": f"{HOST}:{self.relay_port('--http-port')}",
            "port 8080": f"port {self.relay_port('--http-port')}",
        }

    async def test_relays(self) -> None:
        """Packets, pages, browsers, addresses: all as without HAProxy."""
        await self.check_all()

    async def test_reload(self) -> None:
        """Who is connected stays, and reaches those who come by the new configuration."""
        self.start_behind()
        child = await self.start_proxy()
        more = f"frontend tls\n    bind {HOST}:{self.extra}"
        await self.check_reload(child, {"frontend tls": more})

    async def test_reload_in_the_end(self) -> None:
        """hard-stop-after ends the old process, and with it its clients."""
        self.start_behind()
        child = await self.start_proxy({"hard-stop-after 1h": f"hard-stop-after {SOON}"})
        client, _ = await self.through()
        await self.reload(child)
        await self.check_ends(client)

    async def test_stray_header(self) -> None:
        """A PROXY header of a proxy that is not trusted breaks handshakes; the relay says why."""
        self.start_behind(trusted_proxies=())
        await self.start_proxy()
        with self.assertRaises(ConnectFailed):
            await self.through()
        self.assertTrue(self.said("127.0.0.1", "PROXY header", "--trusted-proxies"))

    async def test_no_header(self) -> None:
        """Without send-proxy all clients have HAProxy's address, and the relay says so."""
        self.start_behind()
        await self.start_proxy({" send-proxy-v2": ""})
        await self.through()
        self.assertTrue(self.said("127.0.0.1 is in --trusted-proxies but does not say who"))


class TerminateTests(RecipeTests, HAProxyTestCase):
    """HAProxy has the certificate and passes the upgrade on."""

    recipe_name = "haproxy/terminate.cfg"
    passes_tls = False

    def machine(self) -> dict[str, str]:
        certificates = self.place / "certs"
        certificates.mkdir(exist_ok=True)
        (certificates / f"{NAME}.pem").write_bytes(self.issued.pem + self.issued.key_pem())
        return super().machine() | {
            "/etc/haproxy/certs/": f"{certificates}/",
            "127.0.0.1:3340": f"{HOST}:{self.relay_port()}",
        }

    async def test_relays(self) -> None:
        """Packets, pages, browsers, addresses."""
        await self.check_all()

    async def test_reload(self) -> None:
        """Who is connected stays, and reaches those who come by the new configuration."""
        self.start_behind()
        child = await self.start_proxy()
        more = f"bind {HOST}:{self.extra} ssl crt {self.place}/certs/\n    use_backend relay if {{"
        await self.check_reload(child, {"use_backend relay if {": more})

    async def test_stray_header(self) -> None:
        """A PROXY header of a proxy that is not trusted breaks logins, and the relay says why."""
        self.start_behind(trusted_proxies=())
        await self.start_proxy({"127.0.0.1:3340 check": "127.0.0.1:3340 send-proxy"})
        with self.assertRaises(ConnectFailed):
            await self.through()
        self.assertTrue(self.said("127.0.0.1 begins with a PROXY header", "--trusted-proxies"))
