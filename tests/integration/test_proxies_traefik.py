"""
Traefik in front of a relay, as ``contrib/proxies/traefik`` sets it up.

No Debian package has Traefik, so these run where somebody has put it into the path.
"""

from __future__ import annotations

import shutil

from tests.integration.proxy_case import SOON, ProxyTestCase
from tests.integration.proxy_child import recipe
from tests.integration.relay_case import HOST

_RESOLVER = """certificatesResolvers:
  letsencrypt:
    acme:
      email: admin@example.com
      storage: /etc/traefik/acme.json
      tlsChallenge: {}
"""
_SHORT = f"""
    transport:
      respondingTimeouts:
        readTimeout: {SOON}
        idleTimeout: {SOON}"""


class TraefikTestCase(ProxyTestCase):
    """Starts Traefik."""

    if shutil.which("traefik") is None:
        skip = "traefik not found: it is in no Debian package; put the binary into PATH"

    def install(self, text: str) -> list[str]:
        dynamic = self.place / "dynamic"
        dynamic.mkdir(exist_ok=True)
        (dynamic / "derp.yaml").write_text(text)
        (dynamic / "certificate.yaml").write_text(
            f"tls: {{certificates: [{{certFile: {self.certificate}, keyFile: {self.key}}}]}}\n"
        )
        static = {
            '":80"': f'"{HOST}:{self.plain}"{_SHORT}',
            '":443"': f'"{HOST}:{self.front}"{_SHORT}',
            "/etc/traefik/dynamic\n": f"{dynamic}\n",
            _RESOLVER: "",
        }
        (self.place / "traefik.yaml").write_text(recipe("traefik/traefik.yaml", static))
        return ["traefik", f"--configfile={self.place}/traefik.yaml"]

    async def check_all(self) -> None:
        """All that is asked of it."""
        await self.until_served()
        await self.check_login()
        await self.check_relaying()
        await self.check_address()
        await self.check_websocket()
        await self.check_pages()
        await self.check_outlives_silence()

    async def until_served(self) -> None:
        """It listens before it has read what to serve."""
        while (await self.ask("/generate_204", tls=False)).status == 404:
            pass


class PassthroughTests(TraefikTestCase):
    """TLS goes on to the relay, by the name in the ClientHello."""

    recipe_name = "traefik/passthrough.yaml"
    passes_tls = True

    def machine(self) -> dict[str, str]:
        return {
            "127.0.0.1:8443\n": f"{HOST}:{self.relay_port()}\n",
            "127.0.0.1:8080": f"{HOST}:{self.relay_port('--http-port')}",
        }

    async def test_relays(self) -> None:
        """Packets, pages, browsers, addresses: all as without Traefik."""
        self.start_behind()
        await self.start_proxy()
        await self.check_all()


class TerminateTests(TraefikTestCase):
    """Traefik has the certificate and passes the upgrade on."""

    recipe_name = "traefik/terminate.yaml"
    passes_tls = False

    def machine(self) -> dict[str, str]:
        return {
            "http://127.0.0.1:3340": f"http://{HOST}:{self.relay_port()}",
            "tls:\n        certResolver: letsencrypt": "tls: {}",
        }

    async def test_relays(self) -> None:
        """Packets, pages, browsers, addresses."""
        self.start_behind()
        await self.start_proxy()
        await self.check_all()
        await self.check_debug_pages()
