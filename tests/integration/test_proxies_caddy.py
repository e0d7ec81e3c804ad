"""Caddy in front of a relay, as ``contrib/proxies/caddy`` sets it up."""

from __future__ import annotations

import shutil
from typing import Any

from twisted.internet.utils import getProcessOutputAndValue

from tests.integration.proxy_case import NAME, SOON, ProxyTestCase
from tests.integration.proxy_child import missing
from tests.integration.relay_case import HOST, reactor
from tests.integration.waiting import in_time

_AROUND = """
{{
    admin {host}:{admin}
    default_bind {host}
    http_port {plain}
    https_port {front}
    storage file_system {place}/storage
    servers {{
        timeouts {{
            read_header {soon}
            idle {soon}
        }}
    }}
}}
"""
"""Ports, and nothing of the machine's. The certificate is given; there is no Let's Encrypt."""


class TerminateTests(ProxyTestCase):
    """Caddy has the certificate and passes the upgrade on."""

    skip = missing("caddy", "caddy")
    recipe_name = "caddy/Caddyfile"
    passes_tls = False

    def machine(self) -> dict[str, str]:
        site = f"\n{NAME} {{"
        return {
            site: f"{site}\n\ttls {self.certificate} {self.key}",
            "127.0.0.1:3340": f"{HOST}:{self.relay_port()}",
        }

    def install(self, text: str) -> list[str]:
        around = _AROUND.format(
            host=HOST,
            admin=self.sites,
            plain=self.plain,
            front=self.front,
            place=self.place,
            soon=SOON,
        )
        (self.place / "Caddyfile").write_text(around + text)
        return ["caddy", "run", "--adapter", "caddyfile", "--config", f"{self.place}/Caddyfile"]

    async def test_relays(self) -> None:
        """Packets, pages, browsers, addresses."""
        await self.check_all()

    async def test_patience(self) -> None:
        """No timeout of Caddy's is for upgraded connections."""
        self.start_behind()
        await self.start_proxy()
        # Caddy 2.11 waits for ever for a first request.
        await self.check_outlives_silence(b"GET / HTTP/1.1\r\nHost: stranger\r\n\r\n")

    async def test_reload(self) -> None:
        """A reload cuts all clients; they may come back at once."""
        self.start_behind()
        await self.start_proxy()
        client, _ = await self.through()
        command = self.configure({f"http://{NAME}": f"http://{NAME}, http://{NAME}:{self.extra}"})
        caddy = shutil.which("caddy")
        assert caddy is not None
        arguments = ["reload", *command[2:], "--address", f"{HOST}:{self.sites}"]
        reloaded: Any = getProcessOutputAndValue(caddy, arguments, {"HOME": str(self.place)})
        out, errors, code = await in_time(reactor, reloaded, "a reload")
        self.assertEqual(code, 0, out + errors)
        await self.check_ends(client)
        await self.through()
