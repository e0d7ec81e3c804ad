"""Tests for :mod:`derp.derper_script`: what people start today, and what they get for it."""

from __future__ import annotations

import io
import math
import os
import re
import shlex
import socket
import sys
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.logger import LogEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from derp import __version__, derper_script, program
from derp.command_line import config_from_flags
from derp.config import CertMode, Config, MeshPeer
from derp.derper_script import ScriptOptions, make_config, read_settings
from derp.errors import ConfigError
from derp.flags import FLAGS
from derp.go_log import format_event
from derp.goflag import parse_flags

MACHINE = "3f2a9c0d1e4b"
HOME = {"HOME": "/root", "HOSTNAME": MACHINE}
"""What is in every container."""

DOCKER_RUN: dict[str, dict[str, Any]] = {
    "docker run -e DERP_DOMAIN=derper.your-domain.com -p 80:80 -p 443:443 -p 3478:3478/udp "
    "ghcr.io/kaaanata/derper": {
        "hostname": "derper.your-domain.com",
        "certdir": "/app/certs",
        "certmode": CertMode.LETSENCRYPT,
        "port": 443,
        "http_port": 80,
        "stun_port": 3478,
        "tls": True,
        "stun": True,
        "verify_clients": False,
        "verify_client_url": (),
        "verify_client_url_fail_open": True,
    },
    """docker run -e DERP_DOMAIN=a.test
    -e DERP_VERIFY_CLIENT_URL="https://<your-headscale-domain>/verify" ghcr.io/kaaanata/derper
    """.replace("<your-headscale-domain>", "headscale.test"): {
        "verify_client_url": ("https://headscale.test/verify",),
        "verify_client_url_fail_open": True,
    },
    """docker run --restart=always \\
    -name derper -p 80:80 -p 443:443 -p 3478:3478/udp \\
    -e CERTMODE=manual \\
    -e ADDR=:443 \\
    -e STUN_PORT=3478 \\
    -e VERIFY_CLIENTS=true \\
    -v /var/run/tailscale/tailscaled.sock:/var/run/tailscale/tailscaled.sock \\
    -d camllia/derper:latest
    """: {
        "hostname": "127.0.0.1",
        "certmode": CertMode.MANUAL,
        "certdir": "derper-certs",
        "port": 443,
        "stun_port": 3478,
        "verify_clients": True,
        "socket": (),
    },
    """docker run --restart=unless-stopped --name derper
    -p 80:80 -p 443:443 -p 3478:3478/udp
    -e CERT_MODE=manual -e HOSTNAME=127.0.0.1 -e ADDR=:443 -e STUN_PORT=3478
    -e VERIFY_CLIENTS=true -e CERT_DIR=derper-certs
    -v "$(pwd)"/derper-certs/:/root/derper-certs/ -v /var/run/tailscale/:/var/run/tailscale/
    -d camllia/derper:latest
    """: {
        "hostname": "127.0.0.1",
        "certmode": CertMode.MANUAL,
        "certdir": "derper-certs",
        "verify_clients": True,
        "stun": True,
        "derp": True,
    },
}
"""Lines of the images' READMEs, and fields of the configuration they mean."""

