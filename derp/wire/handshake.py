"""
The login: ServerKey, ClientInfo and ServerInfo.

Flow: the server greets with its key, the client answers with its own key and a NaCl box of
JSON to that server, the server closes the login with a box of JSON to the client::

    S → C   ServerKey    01 | 40   | magic 8 | server key 32 (| what the future brings)
    C → S   ClientInfo   02 | 56+… | client key 32 | nonce 24 | tag 16 | JSON
    S → C   ServerInfo   03 | 40+… | nonce 24 | tag 16 | JSON

The box is ``crypto_box`` (X25519, XSalsa20-Poly1305). Both directions use the same shared key,
computed once per login: the scalar multiplication is most of a login's price.
Source: tailscale ``derp/derp.go``, ``derp/derp_client.go``, ``types/key/node.go``.
"""

from __future__ import annotations

import json
from binascii import Error as HexError
from binascii import unhexlify
from dataclasses import dataclass
from typing import Any

from nacl.bindings import (
    crypto_box_afternm,
    crypto_box_beforenm,
    crypto_box_open_afternm,
)
from nacl.exceptions import CryptoError

from derp.errors import ProtocolError
from derp.wire.frames import (
    KEY_LEN,
    MAGIC,
    MIN_CLIENT_INFO,
    NONCE_LEN,
    PROTOCOL_VERSION,
    FrameType,
    encode_frame,
)
from derp.wire.go_json import Fields, field, parse_object

MAX_SERVER_KEY = 1024
"""Longest greeting a client reads."""
MAX_INFO_JSON = 1 << 20
"""Longest ServerInfo JSON a client opens."""
_MESH_KEY_HEX_LEN = 64
_ZERO_KEY = bytes(KEY_LEN)
_CLIENT_INFO = "the client info"
_SERVER_INFO = "the server info"


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """What a client says of itself. The server judges none of it but the mesh key."""

    mesh_key: bytes | None = None
    version: int = 0
    can_ack_pings: bool = False
    is_prober: bool = False
    app_name: str = ""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says of itself; zero limits mean none. derper never sets them."""

    version: int = PROTOCOL_VERSION
    bytes_per_second: int = 0
    burst_bytes: int = 0


def shared_key(private: bytes, public: bytes) -> bytes:
    """
    Compute the box key of two parties.

    :raises ProtocolError: if the remote's key is zero or of low order, to which no box can be
        sealed (the reference panics there).
    :raises ValueError: if our own key is zero.
    """
    if private == _ZERO_KEY:
        raise ValueError("our own private key is all zero")
    if public == _ZERO_KEY:
        raise ProtocolError("the remote key is all zero")
    try:
        return crypto_box_beforenm(public, private)
    except (RuntimeError, CryptoError) as error:
        raise ProtocolError("the remote key is not a usable Curve25519 key") from error


def seal(shared: bytes, nonce: bytes, plaintext: bytes) -> bytes:
    """Seal a box: ``nonce 24 | tag 16 | ciphertext``. A nonce must never be used twice."""
    return nonce + crypto_box_afternm(plaintext, nonce, shared)


def open_box(shared: bytes, sealed: bytes) -> bytes:
    """
    Open ``nonce 24 | tag 16 | ciphertext``.

    :raises ProtocolError: if it was not sealed with this shared key.
    """
    try:
        return crypto_box_open_afternm(sealed[NONCE_LEN:], sealed[:NONCE_LEN], shared)
    except (CryptoError, ValueError) as error:
        raise ProtocolError("the box does not open") from error


def encode_server_key(server_public: bytes) -> bytes:
    """Encode the greeting frame."""
    if len(server_public) != KEY_LEN:
        raise ValueError(f"a node key has {KEY_LEN} bytes, not {len(server_public)}")
    return encode_frame(FrameType.SERVER_KEY, MAGIC + server_public)


def parse_server_key(payload: bytes) -> bytes:
    """
    Read the greeting's payload, give the server's key. Extra bytes are left to the future.

    :raises ProtocolError: if it is no greeting.
    """
    if len(payload) < len(MAGIC) + KEY_LEN or not payload.startswith(MAGIC):
        raise ProtocolError("the server's greeting is not a DERP ServerKey")
    return payload[len(MAGIC) : len(MAGIC) + KEY_LEN]


def _mesh_key(values: Fields) -> bytes | None:
    if "meshkey" not in values:
        return None
    text = values["meshkey"]
    try:
        if not isinstance(text, str) or len(text) != _MESH_KEY_HEX_LEN:
            raise ValueError
        key = unhexlify(text)
    except (ValueError, HexError) as error:
        raise ProtocolError("invalid mesh key in the client info: not 64 hex digits") from error
    return None if key == _ZERO_KEY else key


def parse_client_info_json(data: bytes) -> ClientInfo:
    """
    Read ClientInfo's JSON: names in any case, unknown ones ignored, ``{}`` is fine.

    :raises ProtocolError: for bad JSON, wrong types, or a mesh key that is present but not 64
        hex digits (a well-formed wrong one is no error: that client is just no mesh peer).
    """
    values = parse_object(data, _CLIENT_INFO)
    return ClientInfo(
        mesh_key=_mesh_key(values),
        version=field(values, "version", 0, _CLIENT_INFO),
        can_ack_pings=field(values, "canackpings", False, _CLIENT_INFO),
        is_prober=field(values, "isprober", False, _CLIENT_INFO),
        app_name=field(values, "appname", "", _CLIENT_INFO),
    )


def split_client_info(payload: bytes) -> tuple[bytes, bytes]:
    """
    Cut ClientInfo's payload into ``(client key, sealed box)``.

    :raises ProtocolError: if it is too short to hold both.
    """
    if len(payload) < MIN_CLIENT_INFO:
        raise ProtocolError(f"client info of {len(payload)} bytes; at least {MIN_CLIENT_INFO}")
    return payload[:KEY_LEN], payload[KEY_LEN:]


def client_info_json(info: ClientInfo) -> bytes:
    """Write ClientInfo's JSON as stock clients do, absent fields omitted."""
    values: dict[str, Any] = {}
    if info.mesh_key and info.mesh_key != _ZERO_KEY:
        values["meshKey"] = info.mesh_key.hex()
    if info.version:
        values["version"] = info.version
    values["CanAckPings"] = info.can_ack_pings
    if info.is_prober:
        values["IsProber"] = True
    if info.app_name:
        values["AppName"] = info.app_name
    return json.dumps(values, separators=(",", ":")).encode()


