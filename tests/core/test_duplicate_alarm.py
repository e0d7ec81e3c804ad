"""Tests for :mod:`derp.core.duplicate_alarm`, through the relay that feeds it."""

from twisted.trial.unittest import SynchronousTestCase

from derp.core.duplicate_alarm import AGAIN_S, ALARM, QUIET_S, SETTLE_S, TURNS
from derp.wire.frames import FrameType, encode_note_preferred
from tests.core.fakes import FakeClient, make_relay

TOLD = (FrameType.HEALTH, ALARM.encode())
OVER = (FrameType.HEALTH, b"")


class DuplicateAlarmTests(SynchronousTestCase):
    """Whose key is really used twice is told, and nobody else."""

    def setUp(self) -> None:
        self.relay = make_relay()
        self.old = FakeClient(self.relay, "a")
        self.new = FakeClient(self.relay, "a")

    def pass_time(self, seconds: float) -> None:
        self.relay.now += seconds

    def speak(self, *clients: FakeClient) -> None:
        for client in clients:
            client.feed(encode_note_preferred(True))

    def fight(self) -> None:
        """The shortest sequence that proves that both live."""
        self.speak(self.old, self.new, self.old)

    def assert_told(self, *frames: tuple[int, bytes]) -> None:
        for client in (self.old, self.new):
            self.assertEqual(client.take_raw(), list(frames))

    def test_told_and_told_over(self) -> None:
        """Both connections are told once that they share a key, and the survivor that it ended."""
        self.pass_time(SETTLE_S)
        self.speak(self.old, self.new)
        self.assert_told()
        self.speak(self.old)
        self.assert_told(TOLD)
        self.speak(self.new, self.old, self.new)
        self.assert_told()
        self.assertEqual(len(self.relay.duplicate_alarm), 1)
        self.old.leave()
        self.assertEqual(self.new.take_raw(), [OVER])
        alarm = self.relay.duplicate_alarm
        self.assertEqual((len(alarm), alarm.alarms), (0, 1))

    def test_silent_twin(self) -> None:
        """The connection that a reconnecting client leaves behind raises no alarm, ever."""
        for _ in range(100):
            self.pass_time(SETTLE_S)
            self.speak(self.new, self.new)
        self.assert_told()
        self.old.leave()
        self.assert_told()

    def test_what_was_under_way(self) -> None:
        """Frames of the old connection that arrive late prove nothing, however they interleave."""
        for _ in range(TURNS * 2):
            self.speak(self.old, self.new)
        self.pass_time(SETTLE_S)
        self.speak(self.new, self.new)
        self.assert_told()

    def test_one_last_word(self) -> None:
        """One frame of the old connection, even late, is no fight."""
        self.pass_time(SETTLE_S * 2)
        self.speak(self.new, self.old, self.new, self.new)
        self.assert_told()

    def test_over_when_quiet(self) -> None:
        """If one falls silent, the other's next frame ends the alarm."""
        self.pass_time(SETTLE_S)
        self.fight()
        self.assert_told(TOLD)
        self.pass_time(QUIET_S - 1)
        self.speak(self.old)
        self.assert_told()
        self.pass_time(1)
        self.speak(self.old)
        self.assert_told(OVER)
        self.assertEqual(len(self.relay.duplicate_alarm), 0)
        self.new.leave()
        self.assert_told()

    def test_old_turns_prove_nothing(self) -> None:
        """Turns that lie further apart than the silence are counted from the beginning."""
        self.pass_time(SETTLE_S)
        for client in (self.old, self.new) * TURNS:
            self.pass_time(QUIET_S)
            self.speak(client)
        self.assert_told()

    def test_again_limited(self) -> None:
        """A key is not alarmed twice within five minutes, but after that if they still fight."""
        self.pass_time(SETTLE_S)
        self.fight()
        self.pass_time(QUIET_S)
        self.speak(self.old)
        self.assert_told(TOLD, OVER)
        for _ in range(int(AGAIN_S - QUIET_S) - 1):
            self.pass_time(1)
            self.speak(self.new, self.old)
        self.assert_told()
        self.pass_time(1)
        self.speak(self.new)
        self.assert_told(TOLD)
        self.assertEqual(self.relay.duplicate_alarm.alarms, 2)

    def test_third_connection(self) -> None:
        """A login during the alarm is told behind its ServerInfo; its end is not the alarm's."""
        self.pass_time(SETTLE_S)
        self.fight()
        self.assert_told(TOLD)
        third = FakeClient(self.relay, "a")
        self.assertEqual(third.take_raw(), [TOLD])
        third.leave()
        self.assert_told()

    def test_login_settles_anew(self) -> None:
        """A third login is no turn of speech, and old frames behind it prove nothing."""
        self.pass_time(SETTLE_S)
        self.speak(self.old, self.new)
        third = FakeClient(self.relay, "a")
        self.speak(self.old, third)
        self.pass_time(SETTLE_S)
        self.speak(third)
        self.assert_told()
        self.assertEqual(third.take_raw(), [])

    def test_third_login_is_no_turn(self) -> None:
        """Neither is its first frame."""
        self.pass_time(SETTLE_S)
        self.speak(self.old, self.new)
        third = FakeClient(self.relay, "a")
        self.pass_time(SETTLE_S)
        self.speak(third)
        self.assert_told()

    def test_mesh_peer_with_a_clients_key(self) -> None:
        """Clients that use a mesh peer's key are told; the mesh peer is not."""
        peer = FakeClient(self.relay, "a", mesh=True)
        self.pass_time(SETTLE_S)
        self.speak(self.old, self.new, self.old, self.new)
        self.assert_told(TOLD)
        another = FakeClient(self.relay, "a", mesh=True)
        self.assertEqual([peer.take_raw(), another.take_raw()], [[], []])

    def test_with_common_trouble(self) -> None:
        """The relay's own condition and the alarm are one text; each ends by itself."""
        self.relay.health.report("certificate", "expires soon")
        self.pass_time(SETTLE_S)
        self.fight()
        soon, both = b"expires soon", f"expires soon; {ALARM}".encode()
        self.assert_told((FrameType.HEALTH, soon), (FrameType.HEALTH, both))
        self.relay.health.report("certificate", "")
        self.assert_told(TOLD)
        bystander = FakeClient(self.relay, "b")
        self.relay.health.report("certificate", "expired")
        self.assertEqual(bystander.take_raw(), [(FrameType.HEALTH, b"expired")])
        self.old.leave()
        self.assertEqual(self.new.take_raw()[-1], (FrameType.HEALTH, b"expired"))

    def test_mesh_peers(self) -> None:
        """A mesh peer that reconnects, however it fights with itself, is told nothing."""
        peers = [FakeClient(self.relay, "peer", mesh=True) for _ in range(2)]
        self.pass_time(SETTLE_S)
        for _ in range(TURNS):
            self.speak(*peers)
        self.assertEqual([peer.take_raw() for peer in peers], [[], []])
        self.assertEqual(len(self.relay.duplicate_alarm), 0)

    def test_nothing_kept(self) -> None:
        """A key whose connections are gone leaves nothing behind."""
        self.pass_time(SETTLE_S)
        self.fight()
        self.new.leave()
        self.old.leave()
        self.assertEqual(self.relay.duplicate_alarm._disputes, {})
