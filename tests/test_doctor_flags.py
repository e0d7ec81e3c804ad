"""Tests for :mod:`derp.doctor_flags`, and for the command's first word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from derp import derper_command
from derp.doctor.patient import Patient
from derp.doctor_flags import DoctorOptions, parse_doctor, read_client_key, usage
from derp.errors import ConfigError
from derp.goflag import FlagError
from derp.net.key_file import format_key_file
from derp.wire.keys import format_node_private, generate_private

PIN = "sha256-raw:" + "0a" * 32
MAP: dict[str, Any] = {
    "Regions": {
        "900": {
            "RegionID": 900,
            "RegionCode": "home",
            "Nodes": [
                {"Name": "900s", "HostName": "stun.test", "STUNOnly": True},
                {
                    "Name": "900a",
                    "HostName": "a.test",
                    "IPv4": "192.0.2.7",
                    "IPv6": "none",
                    "DERPPort": 8443,
                    "STUNPort": -1,
                    "CertName": PIN,
                },
                {"Name": "900b", "HostName": "b.test", "CanPort80": True},
            ],
        }
    }
}


def parse(*words: str) -> DoctorOptions:
    """Read a command line that asks for something."""
    options = parse_doctor(words, None)
    assert options is not None
    return options


def patient(*words: str) -> Patient:
    """Whom it asks for."""
    found = parse(*words).patient
    assert found is not None
    return found


class HostTests(SynchronousTestCase):
    """Who is to be examined."""

    def test_spellings(self) -> None:
        """Names, addresses, ports and URLs."""
        for word, host, port, tls in (
            ("a.test", "a.test", 443, True),
            ("a.test:8443", "a.test", 8443, True),
            ("192.0.2.7", "192.0.2.7", 443, True),
            ("192.0.2.7:99", "192.0.2.7", 99, True),
            ("2001:db8::7", "2001:db8::7", 443, True),
            ("[2001:db8::7]", "2001:db8::7", 443, True),
            ("[2001:db8::7]:99", "2001:db8::7", 99, True),
            ("https://a.test/derp", "a.test", 443, True),
            ("https://a.test:8443", "a.test", 8443, True),
            ("http://a.test:3340", "a.test", 3340, False),
            ("bücher.test:99", "xn--bcher-kva.test", 99, True),
        ):
            found = patient(word)
            self.assertEqual((found.host, found.port, found.tls), (host, port, tls), word)

    def test_no_hosts(self) -> None:
        """What nobody can be examined by is a wrong command line."""
        for word in (
            "",
            " ",
            "a.test:x",
            "a.test:70000",
            "a.test:0",
            "a/b",
            "https://a.test/x",
            "u@h",
        ):
            self.assertRaises(FlagError, parse, word)
        self.assertRaises(FlagError, parse)
        self.assertRaises(FlagError, parse, "a.test", "b.test")
        self.assertRaises(FlagError, parse, "ftp://a.test")

    def test_map(self) -> None:
        """A node of a map, as the map has it; the first that relays, if none is named."""
        path = self.mktemp()
        Path(path).write_text(json.dumps(MAP))
        found = patient("home", "--derp-map", path)
        self.assertEqual((found.host, found.port, found.cert_name), ("a.test", 8443, PIN))
        self.assertEqual((found.fixed, found.families), ({4: "192.0.2.7"}, (4,)))
        self.assertEqual((found.stun_port, found.http_port), (None, None))
        found = patient("--derp-map", path, "900/900b")
        self.assertEqual((found.host, found.port, found.http_port), ("b.test", 443, 80))
        self.assertEqual((found.fixed, found.families), ({}, (4, 6)))
        found = patient("--derp-map", path, "900/900b", "--pin", PIN, "-4")
        self.assertEqual((found.cert_name, found.families), (PIN, (4,)))

    def test_bad_map(self) -> None:
        """Maps, regions and nodes that are not there."""
        path = self.mktemp()
        self.assertRaises(ConfigError, parse, "home", "--derp-map", path)
        Path(path).write_text("[]")
        self.assertRaises(ConfigError, parse, "home", "--derp-map", path)
        Path(path).write_text(json.dumps(MAP))
        for name in ("away", "900/900z", "900/"):
            error = None
            try:
                parse(name, "--derp-map", path)
            except FlagError as problem:
                error = problem
            self.assertEqual(error is None, name == "900/", name)


class OptionTests(SynchronousTestCase):
    """How to examine."""

    def test_defaults(self) -> None:
        """A relay on its usual ports."""
        found = patient("a.test")
        self.assertEqual((found.http_port, found.stun_port, found.families), (80, 3478, (4, 6)))
        options = parse("a.test")
        self.assertEqual((options.json, options.local, options.relay_words), (False, False, ()))

    def test_given(self) -> None:
        """In Go's syntax, before and behind the host."""
        found = patient(
            *("-stun-port=99", "--http-port", "-1", "a.test", "-insecure", "--timeout", "500ms")
        )
        self.assertEqual((found.stun_port, found.http_port), (99, None))
        self.assertEqual((found.insecure, found.timeout), (True, 0.5))
        self.assertIsNone(patient("a.test", "--no-stun").stun_port)
        self.assertEqual(patient("a.test", "-6").families, (6,))

    def test_wrong(self) -> None:
        """Each is one sentence, and exit code 2."""
        for words in (
            ("a.test", "--jason"),
            ("a.test", "-4", "-6"),
            ("a.test", "--pin", "sha256-raw:AB"),
            ("a.test", "--timeout", "0s"),
            ("a.test", "--timeout", "1h"),
            ("a.test", "--stun-port", "70000"),
            ("a.test", "--stun-port", "0"),
            ("a.test", "--stun-port"),
            ("a.test", "--", "-dev"),
            ("--local", "--", "-dve"),
        ):
            self.assertRaises(FlagError, parse, *words)

    def test_local(self) -> None:
        """With --local the host may be left out, and the relay's flags may follow."""
        options = parse("--local", "--json", "--", "-a", ":8443", "-hostname", "a.test")
        self.assertIsNone(options.patient)
        self.assertEqual(options.relay_words, ("-a", ":8443", "-hostname", "a.test"))
        self.assertTrue(options.json)
        options = parse("--local", "b.test", "--no-stun")
        assert options.patient is not None
        self.assertEqual((options.patient.host, options.values["stun_port"]), ("b.test", None))

    def test_help(self) -> None:
        """Every option is in it."""
        self.assertIsNone(parse_doctor(["-h"], None))
        self.assertIsNone(parse_doctor(["a.test", "--help"], None))
        for word in ("--json", "--mesh-psk-file", "-4\n", "--derp-map", "HOST[:PORT]"):
            self.assertIn(word, usage())


