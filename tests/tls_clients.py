"""TLS clients in memory: their ClientHello, and a handshake against a server context."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Sequence
from dataclasses import dataclass


def client_context(
    alpn: Sequence[str] = (), maximum: ssl.TLSVersion | None = None, ciphers: str | None = None
) -> ssl.SSLContext:
    """Make a client context that verifies nothing and may be held to an old TLS version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if maximum is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = min(context.minimum_version, maximum)
            context.maximum_version = maximum
    if ciphers is not None:
        context.set_ciphers(ciphers)
    return context


def client_hello(context: ssl.SSLContext, server_name: str | None = None) -> bytes:
    """Return the first bytes this client sends."""
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a client finished its handshake alone")


@dataclass(frozen=True)
class Handshake:
    """What the client saw of a finished handshake."""

    chain: list[bytes]
    """DER certificates, leaf first."""
    version: str | None
    cipher: str
    alpn: str | None
    bytes_after_finished: int
    """Ciphertext the server sent behind its handshake: session tickets of TLS 1.3."""


def shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, server_name: str | None = None
) -> Handshake:
    """
    Run one handshake in memory.

    :raises ssl.SSLError: as the *client* meets it, when the server refuses.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=server_name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                if side is ours:
                    raise
                ours.do_handshake()  # reads the alert
            waiting.remove(side)
    if waiting:
        raise AssertionError("the handshake does not end")
    cipher = ours.cipher()
    if cipher is None:
        raise AssertionError("a finished handshake without a cipher")
    return Handshake(
        chain_seen(ours),
        ours.version(),
        cipher[0],
        ours.selected_alpn_protocol(),
        to_client.pending,
    )


def chain_seen(client: ssl.SSLObject) -> list[bytes]:
    """Return the chain as the server sent it; public from Python 3.13 on."""
    if hasattr(client, "get_unverified_chain"):
        return list(client.get_unverified_chain())
    return [bytes(each.public_bytes(2)) for each in client._sslobj.get_unverified_chain()]  # type: ignore[attr-defined]
