"""
``/debug/probe-run`` and ``/debug/probe-all``: runs out of turn, and what came of them.

200 if all succeeded, 424 if one failed. Source: tailscale ``prober.RunHandler``,
``RunAllHandler``.
"""

from __future__ import annotations

import json
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from derp.durations import format_duration
from derp.net.answers import first_header, plain_error
from derp.prober.probe import Probe, ProbeBusy
from derp.prober.prober import Prober
from derp.prober.run import RunResult
from derp.quoting import quoted

log = Logger(namespace="derp")

_TEXT: Final = b"text/plain; charset=utf-8"
_JSON: Final = b"application/json"
_FAILED: Final = 424
_BUSY: Final = 503


class _RunPage(Resource):
    """Answers when what it has begun has ended."""

    isLeaf = True

    def __init__(self, prober: Prober) -> None:
        super().__init__()
        self._prober = prober

    def answer_later(self, request: Any, body: Deferred[bytes]) -> int:
        """Send a body when it is there; if the client leaves first, wait no more."""
        left = request.notifyFinish()
        left.addErrback(lambda _: body.cancel())

        def send(answer: bytes) -> None:
            if not left.called:
                request.answer(answer)

        body.addErrback(self._failed, request).addCallback(send)
        body.addErrback(lambda failure: log.failure("a page of runs failed", failure))
        done: int = NOT_DONE_YET
        return done

    def _failed(self, failure: Failure, request: Any) -> bytes:
        if failure.check(CancelledError):
            return b""  # nobody waits any more
        if failure.check(ProbeBusy):
            return plain_error(request, _BUSY, f"not run: {failure.getErrorMessage()}")
        log.failure("a page of runs failed", failure)
        return plain_error(request, 500, "this failed, see the log")


class ProbeRunPage(_RunPage):
    """``/debug/probe-run?name=…``: one probe; as text, or as JSON for who accepts only that."""

    def render(self, request: Any) -> bytes | int:
        """See ``IResource``."""
        name = request.args.get(b"name", [b""])[0].decode("utf-8", "replace")
        if not name:
            return plain_error(request, 400, "missing name parameter")
        probe = self._prober.probes.get(name)
        if probe is None or probe.continuous:
            return plain_error(request, 404, f"unknown probe {quoted(name)}")
        before = _Before(probe)
        running = probe.run_now()
        as_json = first_header(request, b"Accept") == _JSON
        describe = self._json if as_json else self._text
        return self.answer_later(request, running.addCallback(describe, request, before))

    def _json(self, result: RunResult, request: Any, before: _Before) -> bytes:
        _set_status(request, result.succeeded)
        request.setHeader(b"Content-Type", _JSON)
        return json.dumps(before.with_now(), separators=(",", ":")).encode("ascii")

    def _text(self, result: RunResult, request: Any, before: _Before) -> bytes:
        history = before.probe.history
        statistics = (
            f"Last {len(history.results)} probes (including this one): success rate "
            f"{int(history.success_ratio * 100)}%, median latency "
            f"{format_duration(history.middle_latency)}"
        )
        if not result.succeeded:
            text = f"Probe failed: {result.error}\n{statistics}"
            return plain_error(request, _FAILED, text)
        request.setHeader(b"Content-Type", _TEXT)
        taken = format_duration(result.latency)
        return f"Probe succeeded in {taken}\n{statistics}\n".encode()


class ProbeAllPage(_RunPage):
    """
    ``/debug/probe-all[?exclude=…&exclude=…]``: every probe that is not continuous, at once.

    One that cannot be run now, or is removed meanwhile, is left out.
    """

    def render(self, request: Any) -> int:
        """See ``IResource``."""
        excluded = {name.decode("utf-8", "replace") for name in request.args.get(b"exclude", [])}
        before = [
            _Before(probe)
            for name, probe in list(self._prober.probes.items())
            if name not in excluded and not probe.continuous
        ]
        runs = [each.probe.run_now().addErrback(_left_out) for each in before]
        running: Deferred[Any] = gatherResults(runs)
        return self.answer_later(request, running.addCallback(self._describe, request, before))

    def _describe(
        self, results: list[RunResult | None], request: Any, before: list[_Before]
    ) -> bytes:
        ended = {
            each.probe.name: each.with_now()
            for each, result in zip(before, results, strict=True)
            if result is not None
        }
        _set_status(request, all(result.succeeded for result in results if result is not None))
        request.setHeader(b"Content-Type", _JSON)
        return json.dumps({"Results": ended}, separators=(",", ":")).encode("ascii") + b"\n"


class _Before:
    """A probe, and what its history said before a run."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self._ratio = probe.history.success_ratio
        self._latency = round(probe.history.middle_latency * 1_000_000_000)

    def with_now(self) -> dict[str, Any]:
        """What JSON says of both."""
        return {
            "ProbeInfo": self.probe.info(),
            "PreviousSuccessRatio": self._ratio,
            "PreviousMedianLatency": self._latency,
        }


def _left_out(failure: Failure) -> None:
    failure.trap(ProbeBusy)


def _set_status(request: Any, succeeded: bool) -> None:
    request.setResponseCode(200 if succeeded else _FAILED)
