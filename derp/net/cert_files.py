"""
The two files of ``--certmode manual``: ``<certdir>/<base>.crt`` and ``<base>.key``.

``base`` is the hostname without any character outside ``[a-zA-Z0-9-.]``. The ``.crt`` file is
a PEM chain, leaf first; the ``.key`` file holds its key in PKCS#1, PKCS#8 or SEC1 form. For a
hostname that is an IP address both are made if one of them is missing.

What the reference checks is checked, with the cure in the error: the files load, key and leaf
belong together, a subject alternative name covers the hostname (the common name never counts).
Dates do not stop the relay; :func:`complaints` tells of them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from twisted.logger import Logger

from derp.errors import ConfigError
from derp.net.first_files import FirstFiles
from derp.net.private_files import PUBLIC, make_private_directory, write_file
from derp.net.self_signed import make_self_signed

_DROPPED: Final = re.compile(r"[^a-zA-Z0-9.-]")
_KEY_BLOCK: Final = re.compile(
    rb"-----BEGIN (?P<kind>[A-Z0-9 ]*PRIVATE KEY)-----.*?-----END (?P=kind)-----", re.DOTALL
)
_CERTIFICATE_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_BROKEN: Final = (
    KeyError,  # of a type of text that there is none of; in older versions
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography says of certificates that are none."""
_MAX_FILE_LEN: Final = 1024 * 1024
_SOON: Final = timedelta(days=14)
_TLS_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

# The entry point of a derper image in use makes such files, which neither we nor derper can serve.
_OR_OURS: Final = ", or move both files away and the relay will make its own"

log = Logger()


@dataclass(frozen=True)
class KeyedChain:
    """A certificate chain and the key of its leaf, found to belong together."""

    certificates: tuple[x509.Certificate, ...]
    """Leaf first, never empty."""
    key_pem: bytes = field(repr=False)

    @property
    def leaf(self) -> x509.Certificate:
        """The server's own certificate."""
        return self.certificates[0]

    @cached_property
    def leaf_der(self) -> bytes:
        """The leaf as it goes over the wire."""
        return self.leaf.public_bytes(Encoding.DER)

    @cached_property
    def chain_pem(self) -> bytes:
        """All certificates, encoded anew: nothing else that stood in the file is in it."""
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.certificates)


def parse_ip(hostname: str) -> IPv4Address | IPv6Address | None:
    """Return the address a hostname is; ``None`` for a DNS name (or an address with a zone)."""
    try:
        return None if "%" in hostname else ip_address(hostname)
    except ValueError:
        return None


def file_base(hostname: str) -> str:
    """Return the file name of a hostname, less its ending; ``2001:db8::7`` is ``2001db87``."""
    return _DROPPED.sub("", hostname)


def load_manual(certdir: str, hostname: str, now: float, first_files: FirstFiles) -> KeyedChain:
    """
    Load the certificate of a hostname; make it if the hostname is an IP and a file is missing.

    :param first_files: is given the two files to write then.
    :param now: Unix time in seconds: when a certificate made here begins to be valid.
    :raises ConfigError: if there is none to serve, or it is not for this hostname.
    """
    if not certdir:
        raise ConfigError("--certdir is empty: name the directory of the certificate files")
    chain_path, key_path = manual_paths(certdir, hostname)
    address = parse_ip(hostname)
    if address is not None and not all(map(os.path.exists, (chain_path, key_path))):
        made = make_self_signed(address, now)
        first_files.add(partial(_write_files, chain_path, key_path, address, made))
        return parse_keyed_chain(*made, str(chain_path), str(key_path))
    return read_manual(certdir, hostname)


def manual_paths(certdir: str, hostname: str) -> tuple[Path, Path]:
    """Say where chain and key of a hostname are."""
    directory, base = Path(certdir), file_base(hostname)
    return directory / f"{base}.crt", directory / f"{base}.key"


def read_manual(certdir: str, hostname: str) -> KeyedChain:
    """
    Load the certificate of a hostname; nothing is made.

    :raises ConfigError: if there is none to serve, or it is not for this hostname.
    """
    chain_path, key_path = manual_paths(certdir, hostname)
    chain = parse_keyed_chain(_read(chain_path), _read(key_path), str(chain_path), str(key_path))
    if not covers(chain.leaf, hostname):
        cure = "get one for this hostname" + (_OR_OURS if parse_ip(hostname) else "")
        raise ConfigError(
            f"--hostname {hostname}: the certificate in {chain_path} is for "
            f"{_names(chain.leaf) or 'no host at all (it has no subject alternative name)'}; "
            f"{cure}, or change --hostname"
        )
    return chain