INVOCATIONS: dict[str, dict[str, Any]] = {
    "sudo derper --hostname=example.com": {"hostname": "example.com", "tls": True},
    "/etc/derp/derper -hostname derp.myself.com -a :33445 -http-port 33446 -certmode manual "
    "-certdir /etc/derp": {
        "hostname": "derp.myself.com",
        "port": 33445,
        "http_port": 33446,
        "certmode": CertMode.MANUAL,
        "certdir": "/etc/derp",
        "tls": True,
    },
    "/etc/derp/derper -hostname derp.test.com -a :14662 -http-port 3478 -certmode manual "
    "-certdir /etc/derp --verify-clients": {"port": 14662, "verify_clients": True},
    "/derper -hostname your-hostname -stun -a :8082 -certmode manual -certdir /cert": {
        "hostname": "your-hostname",
        "stun": True,
        "port": 8082,
    },
    "derper -hostname=derp.example.com -c=/data/derper.key -certdir=/data/certs": {
        "key_file": "/data/derper.key",
        "certdir": "/data/certs",
    },
    "~/go/bin/derper -hostname=your-server.com -certmode=letsencrypt": {
        "hostname": "your-server.com",
        "certmode": CertMode.LETSENCRYPT,
    },
    "derper -hostname your.domain.com -c=/root/derper.conf -a :443 -http-port 80 -stun": {
        "key_file": "/root/derper.conf",
        "http_port": 80,
    },
    "/usr/local/bin/derper -a :3340 -http-port -1 -stun-port 3478 -hostname derp.a.test "
    "-verify-clients -home blank": {"tls": False, "http_port": -1, "home": "blank"},
    "/root/go/bin/derper --hostname=derper.a.test -a=:7000 -certmode=manual -http-port=-1 "
    "--certdir=/root/.cache/tailscale/derper-certs": {"port": 7000, "http_port": -1, "tls": True},
    "/usr/local/bin/derper --hostname a.test --certmode letsencrypt --stun --a ':443'": {
        "port": 443,
        "stun": True,
    },
    "derper --hostname a.test -a :8443 --http-port -1 --stun --stun-port 3478 --certmode manual "
    "--certdir /etc/derper --verify-clients": {"stun_port": 3478, "certdir": "/etc/derper"},
    "/root/go/bin/derper --hostname a.test --bootstrap-dns-names a.test -certmode letsencrypt "
    "-certdir /root/derper/a.test --stun --verify-clients=false": {
        "bootstrap_dns_names": ("a.test",),
        "verify_clients": False,
    },
    "sudo /usr/local/bin/derper -a :3340 --stun=false -dev -certmode manual "
    "-certdir /tmp/derper-certs -hostname 192.0.2.7": {"dev": True, "stun": False, "key_file": ""},
    "/app/derper --hostname=127.0.0.1 --certmode=manual --certdir=/app/certs --stun=true --a=:443 "
    "--http-port=80 --verify-clients=false": {"hostname": "127.0.0.1", "stun": True},
    "/app/derper --hostname=a.test --certmode=letsencrypt --certdir=/app/certs --a=:443 "
    "--stun=true --stun-port=3478 --http-port=80 --verify-clients=false --verify-client-url=": {
        "certdir": "/app/certs",
        "verify_client_url": (),
    },
    "derper --a=:443 --accept-connection-limit=+Inf --accept-connection-burst=9223372036854775807 "
    "--bootstrap-dns-names= --c= --certdir=derper-certs --certmode=manual --derp=true --dev=false "
    "--home= --hostname=127.0.0.1 --http-port=80 --mesh-psk-file= --mesh-with= "
    "--secrets-cache-dir=derper-secrets --secrets-path-prefix=prod/derp --secrets-url= --socket= "
    "--stun=true --stun-port=3478 --tcp-keepalive-time=10m0s --tcp-user-timeout=15s "
    "--tcp-write-timeout=2s --unpublished-bootstrap-dns-names=  --verify-client-url= "
    "--verify-client-url-fail-open=true --verify-clients=true --version=false": {
        "key_file": "/var/lib/derper/derper.key",
        "accept_connection_limit": math.inf,
        "socket": (),
        "mesh_key": None,
        "tcp_keepalive_time": 600.0,
        "verify_clients": True,
    },
    "derper -hostname derp1.a.test -mesh-psk-file= -mesh-with derp1.a.test,derp2.a.test:8443": {
        "mesh_with": (
            MeshPeer(name="derp1.a.test", host="derp1.a.test"),
            MeshPeer(name="derp2.a.test:8443", host="derp2.a.test", port=8443),
        ),
    },
}
"""Command lines of units, images and guides as people published them, and what they mean.

Only names and paths of theirs that say who they are were replaced."""


def docker_environment(line: str) -> dict[str, str]:
    """The variables that a ``docker run`` sets."""
    words = shlex.split(line)
    pairs = [word for before, word in pairwise(words) if before == "-e"]
    return dict(pair.split("=", 1) for pair in pairs)


