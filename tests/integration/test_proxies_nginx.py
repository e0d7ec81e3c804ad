"""nginx in front of a relay, as ``contrib/proxies/nginx`` sets it up."""

from __future__ import annotations

import os

from derp.net.relay_errors import ConnectFailed
from derp.net.trusted_proxies import parse_proxies
from derp.wire.frames import KEEP_ALIVE_S
from tests.integration.proxy_case import OTHER_NAME, SOON, ProxyTestCase, certificate_for
from tests.integration.proxy_child import missing
from tests.integration.relay_case import HOST

PATIENCE = "10m"
PATIENCE_S = 600
_SCRATCH = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class NginxTestCase(ProxyTestCase):
    """Starts nginx."""

    def run_by(self, text: str) -> list[str]:
        (self.place / "nginx.conf").write_text(text)
        conf = str(self.place / "nginx.conf")
        return ["nginx", "-c", conf, "-e", "stderr", "-g", "daemon off;"]

    def scratch(self) -> str:
        """Directories it may write to."""
        return "\n".join(f"{name}_temp_path {self.place}/{name};" for name in _SCRATCH)


class PassthroughTests(NginxTestCase):
    """TLS goes on to the relay, by the name in the ClientHello."""

    skip = missing("nginx", "libnginx-mod-stream", "/usr/lib/nginx/modules/ngx_stream_module.so")
    recipe_name = "nginx/passthrough.conf"
    passes_tls = True

    def machine(self) -> dict[str, str]:
        certificate = self.place / "www.pem"
        if not certificate.exists():
            issued = certificate_for(OTHER_NAME)
            certificate.write_bytes(issued.pem)
            (self.place / "www.key").write_bytes(issued.key_pem())
        letsencrypt = f"/etc/letsencrypt/live/{OTHER_NAME}"
        return {
            "user www-data;": "user root;" if os.geteuid() == 0 else "",
            "worker_processes auto;": "worker_processes 2;",
            "worker_rlimit_nofile 65536;": "",
            "16384": "256",
            "/run/nginx.pid": f"{self.place}/nginx.pid",
            "error_log /var/log/nginx/error.log": "error_log stderr notice",
            "/var/log/nginx/access.log": "off",
            "http {": f"http {{\n{self.scratch()}",
            "listen 443 ": f"listen {HOST}:{self.front} ",
            "listen [::]:443 so_keepalive=10m:15s:9;": "",
            "listen 80;": f"listen {HOST}:{self.plain};",
            "listen [::]:80;": "",
            "127.0.0.1:8443": f"{HOST}:{self.relay_port()}",
            "127.0.0.1:8080": f"{HOST}:{self.relay_port('--http-port')}",
            "127.0.0.1:9443": f"{HOST}:{self.sites}",
            f"{letsencrypt}/fullchain.pem": str(certificate),
            f"{letsencrypt}/privkey.pem": str(self.place / "www.key"),
            "root /var/www/html;": "return 200 $remote_addr;",
            "include /etc/nginx/conf.d/*.conf;": "",
            "include /etc/nginx/sites-enabled/*;": "",
        }

    def install(self, text: str) -> list[str]:
        return self.run_by(text)

    async def test_relays(self) -> None:
        """Packets, pages, browsers, addresses: all as without nginx."""
        await self.check_all()

    async def test_other_sites(self) -> None:
        """A name that is not the relay's is another site's, which knows its visitors, too."""
        self.start_behind()
        await self.start_proxy()
        answer = await self.ask("/", name=OTHER_NAME)
        self.assertEqual((answer.status, answer.body), (200, b"127.0.0.2"))

    async def test_silence(self) -> None:
        """Nothing but proxy_timeout cuts a silent client, and the relay speaks before that."""
        self.assertGreater(PATIENCE_S, 2 * KEEP_ALIVE_S)
        self.start_behind()
        await self.start_proxy({f"proxy_timeout {PATIENCE};": f"proxy_timeout {SOON};"})
        await self.check_cut()

    async def test_reload(self) -> None:
        """Who is connected stays, and reaches those who come by the new configuration."""
        self.start_behind()
        child = await self.start_proxy()
        listen = "listen 443 so_keepalive=10m:15s:9;"
        more = f"{listen} listen {HOST}:{self.extra};"
        await self.check_reload(child, {listen: more})

    async def test_reload_in_the_end(self) -> None:
        """worker_shutdown_timeout ends the old workers, and with them their clients."""
        self.start_behind()
        short = {"worker_shutdown_timeout 1h;": f"worker_shutdown_timeout {SOON};"}
        child = await self.start_proxy(short)
        client, _ = await self.through()
        await self.reload(child)
        await self.check_ends(client)

    async def test_client_within(self) -> None:
        """A client in the proxies' own network is no proxy that does not name its clients."""
        networks, _ = parse_proxies("--trusted-proxies", "127.0.0.0/8")
        self.start_behind(trusted_proxies=networks)
        await self.start_proxy()
        await self.through()
        self.assertFalse(self.said("--trusted-proxies but does not say"))

    async def test_no_header(self) -> None:
        """Without proxy_protocol all clients have nginx's address, and the relay says so."""
        self.start_behind()
        await self.start_proxy({"proxy_protocol on;": "", " proxy_protocol default": " default"})
        await self.through()
        self.assertTrue(self.said("127.0.0.1 is in --trusted-proxies but does not say who"))


