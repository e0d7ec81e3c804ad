"""Tests of :mod:`derp.services`: which parts a configuration gives, and that all of them end."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from derp.config import Config, DebugKnobs
from derp.errors import ConfigError
from derp.net.frame_log import ProbersLoggedRelayProtocol
from derp.net.hub import MAX_LINGER_S, MESHED_LINGER_S
from derp.net.mesh_peers import parse_peers
from derp.services import RelayService, build, check_config
from derp.wire.keys import format_node_public
from tests.free_ports import free_ports
from tests.integration.relay_case import HOST, MESH_KEY, RelayTestCase, reactor


def open_sockets() -> int:
    """How many sockets and epolls this process has open."""
    gc.collect()
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listed them is closed again
            found += os.readlink(f"/proc/self/fd/{name}").startswith(("socket:", "anon_inode:"))
    return found


def is_free(port: int, kind: int = socket.SOCK_STREAM) -> bool:
    """Whether a port on loopback can be bound."""
    with socket.socket(type=kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError:
            return False
        return True


class PortsTests(RelayTestCase):
    """Which ports are opened, and that it is all of them or none."""

    def flags(self, config: Config) -> list[str]:
        """The flags of the ports of a relay that is not started."""
        return [listener.flag for listener in build(config, reactor).listeners]

    def test_which(self) -> None:
        """The plain port stands beside TLS only; metrics have one of their own if asked for."""
        tls = self.config()
        self.assertEqual(self.flags(tls), ["-a", "--http-port"])
        self.assertEqual(self.flags(replace(tls, http_port=-1)), ["-a"])
        plain = replace(tls, tls=False, metrics_addr="127.0.0.1:0")
        self.assertEqual(self.flags(plain), ["-a", "--metrics-addr"])

    def test_opened_before_privileges_go(self) -> None:
        """Ports are bound as root, before twistd becomes somebody else; served after that."""
        service = build(self.config(metrics_addr="127.0.0.1:0"), reactor)
        self.addCleanup(service.stopService)
        service.privilegedStartService()
        bound = [self.port_of(service, each.flag) for each in service.listeners]
        self.assertEqual(len(set(bound)), 3)
        self.assertFalse(any(map(is_free, bound)))
        self.assertFalse(is_free(self.port_of(service, "--stun-port"), socket.SOCK_DGRAM))
        service.startService()
        self.assertEqual([self.port_of(service, each.flag) for each in service.listeners], bound)

    def test_all_or_none(self) -> None:
        """If one port cannot be had, those opened before it are given back."""
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((HOST, 0))
            tcp.listen()
            udp.bind((HOST, 0))
            taken = {
                "--http-port": {"http_port": tcp.getsockname()[1]},
                "--metrics-addr": {"metrics_addr": f"{HOST}:{tcp.getsockname()[1]}"},
                "--stun-port": {"stun_port": udp.getsockname()[1]},
            }
            for flag, field in taken.items():
                (free,) = free_ports(1)
                service = build(self.config(port=free, **field), reactor)
                error = self.assertRaises(ConfigError, service.privilegedStartService)
                self.assertTrue(str(error).startswith(flag), str(error))
                self.assertTrue(is_free(free), flag)
                service.hub.close()

    async def test_stopped(self) -> None:
        """A stopped relay has closed its ports and its clients."""
        before = open_sockets()
        service = build(self.config(metrics_addr="127.0.0.1:0"), reactor)
        service.startService()
        client, _ = await self.client(self.port_of(service))
        waiting = await self.wire(self.port_of(service, "--http-port"))
        ports = [self.port_of(service, each.flag) for each in service.listeners]
        await service.stopService()
        self.assertIsNotNone(await client.when_closed())
        await self.until(lambda: waiting.closed, "the end of a connection without a request")
        self.assertTrue(all(map(is_free, ports)))
        await self.until(lambda: open_sockets() <= before, "the end of all sockets")
        self.assertEqual(len(service.relay.registry), 0)

    def test_options(self) -> None:
        """TCP options of the flags are on the listening sockets, for connections to inherit."""
        service = self.start_relay(self.config(tcp_user_timeout=7.0, tcp_keepalive_time=33.0))
        for listener in service.listeners:
            opened: Any = listener.opened
            sock = opened._sock
            self.assertEqual(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 7000)
            self.assertEqual(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 33)
            self.assertTrue(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


class IdentityTests(RelayTestCase):
    """Who the relay is."""

    def test_key_file(self) -> None:
        """It is made once and then stays."""
        config = self.config()
        first, second = build(config, reactor), build(config, reactor)
        self.assertEqual(first.relay.public, second.relay.public)
        self.assertTrue(os.path.exists(config.key_file))

    def test_dev(self) -> None:
        """A trial's key is another one each time, and no file is touched."""
        config = replace(self.config(), dev=True, tls=False, key_file="", certdir="")
        first, second = build(config, reactor), build(config, reactor)
        self.assertNotEqual(first.relay.public, second.relay.public)
        self.assertEqual(first.node().hostname, "localhost")

    def test_unusable(self) -> None:
        """A key file or certificate that cannot be used stops the start before any port."""
        config = self.config()
        Path(config.key_file).parent.mkdir()
        Path(config.key_file).write_text("not JSON")
        self.assertIn(config.key_file, str(self.assertRaises(ConfigError, build, config, reactor)))
        config = self.config(hostname="relay.example.test")
        error = self.assertRaises(ConfigError, build, config, reactor)
        self.assertIn("relay.example.test.crt", str(error))

    def test_nothing_written(self) -> None:
        """A start that fails leaves no file for the next one, whatever it fails of."""
        config = self.config(hostname="relay.example.test")
        self.assertRaises(ConfigError, build, config, reactor)
        blocked = replace(self.config(), certdir=os.path.join(__file__, "certificates"))
        error = self.assertRaises(ConfigError, build, blocked, reactor)
        self.assertIn("--certdir", str(error))
        limits = replace(self.config(), rate_config=self.mktemp())
        self.assertRaises(ConfigError, build, limits, reactor)
        for each in (config, blocked, limits):
            self.assertFalse(os.path.lexists(each.key_file))
        self.assertFalse(os.path.lexists(limits.certdir))

    def test_first_certificate_is_loaded(self) -> None:
        """What the relay has just written itself is no change that is read again."""
        service = build(self.config(), reactor)
        (files,) = [each for each in service.reloader.files if each.name == "certificate"]
        self.assertTrue(all(map(os.path.exists, files.paths)))
        files.look()
        files.look()
        self.assertFalse(files.unsettled)

    def test_check(self) -> None:
        """Checking a configuration makes no file, and finds what is wrong with those there."""
        config = self.config()
        check_config(config, reactor)
        self.assertFalse(Path(config.key_file).parent.exists())
        Path(config.key_file).parent.mkdir()
        Path(config.key_file).write_text("{}")
        self.assertRaises(ConfigError, check_config, config, reactor)

    def test_knobs_arrive(self) -> None:
        """What was decided on the command line is what the parts are made with."""
        knobs = DebugKnobs(send_queue_depth=7, prober_debug_logs=True)
        config = self.config(tcp_write_timeout=3.5, mesh_key=MESH_KEY, knobs=knobs)
        service = build(config, reactor)
        self.assertEqual(service.relay.outbox_depth, 7)
        self.assertEqual(service.server.write_timeout_s, 3.5)
        self.assertTrue(service.relay.is_mesh_key(MESH_KEY))
        self.assertEqual(service.hub.max_linger_s, MAX_LINGER_S)
        self.assertIs(service.server.protocol_class, ProbersLoggedRelayProtocol)

    def test_meshed(self) -> None:
        """Packets that come over mesh links do not wait long for a hub that lingers."""
        peers = parse_peers("--mesh-with", ["192.0.2.1"])
        service = build(self.config(mesh_with=peers, mesh_key=MESH_KEY), reactor)
        self.assertEqual(service.hub.max_linger_s, MESHED_LINGER_S)


