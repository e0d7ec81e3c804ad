"""
The recorded HTTP answers of the reference server, as a test to be mixed in.

What opens a connection is the subclass's: the same cases run against a site over plain
loopback TCP and against a whole server over TLS.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet.defer import Deferred

from derp.config import CertMode, Config
from tests.net.http_exchange import Answer, Exchange
from tests.vectors import load

MANUAL = {"certmode": CertMode.MANUAL, "hostname": "127.0.0.1", "http_port": 8080}

CONFIGS = {
    "derp-off": Config(tls=False, derp=False),
    "home-blank": Config(**MANUAL, home="blank"),
    "home-redirect": Config(tls=False, home="https://example.com/landing?x=1"),
    "plain-main": Config(tls=False, hostname="derp9.tailscale.com"),
    "tls": Config(
        **MANUAL,
        bootstrap_dns_names=("localhost",),
        unpublished_bootstrap_dns_names=("ip6-localhost.invalid", "localhost.localdomain"),
    ),
}
"""The recorded servers' flags."""

OWN_WORDS = {"home", "home HEAD", "home POST", "unknown path", "/derp/ with slash"} | {
    "derp off: home",
    "plain main listener, hostname derp9.tailscale.com: home",
}
"""Pages whose length is not the reference's, their text being our own."""

SERVED = b"GET /robots.txt HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def comparable(headers: list[Any], *, own_length: bool) -> list[tuple[str, str]]:
    """Headers but for the values that differ from run to run."""
    result = []
    for name, value in headers:
        if name == "Date":
            value = "<date>"
        if name == "Content-Length" and own_length:
            value = "<length>"
        # Whether an answer is sent in chunks is a matter of buffer sizes.
        if name == "Transfer-Encoding":
            name, value = "Content-Length", "<length>"
        result.append((name, value))
    # Go has one place for a page's own Connection and Content-Type, another for the server's.
    late = [item for item in result if item[0] in ("Connection", "Content-Type")]
    return [item for item in result if item not in late] + sorted(late)


class HTTPVectorsMixin:
    """Every case of ``http.json``."""

    def open_connection(self, server: str, listener: str) -> Deferred[Exchange]:
        """
        Connect to a server with the flags of :data:`CONFIGS`.

        :param server: the key of its flags.
        :param listener: ``main`` or ``plain``.
        """
        raise NotImplementedError

    def answers_debug_pages(self) -> bool:
        """Whether the bodies of debug pages are the real ones."""
        return False

    async def _check(self, case: dict[str, Any]) -> None:
        request, expected = case["request"], case["response"]
        method, path, _ = request.split(" ", 2)
        exchange = await self.open_connection(case["server"], case["listener"])
        try:
            exchange.transport.write(request.encode("latin-1"))
            answer = await exchange.answer(method)
            self._compare(case["name"], path, answer, expected)
            if "bytes_after_head_hex" in expected:
                after = bytes.fromhex(expected["bytes_after_head_hex"])
                self.assertEqual(await exchange.exactly(len(after)), after)
                self.assertFalse(exchange.closed)
            elif expected["closes_after"]:
                self.assertEqual(await exchange.end(), b"")
            else:
                exchange.transport.write(SERVED)
                self.assertIn((await exchange.answer()).status, (200, 302))
        finally:
            exchange.transport.abortConnection()

    def _compare(self, name: str, path: str, answer: Answer, expected: dict[str, Any]) -> None:
        test: Any = self
        debug = path.startswith("/debug/")
        own_words = name in OWN_WORDS or debug
        test.assertEqual(answer.status_line, expected["status_line"], name)
        test.assertEqual(
            comparable(answer.headers, own_length=own_words),
            comparable(expected["headers"], own_length=own_words),
            name,
        )
        if debug and not self.answers_debug_pages():
            return
        text = answer.body.decode("utf-8")
        if path == "/debug/vars" and answer.status_line.split()[1] == "200":
            # It shows the command line, and so where this checkout is; nothing about the page.
            page = json.loads(text)
            test.assertEqual(page.pop("cmdline"), sys.argv)
            text = json.dumps(page)
        if "body" in expected:
            test.assertEqual(text, expected["body"], name)
        for part in expected.get("body_contains") or ():
            test.assertIn(part, text, name)
        for part in expected.get("body_does_not_contain") or ():
            test.assertNotIn(part, text, name)


def _test(case: dict[str, Any]) -> Any:
    def test(self: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(self._check(case))

    test.__doc__ = f"{case['server']}, {case['listener']}: {case['name']}."
    return test


for _case in load("http.json")["cases"]:
    _name = "test_" + "".join(c if c.isalnum() else "_" for c in _case["name"])
    assert not hasattr(HTTPVectorsMixin, _name), _name
    setattr(HTTPVectorsMixin, _name, _test(_case))
