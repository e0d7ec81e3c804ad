"""
The relays to mesh with, as text.

One peer is ``host[:port][/dialhost][#sha256-raw:<hex>]``: the name its certificate is made for,
the port (443), what to dial instead of the name, and the pin of a certificate that no CA issued
(what a relay prints as ``CertName`` at its start). ``--mesh-with`` takes a comma list of them;
a file has one per line, and empty lines and lines that start with ``#`` mean nothing.

derper's own syntax is ``host[/dialhost]``; the port is part of its host. It would take an empty
host and fail to dial it for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from typing import Final

from derp.config import MeshPeer
from derp.errors import ConfigError
from derp.net.relay_dialer import parse_relay_url
from derp.net.server_check import is_ip_literal
from derp.quoting import quoted
from derp.wire.node_json import PIN_PREFIX

MAX_PEERS: Final = 100
"""A mesh is complete: each of n relays has n - 1 links. Nobody has so many in a region."""
MAX_FILE_LEN: Final = 64 << 10

_SYNTAX: Final = "host[:port][/dialhost][#sha256-raw:<hex>]"
_DIAL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_PIN: Final = re.compile(re.escape(PIN_PREFIX) + r"[0-9a-fA-F]{64}")


def parse_peers(flag: str, texts: Iterable[str]) -> tuple[MeshPeer, ...]:
    """
    Read a list of peers.

    :param flag: where the list comes from, for errors.
    :raises ConfigError: if one of them cannot be, or the list.
    """
    return join_peers(flag, [parse_peer(flag, text) for text in texts])


def join_peers(flag: str, *lists: Iterable[MeshPeer]) -> tuple[MeshPeer, ...]:
    """
    Make one list of several; a peer that is named twice is one.

    :raises ConfigError: if they contradict each other, or are too many.
    """
    peers: dict[str, MeshPeer] = {}
    for peer in chain(*lists):
        if peers.setdefault(peer.name, peer) != peer:
            raise ConfigError(
                f"{flag}: {quoted(peer.name)} is named twice, with different pins: keep one"
            )
    if len(peers) > MAX_PEERS:
        raise ConfigError(f"{flag}: {len(peers)} relays are too many: at most {MAX_PEERS}")
    return tuple(peers.values())


def parse_peer(flag: str, text: str) -> MeshPeer:
    """
    Read one peer.

    :raises ConfigError: if it cannot be.
    """
    name, pinned, pin = text.strip().partition("#")
    host, _, dial_host = name.partition("/")
    if not host or "/" in dial_host or name.endswith("/"):
        raise _bad(flag, text, f"write it as {_SYNTAX}")
    dialed = dial_host.strip("[]")
    if dialed and not (_DIAL_NAME.fullmatch(dialed) or is_ip_literal(dialed)):
        raise _bad(flag, text, "what to dial must be a name or an address, without a port")
    if pinned and not _PIN.fullmatch(pin):
        raise _bad(flag, text, f"a pin is {PIN_PREFIX} and 64 hex digits")
    try:
        relay = parse_relay_url(f"https://{host}/derp")
    except ConfigError:
        raise _bad(flag, text, f"write it as {_SYNTAX}") from None
    if "?" in host or "@" in host or not 0 < relay.port < 1 << 16:
        raise _bad(flag, text, f"write it as {_SYNTAX}")
    return MeshPeer(
        name=name,
        host=relay.host,
        port=relay.port,
        dial_host=dialed,
        pin=pin.lower(),
    )


def read_peers(flag: str, path: str) -> tuple[MeshPeer, ...]:
    """
    Read a file of peers; an empty one is a mesh of one.

    :raises ConfigError: if it cannot be read, or a line of it is no peer.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_LEN + 1)
    except OSError as error:
        raise ConfigError(
            f"{flag}: cannot read {quoted(path)} ({error.strerror}): "
            "name a file that this user may read"
        ) from None
    if len(content) > MAX_FILE_LEN:
        raise ConfigError(f"{flag}: {quoted(path)} is longer than {MAX_FILE_LEN} bytes")
    lines = map(str.strip, content.decode("utf-8", "replace").split("\n"))
    where = f"{flag}: {quoted(path)}"
    peers = [
        parse_peer(f"{where} line {number}", line)
        for number, line in enumerate(lines, 1)
        if line and not line.startswith("#")
    ]
    return join_peers(where, peers)


def _bad(flag: str, text: str, cure: str) -> ConfigError:
    return ConfigError(f"{flag}: {quoted(text)} is no relay to mesh with: {cure}")
