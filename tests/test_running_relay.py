"""Tests for :mod:`derp.running_relay`."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from derp.doctor.doors import Doors
from derp.errors import ConfigError
from derp.flags import FLAGS
from derp.goflag import parse_flags
from derp.running_relay import doors_of, find_relays, given_to_relay, user_of


def doors(*words: str) -> Doors:
    """Where a relay with these flags listens."""
    return doors_of(parse_flags(FLAGS, words).given)


class ProcessTests(SynchronousTestCase):
    """Finding the relay in ``/proc``, here a directory that looks like it."""

    def setUp(self) -> None:
        """No process."""
        self.patch(os, "getpid", lambda: 4242)  # and none of those below, as in a small container
        self.proc = Path(self.mktemp())
        self.proc.mkdir()
        (self.proc / "self").mkdir()

    def process(self, pid: int, *argv: str, user: int | None = None) -> None:
        """One more process, of ours if nothing else is said."""
        place = self.proc / str(pid)
        place.mkdir()
        (place / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in argv))
        uid = os.geteuid() if user is None else user
        (place / "status").write_text(f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")

    def found(self) -> list[tuple[int, tuple[str, ...], bool]]:
        """What is found, in its order."""
        relays = find_relays(str(self.proc))
        return [(each.pid, each.words, each.reads_environment) for each in relays]

    def test_ways_to_start(self) -> None:
        """Script, module, init before it, twistd, the binary; not doctors, nor anything else."""
        self.process(70, "/usr/bin/python3", "/usr/local/bin/derper", "health")
        self.process(60, "/usr/local/bin/derper", "-hostname=go.test")
        self.process(50, "/usr/bin/python3", "/venv/bin/twistd", "-n", "derper", "--dev")
        self.process(40, "python3", "-m", "derp.derper_script", "-dev")
        self.process(30, "/usr/bin/python3", "/usr/local/bin/derper", "doctor", "a.test")
        self.process(20, "sh", "-c", "echo derper -dev")
        self.process(1, "/sbin/docker-init", "--", "/app/derper", "-hostname", "a.test")
        self.process(7)
        self.assertEqual(
            self.found(),
            [
                (1, ("-hostname", "a.test"), True),
                (40, ("-dev",), True),
                (50, ("--dev",), False),
                (60, ("-hostname=go.test",), True),
            ],
        )

    def test_ourselves(self) -> None:
        """The check itself is no relay, whatever it is called."""
        self.process(os.getpid(), "derper", "-dev")
        self.assertEqual(self.found(), [])

    def test_other_users(self) -> None:
        """Somebody else's process says nothing, unless it is the first; root sees all."""
        self.patch(os, "geteuid", lambda: 1000)
        self.process(1, "derper", "-dev", user=0)
        self.process(2, "derper", "-dev", "-stun=false", user=1001)
        self.process(3, "derper", "-tls", user=1000)
        self.assertEqual([pid for pid, *_ in self.found()], [1, 3])
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual([pid for pid, *_ in self.found()], [1, 2, 3])
        self.assertEqual(user_of(2, str(self.proc)), 1001)
        self.assertIsNone(user_of(4, str(self.proc)))

    def test_containers(self) -> None:
        """A relay in another network namespace is none of this machine's."""
        own = os.getpid()
        for pid, network in ((own, "net:[1]"), (21, "net:[1]"), (22, "net:[2]")):
            self.process(pid, "derper", "-dev")
            (self.proc / str(pid) / "ns").mkdir()
            (self.proc / str(pid) / "ns" / "net").symlink_to(network)
        self.process(23, "derper", "-dev")
        self.assertEqual([pid for pid, *_ in self.found()], [21, 23])

    def test_no_proc(self) -> None:
        """A system without ``/proc`` has nothing to find."""
        self.assertEqual(list(find_relays("/nowhere/at/all")), [])

    def test_flags_and_variables(self) -> None:
        """The process's flags win over the variables, as in the relay."""
        self.process(1, "/usr/local/bin/derper", "-a", ":8443")
        environ = {"DERP_DOMAIN": "a.test", "DERP_ADDR": ":443"}
        given = given_to_relay({}, environ, str(self.proc))
        self.assertEqual((given["a"], given["hostname"]), (":8443", "a.test"))

    def test_variables_of_the_process(self) -> None:
        """What the relay was started with counts, and not what is set where it is asked about."""
        self.process(1, "/usr/local/bin/derper")
        variables = b"DERP_DOMAIN=a.test\0DERP_ADDR=:8443\0EMPTY=\0"
        (self.proc / "1" / "environ").write_bytes(variables)
        given = given_to_relay({}, {"DERP_ADDR": ":1", "DERP_STUN": "false"}, str(self.proc))
        self.assertEqual((given["a"], given["hostname"]), (":8443", "a.test"))
        self.assertNotIn("stun", given)

    def test_ours_win(self) -> None:
        """Flags given here take the place of all those of the process."""
        self.process(1, "/usr/local/bin/derper", "-a", ":8443", "-stun=false")
        given = given_to_relay({"a": ":9443"}, {"DERP_DOMAIN": "a.test"}, str(self.proc))
        self.assertEqual(given["a"], ":9443")
        self.assertNotIn("stun", given)

    def test_twistd(self) -> None:
        """A relay under twistd does not read the variables, so they do not count."""
        self.process(9, "python3", "twistd", "-n", "derper", "--hostname", "a.test")
        given = given_to_relay({}, {"DERP_STUN": "false"}, str(self.proc))
        self.assertEqual(given, {"hostname": "a.test"})

    def test_foreign_flags(self) -> None:
        """A process whose flags are none of ours is passed over."""
        self.process(1, "derper", "--sparkle")
        self.process(2, "derper", "-dev")
        self.assertEqual(given_to_relay({}, {}, str(self.proc)), {"dev": True})

    def test_nothing(self) -> None:
        """Nothing to go by is an operator's error."""
        error = self.assertRaises(ConfigError, given_to_relay, {}, {}, str(self.proc))
        self.assertIn("DERP_DOMAIN", str(error))