class ScriptTestCase(SynchronousTestCase):
    """As in a container: we are root."""

    def setUp(self) -> None:
        self.patch(os, "getuid", lambda: 0)

    def config(self, line: str = "", **environ: str) -> Config:
        """What the relay is told by a command line below this environment."""
        flags = parse_flags(FLAGS, shlex.split(line)).given
        return make_config(read_settings(flags, HOME | environ, MACHINE), HOME | environ)

    def assert_fields(self, config: Config, expected: dict[str, Any]) -> None:
        self.assertEqual({name: getattr(config, name) for name in expected}, expected)


class WildTests(ScriptTestCase):
    """What is in people's files goes on working."""

    def test_docker_run(self) -> None:
        """The images' own lines."""
        for line, expected in DOCKER_RUN.items():
            with self.subTest(line=line):
                environ = docker_environment(line)
                self.assertTrue(environ)
                self.assert_fields(self.config(**environ), expected)

    def test_invocations(self) -> None:
        """Command lines of derper, in every mixture of dashes that Go takes."""
        for line, expected in INVOCATIONS.items():
            with self.subTest(line=line):
                words = shlex.split(line)
                program = next(n for n, word in enumerate(words) if word.endswith("derper"))
                config = self.config(shlex.join(words[program + 1 :]))
                self.assert_fields(config, expected)

    def test_first_family(self) -> None:
        """With its one required variable an image of the first family is derper by default."""
        given = {"hostname": "a.test", "certdir": "/app/certs"}
        self.assertEqual(self.config(DERP_DOMAIN="a.test"), config_from_flags(given, HOME))

    def test_second_family(self) -> None:
        """One variable of the second family brings that image's other defaults."""
        line = "-certmode manual -hostname 127.0.0.1 -certdir derper-certs -verify-clients"
        line += " -secrets-cache-dir derper-secrets -a :443"
        given = parse_flags(FLAGS, line.split()).given
        self.assertEqual(self.config(ADDR=":443"), config_from_flags(given, HOME))

    def test_plain_http(self) -> None:
        """Behind a proxy: what the family has by default and is no use there is not remarked."""
        config = self.config(DERP_DOMAIN="a.test", DERP_ADDR=":8080")
        self.assertEqual((config.tls, config.port), (False, 8080))
        self.assertEqual([each for each in config.notices if "has no effect" in each], [])
        config = self.config(DERP_DOMAIN="a.test", DERP_ADDR=":8080", DERP_CERT_DIR="/c")
        self.assertTrue(any("--certdir has no effect" in each for each in config.notices))


class OrderTests(ScriptTestCase):
    """Flags, environment, file, the family's defaults."""

    def test_order(self) -> None:
        """Each layer wins over what is beneath it."""
        file = Path(self.mktemp())
        file.write_text('certdir = "/file"\nhostname = "file.test"\nhome = "blank"\nstun = false\n')
        line = f"-config {file} -hostname flag.test"
        config = self.config(line, DERP_STUN="true", DERP_DOMAIN="environment.test")
        expected = {"hostname": "flag.test", "stun": True, "certdir": "/file", "home": "blank"}
        self.assert_fields(config, expected)

    def test_file_of_the_environment(self) -> None:
        """``DERP_CONFIG`` names the file, and a flag another one."""
        file, other = Path(self.mktemp()), Path(self.mktemp())
        file.write_text('hostname = "file.test"')
        other.write_text('hostname = "other.test"')
        self.assertEqual(self.config(DERP_CONFIG=str(file)).hostname, "file.test")
        config = self.config(f"-config {other}", DERP_CONFIG=str(file))
        self.assertEqual(config.hostname, "other.test")

    def test_flag_beside_machine_name(self) -> None:
        """A shell that exports another ``HOSTNAME`` changes nothing for a line with a name."""
        config = self.config("-hostname a.test", HOSTNAME="desk")
        self.assertEqual(config, config_from_flags({"hostname": "a.test"}, HOME))

    def test_warnings(self) -> None:
        """Unknown variables are told among the notices, once each."""
        config = self.config("-hostname a.test", DERP_NONSENSE="1")
        self.assertEqual(len([each for each in config.notices if "DERP_NONSENSE" in each]), 1)


