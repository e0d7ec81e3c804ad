"""``derpprobe`` and ``twistd derpprobe`` in child processes, against real relays."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.integration.child import BOUNDED, ROOT, twistd_command
from tests.integration.probed_case import ProbedTestCase
from tests.integration.relay_case import HOST, reactor
from tests.integration.waiting import in_time
from tests.prober.maps import map_json, region

SCRIPT = (sys.executable, "-m", "derp.derpprobe_script")


class ProberChild(ProcessProtocol):
    """
    A prober in a process of its own.

    :ivar said: everything it wrote.
    :ivar ended: fires with the exit code.
    """

    def __init__(self, command: tuple[str, ...], place: str) -> None:
        self.said = ""
        self.ended: Deferred[int | None] = Deferred()
        own = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "HOME": place}
        environ = {"PATH": os.environ["PATH"], **own}
        bounded = (sys.executable, "-c", BOUNDED, *command)
        self.process = reactor.spawnProcess(self, bounded[0], bounded, environ, place)

    def outReceived(self, data: bytes) -> None:
        """See ``ProcessProtocol``."""
        self.said += data.decode("utf-8", "replace")

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """See ``ProcessProtocol``."""
        reason.trap(ProcessDone, ProcessTerminated)
        value: Any = reason.value
        self.ended.callback(value.exitCode)

    @property
    def lines(self) -> list[str]:
        """What it logged, without the time."""
        return [re.sub(r"^\S+ \S+ (\[-\] )?", "", line) for line in self.said.splitlines()]

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.process.pid is not None:
            self.process.signalProcess("KILL")


class DerpprobeTests(ProbedTestCase):
    """The process: its output, its page, its exit codes."""

    def start(self, *argv: str, command: tuple[str, ...] = SCRIPT) -> ProberChild:
        """Start one; killed with the test."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        child = ProberChild((*command, *argv), str(place))
        self.addCleanup(child.kill)
        return child

    async def over(self, child: ProberChild) -> int | None:
        """See it end; give its exit code."""
        code: int | None = await in_time(reactor, child.ended, "the end of a prober")
        return code

    def write_map(self, *nodes: dict[str, Any]) -> tuple[str, str]:
        """Write a map; give the flags that name it."""
        self.map_file.write_bytes(map_json(region("zero", *nodes)))
        return "-derp-map", f"file://{self.map_file}"

    async def test_once(self) -> None:
        """Two relays of a mesh, known by their pins: all is good, queuing delay too; exit 0."""
        nodes = await self.start_mesh(2)
        described = [
            self.describe(f"1{letter}", self.way_to(node.child), node.pin())
            for letter, node in zip("ab", nodes, strict=True)
        ]
        key = nodes[0].directory / "mesh.key"
        child = self.start(
            *("-once", "-spread=false", "-mesh-psk-file", str(key), *self.write_map(*described)),
            *("-bw-interval=10s", "-bw-probe-size-bytes=100000"),
        )
        code = await self.over(child)
        report = [line for line in child.lines if line.startswith(("good:", "bad:"))]
        self.assertEqual((code, len(report)), (0, 1 + 4 + 8), child.said)
        names = [line.split(": ")[1] for line in report]
        self.assertEqual(names, sorted(names))
        for line in report:
            self.assertRegex(line, r"\Agood: \S+: [0-9.]+(µs|ms|s)\Z")

    async def test_once_bad(self) -> None:
        """Beside a relay that runs there is one that does not: its probes are bad; exit 1."""
        (node,) = await self.start_mesh(1)
        alive, dead = self.way_to(node.child), self.way_to(node.child)
        await dead.close()
        nodes = self.describe("1a", alive, node.pin()), self.describe("1b", dead, node.pin())
        child = self.start("-once", "-spread=false", *self.write_map(*nodes))
        code = await self.over(child)
        report = [line.split(": ")[:2] for line in child.lines if re.match("good:|bad:", line)]
        good = ["derp/zero/1a/1a/mesh", "derp/zero/1a/tls", "derp/zero/1a/udp", "derpmap-probe"]
        bad = ["1a/1b/mesh", "1b/1a/mesh", "1b/1b/mesh", "1b/tls", "1b/udp"]
        expected = [["good", name] for name in good]
        expected += [["bad", f"derp/zero/{name}"] for name in bad]
        self.assertEqual((code, report), (1, expected), child.said)

    async def test_twistd_once(self) -> None:
        """The same exit code under twistd, and no pid file left behind."""
        url = "http://127.0.0.1:9/map"
        command = (*twistd_command(), "-n", "derpprobe")
        child = self.start("--once", "--spread=false", "--derp-map", url, command=command)
        self.assertEqual(await self.over(child), 1, child.said)
        self.assertIn("bad: derpmap-probe: cannot fetch the DERP map from", child.said)

    async def test_serves(self) -> None:
        """It says where it listens, answers there, and ends well by SIGTERM."""
        (node,) = await self.start_mesh(1)
        way = self.way_to(node.child)
        flags = self.write_map(self.describe("1a", way, node.pin()))
        child = self.start("-listen", f"{HOST}:0", "-spread=false", *flags)
        found = await self.until(
            lambda: re.search(r"listening +127\.0\.0\.1:(\d+) ", child.said), "its port"
        )
        port = int(found[1])
        self.assertEqual((await self.get(port, "/healthz")).body, b"ok\n")
        answer = await self.get(port, "/debug/probe-run?name=derpmap-probe")
        self.assertIn(b"Probe succeeded in", answer.body)
        shown = await self.varz(port)
        labels = {"class": "derp_map", "name": "derpmap-probe"}
        self.assertEqual(shown.value("derpprobe_result", **labels), 1)
        child.process.signalProcess(signal.SIGTERM)
        self.assertEqual(await self.over(child), 0, child.said)

    async def test_bad_start(self) -> None:
        """What cannot be started says why, in a line, and exits with 1; a wrong flag with 2."""
        child = self.start("-derp-map", "file:///nowhere/map.json")
        self.assertEqual(await self.over(child), 1)
        self.assertIn('derpprobe: --derp-map: cannot read "/nowhere/map.json"', child.said)
        self.assertNotIn("Traceback", child.said)
        child = self.start("-onc")
        self.assertEqual(await self.over(child), 2)
        self.assertIn("Usage: derpprobe [flags]", child.said)