class DoorsTests(SynchronousTestCase):
    """From settings to where to knock."""

    def test_default(self) -> None:
        """derper's own: TLS on 443, STUN on 3478, by loopback."""
        expected = Doors(
            hostname="a.test", host="127.0.0.1", port=443, tls=True, stun=("127.0.0.1", 3478)
        )
        self.assertEqual(doors("-hostname", "a.test"), expected)

    def test_tls(self) -> None:
        """The same rule as at the start: port 443, manual, or a flag that means it."""
        for words, tls in (
            (("-a", ":8443"), False),
            (("-a", ":8443", "-certmode=manual"), True),
            (("-a", ":8443", "-tls"), True),
            (("-a", ":8443", "-acme-directory", "https://ca.test/d"), True),
            (("-dev",), False),
            (("-a", "[::1]:443"), True),
        ):
            self.assertEqual(doors(*words).tls, tls, words)

    def test_where(self) -> None:
        """A wildcard is reached on loopback, an address by itself."""
        for words, where in (
            (("-dev",), ("127.0.0.1", 3340)),
            (("-a", "0.0.0.0:99"), ("127.0.0.1", 99)),
            (("-a", "[::]:99"), ("::1", 99)),
            (("-a", "192.0.2.7:99"), ("192.0.2.7", 99)),
            (("-hostname", "192.0.2.9", "-certmode=manual"), ("127.0.0.1", 443)),
            (("-hostname", "192.0.2.9", "-acme-ip-certs"), ("192.0.2.9", 443)),
            (("-hostname", "192.0.2.9", "-acme-ip-address=192.0.2.9"), ("127.0.0.1", 443)),
        ):
            found = doors(*words)
            self.assertEqual((found.host, found.port), where, words)

    def test_stun(self) -> None:
        """Its own address and port, or none."""
        self.assertIsNone(doors("-dev", "-stun=false").stun)
        self.assertEqual(doors("-dev", "-stun-addr", "[::1]:99").stun, ("::1", 99))
        self.assertEqual(doors("-a", "192.0.2.7:1", "-stun-port=7").stun, ("192.0.2.7", 7))

    def test_unix(self) -> None:
        """Unix sockets are doors as well."""
        found = doors("-dev", "-listen", "unix:/run/a", "-listen", "tcp::7", "-listen=unix:/run/b")
        self.assertEqual(found.unix, ("/run/a", "/run/b"))

    def test_strangers(self) -> None:
        """Whoever asks who comes, or counts, is not bothered with logins."""
        self.assertTrue(doors("-dev").admits_strangers)
        for word in ("-verify-clients", "-allow-clients=x", "-max-clients=9", "-monthly-quota=1GB"):
            self.assertFalse(doors("-dev", word).admits_strangers, word)