class KeyTests(SynchronousTestCase):
    """Keys that open what is closed to strangers."""

    def file(self, content: bytes) -> str:
        """A file with this in it."""
        path = self.mktemp()
        Path(path).write_bytes(content)
        return path

    def test_client_key(self) -> None:
        """Alone in its file, or as derper keeps one."""
        private = generate_private()
        text = format_node_private(private).encode()
        for content in (text, text + b"\n", format_key_file(private)):
            self.assertEqual(read_client_key(self.file(content)), private)
            found = patient("a.test", "--key-file", self.file(content))
            self.assertEqual(found.private_key, private)
            self.assertNotIn(private.hex(), repr(found))

    def test_no_key(self) -> None:
        """What the file holds instead is not repeated."""
        for content in (b"", b"privkey:secret", b'{"PrivateKey":"secret"}', b"\xff" * 100):
            error = self.assertRaises(ConfigError, read_client_key, self.file(content))
            self.assertNotIn("secret", str(error))
            self.assertIn("--key-file", str(error))
        self.assertRaises(ConfigError, read_client_key, self.mktemp())

    def test_mesh_key(self) -> None:
        """As the relay's own flag reads it."""
        found = patient("a.test", "--mesh-psk-file", self.file(b"0a" * 32 + b"\n"))
        self.assertEqual(found.mesh_key, bytes([10]) * 32)
        self.assertRaises(ConfigError, patient, "a.test", "--mesh-psk-file", self.file(b""))


class FirstWordTests(SynchronousTestCase):
    """``derper`` is the relay, unless its first word is a verb."""

    def setUp(self) -> None:
        """Nothing is run; who would have been is noted."""
        from derp import derper_script, doctor_script, health_script

        self.ran: list[tuple[str, list[str]]] = []
        modules = {"relay": derper_script, "doctor": doctor_script, "health": health_script}
        for name, module in modules.items():
            self.patch(module, "run", lambda argv, name=name: self.ran.append((name, argv)))

    def test_dispatch(self) -> None:
        """Flags go to the relay as they are, whatever words are their values."""
        for argv, name, rest in (
            ([], "relay", []),
            (["-hostname", "doctor"], "relay", ["-hostname", "doctor"]),
            (["-dev"], "relay", ["-dev"]),
            (["--", "health"], "relay", ["--", "health"]),
            (["check"], "relay", ["check"]),
            (["doctor", "a.test", "--json"], "doctor", ["a.test", "--json"]),
            (["health", "-a", ":8443"], "health", ["-a", ":8443"]),
        ):
            derper_command.run(argv)
            self.assertEqual(self.ran.pop(), (name, rest))
