"""A relay without an address of its own listens on IPv4 and IPv6, or on what there is."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address
from typing import Any

from twisted.trial.unittest import SkipTest

from derp.wire.frames import PeerPresentFlags
from derp.wire.messages import PeerPresent
from tests.integration.relay_case import HOST, MESH_KEY, RelayTestCase
from tests.net.udp_sockets import NO_IPV6

HOST6 = "::1"


def require_ipv6() -> None:
    """Skip on a machine without IPv6, in CI as well: it is nothing one could install."""
    if NO_IPV6:
        raise SkipTest(NO_IPV6)


class DualStackTests(RelayTestCase):
    """``-a :443`` and the like."""

    async def test_both(self) -> None:
        """Clients of both families, on either port, are shown with addresses of their own."""
        require_ipv6()
        service = self.start_relay(self.config(host="", mesh_key=MESH_KEY))
        port = self.port_of(service)
        watcher, seen = await self.client(port, mesh_key=MESH_KEY, watch_conns=True)
        await self.present(seen, watcher, HOST, PeerPresentFlags.MESH_PEER)
        for host in (HOST, HOST6):
            client, _ = await self.client(port, host=host)
            await self.present(seen, client, host, PeerPresentFlags.REGULAR)
            plain = self.port_of(service, "--http-port")
            self.assertEqual((await self.get(plain, "/generate_204", host=host)).status, 204)

    async def present(self, seen: Any, client: Any, host: str, flags: PeerPresentFlags) -> None:
        """The watcher is told of a client by its address, and its port."""
        message = await seen.next()
        self.assertIsInstance(message, PeerPresent)
        port = client.transport.getHost().port
        self.assertEqual(
            (message.key, message.ip, message.port, message.flags),
            (client.public_key, ip_address(host), port, flags),
        )

    async def test_log(self) -> None:
        """The log calls an IPv4 client by its IPv4 address."""
        lines = self.log_lines()
        service = self.start_relay(self.config(host="", tls=False))
        wire = await self.wire(self.port_of(service))
        address = f"{HOST}:{wire.transport.getHost().port}"
        wire.transport.write(b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n\r\n" + bytes(9))
        await self.until(lambda: wire.closed, "the end of a bad login")
        told = [line.partition(": receive client key: ")[0] for line in lines]
        self.assertIn(f"derp: {address}", told)

    async def test_debug_access(self) -> None:
        """Loopback is let in by either family; a stranger is not, and is told his address."""
        require_ipv6()
        service = self.start_relay(self.config(host="", tls=False, dev=True))
        for host in (HOST, HOST6):
            port = self.port_of(service, "--dev")
            self.assertEqual((await self.get(port, "/debug/varz", host=host)).status, 200)
            denied = await self.get(port, "/debug/varz", "X-Forwarded-For: 10.0.0.1", host=host)
            self.assertEqual(denied.status, 403)
            self.assertIn(f"TS_ALLOW_DEBUG_IP={host}\n", denied.body.decode())

    async def test_without_ipv6(self) -> None:
        """Where IPv6 is switched off it listens on IPv4 alone, with TCP and STUN."""
        real = socket.socket

        class NoIPv6(real):  # type: ignore[valid-type, misc]
            def __init__(self, family: int = socket.AF_INET, *arguments: Any, **more: Any) -> None:
                if family == socket.AF_INET6:
                    code = errno.EAFNOSUPPORT
                    raise OSError(code, os.strerror(code))
                super().__init__(family, *arguments, **more)

        self.patch(socket, "socket", NoIPv6)
        service = self.start_relay(self.config(host=""))
        assert service.stun is not None
        client, _ = await self.client(self.port_of(service))
        self.assertEqual(client.server_key, service.relay.public)
        self.assertGreater(service.stun.port, 0)
