"""Recognise disco: Tailscale's NAT traversal messages, which travel beside WireGuard's."""

from __future__ import annotations

DISCO_MAGIC = b"TS\xf0\x9f\x92\xac"
"""First six bytes of a disco packet ("TS" and U+1F4AC; disco.Magic)."""

DISCO_MIN_LEN = 6 + 32 + 24
"""Magic, sender's disco key, NaCl nonce: nothing shorter is disco."""


def looks_like_disco(packet: bytes | bytearray | memoryview) -> bool:
    """
    Tell whether a packet is shaped like disco; nothing is opened or verified.

    Source: disco.LooksLikeDiscoWrapper.
    """
    return len(packet) >= DISCO_MIN_LEN and packet[:6] == DISCO_MAGIC
