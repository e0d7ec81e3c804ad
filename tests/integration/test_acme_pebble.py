"""Our ACME client against Pebble."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from derp.net.acme_challenges import HTTP01
from derp.net.acme_client import ACMEClient, ExternalAccount
from derp.net.acme_dns_hook import DNS01Hook
from derp.net.acme_http import SignedRequests
from derp.net.acme_order import new_leaf_key, obtain, prove
from derp.net.acme_problem import ACMEError
from derp.net.acme_trust import AuthorityTrust, acme_agent
from derp.net.cert_files import KeyedChain, covers
from derp.wire.eab_key import parse_eab_key
from derp.wire.jose import AccountKey
from tests.free_ports import free_ports
from tests.pebble import Pebble, missing_pebble

reactor: Any = global_reactor

EAB_KEY = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"

HOOK = """
import json, os, sys, urllib.request
action, name, value = sys.argv[1:]
assert os.environ["CERTBOT_VALIDATION"] == value
print(action, name)
path, body = "clear-txt", {"host": name + "."}
if action == "add":
    path, body = "set-txt", {"host": name + ".", "value": value}
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open("http://127.0.0.1:PORT/" + path, json.dumps(body).encode()).read()
"""


class PebbleTests(TestCase):
    """Whole orders."""

    skip = missing_pebble()
    timeout = 240

    def setUp(self) -> None:
        self.http_port = free_ports(1)[0]
        self.key = AccountKey.generate()

    async def start(self, **options: Any) -> Pebble:
        """Start an authority that is stopped after the test."""
        pebble = Pebble(Path(self.mktemp()), http_port=self.http_port, **options)
        self.addCleanup(lambda: Deferred.fromCoroutine(pebble.stop()))
        await pebble.start()
        return pebble

    def client(self, pebble: Pebble, **options: Any) -> ACMEClient:
        """A new client of the test's account."""
        requests = SignedRequests(
            acme_agent(reactor, AuthorityTrust(str(pebble.ca_file))), reactor, time.time
        )
        return ACMEClient(requests, reactor, pebble.url, self.key, **options)

    def serve_challenges(self) -> HTTP01:
        """Answer http-01 on a port of this process."""
        solver = HTTP01(lambda host: True)
        port = reactor.listenTCP(
            self.http_port, Site(_Root(solver), reactor=reactor), interface="127.0.0.1"
        )
        self.addCleanup(port.stopListening)
        return solver

    async def issue(self, client: ACMEClient, name: str, solver: Any) -> KeyedChain:
        """Run one order."""
        order = await prove(client, name, [solver])
        return await obtain(client, name, order, new_leaf_key())

    async def test_http01(self) -> None:
        """A chain for a name; the account is found again by its key."""
        pebble = await self.start()
        solver = self.serve_challenges()
        client = self.client(pebble, email="me@example.com")
        chain = await self.issue(client, "derp.example.test", solver)
        self.assertTrue(covers(chain.leaf, "derp.example.test"))
        self.assertGreater(len(chain.certificates), 1)
        again = self.client(pebble, email="you@example.com")
        self.assertEqual(await again.register(), client.account_url)

    async def test_ip_address(self) -> None:
        """An address is an identifier of its own type."""
        pebble = await self.start()
        chain = await self.issue(self.client(pebble), "127.0.0.1", self.serve_challenges())
        self.assertTrue(covers(chain.leaf, "127.0.0.1"))

    async def test_dns_hook(self) -> None:
        """dns-01 by a command; the record is taken back."""
        pebble = await self.start()
        script = Path(self.mktemp())
        script.write_text(HOOK.replace("PORT", str(pebble.dns_management)))
        solver = DNS01Hook(reactor, (sys.executable, str(script)), os.environ)
        chain = await self.issue(self.client(pebble), "dns.example.test", solver)
        self.assertTrue(covers(chain.leaf, "dns.example.test"))

    async def test_trusted_by_environment(self) -> None:
        """SSL_CERT_FILE names the roots where no flag does; without either the CA is refused."""
        pebble = await self.start()
        requests = SignedRequests(acme_agent(reactor, AuthorityTrust()), reactor, time.time)
        client = ACMEClient(requests, reactor, pebble.url, self.key)
        with self.assertRaises(ACMEError) as caught:
            await client.register()
        self.assertIn("certificate verify failed", str(caught.exception))
        with mock.patch.dict(os.environ, SSL_CERT_FILE=str(pebble.ca_file)):
            self.assertTrue(await client.register())

    async def test_external_account(self) -> None:
        """Without the account an authority that wants one refuses, with it it serves."""
        pebble = await self.start(external={"kid-1": EAB_KEY})
        with self.assertRaises(ACMEError) as caught:
            await self.client(pebble).register()
        self.assertEqual(caught.exception.kind, "externalAccountRequired")
        external = ExternalAccount("kid-1", parse_eab_key(EAB_KEY))
        client = self.client(pebble, external=external)
        self.assertTrue(await client.register())

    async def test_failed_challenge(self) -> None:
        """The authority's reason is told; the second way is tried with a new order."""
        pebble = await self.start()
        client = self.client(pebble)
        broken, solver = HTTP01(lambda host: False), self.serve_challenges()
        with self.assertRaises(ACMEError) as caught:
            await self.issue(client, "a.example.test", broken)
        self.assertIn("http-01 for a.example.test failed: unauthorized", str(caught.exception))
        order = await prove(client, "a.example.test", [broken, solver])
        self.assertEqual(order.status, "ready")

    async def test_authority_forgets_everything(self) -> None:
        """Nonces, account and directory of a dead process do not stop the next order."""
        pebble = await self.start()
        solver = self.serve_challenges()
        client = self.client(pebble)
        await client.register()
        await pebble.stop()
        with self.assertRaises(ACMEError) as caught:
            await self.issue(client, "b.example.test", solver)
        self.assertIn("cannot reach https://127.0.0.1", str(caught.exception))
        await pebble.start()
        chain = await self.issue(client, "b.example.test", solver)
        self.assertTrue(covers(chain.leaf, "b.example.test"))


class _Root(Resource):
    """Leads every path below the well-known one to the solver."""

    isLeaf = True

    def __init__(self, solver: HTTP01) -> None:
        super().__init__()
        self._solver = solver

    def render(self, request: Any) -> bytes:
        request.postpath = [request.path.rpartition(b"/")[2]]
        return self._solver.render(request)
