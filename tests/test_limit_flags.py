"""Tests for :mod:`derp.limit_flags`."""

from dataclasses import asdict
from ipaddress import ip_network
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config, ListeningPlace, PlaceKind
from derp.errors import ConfigError
from tests.test_command_line import configure

GIVEN: dict[str, dict[str, Any]] = {
    "--accept-connection-limit 5": {"accept_connection_limit": 5.0, "accept_connection_burst": 5},
    "--accept-connection-limit 0.5": {"accept_connection_limit": 0.5, "accept_connection_burst": 1},
    "--accept-connection-limit 5 --accept-connection-burst 9": {
        "accept_connection_limit": 5.0,
        "accept_connection_burst": 9,
    },
    "--rate-config /r": {"rate_config": "/r"},
    "--server-rate-limit 10MB": {"server_rate_limit": 10_000_000},
    "--max-handshakes 100": {"max_handshakes": 100},
    "--max-clients 10 --max-clients-per-ip 2": {"max_clients": 10, "max_clients_per_ip": 2},
    "--monthly-quota 2TiB --quota-state /q": {"monthly_quota": 2 << 40, "quota_state": "/q"},
    "--stun-addr 192.0.2.1:19302": {"stun_host": "192.0.2.1", "stun_port": 19302},
    "--stun-addr :19302": {"stun_host": "", "stun_port": 19302},
    "--trusted-proxies 10.0.0.1,fd00::/8,,unix": {
        "trusted_proxies": (ip_network("10.0.0.1"), ip_network("fd00::/8")),
        "trust_unix_sockets": True,
    },
    "--listen tcp:[::1]:80 --listen unix:/run/derp.sock --listen fd:3": {
        "listen": (
            ListeningPlace(PlaceKind.TCP, host="::1", port=80),
            ListeningPlace(PlaceKind.UNIX, path="/run/derp.sock"),
            ListeningPlace(PlaceKind.FD, fd=3),
        )
    },
    "--certmode manual --listen tls::8443 --listen fd:3": {
        "listen": (
            ListeningPlace(PlaceKind.TLS, port=8443, tls=True),
            ListeningPlace(PlaceKind.FD, fd=3, tls=True),
        )
    },
}

REFUSED = {
    "--accept-connection-limit 0": "--accept-connection-limit: 0 would let nobody in",
    "--accept-connection-limit -1": "--accept-connection-limit: -1 would let nobody in",
    "--accept-connection-burst 0": "--accept-connection-burst: 0 would let nobody in",
    "--max-handshakes -1": "--max-handshakes: -1 is negative",
    "--max-clients -2": "--max-clients: -2 is negative",
    "--max-clients-per-ip -3": "--max-clients-per-ip: -3 is negative",
    "--server-rate-limit fast": '--server-rate-limit: "fast" is not a size: write it as 500GB',
    "--monthly-quota 5apples": '--monthly-quota: "5apples" is not a size',
    "--trusted-proxies 10.0.0.0/33": '--trusted-proxies: "10.0.0.0/33" is no network',
    "--trusted-proxies 10.0.0.1,proxy": '--trusted-proxies: "proxy" is no network',
    "--stun-addr 192.0.2.1": '--stun-addr: invalid server address "192.0.2.1"',
    "--stun-addr :1 --stun-port 2": "--stun-addr has a port already",
    "--listen 80": '--listen: "80" is no place to listen: write tcp:HOST:PORT',
    "--listen udp::80": '--listen: "udp::80" is no place to listen',
    "--listen unix:": '--listen: "unix:" is no place to listen',
    "--listen tcp:80": '--listen: invalid server address "80"',
    "--listen fd:x": '--listen: "fd:x": "x" is no inherited descriptor',
    "--listen fd:2": '"2" is no inherited descriptor',
    "--listen tls::8443": '--listen: "tls::8443" needs certificates',
    "--listen unix:/" + "x" * 107: "a unix socket's path has at most 107 bytes",
}


class LimitFlagTests(SynchronousTestCase):
    maxDiff = None

    def test_given(self) -> None:
        """Every way to give a limit or a place, and what becomes of it."""
        plain = asdict(Config())
        for flags, fields in GIVEN.items():
            config = configure(f"--dev {flags}")
            self.assertEqual({name: getattr(config, name) for name in fields}, fields, flags)
            untouched = {"accept_connection_limit", "monthly_quota", "listen"} - set(fields)
            for name in untouched:
                self.assertEqual(getattr(config, name), plain[name], flags)

    def test_refused(self) -> None:
        """Each unusable value gets one sentence that names flag and value."""
        for flags, sentence in REFUSED.items():
            error = str(self.assertRaises(ConfigError, configure, f"--dev {flags}"))
            self.assertIn(sentence, error)
            self.assertNotIn("\n", error)

    def test_notices(self) -> None:
        """Flags without effect, and a burst nobody named, are spoken of."""
        said = {
            "--accept-connection-burst 5": "--accept-connection-burst has no effect without",
            "--accept-connection-limit 5": "one second's worth of connections at once",
            "--stun=false --stun-addr :1": "--stun-addr has no effect with --stun=false",
        }
        for flags, sentence in said.items():
            self.assertIn(sentence, " ".join(configure(f"--dev {flags}").notices))
