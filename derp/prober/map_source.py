"""
Where the DERP map comes from (``--derp-map``).

=========================  ==============================================================
``https://…``, ``http://``  GET, redirects followed, through the environment's proxy
``file:///path``           read from disk
``local``                  the tailscaled of this machine
=========================  ==============================================================

A map that was fetched less than ten minutes ago is used again while the server cannot be
reached; an answer that is no good is a failure at once. What is used is always a whole map
that was found in order: any other leaves the one before in place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from derp.durations import format_duration
from derp.errors import ConfigError, ProtocolError
from derp.net.bounded_http import BrokenAnswer, Head, NoAnswer, read_body
from derp.net.http_url import shown
from derp.net.local_api import LocalAPI
from derp.net.outgoing_http import OutgoingHTTP
from derp.prober.check import ProbeFailed
from derp.quoting import quoted
from derp.wire.derp_map import DERPMap, parse_derp_map

log = Logger(namespace="derp")

FLAG: Final = "--derp-map"
LOCAL: Final = "local"
MAX_MAP: Final = 4 << 20
"""Bytes. Tailscale's own map has about 30 KiB."""
STALE_S: Final = 600.0
"""How old a map may be that stands in for one that cannot be fetched (tailscale ``prober``)."""
MAX_REDIRECTS: Final = 9

_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_CURE: Final = "give an http:// or https:// URL, file:///path, or local for this machine's own"


class Unreachable(ProbeFailed):
    """The request for a map failed before there was an answer: an older map will do."""


class MapSource(Protocol):
    """One place to get a map from."""

    async def read(self) -> bytes:
        """Get the JSON; raises :exc:`ProbeFailed`."""

    def close(self) -> Deferred[None] | None:
        """Let go of what is kept between reads."""


class FileSource:
    """
    A file.

    :raises ConfigError: if it cannot be read now.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._read()
        except OSError as error:
            raise ConfigError(
                f"{FLAG}: cannot read {quoted(path)} ({error.strerror}): name a file that is "
                "there and that this user may read"
            ) from None

    async def read(self) -> bytes:
        """See :class:`MapSource`."""
        try:
            return self._read()
        except OSError as error:
            raise ProbeFailed(f"cannot read {quoted(self._path)}: {error.strerror}") from None

    def close(self) -> None:
        """See :class:`MapSource`."""

    def _read(self) -> bytes:
        with open(self._path, "rb", opener=_open_at_once) as file:
            return file.read(MAX_MAP + 1)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file: a pipe that nobody writes to must not stop the reactor."""
    return os.open(path, flags | os.O_NONBLOCK)


class URLSource:
    """A URL of http or https."""

    def __init__(self, reactor: Any, url: str, environ: Mapping[str, str]) -> None:
        self._url = _check_url(url)
        self._http = OutgoingHTTP(reactor, environ)

    async def read(self) -> bytes:
        """See :class:`MapSource`."""
        where = shown(self._url)
        try:
            head = await self._get()
        except NoAnswer as error:
            raise Unreachable(f"cannot fetch the DERP map from {where}: {error}") from None
        if head.status != 200:
            await head.drop()
            raise ProbeFailed(f"{where} answered {head.status_line} instead of a DERP map")
        try:
            return await read_body(head, MAX_MAP + 1)
        except BrokenAnswer as error:
            raise ProbeFailed(f"{where} did not send its DERP map to the end: {error}") from None

    def close(self) -> Deferred[None]:
        """See :class:`MapSource`."""
        return self._http.close()

    async def _get(self) -> Head:
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            head = await self._http.send("GET", url, {"Accept": "application/json"})
            if head.status not in _REDIRECTS or not head.location:
                return head
            await head.drop()
            url = self._follow(url, head.location)
        raise NoAnswer(f"stopped after {MAX_REDIRECTS + 1} redirects")

    def _follow(self, url: str, location: str) -> str:
        try:
            target = _check_url(urljoin(url, location))
        except (ConfigError, ValueError):
            raise NoAnswer("redirected to what is no http:// or https:// URL") from None
        parts = urlsplit(target)
        if parts.hostname != urlsplit(self._url).hostname:  # a password is for the first alone
            target = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        return target


