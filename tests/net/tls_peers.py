"""
TLS clients on sockets: the standard library's, and one that makes its records by hand.

Stock clients cannot be made to send a key update, an empty record or a second ClientHello at
will. :class:`RecordClient` lets the standard library do the handshake, takes the secrets from
its key log, and encrypts and decrypts from there on by itself (RFC 8446 section 5, 7;
RFC 5246 section 6, RFC 5288).
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tests.net.sockets import PlainClient
from tests.tls_clients import client_context

ALERT = 21
HANDSHAKE = 22
APPLICATION_DATA = 23
CLOSE_NOTIFY = b"\x01\x00"
TLS12_CIPHER = "ECDHE-ECDSA-AES128-GCM-SHA256"


class TLSClient(PlainClient):
    """A stock client; what it decrypted is in ``received``."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> None:
        super().__init__(sock)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or client_context()).wrap_bio(
            self.incoming, self.outgoing, server_hostname=server_name
        )
        self.ready = False
        self.closed = False
        """close_notify has come."""
        self.error: ssl.SSLError | None = None
        self._step()

    @property
    def done(self) -> bool:
        """Whether the handshake has an outcome."""
        return self.ready or self.error is not None or self.ended is not None

    def take(self, data: bytes) -> None:
        self.incoming.write(data)
        self._step()

    def _step(self) -> None:
        try:
            if not self.ready:
                self.tls.do_handshake()
                self.ready = True
                self.opened()
            while self.ready and not self.closed:
                data = self.tls.read(1 << 16)
                if data:
                    self.received += data
                else:
                    self.closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        except ssl.SSLError as error:
            self.error = self.error or error
        self.flush()

    def opened(self) -> None:
        """The handshake is done."""

    def flush(self) -> None:
        """Send what the engine has written."""
        self.send(self.outgoing.read())

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        self.tls.write(data)
        self.flush()

    def say_goodbye(self) -> None:
        """Send close_notify."""
        with suppress(ssl.SSLError):  # it wants to read our answer first
            self.tls.unwrap()
        self.flush()


@dataclass
class _Direction:
    """One direction's keys and how many records it has had."""

    key: AESGCM
    iv: bytes
    sequence: int = 0
    secret: bytes = b""


