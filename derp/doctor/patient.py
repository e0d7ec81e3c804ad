"""Who is examined, and what is known so far."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509

from derp.doctor.http_answer import HTTPAnswer
from derp.net.relay_dialer import RelayAddress
from derp.net.server_check import is_ip_literal
from derp.wire.node_json import DEFAULT_DERP_PORT, DEFAULT_STUN_PORT, PIN_PREFIX

TIMEOUT: Final = 4.0
"""Seconds that one step of an examination may take if nothing else is asked for."""
FAMILIES: Final = (4, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A relay, and how it is to be examined."""

    reactor: Any
    host: str
    """TLS server name and ``Host`` header: a name, or an IP literal without brackets."""
    port: int = DEFAULT_DERP_PORT
    tls: bool = True
    dial_host: str = ""
    """Name or address to look up and connect to instead of :attr:`host`."""
    fixed: dict[int, str] = field(default_factory=dict)
    """IP by family where it is given and not looked up (``IPv4`` and ``IPv6`` of a map)."""
    families: tuple[int, ...] = FAMILIES
    cert_name: str = ""
    """As in a DERP map: another name to expect, or a ``sha256-raw:`` pin."""
    insecure: bool = False
    """An invalid certificate is no failure, and keeps no secret back."""
    ca_file: str = ""
    http_port: int | None = 80
    stun_port: int | None = DEFAULT_STUN_PORT
    mesh_key: bytes | None = field(default=None, repr=False)
    private_key: bytes | None = field(default=None, repr=False)
    """Of a client that is admitted; ``None`` makes keys up."""
    timeout: float = TIMEOUT
    wall_time: Callable[[], float] = time.time
    getaddrinfo: Callable[..., Any] = socket.getaddrinfo
    """The system's resolver, asked why a name has no address."""

    @property
    def pin(self) -> str:
        """The pin that is expected, if any."""
        return self.cert_name if self.cert_name.startswith(PIN_PREFIX) else ""

    @property
    def by_address(self) -> bool:
        """Whether clients know this relay by an IP address, so that they send no server name."""
        return is_ip_literal(self.host)

    def address(self, ip: str = "") -> RelayAddress:
        """This relay for :mod:`derp.net.relay_connector`, by one of its addresses."""
        return RelayAddress(
            label=f"{self.host} ({ip})" if ip and ip != self.host else self.host,
            host=self.host,
            port=self.port,
            dial_host=ip or self.dial_host,
            tls=self.tls,
            cert_name=self.cert_name,
        )


@dataclass(slots=True)
class Chart:
    """What the examinations so far have found out, for those that follow."""

    addresses: dict[int, list[str]] = field(default_factory=dict)
    """By family, in the resolver's order."""
    reached: dict[int, str] = field(default_factory=dict)
    """By family the first address whose main port is open."""
    chain: list[bytes] = field(default_factory=list)
    """What the relay has presented, in DER, without the meta certificate."""
    leaf: x509.Certificate | None = None
    trusted: bool = False
    """Whether clients accept its certificate, so that secrets may be told to it."""
    acceptable: bool = False
    """Whether they would, if they knew its pin."""
    suggested_pin: str = ""
    """``CertName`` by which clients would accept it, if without one they do not."""
    certificate_key: bytes | None = None
    """The relay's key as its meta certificate names it."""
    tls_version: str = ""
    greeted: bool = False
    """Whether the upgrade leads to a relay."""
    server_keys: set[str] = field(default_factory=set)
    """Every key of a greeting, in hex."""
    answers: list[HTTPAnswer] = field(default_factory=list)
    """Of the main port, whatever was asked."""
    plain_port_well: bool = False
    """Whether the plain port answers what clients look for there."""
    stun_answers: bool = False

    @property
    def best(self) -> str:
        """The address to go on with; empty if none is reached."""
        return next((self.reached[each] for each in FAMILIES if each in self.reached), "")
