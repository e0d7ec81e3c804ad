"""
Which certificate a connection gets in the modes that get them by ACME.

====================================  ==================================================
client asks for                       answer
====================================  ==================================================
ALPN ``acme-tls/1``                   the challenge's certificate, or unrecognized_name
a name the policy lets pass           that name's certificate, got now if there is none
an address, or nothing                the address' certificate, if we get such
another name, nothing without         unrecognized_name (the reference: internal_error)
addresses
a certificate that cannot be got      internal_error
====================================  ==================================================

The address is the one the client connected to, or, behind NAT, the configured one. No public
authority gives a certificate for a private address, so none is asked for one.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_network
from typing import Final, NoReturn

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from derp.net.acme_certificates import ACMECertificates
from derp.net.acme_challenges import ACME_TLS_1, TLSALPN01
from derp.net.cert_files import parse_ip
from derp.net.certificates import UNRECOGNIZED_NAME, HandshakeRefused, require_common_protocol
from derp.wire.client_hello import ClientHello

INTERNAL_ERROR: Final = 80  # RFC 8446 section 6.2
TAILSCALE: Final = "derp.tailscale.com"
_TAILSCALE_RELAY: Final = re.compile(r"derp[a-z0-9_-]*\.tailscale\.com")

_PRIVATE: Final = tuple(
    map(
        ip_network,
        (
            *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
            *("169.254.0.0/16", "100.64.0.0/10", "::1/128", "fe80::/10", "fc00::/7"),
        ),
    )
)
"""Loopback, RFC 1918, link-local, RFC 6598; unique local (RFC 4193)."""


def normal_name(name: str) -> str:
    """A DNS name as it stands in certificates: A-labels, lower case, no final dot."""
    with suppress(UnicodeError):  # what is no name matches none of ours
        name = name.encode("idna").decode("ascii")
    return name.lower().removesuffix(".")


def is_private(address: str) -> bool:
    """Whether nobody outside can dial this address."""
    parsed = parse_ip(address)
    return any(parsed in network for network in _PRIVATE if parsed is not None)


def host_policy(hostname: str) -> Callable[[str], bool]:
    """
    For which names certificates are got: ``--hostname``, and for the relays of Tailscale, whose
    name is that flag's default, any of theirs.
    """
    wanted = normal_name(hostname)
    if wanted == TAILSCALE:
        return lambda name: _TAILSCALE_RELAY.fullmatch(normal_name(name)) is not None
    return lambda name: normal_name(name) == wanted


class ACMEChooser:
    """
    See :class:`derp.net.certificates.CertificateChooser`.

    :param hosts: certificates of names; ``None`` if we get none.
    :param addresses: certificates of addresses; likewise.
    :param public: the addresses clients dial if they are not those of this machine.
    :param private: whether the authority is asked for private addresses, too.
    """

    def __init__(
        self,
        challenges: TLSALPN01,
        *,
        hosts: ACMECertificates | None = None,
        policy: Callable[[str], bool] = lambda name: False,
        addresses: ACMECertificates | None = None,
        public: Sequence[str] = (),
        private: bool = False,
    ) -> None:
        self._challenges = challenges
        self._hosts = hosts
        self._policy = policy
        self._addresses = addresses
        self._private = private
        self._public = [str(parse_ip(each)) for each in public]

    def pick(self, hello: ClientHello, local_ip: str) -> ssl.SSLContext | Deferred[ssl.SSLContext]:
        """Choose for one connection."""
        if hello.alpn == (ACME_TLS_1.encode("ascii"),):
            context = self._challenges.context_for(hello.server_name)
            if context is None:
                _refuse(hello, "with acme-tls/1, but no challenge is under way")
            return context
        require_common_protocol(hello, (b"http/1.1",))
        address = parse_ip(hello.server_name) if hello.server_name else None
        if hello.server_name is None or address is not None:
            return self._by_address(hello, str(address) if address else None, local_ip)
        if self._hosts is None or not self._policy(hello.server_name):
            _refuse(hello, "which is none of ours")
        return _answer(self._hosts, normal_name(hello.server_name))

    def allows_host(self, host: str) -> bool:
        """Whether an authority may look for proofs under this Host header."""
        if parse_ip(host) is not None or not host:
            return self._addresses is not None
        return self._hosts is not None and self._policy(host)

    def _by_address(
        self, hello: ClientHello, asked: str | None, local_ip: str
    ) -> ssl.SSLContext | Deferred[ssl.SSLContext]:
        if self._addresses is None:
            _refuse(hello, "and certificates for addresses are off (--acme-ip-certs)")
        dialed = self._dialed(local_ip)
        if asked is not None and asked != dialed:
            if asked not in self._public:
                _refuse(hello, f"on the address {dialed}")
            dialed = asked
        if not self._private and is_private(dialed):
            _refuse(
                hello,
                f"on the private address {dialed}; where clients dial another one, give it with "
                "--acme-ip-address",
            )
        return _answer(self._addresses, dialed)

    def _dialed(self, local_ip: str) -> str:
        """The address the client dialed: a private one of ours stands for a configured one."""
        same = [each for each in self._public if (":" in each) == (":" in local_ip)]
        if not same or local_ip in same or not is_private(local_ip):
            return local_ip
        return same[0]


def _answer(certificates: ACMECertificates, name: str) -> ssl.SSLContext | Deferred[ssl.SSLContext]:
    context = certificates.context_for(name)
    if isinstance(context, Deferred):
        context.addErrback(_cannot_get, name)
    return context


def _cannot_get(failure: Failure, name: str) -> NoReturn:
    reason = f"no certificate for {name} yet: {failure.getErrorMessage()}"
    raise HandshakeRefused(INTERNAL_ERROR, reason)


def _refuse(hello: ClientHello, why: str) -> NoReturn:
    asked = "no name" if hello.server_name is None else repr(hello.server_name)
    raise HandshakeRefused(UNRECOGNIZED_NAME, f"client asks for {asked}, {why}")
