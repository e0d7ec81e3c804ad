"""What changes something when asked for under ``/debug/``, on real sockets."""

from __future__ import annotations

from derp.core.duplicate_alarm import ALARM, SETTLE_S
from derp.wire.keys import format_node_public, generate_private
from derp.wire.messages import Health
from tests.integration.relay_case import HOST, RelayTestCase, reactor
from tests.integration.virtual_time import VirtualTime
from tests.integration.waiting import in_time
from tests.net.http_exchange import Answer


class ClosePeerTests(RelayTestCase):
    """``/debug/close-peer`` from a shell and from a web page."""

    async def post(self, port: int, key: bytes, *headers: str) -> Answer:
        exchange = await self.wire(port, tls=True)
        target = f"/debug/close-peer?key={format_node_public(key)}"
        lines = [f"POST {target} HTTP/1.1", f"Host: {HOST}", "Content-Length: 0", *headers]
        exchange.transport.write("\r\n".join([*lines, "", ""]).encode())
        answer: Answer = await in_time(reactor, exchange.answer(), "an answer")
        return answer

    async def test_close_peer(self) -> None:
        """The client is cut, and may come back; without the header, and to strangers, nothing."""
        service = self.start_relay(self.config())
        port = self.port_of(service)
        client, _ = await self.client(port)
        other, _ = await self.client(port)
        key = client.public_key
        form = "Content-Type: application/x-www-form-urlencoded"
        self.assertEqual((await self.post(port, key, form)).status, 403)
        proxied = ("Sec-Debug: derp", "X-Forwarded-For: 127.0.0.1")
        self.assertEqual((await self.post(port, key, *proxied)).status, 403)
        await client.ping(30.0)
        answer = await self.post(port, key, "Sec-Debug: derp")
        self.assertEqual(answer.status, 200, answer.body)
        await in_time(reactor, client.when_closed(), "the end of a client")
        self.assertEqual((await self.post(port, key, "Sec-Debug: derp")).status, 404)
        await other.ping(30.0)


class DuplicateTests(RelayTestCase):
    """Two machines with one key."""

    async def test_told(self) -> None:
        """Both are told while both speak, and the one that stays is told when it is over."""
        time = VirtualTime(reactor)
        port = self.port_of(self.start_relay(self.config(), time))
        private = generate_private()
        first, to_first = await self.client(port, private_key=private)
        second, to_second = await self.client(port, private_key=private)
        await time.pass_by(SETTLE_S)
        for client in (first, second, first):
            await client.ping(30.0)
        self.assertEqual(await to_first.next(), Health(ALARM))
        self.assertEqual(await to_second.next(), Health(ALARM))
        await second.close()
        self.assertEqual(await to_first.next(), Health(""))
        self.assertEqual(to_first.waiting, [])
