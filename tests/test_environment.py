"""Tests for :mod:`derp.environment`."""

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp import environment
from derp.config import DebugKnobs
from derp.environment import read_knobs
from derp.errors import ConfigError

KEY = "5e122ff76cddc771702d1356748d4e5351755933c801b9a61f0e9ccba4c67270"
OTHER_KEY = "2246f71c99a74c8a37de1900d3deb0bb469292a3663d0a6d3daf8e05ff2ea960"
NAMES = [
    value for name, value in vars(environment).items() if str(value).startswith(("TS_", "DERP_"))
]

REFUSED = {
    "TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH": ["many", "0", "-1", "1.5", "0x20", "9" * 30],
    "DERP_DEBUG_LOGS": ["yes", "on", "2", " true"],
    "DERP_PROBER_DEBUG_LOGS": ["maybe"],
    "TS_DERP_DISABLE_RTT_STATS": ["disabled"],
    "TS_DEBUG_TRUSTED_CIDRS": ["10.0.0.1", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "all", "10/8,x"],
}


class ReadKnobsTests(SynchronousTestCase):
    """:func:`derp.environment.read_knobs`."""

    def test_nothing_set(self) -> None:
        """Without variables everything has its default."""
        self.assertEqual(read_knobs({}), (DebugKnobs(), []))

    def test_empty_is_unset(self) -> None:
        """An empty variable is none, as compose files write them."""
        self.assertEqual(read_knobs(dict.fromkeys(NAMES, "")), (DebugKnobs(), []))

    def test_everything_set(self) -> None:
        """Each variable reaches its field."""
        environ = {
            "TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH": "64",
            "TS_DEBUG_VERBOSE_DROPS": f"{KEY},{OTHER_KEY.upper()}",
            "DERP_DEBUG_LOGS": "1",
            "DERP_PROBER_DEBUG_LOGS": "true",
            "TS_DERP_DISABLE_RTT_STATS": "T",
            "TS_ALLOW_DEBUG_IP": "192.0.2.9",
            "TS_DEBUG_TRUSTED_CIDRS": " 10.1.2.3/8, ,2001:db8::/32,",
            "TS_DEBUG_KEY_PATH": "/run/debug.key",
            "TS_DEBUG_LOG_RATE": "all",
            "UNRELATED": "x",
        }
        expected = DebugKnobs(
            send_queue_depth=64,
            verbose_drops=frozenset({bytes.fromhex(KEY), bytes.fromhex(OTHER_KEY)}),
            debug_logs=True,
            prober_debug_logs=True,
            disable_rtt_stats=True,
            allow_debug_ip="192.0.2.9",
            trusted_cidrs=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")),
            debug_key_path="/run/debug.key",
            log_rate_all=True,
        )
        self.assertEqual(read_knobs(environ), (expected, []))

    def test_false(self) -> None:
        """A boolean can be said to be off."""
        knobs, _ = read_knobs({"DERP_DEBUG_LOGS": "false", "TS_DEBUG_LOG_RATE": "some"})
        self.assertEqual(knobs, DebugKnobs())

    def test_refused(self) -> None:
        """A value that does not fit stops the start and names its variable."""
        for name, values in REFUSED.items():
            for value in values:
                with self.subTest(name=name, value=value):
                    error = self.assertRaises(ConfigError, read_knobs, {name: value})
                    self.assertIn(f"environment variable {name}: ", str(error))

    def test_bad_keys_are_skipped(self) -> None:
        """A bad debug key is told and skipped, and the good ones count, as in derper."""
        knobs, skipped = read_knobs({"TS_DEBUG_VERBOSE_DROPS": f"badf00d,{KEY},nodekey:{KEY}"})
        self.assertEqual(knobs.verbose_drops, frozenset({bytes.fromhex(KEY)}))
        self.assertEqual(len(skipped), 2)
        self.assertIn('TS_DEBUG_VERBOSE_DROPS: skipping "badf00d"', skipped[0])

    @given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=20)))
    def test_anything(self, environ: dict[str, str]) -> None:
        """No environment raises anything else."""
        try:
            read_knobs(environ)
        except ConfigError as error:
            self.assertIn("environment variable", str(error))
            self.assertTrue(str(error).isprintable(), str(error))
