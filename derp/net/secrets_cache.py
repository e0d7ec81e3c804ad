"""
The file in which secrets of a setec server survive a restart (``--secrets-cache-dir``)::

    {"prod/derp/meshkey": {"secret": {"Value": "<base64>", "Version": 3}, "lastAccess": "1732…"}}

The format is that of setec's own client (``setec.FileCache``), so that either derper can use
the other's. **Trap**: the flag says *dir* and means a file.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from derp.errors import ConfigError, ProtocolError
from derp.net.private_files import make_private_directory, write_file
from derp.quoting import quoted

FLAG: Final = "--secrets-cache-dir"
_MAX_LEN: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Secret:
    """One version of a secret."""

    value: bytes = field(repr=False)
    version: int


def read_secret_json(fields: Any) -> Secret:
    """
    Read ``{"Value": …, "Version": …}``, as cache and server have it.

    :raises ProtocolError: if it is not that; nothing of the value is in the text.
    """
    value = fields.get("Value") if isinstance(fields, dict) else None
    version = fields.get("Version") if isinstance(fields, dict) else None
    if not isinstance(value, str) or type(version) is not int or version < 0:
        raise ProtocolError("it has no Value and Version")
    try:
        return Secret(b64decode(value, validate=True), version)
    except (Base64Error, ValueError):
        raise ProtocolError("its Value is no base64") from None


class SecretsCache:
    """
    The cache file of one relay.

    :raises ConfigError: if its path is something else than a file.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        if self._path.exists() and not self._path.is_file():
            raise ConfigError(
                f"{FLAG}: {quoted(path)} is there and is not a regular file: name a file, "
                "not a directory, whatever the flag is called"
            )

    def read(self, name: str) -> Secret | None:
        """
        Find a secret; there is none in a file that does not exist.

        :raises ProtocolError: if the file cannot be read or is no cache. It is as good as empty.
        """
        try:
            with open(self._path, "rb") as file:
                content = json.loads(file.read(_MAX_LEN))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ProtocolError(f"cannot read {self} ({error.strerror})") from None
        except ValueError:
            raise ProtocolError(f"{self} is no JSON") from None
        entries = content if isinstance(content, dict) else None
        if entries is None or "" in entries or None in entries.values():
            raise ProtocolError(f"{self} is no cache of secrets")
        if name not in entries:
            return None
        entry = entries[name]
        try:
            return read_secret_json(entry.get("secret") if isinstance(entry, dict) else None)
        except ProtocolError as error:
            raise ProtocolError(f"{self}, {quoted(name)}: {error}") from None

    def write(self, name: str, secret: Secret, now: float) -> None:
        """
        Keep this secret, and no other.

        :param now: Unix time in seconds.
        :raises OSError: if that fails.
        """
        value = b64encode(secret.value).decode("ascii")
        entry = {
            "secret": {"Value": value, "Version": secret.version},
            "lastAccess": str(int(now)),
        }
        make_private_directory(self._path.parent)
        write_file(self._path, json.dumps({name: entry}, separators=(",", ":")).encode("utf-8"))

    def __str__(self) -> str:
        return quoted(str(self._path))
