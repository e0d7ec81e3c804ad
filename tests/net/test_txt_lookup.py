"""TXT lookups over real sockets, against a name server of the test's own."""

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.names import dns, server
from twisted.names.error import DNSNameError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from derp.net import txt_lookup
from derp.net.txt_lookup import TXTLookup, name_servers


class NameServersTests(SynchronousTestCase):
    """``name_servers``."""

    def test_file(self) -> None:
        """Only ``nameserver`` lines count."""
        path = Path(self.mktemp())
        path.write_text("# x\nsearch a\nnameserver 1.1.1.1\nnameserver\nnameserver ::1 # y\n")
        self.assertEqual(name_servers(str(path)), [("1.1.1.1", 53), ("::1", 53)])

    def test_nothing(self) -> None:
        """Without a file, or a server in it, the local one is asked."""
        self.assertEqual(name_servers("/nonexistent"), [("127.0.0.1", 53)])


class Zone:
    """A name server that knows one name."""

    def query(self, query: Any, timeout: Any = None) -> Deferred[Any]:
        if query.name.name != b"t.example":
            return fail(DNSNameError("no such name"))
        record = dns.RRHeader(b"t.example", dns.TXT, payload=dns.Record_TXT(b"4", b"2"))
        return succeed(([record], [], []))


class TXTLookupTests(TestCase):
    """``TXTLookup``."""

    def setUp(self) -> None:
        protocol = dns.DNSDatagramProtocol(server.DNSServerFactory(clients=[Zone()]))
        port = reactor.listenUDP(0, protocol, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        servers = [("127.0.0.1", port.getHost().port)]
        self.patch(txt_lookup, "name_servers", lambda: servers)

    def test_strings_are_joined(self) -> None:
        """The strings of one record are one text, as in Go."""
        found: Deferred[list[str]] = TXTLookup(reactor)("t.example")
        return found.addCallback(self.assertEqual, ["42"])

    def test_no_such_name(self) -> None:
        """A name that does not exist is an error."""
        return self.assertFailure(TXTLookup(reactor)("nothing.example"), DNSNameError)