def parse_keyed_chain(
    chain_pem: bytes, key_pem: bytes, chain_name: str, key_name: str
) -> KeyedChain:
    """
    Parse a PEM chain and a PEM key; text around the blocks is skipped.

    :param chain_name: what errors call the chain, for instance its path; ``key_name`` likewise.
    :raises ConfigError: if one does not parse or the key is not the first certificate's.
    """
    try:
        certificates = tuple(x509.load_pem_x509_certificates(chain_pem))
        leaf_key = _public_bytes(certificates[0])
        _read_fields(certificates[0])
    except _BROKEN as error:
        raise ConfigError(
            f"--certdir: {chain_name} {_why_no_chain(chain_pem, error)}; "
            "put the certificate there in PEM form, and those of its issuers behind it"
        ) from None
    block = _KEY_BLOCK.search(key_pem)
    if block is None:
        raise ConfigError(f"--certdir: {key_name} holds no PEM private key; put the key there")
    try:
        key = load_pem_private_key(block[0] + b"\n", None)
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except TypeError:
        raise ConfigError(
            f"--certdir: the key in {key_name} is encrypted; "
            "take the passphrase off with: openssl pkey -in <old> -out <new>"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        # OpenSSL's own message may quote the input: it stays out of the log.
        raise ConfigError(
            f"--certdir: the key in {key_name} cannot be read; put a PKCS#8, PKCS#1 or EC key there"
        ) from None
    if public != leaf_key:
        raise ConfigError(
            f"--certdir: the key in {key_name} is not that of the first certificate in "
            f"{chain_name}; put the files of one certificate there, its own certificate first"
        )
    return KeyedChain(certificates, block[0] + b"\n")


def _read_fields(leaf: x509.Certificate) -> None:
    """
    Look at everything we shall ask of a certificate: each field is parsed when it is asked for.

    :raises Exception: one of :data:`_BROKEN`.
    """
    for field_name in ("subject", "issuer", "not_valid_before_utc", "not_valid_after_utc"):
        getattr(leaf, field_name)
    for _ in leaf.extensions:
        pass


def _why_no_chain(content: bytes, error: Exception) -> str:
    if not content.strip():
        return "is empty"
    if _CERTIFICATE_BEGIN in content:
        # Of OpenSSL's reasons the last line is enough; some have a page of advice before it.
        return f"is no PEM certificate chain ({str(error).rpartition('. ')[2]})"
    if _KEY_BLOCK.search(content):
        return "holds a private key and no certificate"
    return "holds no PEM certificate"


def covers(certificate: x509.Certificate, hostname: str) -> bool:
    """
    Whether a subject alternative name of the certificate is this hostname.

    As Go decides: an IP address needs an equal iPAddress entry; a DNS name compares without
    case and without a final dot; a whole first label ``*`` stands for any one label.
    """
    names = _alternative_names(certificate)
    if names is None:
        return False
    address = parse_ip(hostname)
    if address is not None:
        return address in names.get_values_for_type(x509.IPAddress)
    wanted = hostname.lower().removesuffix(".").split(".")
    return any(
        _matches(pattern.lower().split("."), wanted)
        for pattern in names.get_values_for_type(x509.DNSName)
    )


def complaints(chain: KeyedChain, hostname: str, now: float) -> list[str]:
    """Say what will keep clients away although the relay starts: dates, curve, pinned chains."""
    found = []
    leaf, moment = chain.leaf, datetime.fromtimestamp(now, UTC)
    begins, expires = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if moment > expires:
        found.append(f"the certificate expired on {expires:%Y-%m-%d}: clients refuse it; renew it")
    elif moment + _SOON > expires:
        found.append(f"the certificate expires on {expires:%Y-%m-%d %H:%M} UTC; renew it")
    if moment < begins:
        found.append(
            f"the certificate is valid only from {begins:%Y-%m-%d %H:%M} UTC on: "
            "clients refuse it until then; check the clock of this machine"
        )
    key = leaf.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, _TLS_CURVES):
        found.append(
            f"no TLS client agrees to a key on the curve {key.curve.name}; "
            "get a certificate with a P-256 key"
        )
    if parse_ip(hostname) is not None and len(chain.certificates) > 1:
        found.append(
            "the chain has more than one certificate: clients that pin the first by CertName "
            "refuse it; leave CertName out of the DERP map, or serve the leaf alone"
        )
    return found


def _write_files(
    chain_path: Path,
    key_path: Path,
    address: IPv4Address | IPv6Address,
    made: tuple[bytes, bytes],
) -> None:
    chain_pem, key_pem = made
    todo = [(key_path, key_pem, 0o600), (chain_path, chain_pem, PUBLIC)]
    # The missing file comes last: if we die between the two, it is still missing at the next
    # start and both are made again. The other way round they would never fit together.
    todo.sort(key=lambda each: not os.path.exists(each[0]))
    try:
        make_private_directory(chain_path.parent)
        for path, content, mode in todo:
            write_file(path, content, mode)
    except OSError as error:
        raise ConfigError(
            f"--certdir {chain_path.parent}: cannot write {chain_path.name} and {key_path.name} "
            f"for the IP address {address} ({error.strerror}); name a directory the relay may "
            "write to, or put a certificate there yourself"
        ) from None
    log.info(
        "made a self-signed certificate for {address} in {path}; clients are pinned to it: keep it",
        address=str(address),
        path=str(chain_path),
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_LEN + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"--certdir: {path} is missing; put the certificate there, or let the relay get one "
            "with another --certmode"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"--certdir: cannot read {path} ({error.strerror}); "
            "make it readable for the user the relay runs as"
        ) from None
    if len(content) > _MAX_FILE_LEN:
        raise ConfigError(
            f"--certdir: {path} is over 1 MiB, no certificate; put the right file there"
        )
    return content


def _public_bytes(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None


def _matches(pattern: list[str], wanted: list[str]) -> bool:
    if len(pattern) != len(wanted) or "" in wanted:
        return False
    return pattern[1:] == wanted[1:] and pattern[0] in ("*", wanted[0])


def _names(certificate: x509.Certificate) -> str:
    names = _alternative_names(certificate)
    if names is None:
        return ""
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return ", ".join((*names.get_values_for_type(x509.DNSName), *addresses))
