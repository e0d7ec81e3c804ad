"""Tests for :mod:`derp.start_block`: what is said of protection is what there is."""

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.net.trusted_proxies import parse_proxies
from derp.start_block import protections, start_block
from derp.wire.node_json import RelayNode

OPEN = "admission: none, whoever finds this relay may use it"
ON_HANG_UP = "connected clients are not asked about again but on SIGHUP"


class ProtectionTests(SynchronousTestCase):
    """:func:`derp.start_block.protections`."""

    def admission(self, **flags: object) -> list[str]:
        """The lines before those about limits."""
        lines = protections(replace(Config(), **flags))  # type: ignore[arg-type]
        end = next(n for n, line in enumerate(lines) if line.startswith("limits: "))
        return lines[:end]

    def test_none(self) -> None:
        """An open relay says so."""
        self.assertEqual(self.admission(), [OPEN])

    def test_each(self) -> None:
        """Each kind of source with what decides, none with what may be secret."""
        self.assertEqual(
            self.admission(
                allow_clients="/keys",
                verify_clients=True,
                socket=("/a", "/b"),
                verify_client_url=("https://u:p@a.test/verify?token=1",),
            ),
            [
                "admission: clients in /keys (--allow-clients)",
                "           and known to tailscaled at /a or /b (--verify-clients)",
                "           and agreed to by https://a.test/verify, which admits all while "
                "unreachable",
                ON_HANG_UP,
            ],
        )

    def test_policy(self) -> None:
        """Alternatives are told from conditions, failing closed from open."""
        lines = self.admission(
            allow_clients="/keys",
            verify_client_url=("https://a.test/",),
            verify_client_url_fail_open=False,
            verify_policy="any",
            reverify_interval=300.0,
        )
        self.assertEqual(
            lines[1:],
            [
                "           or agreed to by https://a.test/, which refuses while unreachable",
                "clients no longer admitted are closed within 5m0s",
            ],
        )

    def test_default_socket(self) -> None:
        """The socket that will be asked is named also if the operator did not."""
        self.assertRegex(self.admission(verify_clients=True)[0], r"tailscaled at \S+\.sock ")

    def limits(self, **flags: object) -> list[str]:
        """The lines about limits."""
        lines = protections(replace(Config(), **flags))  # type: ignore[arg-type]
        return [line for line in lines if line.startswith(("limits: ", "        "))]

    def test_limits(self) -> None:
        """Each limit with its flag; a relay without any says so."""
        none = "limits: none, clients may send as much as they can"
        self.assertEqual(self.limits(), [none])
        self.assertEqual(
            self.limits(
                accept_connection_limit=2.5,
                max_handshakes=9,
                max_clients=8,
                max_clients_per_ip=7,
                server_rate_limit=10**7,
                monthly_quota=2 << 40,
                rate_config="/r",
            ),
            [
                "limits: 2.5 new connections per second (--accept-connection-limit)",
                "        9 connections on their way in (--max-handshakes)",
                "        8 clients (--max-clients)",
                "        7 clients per address (--max-clients-per-ip)",
                "        10 MB per second in all (--server-rate-limit)",
                "        2 TiB per month (--monthly-quota)",
                "        as /r says (--rate-config)",
            ],
        )


class ProxyTests(SynchronousTestCase):
    """What is said of the port in the map."""

    def last_line(self, port: int, **flags: object) -> str:
        """The end of the block."""
        config = replace(Config(), **flags)  # type: ignore[arg-type]
        node = RelayNode(hostname="derp.example.com", derp_port=port)
        block = start_block(config, version="1", public=bytes(32), listening=(), tls="", node=node)
        return block.splitlines()[-1]

    def test_behind_proxy(self) -> None:
        """Where a proxy is in front, the relay's own port is not what clients dial."""
        networks, _ = parse_proxies("--x", "127.0.0.1")
        for flags in ({"tls": False}, {"tls": True, "trusted_proxies": networks}):
            self.assertIn("DERPPort is the proxy's port, not 3340", self.last_line(3340, **flags))

    def test_no_proxy(self) -> None:
        """Without one there is nothing to be said, nor with the usual port."""
        self.assertNotIn("proxy", self.last_line(8443, tls=True))
        self.assertNotIn("proxy", self.last_line(443, tls=False))
        self.assertNotIn("proxy", self.last_line(3340, tls=False, dev=True))