class RecordClient(TLSClient):
    """
    A client that makes its own records once the handshake is done.

    :param keylog: a file that does not exist yet.
    """

    def __init__(self, sock: socket.socket, keylog: str, *, tls12: bool = False) -> None:
        context = client_context(
            maximum=ssl.TLSVersion.TLSv1_2 if tls12 else None,
            ciphers=TLS12_CIPHER if tls12 else None,
        )
        context.keylog_filename = keylog
        self._keylog = Path(keylog)
        self._tls12 = tls12
        self._transcript = bytearray()
        self._stream = bytearray()
        self.records: list[tuple[int, bytes]] = []
        """What the server sent since: content types and plaintexts."""
        self._ours: _Direction | None = None
        self._theirs: _Direction | None = None
        super().__init__(sock, context)

    def take(self, data: bytes) -> None:
        if self.ready:
            self._stream += data
            self._open_records()
        else:
            self._transcript += data
            super().take(data)

    def _step(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.flush()
            return
        except ssl.SSLError as error:
            self.error = error
            self.flush()
            return
        self.flush()
        self.ready = True
        self._take_keys()
        self._stream += self.incoming.read()

    # -- keys ------------------------------------------------------------------------------

    def _take_keys(self) -> None:
        secrets = {}
        for line in self._keylog.read_text().splitlines():
            if line and not line.startswith("#"):
                label, random, secret = line.split()
                secrets[label] = (bytes.fromhex(random), bytes.fromhex(secret))
        if self._tls12:
            self._take_tls12_keys(*secrets["CLIENT_RANDOM"])
        else:
            self._ours = self._direction(secrets["CLIENT_TRAFFIC_SECRET_0"][1])
            self._theirs = self._direction(secrets["SERVER_TRAFFIC_SECRET_0"][1])

    def _hash(self) -> hashes.HashAlgorithm:
        cipher = self.tls.cipher()
        assert cipher is not None
        return hashes.SHA384() if cipher[0].endswith("SHA384") else hashes.SHA256()

    def _expand(self, secret: bytes, label: bytes, length: int) -> bytes:
        """HKDF-Expand-Label with an empty context."""
        full = b"tls13 " + label
        info = length.to_bytes(2, "big") + bytes((len(full),)) + full + b"\0"
        return HKDFExpand(self._hash(), length, info).derive(secret)

    def _direction(self, secret: bytes) -> _Direction:
        size = 32 if isinstance(self._hash(), hashes.SHA384) else 16
        key = AESGCM(self._expand(secret, b"key", size))
        return _Direction(key, self._expand(secret, b"iv", 12), secret=secret)

    def _updated(self, old: _Direction) -> _Direction:
        return self._direction(self._expand(old.secret, b"traffic upd", self._hash().digest_size))

    def _take_tls12_keys(self, client_random: bytes, master: bytes) -> None:
        server_random = bytes(self._transcript[11:43])  # of the ServerHello
        block = _prf_sha256(master, b"key expansion" + server_random + client_random, 40)
        # Either side's Finished was its first encrypted record.
        self._ours = _Direction(AESGCM(block[:16]), block[32:36], 1)
        self._theirs = _Direction(AESGCM(block[16:32]), block[36:40], 1)

    # -- records ---------------------------------------------------------------------------

    def record(self, content_type: int, content: bytes, *, padding: int = 0) -> bytes:
        """Make the next encrypted record."""
        assert self._ours is not None
        way = self._ours
        number = way.sequence.to_bytes(8, "big")
        way.sequence += 1
        if self._tls12:
            header = bytes((content_type, 3, 3))
            aad = number + header + len(content).to_bytes(2, "big")
            body = number + way.key.encrypt(way.iv + number, content, aad)
            return header + len(body).to_bytes(2, "big") + body
        inner = content + bytes((content_type,)) + bytes(padding)
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        return header + way.key.encrypt(_xor(way.iv, number), inner, header)

    def key_update(self, *, answer: bool) -> bytes:
        """Make a KeyUpdate; what follows is under the next key."""
        assert self._ours is not None
        made = self.record(HANDSHAKE, b"\x18\0\0\x01" + bytes((answer,)))
        self._ours = self._updated(self._ours)
        return made

    def _open_records(self) -> None:
        stream = self._stream
        while len(stream) >= 5:
            end = 5 + int.from_bytes(stream[3:5], "big")
            if len(stream) < end:
                return
            header, body = bytes(stream[:5]), bytes(stream[5:end])
            del stream[:end]
            self._open(header, body)

    def _open(self, header: bytes, body: bytes) -> None:
        way: Any = self._theirs
        number = way.sequence.to_bytes(8, "big")
        way.sequence += 1
        if self._tls12:
            aad = number + header[:3] + (len(body) - 24).to_bytes(2, "big")
            content = way.key.decrypt(way.iv + body[:8], body[8:], aad)
            content_type = header[0]
        else:
            inner = way.key.decrypt(_xor(way.iv, number), body, header).rstrip(b"\0")
            content, content_type = inner[:-1], inner[-1]
        self.records.append((content_type, content))
        if content_type == APPLICATION_DATA:
            self.received += content
        elif content_type == HANDSHAKE and content[:1] == b"\x18":
            self._theirs = self._updated(way)
        elif (content_type, content) == (ALERT, CLOSE_NOTIFY):
            self.closed = True

    def of_type(self, content_type: int) -> list[bytes]:
        """The records of one type that the server sent."""
        return [content for kind, content in self.records if kind == content_type]


def _xor(iv: bytes, number: bytes) -> bytes:
    padded = number.rjust(len(iv), b"\0")
    return bytes(a ^ b for a, b in zip(iv, padded, strict=True))


def _prf_sha256(secret: bytes, seed: bytes, length: int) -> bytes:
    """P_SHA256 of RFC 5246 section 5; ``seed`` begins with the label."""

    def mac(data: bytes) -> bytes:
        code = hmac.HMAC(secret, hashes.SHA256())
        code.update(data)
        return code.finalize()

    made, link = b"", seed
    while len(made) < length:
        link = mac(link)
        made += mac(link + seed)
    return made[:length]
