"""
The allow list: a file of node keys, one per line.

::

    # who may use this relay
    nodekey:84b206cc61d8aa29ee45bedcd142a79448a126e9e53c98deef7df5de9a8f1a1c  # laptop

A file without keys admits nobody.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred, succeed

from derp.core.admission import ALLOWED, AdmissionStats, Answer, Kind, Question, Verdict
from derp.errors import ConfigError, ProtocolError
from derp.quoting import quoted
from derp.wire.keys import format_node_public, is_zero, parse_node_public

FLAG: Final = "--allow-clients"
MAX_FILE_LEN: Final = 16 << 20
"""Bytes; more than 200000 keys."""


def parse_allow_list(path: str, text: str) -> frozenset[bytes]:
    """
    Read the keys of a file.

    :raises ConfigError: naming the first line that holds something else.
    """
    keys = set()
    for number, line in enumerate(text.split("\n"), 1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        try:
            key = parse_node_public(word)
        except ProtocolError:
            key = b""
        if not key or is_zero(key):
            raise ConfigError(
                f"{FLAG}: {quoted(path)} line {number}: {quoted(word)} is no node key: "
                "write nodekey: and 64 hex digits, one key per line, comments behind #"
            )
        keys.add(key)
    return frozenset(keys)


class AllowList:
    """
    A source of admission that knows by itself.

    :param stats: where its answers are counted.
    :raises ConfigError: if the file is unusable.
    """

    kind = Kind.FILE

    def __init__(self, path: str, stats: AdmissionStats) -> None:
        self.path = self.label = path
        self._stats = stats
        self.keys: frozenset[bytes] = frozenset()
        self.load()

    def load(self) -> None:
        """
        Read the file again; the keys are replaced only if all of it is right.

        :raises ConfigError: if it is not.
        """
        self.keys = parse_allow_list(self.path, self._read())

    def _read(self) -> str:
        try:
            with open(self.path, "rb") as file:
                content = file.read(MAX_FILE_LEN + 1)
        except OSError as error:
            raise ConfigError(
                f"{FLAG}: cannot read {quoted(self.path)} ({error.strerror}): "
                "name a file that this user may read"
            ) from None
        if len(content) > MAX_FILE_LEN:
            raise ConfigError(
                f"{FLAG}: {quoted(self.path)} is longer than {MAX_FILE_LEN >> 20} MiB: "
                "name a file of node keys"
            )
        return content.decode("utf-8-sig", "replace")

    def ask(self, question: Question, *, recheck: bool = False) -> Deferred[Answer]:
        """See :class:`derp.net.asked_source.Source`."""
        answer = ALLOWED
        if question.key not in self.keys:
            reason = f"{format_node_public(question.key)} is not in {self.path} ({FLAG})"
            answer = Answer(Verdict.DENIED, reason)
        return succeed(self._stats.count_answer(self.kind, answer))

    def expire(self) -> None:
        """See :class:`derp.net.asked_source.Source`: nothing is kept here."""

    def close(self) -> None:
        """See :class:`derp.net.asked_source.Source`."""
