"""A bare HTTP client that reads one answer at a time, and sees all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol


@dataclass
class Answer:
    """One answer: the status line, the headers in their order, the body."""

    status_line: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    @property
    def status(self) -> int:
        return int(self.status_line.split(" ")[1])

    def header(self, name: str) -> str | None:
        """The value of a header by its exact spelling."""
        return dict(self.headers).get(name)


def parse_head(head: bytes) -> Answer:
    """Read status line and headers."""
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [line.split(": ", 1) for line in lines]
    return Answer(first, [(name, value) for name, value in headers])


def body_end(answer: Answer, method: str, rest: bytes) -> int | None:
    """Where the body ends in what follows the head; ``None`` if more has to come."""
    length = answer.header("Content-Length")
    if method == "HEAD" or answer.status in (101, 204) or length is None:
        return 0
    return int(length) if len(rest) >= int(length) else None


class Exchange(Protocol):
    """The client's side of one connection."""

    transport: Any

    def __init__(self) -> None:
        self.buffer = b""
        self.closed = False
        self._waiting: list[tuple[Any, Deferred[Any]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        self._look()

    def connectionLost(self, reason: Any = None) -> None:
        self.closed = True
        self._look()

    def _look(self) -> None:
        while self._waiting:
            ready, done = self._waiting[0]
            result = ready()
            if result is None:
                if self.closed:
                    self._waiting.clear()
                    done.errback(AssertionError(f"closed after {self.buffer!r}"))
                return
            self._waiting.pop(0)
            done.callback(result)

    def when(self, ready: Any) -> Deferred[Any]:
        """Fire with what ``ready`` returns once that is not ``None``."""
        done: Deferred[Any] = Deferred()
        self._waiting.append((ready, done))
        self._look()
        return done

    def answer(self, method: str = "GET") -> Deferred[Answer]:
        """Read one answer."""

        def ready() -> Answer | None:
            head, blank, rest = self.buffer.partition(b"\r\n\r\n")
            if not blank:
                return None
            answer = parse_head(head)
            end = body_end(answer, method, rest)
            if end is None:
                return None
            answer.body, self.buffer = rest[:end], rest[end:]
            return answer

        return self.when(ready)

    def exactly(self, size: int) -> Deferred[bytes]:
        """Read so many bytes."""

        def ready() -> bytes | None:
            if len(self.buffer) < size:
                return None
            data, self.buffer = self.buffer[:size], self.buffer[size:]
            return data

        return self.when(ready)

    def end(self) -> Deferred[bytes]:
        """Read up to the end of the connection."""
        return self.when(lambda: self.buffer if self.closed else None)