class StartBlockTests(RelayTestCase):
    """What the operator is told."""

    def block(self, **fields: Any) -> tuple[str, RelayService]:
        """Start a relay; give its block."""
        lines = self.log_lines()
        service = self.start_relay(self.config(**fields))
        (block,) = [line for line in lines if line.startswith("derper ")]
        return block, service

    def test_everything(self) -> None:
        """Ports, key, TLS, protections, and how to use it."""
        block, service = self.block(metrics_addr="127.0.0.1:0", mesh_key=MESH_KEY)
        for flag in ("-a", "--http-port", "--metrics-addr"):
            self.assertRegex(
                block, rf"listening +{HOST}:{self.port_of(service, flag)} .*\({flag}\)\n"
            )
        port = self.port_of(service, "--stun-port")
        self.assertRegex(block, rf"{HOST}:{port} +STUN \(--stun-port\)\n")
        self.assertIn(format_node_public(service.relay.public), block)
        self.assertIn(service.node().cert_name, block)
        self.assertIn("mesh key: set", block)
        self.assertNotIn(MESH_KEY.hex(), block)
        self.assertIn(f'"DERPPort": {self.port_of(service)}', block)

    def test_every_address(self) -> None:
        """A relay on every address says so."""
        block, service = self.block(host="")
        self.assertRegex(block, rf"listening +\*:{self.port_of(service)} ")
        port = self.port_of(service, "--stun-port")
        self.assertRegex(block, rf"\*:{port} +STUN \(--stun-port\)\n")

    def test_without(self) -> None:
        """What is off is not offered."""
        block, _ = self.block(derp=False, stun=False, tls=False)
        self.assertNotIn("DERPMap", block)
        self.assertNotIn("derpMap", block)
        self.assertNotIn("STUN", block)
        self.assertIn("TLS          off", block)
        block, _ = self.block(stun=False)
        self.assertIn('"STUNPort": -1', block)
