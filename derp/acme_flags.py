"""What the flags about certificates mean together, checked in the reference's order."""

from __future__ import annotations

import re
import shlex
from ipaddress import ip_address
from typing import Any, Final

from derp.config import CertMode
from derp.errors import ConfigError
from derp.goflag import FlagValues
from derp.net.cert_files import parse_ip
from derp.net.http_url import check_directory_url
from derp.quoting import quoted
from derp.wire.eab_key import parse_eab_key

_ACME_FLAGS: Final = (
    "acme-email",
    "acme-eab-kid",
    "acme-eab-key",
    "acme-directory",
    "acme-ca-file",
    "acme-profile",
    "acme-dns-hook",
)

_DNS_NAME: Final = re.compile(r"\w[\w-]*(\.\w[\w-]*)*\.?")
"""Loosely: letters of any script, as names are given here before IDNA."""
_EMAIL: Final = re.compile(r"[^\s@,?]+@[^\s@,?]+")
"""One address and nothing else: no list, no ``mailto:`` fields (RFC 8555 section 7.3)."""

MAX_PROFILE: Final = 64
"""Characters; our own bound, as the draft has none."""


def acme_fields(flags: FlagValues) -> dict[str, Any]:
    """
    Read the fields of :class:`derp.config.Config` that begin with ``acme_``.

    :raises ConfigError: if a value is wrong in itself.
    """
    addresses = tuple(_address(text) for text in flags.texts("acme-ip-address"))
    hook, directory = flags.text("acme-dns-hook"), flags.text("acme-directory")
    return {
        "acme_email": _email(flags.text("acme-email")),
        "acme_eab_kid": flags.text("acme-eab-kid"),
        "acme_eab_key": _eab_key(flags.text("acme-eab-key")),
        "acme_ip_certs": flags.bool("acme-ip-certs") or bool(addresses),
        "acme_directory": check_directory_url(directory) if directory else "",
        "acme_ca_file": flags.text("acme-ca-file"),
        "acme_profile": _profile(flags.text("acme-profile")),
        "acme_ip_address": tuple(dict.fromkeys(addresses)),
        "acme_dns_hook": parse_command(hook) if hook else (),
    }


def parse_command(text: str) -> tuple[str, ...]:
    """
    Split the value of ``--acme-dns-hook`` as a shell would.

    :raises ConfigError: if that is no command.
    """
    try:
        command = tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigError(f"--acme-dns-hook: {error}; quote it as for a shell") from None
    if not command:
        raise ConfigError("--acme-dns-hook is blank: give a command or leave it out")
    return command


def check_certificates(flags: FlagValues, certmode: CertMode, certdir: str) -> None:
    """
    Check what a certificate mode needs of the other flags; only with TLS.

    :raises ConfigError: naming the flag that is missing or too much.
    """
    if not certdir:
        raise ConfigError(
            "--certdir is empty and neither XDG_CACHE_HOME nor HOME names a default: "
            "name the directory of certificates with --certdir <path>"
        )
    for name in ("acme-ip-certs", "acme-ip-address"):
        if certmode is not CertMode.LETSENCRYPT and not flags.is_default(name):
            raise ConfigError(
                f"--{name} requires --certmode letsencrypt, not {certmode}: change one of them"
            )
    hostname = flags.text("hostname")
    if not hostname:
        raise ConfigError("--hostname is empty: give the name or IP that clients dial")
    if certmode is CertMode.GCP:
        _check_gcp(flags, hostname)
    if certmode is CertMode.LETSENCRYPT:
        _check_letsencrypt(flags, hostname)


def _check_letsencrypt(flags: FlagValues, hostname: str) -> None:
    by_ip = flags.bool("acme-ip-certs") or bool(flags.texts("acme-ip-address"))
    if parse_ip(hostname) is not None and not by_ip:
        raise ConfigError(
            f"--hostname {hostname} is an IP address: add --acme-ip-certs to get certificates for "
            "addresses, or use --certmode manual for a certificate of its own making"
        )
    if parse_ip(hostname) is None:
        _check_name(flags, hostname)
    if bool(flags.text("acme-eab-kid")) != bool(flags.text("acme-eab-key")):
        raise ConfigError("--acme-eab-kid and --acme-eab-key belong together: give both or none")


def _check_name(flags: FlagValues, hostname: str) -> None:
    """Refuse what no client can ask a certificate for: a URL, a port behind it, quotes in it."""
    public = not flags.text("acme-directory") and "." not in hostname.strip(".")
    if public or not _DNS_NAME.fullmatch(hostname):
        raise ConfigError(
            f"--hostname {quoted(hostname)}: no authority gives a certificate for that; "
            "give a full DNS name and nothing else, such as derp.example.com"
        )


def _check_gcp(flags: FlagValues, hostname: str) -> None:
    if parse_ip(hostname) is not None:
        raise ConfigError(
            f"--certmode gcp needs a DNS name as --hostname, not the IP address {hostname}"
        )
    if not flags.text("acme-eab-kid") or not flags.text("acme-eab-key"):
        raise ConfigError(
            "--certmode gcp requires --acme-eab-kid and --acme-eab-key: "
            "make an external account key with gcloud publicca external-account-keys create"
        )
    if not flags.text("acme-email"):
        raise ConfigError("--certmode gcp requires --acme-email: give an address to be reached at")
    _check_name(flags, hostname)


def acme_notices(flags: FlagValues, certmode: CertMode, tls: bool) -> list[str]:
    """Say which flags about certificates change nothing."""
    if certmode is CertMode.MANUAL or not tls:
        why = "with --certmode manual" if tls else "on plain HTTP"
        return [f"--{name} has no effect {why}" for name in _ACME_FLAGS if flags.given(name)]
    notices = []
    if not flags.given("hostname"):
        notices.append(
            f"no --hostname given: {flags.text('hostname')} is Tailscale's, and only they get a "
            "certificate for it"
        )
    if flags.given("acme-dns-hook") and parse_ip(flags.text("hostname")) is not None:
        notices.append("--acme-dns-hook has no effect on certificates for addresses")
    if certmode is CertMode.LETSENCRYPT and not flags.text("acme-directory"):
        notices += [
            f"--{name}: Let's Encrypt asks for no external account; it is sent all the same"
            for name in ("acme-eab-kid",)
            if flags.text(name)
        ]
    return notices


def _eab_key(text: str) -> str:
    try:
        if text:
            parse_eab_key(text)
        return text
    except ValueError:
        raise ConfigError(
            "--acme-eab-key is neither base64url without padding nor base64: "
            "give the key as the authority printed it"
        ) from None


def _email(text: str) -> str:
    if text and not _EMAIL.fullmatch(text):
        raise ConfigError(
            f"--acme-email: {quoted(text)} is no address for mail: give one, such as "
            "admin@example.com, or leave it out"
        )
    return text


def _profile(text: str) -> str:
    if len(text) > MAX_PROFILE or not text.isascii() or not text.isprintable():
        raise ConfigError(
            f"--acme-profile: {quoted(text)} is no name of a profile: give one of those that the "
            "authority's documentation names"
        )
    return text


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ConfigError(
            f"--acme-ip-address: {quoted(text)} is no IP address: give the one clients dial"
        ) from None
