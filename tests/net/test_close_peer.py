"""Tests for :mod:`derp.net.close_peer`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from derp.net.close_peer import ClosePeerPage
from derp.wire.keys import format_node_public
from tests.core.fakes import NOBODY, FakeClient, make_relay


class ClosePeerPageTests(SynchronousTestCase):
    """Who is closed, and who is not."""

    def setUp(self) -> None:
        self.relay = make_relay()
        self.clients = [FakeClient(self.relay, name) for name in ("a", "a", "b")]
        self.page = ClosePeerPage(self.relay)

    def ask(self, key: str, method: bytes = b"POST", header: str = "derp") -> Any:
        request = DummyRequest([b""])
        request.method = method
        request.requestHeaders.setRawHeaders("Sec-Debug", [header])
        request.addArg(b"key", key.encode())
        request.body = self.page.render(request)
        return request

    def closed(self) -> list[int]:
        return [len(client.sink.closed) for client in self.clients]

    def test_closed(self) -> None:
        """Every connection of the key, and no other."""
        request = self.ask(format_node_public(self.clients[0].key))
        self.assertIsNone(request.responseCode)
        self.assertIn(b"2 connections of nodekey:", request.body)
        self.assertEqual(self.closed(), [1, 1, 0])
        self.assertIn("/debug/close-peer", self.clients[0].sink.closed[0])

    def test_not_closed(self) -> None:
        """Without POST, without the header, without a key, and for a key that is not here."""
        key = format_node_public(self.clients[0].key)
        for request, status in (
            (self.ask(key, method=b"GET"), 405),
            (self.ask(key, header="yes"), 403),
            (self.ask(""), 400),
            (self.ask(key[:-1]), 400),
            (self.ask("nodekey:é"), 400),
            (self.ask(format_node_public(NOBODY)), 404),
        ):
            self.assertEqual(request.responseCode, status)
        self.assertEqual(self.closed(), [0, 0, 0])
