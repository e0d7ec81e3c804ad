"""
Certificates by ACME on disk, where and as the reference keeps them.

========================  =================================================================
names (Go ``autocert``)
``<host>``                private key PEM, then the chain, leaf first; EC keys only
``<host>+rsa``            the same with an RSA key: what autocert got for clients without
                          ECDSA. Served beside the other until it ends; we never get one
``acme_account+key``      the account's key; ``acme_account.key`` is its old name
addresses (``ipcert.go``)
``<ip>.crt``, ``.key``    chain and key; ``:`` of the address is written ``.``
``acme-account.key``      another account
========================  =================================================================

Either server can take over the other's directory: keys are SEC1, private files 0600, the
directory 0700, every write is atomic, nothing stands behind the last END line (autocert takes
a file with more for broken). What cannot be used is as good as not there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.logger import Logger

from derp.errors import ConfigError
from derp.net.acme_problem import ACMEError
from derp.net.cert_files import KeyedChain, covers, parse_keyed_chain
from derp.net.private_files import PRIVATE, PUBLIC, cure_of, make_private_directory, write_file
from derp.wire.jose import AccountKey

_MAX_FILE_LEN: Final = 1 << 20

log = Logger()


class CertificateStore(Protocol):
    """Where certificates of one account are kept."""

    def account_key(self) -> AccountKey:
        """
        Read the account's key, or make it.

        :raises ACMEError: if there is a file without a usable key in it.
        """

    def load(self, name: str, now: float) -> KeyedChain | None:
        """Read a certificate that may be served at this time; ``None`` if there is none."""

    def load_rsa(self, name: str, now: float) -> KeyedChain | None:
        """Read one to be served beside it, to clients that know no ECDSA."""

    def save(self, name: str, chain: KeyedChain) -> None:
        """
        Write a certificate.

        :raises OSError: if that fails; what was there is still there.
        """


class HostFiles:
    """
    Certificates of names, as ``autocert.DirCache`` has them.

    :param directory: made when it is first written to.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def account_key(self) -> AccountKey:
        """See :class:`CertificateStore`."""
        paths = [self._directory / name for name in ("acme_account+key", "acme_account.key")]
        return _account_key(paths)

    def load(self, name: str, now: float) -> KeyedChain | None:
        """See :class:`CertificateStore`."""
        return self._load(name, name, ec.EllipticCurvePublicKey, now)

    def load_rsa(self, name: str, now: float) -> KeyedChain | None:
        """See :class:`CertificateStore`."""
        return self._load(name, f"{name}+rsa", rsa.RSAPublicKey, now)

    def _load(self, name: str, file_name: str, kind: type[Any], now: float) -> KeyedChain | None:
        path = self._directory / file_name
        content = _read(path)
        if content is None:
            return None
        try:
            chain = parse_keyed_chain(content, content, str(path), str(path))
        except ConfigError as error:
            log.warn("a cached certificate is not used: {error}", error=error)
            return None
        if not isinstance(chain.leaf.public_key(), kind):
            return None
        return chain if usable(chain, name, now) else None

    def save(self, name: str, chain: KeyedChain) -> None:
        """See :class:`CertificateStore`."""
        make_private_directory(self._directory)
        write_file(self._directory / name, chain.key_pem + chain.chain_pem, PRIVATE)


class AddressFiles:
    """
    Certificates of addresses, as ``ipCertManager`` has them.

    :param directory: made when it is first written to.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def account_key(self) -> AccountKey:
        """See :class:`CertificateStore`."""
        return _account_key([self._directory / "acme-account.key"])

    def load(self, name: str, now: float) -> KeyedChain | None:
        """See :class:`CertificateStore`."""
        paths = self._paths(name)
        contents = [_read(path) for path in paths]
        if contents[0] is None or contents[1] is None:
            return None
        try:
            chain = parse_keyed_chain(contents[0], contents[1], str(paths[0]), str(paths[1]))
        except ConfigError as error:
            log.warn("a cached certificate is not used: {error}", error=error)
            return None
        return chain if usable(chain, name, now) else None

    def load_rsa(self, name: str, now: float) -> KeyedChain | None:
        """There are none for addresses."""
        return None

    def save(self, name: str, chain: KeyedChain) -> None:
        """See :class:`CertificateStore`. Key first, as the reference."""
        make_private_directory(self._directory)
        chain_path, key_path = self._paths(name)
        write_file(key_path, chain.key_pem, PRIVATE)
        write_file(chain_path, chain.chain_pem, PUBLIC)

    def _paths(self, name: str) -> tuple[Path, Path]:
        base = name.replace(":", ".")
        return self._directory / f"{base}.crt", self._directory / f"{base}.key"


def usable(chain: KeyedChain, name: str, now: float) -> bool:
    """Whether a certificate is for this name and valid at this time."""
    leaf = chain.leaf
    begins, ends = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    return begins <= now < ends and covers(leaf, name)


def _account_key(paths: list[Path]) -> AccountKey:
    for path in paths:
        content = _read(path)
        if content is not None:
            try:
                return AccountKey.parse(content)
            except ValueError as error:
                raise ACMEError(
                    f"--certdir: {path} should hold the key of our ACME account, but {error}; "
                    "restore it, or move it away and a new account is made"
                ) from None
    key = AccountKey.generate()
    try:
        make_private_directory(paths[0].parent)
        write_file(paths[0], key.pem(), PRIVATE)
    except OSError as error:
        raise ACMEError(
            f"--certdir: cannot write {paths[0]} ({error.strerror}); {cure_of(error)}"
        ) from None
    return key


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_LEN)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warn("cannot read {path}: {error}", path=str(path), error=error.strerror)
        return None
