"""The recorded sessions of the reference server, over sockets, to the whole relay."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

from derp.config import DebugKnobs
from derp.net.key_file import format_key_file
from derp.services import RelayService
from derp.wire.frames import KEEP_ALIVE_S, FrameType
from derp.wire.keys import parse_node_private
from tests.integration.relay_case import RelayTestCase, reactor
from tests.integration.transcript_player import Player, Step
from tests.integration.virtual_time import VirtualTime
from tests.vectors import transcripts

NOT_RECORDED = (
    "derp_average_queue_duration_ms",
    "derp_buffered_write_frames",
    "derp_current_file_descriptors",
    "derp_memstats_sys0",
    "derp_mesh_update_",
    "derp_version",
)
"""Left out of the records: depends on how writes were bundled, or on the process."""


class TranscriptTests(RelayTestCase):
    """Same bytes in, same bytes out, same counters."""

    def begin(self, name: str) -> Player:
        """A relay with the recorded keys and flags, and one to play."""
        self.recorded = transcripts()[name]
        server = self.recorded["server"]
        self.time = VirtualTime(reactor)
        config = self.config(
            tls=server["tls"],
            mesh_key=bytes.fromhex(server["mesh_key"]) if server["mesh_key"] else None,
            stun=False,
            http_port=-1,
            knobs=DebugKnobs(disable_rtt_stats=True),
        )
        key_file = Path(config.key_file)
        key_file.parent.mkdir()
        key_file.write_bytes(format_key_file(parse_node_private(server["private"])))
        self.service: RelayService = self.start_relay(config, self.time)
        return Player(self, self.recorded, self.service, self.time)

    @property
    def port(self) -> int:
        return self.port_of(self.service)

    async def finish(self, player: Player) -> None:
        """Compare what everybody got, and the relay's books."""
        player.compare()
        page = await self.varz(self.port, tls=self.service.config.tls)
        counted = page.without(*NOT_RECORDED).non_zero("derp_")
        self.assertEqual(counted, self.recorded["counters_at_end"])

    async def replay(self, name: str) -> None:
        self.player = self.begin(name)
        async for _ in self.player.play():
            pass
        await self.finish(self.player)

    async def test_keep_alive(self) -> None:
        """Everybody hears from the relay once a minute and some, busy or not."""
        player = self.begin("keepalive-65s")
        clients = player.clients
        async for step in player.play():
            if step.t_ms < 1000 * KEEP_ALIVE_S:
                for client in clients.values():
                    self.assertEqual(client.keep_alives, [])
        for client in clients.values():
            await self.until(lambda c=client: len(c.keep_alives) >= 2, "two keepalives")  # type: ignore[misc]
            first, second = client.keep_alives
            self.assertGreaterEqual(first, KEEP_ALIVE_S)
            self.assertGreaterEqual(second, 2 * KEEP_ALIVE_S)
        await self.finish(player)

    async def observed(self, player: Player, *gauges: str) -> AsyncIterator[tuple[Step, str]]:
        """Play; give after each step what the records call an observation."""
        async for step in player.play():
            page = await self.varz(self.port)
            values = (f"{gauge}={page.value('derp_' + gauge):g}" for gauge in gauges)
            yield step, " ".join(values)

    def recorded_observations(self) -> list[str]:
        """The numbers of each observation of a record."""
        lines = (text.partition(": ")[2] for text in self.recorded["observations"])
        return [line for line in lines if "=" in line and "!=" not in line]

    async def test_note_preferred_gauges(self) -> None:
        """The home gauge follows each change of mind, and moves count after 5 s."""
        player = self.begin("note-preferred")
        gauges = "current_home_connections", "home_moves_in", "home_moves_out"
        seen = []
        async for step, observation in self.observed(player, *gauges):
            is_note = step.by_client and step.data[:1] == bytes((FrameType.NOTE_PREFERRED,))
            if is_note or step.unit == "close":
                seen.append(observation)
        self.assertEqual(seen, self.recorded_observations()[1:])

    async def test_duplicate_gauges(self) -> None:
        """A key that is connected twice shows in gauges, and in the consistency check."""
        player = self.begin("duplicate-two")
        gauges = (
            "current_dup_client_conns",
            "current_dup_client_keys",
            "total_dup_client_conns",
            "current_connections",
            "clients_local",
        )
        seen = []
        logins = 0
        async for step, observation in self.observed(player, *gauges):
            logins += step.data[:1] == bytes((FrameType.SERVER_INFO,))
            if step.unit == "close":
                seen.append(observation)
            elif logins == 3 and not seen:
                seen.append(observation)
                check = await self.get(self.port, "/debug/check")
                self.assertEqual((check.status, b"3 of 2" in check.body), (500, True), check.body)
        self.assertEqual(seen, self.recorded_observations())

    async def test_log(self) -> None:
        """A line for each refused login and each broken frame, none for a clean end."""
        lines = self.log_lines()
        for name in ("bad-logins", "mid-frame-eof", "client-info-variants", "oversized-send"):
            lines.clear()
            await self.replay(name)
            logged = re.findall(r"^derp: \S+:(\d+): ", "\n".join(lines), re.MULTILINE)
            recorded = "\n".join(self.recorded["server_log"])
            wanted = [
                str(self.player.ports[conn])
                for conn, known in self.recorded["conns"].items()
                if known["local_addr"] in recorded
            ]
            self.assertEqual(sorted(logged), sorted(wanted), name)


def _add_tests() -> None:
    for name in sorted(transcripts()):

        async def test(self: TranscriptTests, name: str = name) -> None:
            await self.replay(name)

        test.__doc__ = f"The session recorded as {name}."
        setattr(TranscriptTests, "test_recorded_" + name.replace("-", "_"), test)


_add_tests()
