"""What a client must not send, over real TLS: the recorded reactions, and nobody else harmed."""

from __future__ import annotations

from typing import Any

from derp.wire.frames import PROTOCOL_VERSION, FrameType, encode_ping, encode_pong
from derp.wire.handshake import ClientInfo, encode_client_info, shared_key
from derp.wire.keys import generate_private, parse_mesh_key, public_of
from tests.integration.relay_case import HOST, MESH_KEY, RelayTestCase
from tests.integration.transcript_player import frame_size
from tests.net.http_exchange import Exchange
from tests.vectors import load

FAST_START = (
    f"GET /derp HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n".encode()
)
PING, PONG = encode_ping(b"bad idea"), encode_pong(b"bad idea")
CASES = {case["name"]: case for case in load("frames.json")["server_reactions"]}


def sent(case: dict[str, Any]) -> bytes:
    """The bytes of a case."""
    return b"".join(
        bytes.fromhex(item.get("hex") or item["repeat_hex"] * item["count"])
        for item in case["send"]
    )


class BadFrameTests(RelayTestCase):
    """One relay, one well-behaved client, and one of every other kind."""

    async def log_in(self, mesh_key: bytes | None) -> tuple[Exchange, str]:
        """A raw connection that is logged in, and its address."""
        wire = await self.wire(self.port, tls=True)
        private = generate_private()
        shared = shared_key(private, self.service.relay.public)
        info = ClientInfo(mesh_key=mesh_key, version=PROTOCOL_VERSION)
        login = encode_client_info(public_of(private), shared, bytes(24), info)
        address = f"{HOST}:{wire.transport.getHost().port}"
        wire.transport.write(FAST_START + login)
        for frame_type in (FrameType.SERVER_KEY, FrameType.SERVER_INFO):
            self.assertEqual((await self.frame(wire))[0], frame_type)
        return wire, address

    async def frame(self, wire: Exchange) -> bytes:
        """Take one frame."""
        await self.until(lambda: self.has_frame(wire), "a frame")
        size = frame_size(wire.buffer)
        frame, wire.buffer = wire.buffer[:size], wire.buffer[size:]
        return frame

    def has_frame(self, wire: Exchange) -> bool:
        """Whether a complete frame has come."""
        size = frame_size(wire.buffer)
        return bool(size) and len(wire.buffer) >= size

    async def test_reactions(self) -> None:
        """Each recorded case ends as recorded; those that close leave one line in the log."""
        lines = self.log_lines()
        self.service = self.start_relay(self.config(mesh_key=MESH_KEY, stun=False))
        self.port = self.port_of(self.service)
        bystander, heard = await self.client(self.port)
        for name, case in CASES.items():
            mesh_key = parse_mesh_key(case["mesh_key"]) if case["login"] == "mesh" else None
            lines.clear()
            wire, address = await self.log_in(mesh_key)
            wire.transport.write(sent(case))
            await self.check(name, case, wire)
            logged = [line for line in lines if line.startswith(f"derp: {address}: ")]
            self.assertEqual(len(logged), case["reaction"] == "close", (name, lines))
            wire.transport.loseConnection()
        self.assertLess(await bystander.ping(30.0), 30.0)
        self.assertEqual(heard.waiting, [])
        await self.until(lambda: self.service.relay.stats.connections == 1, "their ends")
        check = await self.get(self.port, "/debug/check", tls=True)
        self.assertEqual(check.status, 200, check.body)

    async def check(self, name: str, case: dict[str, Any], wire: Exchange) -> None:
        """See the recorded reaction."""
        if case["reaction"] == "close":
            await self.until(lambda: wire.closed, f"the end of a connection: {name}")
            self.assertEqual(wire.buffer, b"", name)
            return
        if case["reaction"] == "server waits for more bytes":
            data = sent(case)
            # The rest makes it a packet to nobody: the start of it was kept, not thrown away.
            wire.transport.write((bytes((4, 0, 0, 0, 32)) + bytes(32))[len(data) :])
        wire.transport.write(PING)
        for frame in case["server_frames"] or ():
            self.assertEqual((await self.frame(wire)).hex(), frame, name)
        self.assertEqual(await self.frame(wire), PONG, name)
        self.assertEqual((wire.buffer, wire.closed), (b"", False), name)