class RefusedTests(ScriptTestCase):
    """What stops the start."""

    def test_nothing_given(self) -> None:
        """No flag and no variable: a flag and both families are shown, and each is enough."""
        error = self.assertRaises(ConfigError, self.config)
        self.assertIn("derper -hostname derp.example.com", str(error))
        for name, value in (("DERP_DOMAIN", "derp.example.com"), ("VERIFY_CLIENTS", "true")):
            self.assertIn(f"{name}={value}", str(error))
            self.config(**{name: value})

    def test_misspelt(self) -> None:
        """Whose only variable has a typing error is told which one was meant."""
        error = self.assertRaises(ConfigError, self.config, DERP_DOMIAN="a.test")
        self.assertIn(
            "DERP_DOMIAN is unknown and has no effect: did you mean DERP_DOMAIN?", str(error)
        )
        self.assertIn("derper -hostname", str(error))

    def test_placeholder(self) -> None:
        """The images' default name is nobody's, whether left or typed."""
        for environ in ({"DERP_STUN": "true"}, {"DERP_DOMAIN": "your-hostname.com"}):
            error = self.assertRaises(ConfigError, self.config, **environ)
            self.assertIn("set DERP_DOMAIN", str(error))
        self.assertRaises(ConfigError, self.config, "-hostname Your-Hostname.com.")
        self.assertFalse(self.config(DERP_ADDR=":8080").tls)


