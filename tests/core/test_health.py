"""What clients are told of the relay's own condition."""

from twisted.trial.unittest import SynchronousTestCase

from derp.core.health import Health
from derp.wire.frames import FrameType
from tests.core.fakes import FakeClient, make_relay


class HealthTests(SynchronousTestCase):
    """Troubles go to everybody who is logged in, once."""

    def test_told_on_change(self) -> None:
        """A trouble is told when it comes and when it goes, and not in between."""
        relay = make_relay()
        client = FakeClient(relay, "a")
        relay.health.report("certificate", "expires soon")
        relay.health.report("certificate", "expires soon")
        self.assertEqual(client.take_raw(), [(FrameType.HEALTH, b"expires soon")])
        relay.health.report("certificate", "")
        relay.health.report("certificate", "")
        self.assertEqual(client.take_raw(), [(FrameType.HEALTH, b"")])

    def test_new_client_is_told_behind_server_info(self) -> None:
        """ServerInfo clears what a client knows, so Health comes after it."""
        relay = make_relay()
        relay.health.report("certificate", "expires soon")
        client = FakeClient(relay, "a")  # asserts that ServerInfo comes first
        self.assertEqual(client.take_raw(), [(FrameType.HEALTH, b"expires soon")])

    def test_well_client_is_told_nothing(self) -> None:
        """A well relay sends no Health frame, as the reference."""
        client = FakeClient(make_relay(), "a")
        self.assertEqual(client.take_raw(), [])

    def test_client_in_login_is_not_told(self) -> None:
        """A change while a login is under way reaches that client once, behind ServerInfo."""
        relay = make_relay()
        client = FakeClient(relay, "a", admission=lambda request: None, log_in=False)
        client.feed(client.login_frame())
        relay.health.report("certificate", "expires soon")
        self.assertEqual(client.take_raw(), [])
        client.session.admit()
        client.take_server_info()
        self.assertEqual(client.take_raw(), [(FrameType.HEALTH, b"expires soon")])

    def test_troubles_are_joined(self) -> None:
        """Two parts in trouble are one text, and one of them mended leaves the other."""
        health = Health(tuple)
        health.report("a", "one")
        health.report("b", "two")
        self.assertEqual(health.text, "one; two")
        health.report("a", "")
        self.assertEqual(health.text, "two")
