"""Tests of :mod:`derp.stunc_script`: what is said where, and the exit code."""

from __future__ import annotations

import json
import os
import re
import sys
from io import StringIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase

from derp import stunc_script
from derp.core.stun_stats import STUNStats
from derp.errors import ConfigError
from derp.goflag import FlagError
from derp.net.stun_client import Binding, BindingFailed, Cause, Endpoint
from derp.net.stun_udp import STUNServer
from derp.stunc_script import Asking, Question, UsageError, read_or_exit, read_question
from tests.net.udp_sockets import port_of, udp_socket

ROOT = Path(__file__).parent.parent


class ReadQuestionTests(SynchronousTestCase):
    """The command line."""

    def test_defaults(self) -> None:
        """As the reference."""
        self.assertEqual(
            read_question(["derp.example"]),
            Question(
                host="derp.example",
                port=3478,
                family="any",
                generic=False,
                timeout=3.0,
                count=1,
                as_json=False,
            ),
        )

    def test_everything(self) -> None:
        """All flags, with one dash or two."""
        argv = ["-timeout", "500ms", "-6", "--generic", "--count=3", "-json", "::1", "080"]
        self.assertEqual(
            read_question(argv),
            Question(
                host="::1",
                port=80,
                family="ipv6",
                generic=True,
                timeout=0.5,
                count=3,
                as_json=True,
            ),
        )

    def test_refused(self) -> None:
        """Wrong flags, words and ports have each their kind of error."""
        for argv in (["-x", "h"], ["-4", "-6", "h"], ["-count=0", "h"], ["-timeout", "1x", "h"]):
            self.assertRaises(FlagError, read_question, argv)
        for argv in ([], ["a", "1", "c"], ["h", "1", "-4"]):
            self.assertRaises(UsageError, read_question, argv)
        for port in ("", "x", "-1", "+1", "65536", "1" * 30, "\u0661"):
            error = self.assertRaises(ConfigError, read_question, ["h", port])
            self.assertTrue(str(error).startswith("invalid port: "), error)

    def test_exit_codes(self) -> None:
        """Those of the reference, with the usage where it shows it."""
        for argv, code, usage in (
            (["-h"], 0, True),
            ([], 1, True),
            (["h", "x"], 1, False),
            (["-x"], 2, True),
        ):
            said = StringIO()
            self.assertEqual(read_or_exit("stunc", argv, said), code)
            self.assertEqual("usage: stunc <hostname> [port]\n" in said.getvalue(), usage)
            for flag in ("--timeout", "-4", "-6", "--generic", "--count", "--json"):
                self.assertEqual(f"\n  {flag}" in said.getvalue(), usage, flag)


def answer(ip: str = "192.0.2.1", rtt: float = 0.0125, sent: int = 1) -> Binding:
    """An answer of the server at ``ip``."""
    return Binding(
        mapped=Endpoint(ip_address("198.51.100.7"), 5),
        server=Endpoint(ip_address(ip), 3478),
        local=Endpoint(ip_address("10.0.0.2"), 4),
        rtt=rtt,
        sent=sent,
    )