class RunTests(ScriptTestCase):
    """:func:`derp.derper_script.run` up to the reactor."""

    def setUp(self) -> None:
        """An environment of our own; no log begins."""
        super().setUp()
        self.patch(os, "environ", dict(HOME))
        self.patch(socket, "gethostname", lambda: MACHINE)
        self.patch(program, "begin_logging", lambda file: None)

    def run_script(self, *argv: str, **environ: str) -> tuple[object, str, str]:
        """Exit code, stdout and stderr."""
        os.environ.update(environ)
        stdout, stderr = io.StringIO(), io.StringIO()
        self.patch(sys, "__stderr__", stderr)
        with redirect_stdout(stdout), redirect_stderr(stderr):
            try:
                code: object = derper_script.run(argv)
            except SystemExit as end:
                code = end.code
        for name in environ:
            del os.environ[name]
        return code, stdout.getvalue(), stderr.getvalue()

    def test_wrong_flag(self) -> None:
        """The usage, the mistake in the last line, and 2 as in Go."""
        code, stdout, stderr = self.run_script("-hostnam", "a.test")
        self.assertEqual((code, stdout), (2, ""))
        self.assertTrue(stderr.startswith("Usage: derper [flags]\n"), stderr[:80])
        self.assertTrue(stderr.endswith('there is no flag "-hostnam": did you mean --hostname?\n'))
        self.assertEqual(self.run_script("-stun-port", "x")[0], 2)

    def test_version_and_help(self) -> None:
        """Both before anything else is looked at; help says what else there is."""
        for flag in ("-version", "--version"):
            ran = self.run_script(flag, DERP_STUN="maybe")
            self.assertEqual(ran, (0, f"{__version__}\n", ""))
        self.assertEqual(self.run_script(VERSION_FLAG="true")[:2], (0, f"{__version__}\n"))
        code, stdout, stderr = self.run_script("-h")
        self.assertEqual((code, stderr), (0, ""))
        for words in ("--verify-client-url-fail-open", "derper doctor HOST", "derper health"):
            self.assertIn(words, stdout)

    def test_sentences(self) -> None:
        """What is wrong with a variable or a file names it, in one line."""
        file = Path(self.mktemp())
        file.write_text("http-port = 70000\n")
        wrong: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
            "environment variable DERP_STUN:": ((), {"DERP_STUN": "maybe"}),
            "(--http-port is set by HTTP_PORT)": ((), {"HTTP_PORT": "70000"}),
            "(-a is set by DERP_ADDR)": ((), {"DERP_ADDR": "443", "DERP_DOMAIN": "a.test"}),
            f"(--http-port is set by {file})": (("-config", str(file), "-tls"), {}),
            "start me as derper -hostname": ((), {}),
        }
        for sentence, (argv, environ) in wrong.items():
            with self.subTest(sentence=sentence):
                code, stdout, stderr = self.run_script(*argv, **environ)
                self.assertEqual((code, stdout), (1, ""))
                self.assertTrue(stderr.startswith("derper: "))
                self.assertIn(sentence, stderr)
                self.assertEqual(stderr.count("\n"), 1)

    def test_no_socket(self) -> None:
        """A socket that was not mounted: who has only flags may wait for it, variables may not."""
        path = self.mktemp()
        code, _, stderr = self.run_script(ADDR="127.0.0.1:0", SOCKET=path)
        self.assertEqual(code, 1)
        self.assertIn(f'SOCKET: there is no socket "{path}"', stderr)
        self.assertIn("set VERIFY_CLIENTS to false", stderr)
        for accepted in ({"VERIFY_CLIENTS": "false"}, {"SOCKET": os.getcwd()}):
            os.environ.update({"ADDR": "127.0.0.1:0", "SOCKET": path} | accepted)
            ScriptOptions().parseOptions(())
        os.environ.clear()
        ScriptOptions().parseOptions(("-verify-clients", "-socket", path, "-dev"))

    def test_start_fails(self) -> None:
        """What only the start finds is followed by the variable's name, or stands alone."""

        class Refusing(Service):
            def privilegedStartService(self) -> None:
                with options.ending_the_start():
                    raise ConfigError("--http-port 80 is in use: stop the other server")

        options = ScriptOptions()
        self.patch(derper_script, "makeService", lambda options: Refusing())
        code, _, stderr = self.run_script(
            "-a", ":8443", "-tls", "-hostname=a.test", HTTP_PORT="80", VERIFY_CLIENTS="false"
        )
        self.assertEqual(code, 1)
        said = "derper: --http-port 80 is in use: stop the other server\n"
        self.assertEqual(stderr, said + "(--http-port is set by HTTP_PORT)\n")
        code, _, stderr = self.run_script("-hostname", "a.test")
        self.assertEqual((code, stderr), (1, said))

    def test_check_config(self) -> None:
        """Environment and file are checked like flags; nothing is written."""
        place = Path(self.mktemp())
        place.mkdir()
        file = place / "derper.toml"
        file.write_text(f'c = "{place}/key"\ncertdir = "{place}"\ncertmode = "manual"\n')
        environ = {"DERP_CONFIG": str(file), "DERP_CHECK_CONFIG": "1", "DERP_DOMAIN": "192.0.2.7"}
        code, stdout, stderr = self.run_script(**environ)
        self.assertEqual((code, stderr), (0, ""))
        self.assertIn("derper: flags and files are in order", stdout)
        self.assertEqual([path.name for path in place.iterdir()], ["derper.toml"])
        file.write_text("stun = 1")
        code, stdout, stderr = self.run_script(**environ)
        self.assertEqual((code, stdout), (1, ""))
        self.assertIn(f"--config: {file}: stun has a value of a wrong type", stderr)


class LogTests(SynchronousTestCase):
    """:mod:`derp.go_log`."""

    def test_line(self) -> None:
        """Date and time as Go has them, then the text."""
        event: LogEvent = {"log_time": 1.0, "log_format": "a {what}", "what": "b\nc"}
        self.assertRegex(
            format_event(event) or "", r"^19(70/01/01|69/12/31) \d\d:\d\d:01 a b\nc\n$"
        )

    def test_traceback(self) -> None:
        """A failure comes with where it was."""
        try:
            raise RuntimeError("broken")
        except RuntimeError:
            event: LogEvent = {"log_time": 1.0, "log_format": "x", "log_failure": Failure()}
        text = format_event(event) or ""
        self.assertTrue(
            re.search(r":01 x\nTraceback.*RuntimeError: broken\n$", text, re.DOTALL), text
        )

    def test_nothing(self) -> None:
        """An event without text is no line."""
        self.assertIsNone(format_event({"log_time": 1.0, "log_format": ""}))
