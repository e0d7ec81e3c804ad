"""A relay whose mesh key is in setec: serves without it, meshes once it is there."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Site

from derp.net.mesh_service import NO_KEY
from derp.wire.messages import Health
from tests.integration.mesh_case import MeshTestCase, Node
from tests.integration.relay_case import HOST, MESH_KEY, reactor


class FakeSetec(Resource):
    """Out of order, until it is not."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.works = False
        self.asked = 0

    def render(self, request: Any) -> bytes:
        self.asked += 1
        if not self.works:
            request.setResponseCode(500)
            return b"out of order"
        value = b64encode(MESH_KEY.hex().encode()).decode()
        return json.dumps({"Value": value, "Version": 1}).encode()


class SetecTests(MeshTestCase):
    """One relay with the key, and one that has to ask for it."""

    async def test_late_key(self) -> None:
        """It serves at once and says what is missing; a second start asks nobody."""
        setec = FakeSetec()
        site = Site(setec)
        site.log = lambda request: None
        port = reactor.listenTCP(0, site, interface=HOST)
        self.addCleanup(port.stopListening)
        (other,) = await self.start_mesh(1)
        node = Node(0, self.mktemp(), 1)
        self.addCleanup(node.wires[0].close)
        node.wires[0].leads_to = other.port
        (node.directory / "peers").write_text(f"{node.name_of(0)}#{other.pin()}\n")
        cache = node.directory / "deep" / "secrets"
        flags = (
            *node.flags,
            *("--mesh-psk-file=", "--secrets-url", f"http://{HOST}:{port.getHost().port}/"),
            *("--secrets-cache-dir", str(cache)),
        )
        node.child = self.start_child(*flags)
        await node.child.ready()
        _, heard = await self.client(node.port)
        self.assertEqual(await heard.next(), Health(NO_KEY))
        await self.until(lambda: setec.asked, "a question")
        self.assertEqual(node.wires[0].taken, 0)
        setec.works = True
        await self.eventually(lambda: self.linked(node, [other]), "a link")
        self.assertEqual(await heard.next(), Health(""))
        self.assertIn("500 Internal Server Error: out of order", node.child.log)
        self.assertNotIn(MESH_KEY.hex(), node.child.log)
        await node.child.end()
        asked = setec.asked
        node.child = self.start_child(*flags)
        await node.child.ready()
        await self.eventually(lambda: self.linked(node, [other]), "a link again")
        self.assertEqual(setec.asked, asked)