class AskingTests(SynchronousTestCase):
    """What is said of answers and failures."""

    def run_script(self, argv: list[str], *outcomes: Binding | BindingFailed) -> int:
        """Ask, with these outcomes one after the other; returns the exit code."""
        waiting = list(outcomes)
        self.asked: list[dict[str, Any]] = []
        self.clock = Clock()

        async def binding(reactor: Any, host: str, port: int, **options: Any) -> Binding:
            self.asked.append({"at": self.clock.seconds(), **options})
            self.clock.advance(0.25)
            outcome = waiting.pop(0)
            if isinstance(outcome, BindingFailed):
                raise outcome
            return outcome

        self.patch(stunc_script, "binding", binding)
        question = read_question(argv)
        assert question is not None
        self.stdout, self.stderr = StringIO(), StringIO()
        asking = Asking(self.clock, question, self.stdout, self.stderr)  # type: ignore[arg-type]
        running = Deferred.fromCoroutine(asking.run())
        while waiting:
            self.clock.advance(0.75)
        code: int = self.successResultOf(running)
        return code

    def test_ipv4(self) -> None:
        """The sender as the reference's socket of both families shows it."""
        self.assertEqual(self.run_script(["h"], answer()), 0)
        self.assertEqual(self.stdout.getvalue(), "")
        self.assertEqual(
            self.stderr.getvalue(),
            "sent addr: 192.0.2.1:3478\n"
            "from addr: [::ffff:192.0.2.1]:3478\n"
            "stun addr: 198.51.100.7:5\n",
        )

    def test_ipv6(self) -> None:
        """In brackets."""
        self.assertEqual(self.run_script(["h"], answer("2001:db8::1")), 0)
        self.assertIn("from addr: [2001:db8::1]:3478\n", self.stderr.getvalue())

    def test_one_family(self) -> None:
        """Asked for IPv4 only, there is no socket of both."""
        self.run_script(["-4", "--generic", "h"], answer())
        self.assertIn("from addr: 192.0.2.1:3478\n", self.stderr.getvalue())
        self.assertEqual(
            self.asked, [{"at": 0.0, "family": "ipv4", "generic": True, "timeout": 3.0}]
        )

    def test_failure(self) -> None:
        """One line, 1."""
        failed = BindingFailed("nobody is there", Cause.REFUSED)
        self.assertEqual(self.run_script(["h"], failed), 1)
        self.assertEqual((self.stdout.getvalue(), self.stderr.getvalue()), ("", f"{failed}\n"))

    def test_generic_and_silence(self) -> None:
        """The likely reason is said."""
        self.run_script(["--generic", "h"], BindingFailed("no answer", Cause.TIMEOUT))
        self.assertEqual(
            self.stderr.getvalue(),
            "no answer; a relay answers such requests only with --stun-generic\n",
        )

    def test_count(self) -> None:
        """A second apart, with a summary; one failure makes it 1."""
        lost = BindingFailed("lost", Cause.TIMEOUT, sent=3)
        again = answer(rtt=9.0, sent=2)
        outcomes = (answer(), answer(rtt=0.001), lost, again, answer(rtt=0.1))
        self.assertEqual(self.run_script(["--count=5", "h"], *outcomes), 1)
        self.assertEqual([asked["at"] for asked in self.asked], [0.0, 1.0, 2.0, 3.0, 4.0])
        lines = self.stderr.getvalue().splitlines()
        self.assertEqual(len(lines), 4 * 3 + 1 + 1)
        self.assertEqual(
            lines[-1],
            "4 of 5 answered, 2 asked again; round trip 1/12.5/100 ms (least/median/most)",
        )

    def test_json(self) -> None:
        """Alone on stdout, and nothing anywhere else."""
        server = Endpoint(ip_address("192.0.2.1"), 3478)
        failed = BindingFailed("lost", Cause.TIMEOUT, server, 3)
        unknown = BindingFailed("no such host", Cause.LOOKUP)
        code = self.run_script(["--json", "--count=3", "h", "9"], answer(), failed, unknown)
        self.assertEqual((code, self.stderr.getvalue()), (1, ""))
        self.assertEqual(
            json.loads(self.stdout.getvalue()),
            {
                "host": "h",
                "port": 9,
                "generic": False,
                "results": [
                    {
                        "ok": True,
                        "server": "192.0.2.1:3478",
                        "local": "10.0.0.2:4",
                        "mapped": "198.51.100.7:5",
                        "rtt_ms": 12.5,
                        "sent": 1,
                    },
                    {
                        "ok": False,
                        "server": "192.0.2.1:3478",
                        "cause": "timeout",
                        "error": "lost",
                        "sent": 3,
                    },
                    {
                        "ok": False,
                        "server": None,
                        "cause": "lookup",
                        "error": "no such host",
                        "sent": 0,
                    },
                ],
            },
        )


class ProgramTests(TestCase):
    """The program itself against our server."""

    async def run_program(self, *argv: str) -> tuple[bytes, bytes, int]:
        """Its stdout, stderr and exit code."""
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        words = ["-m", "derp.stunc_script", *argv]
        found: tuple[bytes, bytes, int] = await getProcessOutputAndValue(
            sys.executable, words, environ
        )
        return found

    async def check(self) -> None:
        """Ask a server, and then where there is none."""
        server = STUNServer(reactor, "127.0.0.1", 0, STUNStats())  # type: ignore[arg-type]
        server.start()
        self.addCleanup(server.stop)
        argv = ["-timeout=20s", "127.0.0.1", str(server.port)]
        out, err, code = await self.run_program(*argv)
        self.assertEqual((out, code), (b"", 0))
        pattern = rb"sent addr: 127.0.0.1:(\d+)\nfrom addr: \[::ffff:127.0.0.1\]:\1\n"
        self.assertTrue(re.fullmatch(pattern + rb"stun addr: 127.0.0.1:\d+\n", err), err)
        closed = udp_socket()
        port = port_of(closed)
        closed.close()
        out, err, code = await self.run_program("-json", "127.0.0.1", str(port))
        self.assertEqual((err, code), (b"", 1))
        self.assertEqual(json.loads(out)["results"][0]["cause"], "refused")

    def test_program(self) -> Deferred[None]:
        """Three lines on stderr; with ``-json`` one object on stdout."""
        return Deferred.fromCoroutine(self.check())
