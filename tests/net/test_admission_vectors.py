"""Every recorded case of admission, with a whole relay on real sockets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.web.client import Agent

from derp.command_line import config_from_flags
from derp.errors import ConfigError
from derp.net import admission_url, local_api
from derp.net.relay_errors import RelayError
from tests.net.admission_fakes import (
    CLOSE,
    KEY,
    KNOWN,
    MESH_KEY,
    SILENCE,
    VECTORS,
    AdmissionTestCase,
    FakeServer,
    respond,
)

WORDS_OF_GO = re.compile(
    r"invalid character|context deadline|EOF|connect: |cannot unmarshal|failed to unmarshal"
)
"""What is an error of Go's library has words of its own."""


def parts_of(request: str) -> tuple[str, frozenset[str], Any]:
    """Request line, headers in no order, and body."""
    head, _, body = request.partition("\r\n\r\n")
    line, *headers = head.split("\r\n")
    return line, frozenset(headers), json.loads(body) if body else None


class VectorTests(AdmissionTestCase):
    """``admission.json``: who gets in, what was asked, what is logged."""

    async def run_case(self, case: dict[str, Any]) -> None:
        """Repeat one recording."""
        flags: dict[str, Any] = {"mesh_key": MESH_KEY}
        answer = case.get("answer_bytes", "").encode()
        server = FakeServer({b"(nothing for 7 s)": SILENCE}.get(answer, answer))
        if case["kind"] == "url":
            await server.listen()
            flags["verify_client_url"] = (server.url,)
            flags["verify_client_url_fail_open"] = case["fail_open"]
        else:
            socket = self.mktemp()
            await server.listen(socket)
            flags |= {"verify_clients": True, "socket": (socket,)}
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        if "refused (nothing listens)" in case["answer"] or case["answer"] == "socket missing":
            await server.stop()
        relay = self.relay(**flags)
        expected_requests = case.get("requests_seen", 0)
        if expected_requests == 2:  # as there: on a connection that is kept from before
            server.answer = KNOWN
            await self.login(relay, private_key=bytes(range(1, 33)))
            server.answer = CLOSE
            server.requests.clear()
        options: dict[str, Any] = {"is_prober": "is a prober" in case["answer"]}
        if "has the mesh key" in case["answer"]:
            options["mesh_key"] = MESH_KEY
        outcome = "accepted"
        try:
            await self.login(relay, **options)
        except RelayError:
            outcome = "refused"
        self.assertEqual(outcome, case["client"]["outcome"])
        self.assertEqual(len(server.requests), expected_requests)
        if expected_requests:
            self.assert_request(server.requests[0].decode(), case["request_seen"])
        self.assert_logged(case["server_log"])

    def assert_request(self, request: str, recorded: str) -> None:
        """The same request, but for what is added on purpose."""
        line, headers, body = parts_of(request)
        recorded_line, recorded_headers, recorded_body = parts_of(recorded)
        if recorded_body is not None:
            recorded_body |= {
                "nodePublic": recorded_body["NodePublic"],
                "source": recorded_body["Source"],
            }
            size = len(json.dumps(recorded_body, separators=(",", ":")))
            recorded_headers |= {"Content-Type: application/json", f"Content-Length: {size}"}
            recorded_headers -= {"Content-Length: 110"}
        host = next(header for header in headers if header.startswith("Host: "))
        self.assertRegex(host, r"Host: (127\.0\.0\.1:\d+|local-tailscaled\.sock)")
        self.assertEqual((line, body), (recorded_line, recorded_body))
        self.assertEqual(
            headers - {host}, {h for h in recorded_headers if not h.startswith("Host: ")}
        )

    def assert_logged(self, recorded: list[str] | None) -> None:
        """The same lines, but for errors of Go's library."""
        about = [*self.logged(f"client {KEY}")]
        lines = [re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>", line) for line in about]
        self.assertEqual(len(lines), len(recorded or []), lines)
        for line, wanted in zip(lines, recorded or [], strict=True):
            if WORDS_OF_GO.search(wanted):
                wanted = wanted.partition("rejected: ")[0]
                self.assertEqual(line.partition("rejected: ")[0], wanted)
            else:
                self.assertEqual(line, wanted)

    async def test_debug_check(self) -> None:
        """The page asks tailscaled who it is, then about that."""
        for case in (case for case in VECTORS["cases"] if case["kind"] == "debug-check"):
            status = respond(json.dumps({"Self": {"PublicKey": KEY}}).encode())
            whois = KNOWN if "200" in case["answer"] else respond(b"", "404 Not Found")
            server = await self.fake(path=(path := self.mktemp()))
            server.answer_to = answers({b"/status?": status, b"/whois?": whois})
            relay = self.relay(verify_clients=True, socket=(path,))
            code, body = await self.get_page(relay, "/debug/check")
            self.assertEqual(body, case["body"])
            self.assertEqual(code, 200 if "200" in case["answer"] else 500)
            seen = [parts_of(request.decode()) for request in server.requests]
            self.assertEqual(seen, [parts_of(request) for request in case["requests"]])

    async def get_page(self, relay: Any, path: str) -> tuple[int, str]:
        from twisted.internet import reactor

        url = f"http://127.0.0.1:{self.port_of(relay)}{path}"
        response = await HTTPClient(Agent(reactor)).get(url, reactor=reactor)
        return response.code, await response.text()


def answers(table: dict[bytes, bytes]) -> Callable[[bytes], bytes]:
    """Answer by what is in a request."""
    return lambda request: next(table[part] for part in table if part in request)


def _add_tests() -> None:
    """Make a test of each case that has a client."""
    for number, case in enumerate(VECTORS["cases"]):
        if case["kind"] == "debug-check":
            continue
        if "ftp://" in case["answer"]:
            setattr(VectorTests, f"test_{number:02}_ftp", _impossible)
            continue

        async def test(self: VectorTests, case: dict[str, Any] = case) -> None:
            if "timeout" in case["answer"]:
                for module in (admission_url, local_api):
                    self.patch(module, "TIMEOUT_S", 0.2)
            self.patch(local_api, "EARLY_S", 0.0)
            await self.run_case(case)

        name = re.sub(r"\W+", "_", f"{case['kind']} {case['answer']} {case.get('fail_open')}")
        test.__doc__ = f"{case['kind']}: {case['answer']}."
        setattr(VectorTests, f"test_{number:02}_{name}", test)


def _impossible(self: VectorTests) -> None:
    """A URL of an impossible scheme stops our start; derper admits everybody."""
    given = {"dev": True, "verify-client-url": ("ftp://127.0.0.1:1/x",)}
    error = self.assertRaises(ConfigError, config_from_flags, given, {"HOME": str(Path("/"))})
    self.assertIn('--verify-client-url: "ftp://127.0.0.1:1/x" cannot be asked', str(error))


_add_tests()
