"""Host names: the form that DNS and TLS know, and their addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from twisted.internet import address as net_address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from zope.interface import implementer

_KINDS = {4: net_address.IPv4Address, 6: net_address.IPv6Address}
_NOT_IN_HOSTS: Final = re.compile(r"[\x00-\x20/\x7f]")


def ascii_host(host: str) -> str:
    """
    Write a host name as DNS and TLS do.

    :raises ValueError: if it has no such form.
    """
    if _NOT_IN_HOSTS.search(host) or not host:
        raise ValueError(f"{host!r} is no host name")
    return host.encode("idna").decode("ascii")


def look_up(
    resolver: IHostnameResolver, host: str, versions: Sequence[int] = (4, 6)
) -> Deferred[list[str]]:
    """
    Look a name up; nothing found is an empty list.

    :param resolver: ``reactor.nameResolver``, which asks the system's.
    :param versions: of IP, 4 and 6.
    :return: each address once, in the resolver's order. May be cancelled.
    """
    receiver = _Addresses()
    kinds = [_KINDS[version] for version in versions]
    resolver.resolveHostName(receiver, host, 0, kinds)
    return receiver.found


@implementer(IResolutionReceiver)
class _Addresses:
    """Collect what a resolver finds. Its threads cannot be stopped, only left alone."""

    def __init__(self) -> None:
        self.found: Deferred[list[str]] = Deferred(lambda _: None)
        self._hosts: dict[str, None] = {}

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """See ``IResolutionReceiver``."""

    def addressResolved(self, address: IAddress) -> None:
        """See ``IResolutionReceiver``."""
        self._hosts[address.host] = None  # type: ignore[attr-defined]

    def resolutionComplete(self) -> None:
        """See ``IResolutionReceiver``."""
        if not self.found.called:
            self.found.callback(list(self._hosts))