class LocalSource:
    """
    The tailscaled of this machine.

    :param path: of its socket.
    """

    def __init__(self, reactor: Any, path: str) -> None:
        self._local = LocalAPI(reactor, path)

    async def read(self) -> bytes:
        """See :class:`MapSource`. An older map does not stand in for its answer."""
        try:
            return await self._local.derp_map()
        except (NoAnswer, BrokenAnswer) as error:
            raise ProbeFailed(
                f"{self._local.label} did not tell its DERP map: {error}; is tailscaled running, "
                "and may this user ask it?"
            ) from None

    def close(self) -> Deferred[None]:
        """See :class:`MapSource`."""
        return self._local.close()


def map_source(reactor: Any, text: str, environ: Mapping[str, str], socket: str) -> MapSource:
    """
    Find out what ``--derp-map`` means.

    :param socket: of this machine's tailscaled.
    :raises ConfigError: if it means nothing, or a file that cannot be read.
    """
    if text == LOCAL:
        return LocalSource(reactor, socket)
    if text.startswith("file://"):
        return FileSource(_file_path(text))
    return URLSource(reactor, text, environ)


class MapKeeper:
    """
    The map that is in use.

    :param timeout: seconds one reading may take; shorter than that of the probe that asks, so
        that there is time to use an older map.
    """

    def __init__(self, reactor: Any, source: MapSource, timeout: float) -> None:
        self.current = DERPMap()
        self._source = source
        self._reactor = reactor
        self._timeout = timeout
        self._fetched_at: float | None = None

    async def refresh(self) -> DERPMap:
        """
        Get the map anew.

        :return: it, or the one before if that may stand in; it is not in use until
            :meth:`use` is told so.
        :raises ProbeFailed: if there is none.
        """
        try:
            data = await self._read()
        except Unreachable as error:
            age = self._age()
            if age is None or age >= STALE_S:
                raise
            log.warn(
                "{error}; the map of {age} ago is used", error=str(error), age=format_duration(age)
            )
            return self.current
        derp_map = read_map(data)
        self._fetched_at = self._reactor.seconds()
        return derp_map

    def use(self, derp_map: DERPMap) -> None:
        """Make a map the current one."""
        self.current = derp_map

    def _read(self) -> Deferred[bytes]:
        def too_late(result: object, seconds: float) -> bytes:
            raise Unreachable(f"no DERP map within {format_duration(seconds)}")

        reading = Deferred.fromCoroutine(self._source.read())
        return reading.addTimeout(self._timeout, self._reactor, too_late)

    def _age(self) -> float | None:
        """Whole seconds since the current map was fetched; ``None`` if none was."""
        if self._fetched_at is None or not self.current.regions:
            return None
        return float(max(0, round(self._reactor.seconds() - self._fetched_at)))


def read_map(data: bytes) -> DERPMap:
    """
    Read a map, and see that its nodes can be told apart.

    :raises ProbeFailed: if it is none, has no node or two of the same name.
    """
    if len(data) > MAX_MAP:
        raise ProbeFailed(f"the DERP map is longer than {MAX_MAP >> 20} MiB")
    if not data.strip():
        raise ProbeFailed("the DERP map is empty: there is not a byte in it")
    try:
        derp_map = parse_derp_map(data)
    except ProtocolError as error:
        raise ProbeFailed(str(error)) from None
    seen: dict[str, int] = {}
    for region in derp_map.regions.values():
        for node in region.nodes:
            if node.name in seen:
                raise ProbeFailed(
                    f"two nodes of the DERP map are called {quoted(node.name)}, in region "
                    f"{seen[node.name]} and in region {region.region_id}: give each its own name"
                )
            seen[node.name] = region.region_id
    if not seen:
        raise ProbeFailed("the DERP map has no node: there is nothing to probe")
    return derp_map


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        # What is before the last @ may be a password.
        raise ConfigError(
            f"{FLAG}: {quoted(url.rpartition('@')[2])} is no place for a map: {_CURE}"
        )
    return url


def _file_path(url: str) -> str:
    host, slash, path = url.removeprefix("file://").partition("/")
    if host not in ("", "localhost") or not slash or "\0" in unquote(path):
        raise ConfigError(
            f"{FLAG}: {quoted(url)} names no file of this machine: write file:///path/to/map.json"
        )
    return "/" + unquote(path)
