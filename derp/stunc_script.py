"""
``stunc``: ask a STUN server which address it sees this machine at.

Without flags of ours it says and exits as the reference's ``stunc`` (Go ``cmd/stunc``): three
lines on stderr and 0, or one line and 1; 2 for a wrong flag. It differs in asking again where
that one waits, and in not believing answers of strangers.

With ``--json`` stdout has one JSON object and nothing else::

    {"host": "derp.example.com", "port": 3478, "generic": false, "results": [
        {"ok": true, "server": "192.0.2.1:3478", "local": "10.0.0.2:50000",
         "mapped": "198.51.100.7:50000", "rtt_ms": 12.3, "sent": 1},
        {"ok": false, "server": "192.0.2.1:3478", "cause": "timeout", "error": "…", "sent": 3}]}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from derp.errors import ConfigError
from derp.goflag import Flag, FlagError, FlagValues, Kind, format_flag, parse_flags
from derp.net.socket_address import host_port
from derp.net.steady_time import keep_steady_time
from derp.net.stun_client import (
    DEFAULT_PORT,
    Binding,
    BindingFailed,
    Endpoint,
    Family,
    binding,
)
from derp.quoting import quoted

if TYPE_CHECKING:
    from derp.net.stun_client import STUNClientReactor

FLAGS: Final = (
    Flag("timeout", Kind.DURATION, 3.0, "How long to wait for the answer, name included."),
    Flag("4", Kind.BOOL, False, "Ask over IPv4 only."),
    Flag("6", Kind.BOOL, False, "Ask over IPv6 only."),
    Flag(
        "generic",
        Kind.BOOL,
        False,
        "Ask as any RFC 8489 client may, without what Tailscale's clients add. A relay answers "
        "that only with --stun-generic.",
    ),
    Flag("count", Kind.INT, 1, "Ask so many times, a second apart, each from a port of its own."),
    Flag("json", Kind.BOOL, False, "Write the result to stdout as JSON."),
)
MAX_COUNT: Final = 1_000_000
PAUSE: Final = 1.0
"""Seconds between one question and the next."""

_NOT_GENERIC: Final = "a relay answers such requests only with --stun-generic"


class UsageError(ConfigError):
    """Too many words, or none."""


@dataclass(frozen=True, slots=True)
class Question:
    """What the command line asks for."""

    host: str
    port: int
    family: Family
    generic: bool
    timeout: float
    count: int
    as_json: bool


def read_question(argv: Sequence[str]) -> Question | None:
    """
    Read a command line.

    :return: ``None`` if it asks for help.
    :raises FlagError: a flag is wrong.
    :raises UsageError: the number of words is.
    :raises ConfigError: something else is.
    """
    parsed = parse_flags(FLAGS, argv, takes_words=True)
    if parsed.help:
        return None
    if not 1 <= len(parsed.words) <= 2:
        raise UsageError("give a host name or address, and a port if it is not 3478")
    flags = FlagValues(FLAGS, parsed.given)
    if flags.bool("4") and flags.bool("6"):
        raise FlagError("-4 and -6 exclude each other: give one of them, or none for either")
    if not 1 <= flags.int("count") <= MAX_COUNT:
        raise FlagError(f"--count: give a number from 1 to {MAX_COUNT}")
    family: Family = "ipv4" if flags.bool("4") else "ipv6" if flags.bool("6") else "any"
    return Question(
        host=parsed.words[0],
        port=_port(parsed.words[1]) if len(parsed.words) == 2 else DEFAULT_PORT,
        family=family,
        generic=flags.bool("generic"),
        timeout=flags.float("timeout"),
        count=flags.int("count"),
        as_json=flags.bool("json"),
    )


def _port(text: str) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= 20
    if not digits or int(text) > 65535:
        raise ConfigError(f"invalid port: {quoted(text)}: give a number from 0 to 65535")
    return int(text)


class Asking:
    """
    Ask, and tell what came.

    :ivar results: so far, in the form of ``--json``.
    """

    def __init__(
        self, reactor: STUNClientReactor, question: Question, stdout: TextIO, stderr: TextIO
    ) -> None:
        self._reactor = reactor
        self._question = question
        self._stdout = stdout
        self._stderr = stderr
        self._answers: list[Binding] = []
        self.results: list[dict[str, Any]] = []

    async def run(self) -> int:
        """Ask as often as wanted; returns the exit code: 1 if any question had no answer."""
        question = self._question
        for number in range(question.count):
            started = self._reactor.seconds()
            try:
                answer = await binding(
                    self._reactor,
                    question.host,
                    question.port,
                    family=question.family,
                    generic=question.generic,
                    timeout=question.timeout,
                )
            except BindingFailed as failure:
                self._failed(failure)
            else:
                self._answered(answer)
            if number + 1 < question.count:
                left = started + PAUSE - self._reactor.seconds()
                await deferLater(self._reactor, max(left, 0.0))
        self._finish()
        return 0 if len(self._answers) == question.count else 1

    def _answered(self, answer: Binding) -> None:
        self._answers.append(answer)
        self.results.append(
            {
                "ok": True,
                "server": str(answer.server),
                "local": str(answer.local),
                "mapped": str(answer.mapped),
                "rtt_ms": round(answer.rtt * 1000, 3),
                "sent": answer.sent,
            }
        )
        sender = _dual_stack(answer.server) if self._question.family == "any" else answer.server
        self._say(f"sent addr: {answer.server}\nfrom addr: {sender}\nstun addr: {answer.mapped}")

    def _failed(self, failure: BindingFailed) -> None:
        words = str(failure)
        if self._question.generic and failure.cause == "timeout":
            words += f"; {_NOT_GENERIC}"
        server = str(failure.server) if failure.server else None
        self.results.append(
            {
                "ok": False,
                "server": server,
                "cause": str(failure.cause),
                "error": words,
                "sent": failure.sent,
            }
        )
        self._say(words)

    def _finish(self) -> None:
        question = self._question
        if question.as_json:
            shown = {
                "host": question.host,
                "port": question.port,
                "generic": question.generic,
                "results": self.results,
            }
            print(json.dumps(shown), file=self._stdout, flush=True)
        elif question.count > 1:
            self._say(self._summary())

    def _summary(self) -> str:
        """One line for several questions; only round trips that are certain are measured."""
        again = sum(result["sent"] > 1 for result in self.results)
        said = f"{len(self._answers)} of {len(self.results)} answered, {again} asked again"
        times = [answer.rtt * 1000 for answer in self._answers if answer.sent == 1]
        if times:
            spread = f"{min(times):.3g}/{median(times):.3g}/{max(times):.3g} ms"
            said += f"; round trip {spread} (least/median/most)"
        return said

    def _say(self, words: str) -> None:
        if not self._question.as_json:
            print(words, file=self._stderr, flush=True)


def _dual_stack(server: Endpoint) -> str:
    """An IPv4 sender as a socket of both families shows it: what the reference prints."""
    ip = str(server.ip)
    return host_port(f"::ffff:{ip}" if server.ip.version == 4 else ip, server.port)


def _usage(program: str) -> str:
    return f"usage: {program} <hostname> [port]\n" + "".join(map(format_flag, FLAGS))


def read_or_exit(program: str, argv: Sequence[str], stderr: TextIO) -> Question | int:
    """A command line's question, or the exit code that it deserves, explained on ``stderr``."""
    try:
        question = read_question(argv)
    except UsageError:
        print(_usage(program), end="", file=stderr, flush=True)
        return 1
    except FlagError as error:
        print(f"{error}\n{_usage(program)}", end="", file=stderr, flush=True)
        return 2
    except ConfigError as error:
        print(error, file=stderr, flush=True)
        return 1
    if question is None:
        print(_usage(program), end="", file=stderr, flush=True)
        return 0
    return question


def main() -> NoReturn:
    """Entry point of the script."""
    question = read_or_exit(sys.argv[0], sys.argv[1:], sys.stderr)
    if isinstance(question, int):
        sys.exit(question)
    code = 1  # also if it is interrupted

    async def ask(reactor: STUNClientReactor) -> None:
        nonlocal code
        keep_steady_time(reactor)
        code = await Asking(reactor, question, sys.stdout, sys.stderr).run()

    try:
        react(lambda reactor: Deferred.fromCoroutine(ask(reactor)))
    except SystemExit as end:
        code = int(end.code or 0) or code
    sys.exit(code)


if __name__ == "__main__":
    main()