def encode_client_info(
    client_public: bytes, shared: bytes, nonce: bytes, info: ClientInfo
) -> bytes:
    """Encode the ClientInfo frame."""
    box = seal(shared, nonce, client_info_json(info))
    return encode_frame(FrameType.CLIENT_INFO, client_public + box)


def encode_server_info(shared: bytes, nonce: bytes, info: ServerInfo = ServerInfo()) -> bytes:
    """Encode the ServerInfo frame; zero fields are omitted."""
    values = {
        "version": info.version,
        "TokenBucketBytesPerSecond": info.bytes_per_second,
        "TokenBucketBytesBurst": info.burst_bytes,
    }
    text = json.dumps({name: v for name, v in values.items() if v}, separators=(",", ":"))
    return encode_frame(FrameType.SERVER_INFO, seal(shared, nonce, text.encode()))


def open_server_info(shared: bytes, sealed: bytes) -> ServerInfo:
    """
    Open ServerInfo's payload.

    :raises ProtocolError: if the box does not open or holds no such JSON; a client then gives
        the connection up.
    """
    if len(sealed) > NONCE_LEN + MAX_INFO_JSON:
        raise ProtocolError(f"server info of {len(sealed)} bytes")
    values = parse_object(open_box(shared, sealed), _SERVER_INFO)
    return ServerInfo(
        version=field(values, "version", 0, _SERVER_INFO),
        bytes_per_second=field(values, "tokenbucketbytespersecond", 0, _SERVER_INFO),
        burst_bytes=field(values, "tokenbucketbytesburst", 0, _SERVER_INFO),
    )
