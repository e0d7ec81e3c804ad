"""
Ask a setec server for a secret: ``POST <url>/api/get``.

The server knows us by our tailnet address; there are no credentials. The header is what keeps
web pages from asking it. Source: ``github.com/tailscale/setec`` ``client/setec``.
"""

from __future__ import annotations

import json
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IAgent

from derp.errors import DERPError, ProtocolError
from derp.net.bounded_http import BrokenAnswer, NoAnswer, QuietPool, read_body, send, shortened
from derp.net.secrets_cache import Secret, read_secret_json

TIMEOUT_S: Final = 10.0
MAX_ANSWER: Final = 64 << 10
_HEADERS: Final = {
    "Content-Type": "application/json",
    "Sec-X-Tailscale-No-Browsers": "setec",
}
_MEANINGS: Final = {404: "there is no such secret", 403: "it does not let us have the secret"}


class SetecError(DERPError):
    """There is no secret to be had now; the text says why."""


class Setec:
    """
    One setec server.

    :param url: from :func:`derp.net.http_url.check_setec_url`.
    :param agent: makes the requests.
    """

    def __init__(self, reactor: Any, url: str, agent: IAgent | None = None) -> None:
        self.url = url
        self._reactor = reactor
        pool = QuietPool(reactor, persistent=False)
        self._agent = agent or Agent(reactor, BrowserLikePolicyForHTTPS(), TIMEOUT_S, pool=pool)

    def get(self, name: str) -> Deferred[Secret]:
        """Ask once; fails with :exc:`SetecError`. Cancelling gives up."""

        def timed_out(result: object, seconds: float) -> Secret:
            raise SetecError(f"no answer within {seconds:g} s")

        asking = Deferred.fromCoroutine(self._get(name))
        return asking.addTimeout(TIMEOUT_S, self._reactor, timed_out)

    async def _get(self, name: str) -> Secret:
        question = {"Name": name, "Version": 0, "UpdateIfChanged": False}
        body = json.dumps(question, separators=(",", ":")).encode("utf-8")
        url = f"{self.url}/api/get"
        try:
            head = await send(self._reactor, self._agent, "POST", url, _HEADERS, body)
            content = await read_body(head, MAX_ANSWER)
        except (NoAnswer, BrokenAnswer) as error:
            raise SetecError(str(error)) from None
        if head.status != 200:
            said = shortened(content.decode("utf-8", "replace"))
            meaning = _MEANINGS.get(head.status, said)
            raise SetecError(f"{head.status_line}: {meaning}")
        try:
            return read_secret_json(json.loads(content))
        except (ValueError, RecursionError):
            raise SetecError("the answer is no JSON") from None
        except ProtocolError as error:
            raise SetecError(f"the answer is no secret: {error}") from None
