"""A receiver of alerts that answers as it is told, in a time that is advanced by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.web.http_headers import Headers

from derp.net.bounded_http import NoAnswer


class FakeHTTP:
    """
    Stands for :class:`derp.net.outgoing_http.OutgoingHTTP`.

    :ivar answers: of requests to come, a status or why there is none; then 200.
    :ivar hangs: whether requests are never answered.
    """

    def __init__(self, clock: Any) -> None:
        self.times: list[float] = []
        self._clock = clock
        self.requests: list[Any] = []
        self.answers: list[int | str] = []
        self.retry_after = b""
        self.hangs = False
        self.closed = False

    async def send(self, method: str, url: str, headers: Any, body: bytes | None = None) -> Any:
        self.times.append(self._clock.seconds())
        self.requests.append(
            SimpleNamespace(method=method, url=url, headers=dict(headers), body=body)
        )
        if self.hangs:
            await Deferred()
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, str):
            raise NoAnswer(answer)
        headers = Headers({b"Retry-After": [self.retry_after]} if self.retry_after else {})
        return SimpleNamespace(
            status=answer,
            status_line=f"{answer} Phrase",
            response=SimpleNamespace(headers=headers),
            drop=lambda: succeed(b""),
        )

    def close(self) -> Deferred[None]:
        self.closed = True
        return succeed(None)

    @property
    def bodies(self) -> list[Any]:
        """What was posted, as JSON."""
        return [json.loads(request.body) for request in self.requests]

    @property
    def told(self) -> list[list[tuple[str, str]]]:
        """Of each request the probes and what is told of them."""
        return [
            [(each["labels"]["probe"], each["annotations"]["change"]) for each in body["alerts"]]
            for body in self.bodies
        ]
