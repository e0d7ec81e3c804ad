"""
``/debug/close-peer``: cut every connection of a client, as a mesh peer may (ClosePeer)::

    curl -X POST -H 'Sec-Debug: derp' 'http://relay/debug/close-peer?key=nodekey:...'

Who may see debug pages may do it, but not a web page in his browser: a form cannot send the
header, and no script may set one that begins with ``Sec-``. Nothing keeps the client from
coming back; whom admission refuses is asked about again when it does.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource

from derp.core.relay import Relay
from derp.errors import ProtocolError
from derp.net.answers import first_header, plain_error
from derp.wire.keys import format_node_public, parse_node_public

_USAGE: Final = (
    "To close, use: curl -X POST -HSec-Debug:derp 'http://derp/debug/close-peer?key=nodekey:...'"
)


class ClosePeerPage(Resource):
    """
    Closes the connections of the key in the query.

    :param relay: whose clients they are; those of other relays of the mesh are not.
    """

    isLeaf = True
    log = Logger(namespace="derp")

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay

    def render(self, request: IRequest) -> bytes:
        if request.method != b"POST":
            request.setHeader(b"Allow", b"POST")
            return plain_error(request, 405, _USAGE)
        if first_header(request, b"Sec-Debug") != b"derp":
            return plain_error(request, 403, _USAGE)
        try:
            key = parse_node_public(request.args.get(b"key", [b""])[0].decode("ascii", "replace"))
        except ProtocolError:
            return plain_error(request, 400, f"no node key. {_USAGE}")
        name = format_node_public(key)
        closed = self._relay.close_peer(key, "asked for at /debug/close-peer")
        if not closed:
            return plain_error(request, 404, f"{name} is not connected here")
        self.log.info("debug: {closed} connections of {name} closed", closed=closed, name=name)
        request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
        return f"{closed} connections of {name} closed\n".encode("ascii")