class TerminateTests(NginxTestCase):
    """nginx has the certificate and passes the upgrade on."""

    skip = missing("nginx", "nginx")
    recipe_name = "nginx/terminate.conf"
    passes_tls = False

    def machine(self) -> dict[str, str]:
        return {
            "listen 443 ssl;": f"listen {HOST}:{self.front} ssl;",
            "listen [::]:443 ssl;": "",
            "listen 80;": f"listen {HOST}:{self.plain};",
            "listen [::]:80;": "",
            "127.0.0.1:3340": f"{HOST}:{self.relay_port()}",
            "/etc/letsencrypt/live/derp.example.com/fullchain.pem": str(self.certificate),
            "/etc/letsencrypt/live/derp.example.com/privkey.pem": str(self.key),
        }

    def install(self, text: str) -> list[str]:
        """Give it what it has in Debian's nginx.conf, which includes conf.d."""
        (self.place / "derp.conf").write_text(text)
        return self.run_by(
            f"worker_processes 2; pid {self.place}/nginx.pid; error_log stderr notice;\n"
            f"events {{ worker_connections 256; }}\n"
            f"http {{ {self.scratch()}\naccess_log off; include {self.place}/derp.conf; }}\n"
        )

    async def test_relays(self) -> None:
        """Packets, pages, browsers, addresses."""
        await self.check_all()

    async def test_silence(self) -> None:
        """Nothing but proxy_read_timeout cuts a silent client, and the relay speaks before that."""
        self.assertGreater(PATIENCE_S, 2 * KEEP_ALIVE_S)
        self.start_behind()
        await self.start_proxy({f"proxy_read_timeout {PATIENCE};": f"proxy_read_timeout {SOON};"})
        await self.check_cut()

    async def test_reload(self) -> None:
        """Who is connected stays, and reaches those who come by the new configuration."""
        self.start_behind()
        child = await self.start_proxy()
        more = f"listen {HOST}:{self.extra} ssl;\nserver_name"
        await self.check_reload(child, {"server_name": more})

    async def test_not_trusted(self) -> None:
        """Clients get through a proxy that is not trusted, and the relay says whom to trust."""
        self.start_behind(trusted_proxies=())
        await self.start_proxy()
        await self.through()
        self.assertTrue(self.said("127.0.0.1 sends X-Forwarded-For", "--trusted-proxies"))

    async def test_no_upgrade(self) -> None:
        """What an ordinary location does to a login, and what the relay says of it."""
        self.start_behind()
        await self.start_proxy({"proxy_set_header Upgrade $http_upgrade;": ""})
        with self.assertRaises(ConnectFailed):
            await self.through()
        self.assertTrue(self.said("127.0.0.1 passes /derp on without the Upgrade header"))
