"""Tests for :mod:`derp.tap` and the plugin: what twistd sees of us."""

import gc
import io
import os
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.application import app
from twisted.application.service import IServiceMaker, MultiService, Service
from twisted.internet import reactor as global_reactor
from twisted.logger import capturedLogs
from twisted.plugin import getPlugins
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from derp import __version__, supervision, tap
from derp.command_line import config_from_flags
from derp.config import Config
from derp.errors import ConfigError
from derp.flags import FLAGS

reactor: Any = global_reactor


class Refusing(Service):
    """A part of the relay that cannot start."""

    def startService(self) -> None:
        """Fail as a port in use does."""
        raise ConfigError("-a: port 443 is in use: stop the other server")


class TapTestCase(SynchronousTestCase):
    """Catches what is said to the operator."""

    def setUp(self) -> None:
        """Put a file in the place of the terminal."""
        self.stderr = io.StringIO()
        self.patch(sys, "__stderr__", self.stderr)
        self.patch(reactor, "seconds", reactor.seconds)  # that of other tests stays as it is

    def parse(self, *argv: str) -> tap.Options:
        """Options read from a command line."""
        options = tap.Options()
        options.parseOptions(list(argv))
        return options

    def assert_exit(self, code: int, function: Any, *args: Any) -> str:
        """Call something that ends the process; return what it printed."""
        output = io.StringIO()
        with redirect_stdout(output):
            error = self.assertRaises(SystemExit, function, *args)
        self.assertEqual(error.code, code)
        return output.getvalue()


class OptionsTests(TapTestCase):
    """:class:`derp.tap.Options`."""

    def test_config(self) -> None:
        """The line becomes what :func:`config_from_flags` makes of it and of our environment."""
        options = self.parse("-dev", "--stun=false", "--home", "blank")
        given = {"dev": True, "stun": False, "home": "blank"}
        self.assertEqual(options.config, config_from_flags(given, os.environ))

    def test_mapping(self) -> None:
        """As any Twisted options these are a mapping, with defaults for what was not given."""
        options = self.parse("--dev", "--http-port=-1")
        expected = {flag.name: flag.default for flag in FLAGS} | {"dev": True, "http-port": -1}
        self.assertEqual(dict(options), expected)

    def test_wrong_flag(self) -> None:
        """One sentence, where to read on, and exit code 1."""
        self.assert_exit(1, self.parse, "--stun", "false")
        self.assertEqual(
            self.stderr.getvalue(),
            'derper: "false" is not a flag and does not belong to one: a boolean takes its value '
            'after "=": write --stun=false\n(twistd derper --help lists the flags)\n',
        )

    def test_no_abbreviations(self) -> None:
        """What getopt would complete is refused."""
        self.assert_exit(1, self.parse, "--host", "x")
        self.assertIn("did you mean --hostname?", self.stderr.getvalue())

    def test_unusable_value(self) -> None:
        """A combination that cannot be: the sentence alone."""
        self.assert_exit(1, self.parse, "--dev", "--home", "nowhere")
        self.assertTrue(self.stderr.getvalue().startswith("derper: --home: unknown value"))
        self.assertEqual(self.stderr.getvalue().count("\n"), 1)

    def test_help(self) -> None:
        """Help lists every flag, in the width of the terminal, and is no error."""
        self.patch(os, "environ", os.environ | {"COLUMNS": "70"})
        text = self.assert_exit(0, self.parse, "--help")
        for flag in FLAGS:
            self.assertIn(f"  {flag.spelling}", text)
        self.assertTrue(all(len(line) <= 70 for line in text.splitlines()[1:] if "--" not in line))

    def test_version(self) -> None:
        """The version alone, before anything else is checked."""
        text = self.assert_exit(0, self.parse, "-version", "--home", "nowhere")
        self.assertEqual(text, f"{__version__}\n")


class CheckConfigTests(TapTestCase):
    """``--check-config``: all of a start but listening."""

    def setUp(self) -> None:
        super().setUp()
        self.place = Path(self.mktemp())
        self.place.mkdir()

    def line(self, *argv: str) -> tuple[str, ...]:
        key, certs = str(self.place / "derper.key"), str(self.place)
        first = ("--check-config", "-c", key, "--certmode", "manual", "--certdir", certs)
        return (*first, "--hostname", "192.0.2.7", *argv)

    def test_good(self) -> None:
        """A usable configuration is called so; what a first start would make is not made."""
        keys = self.place / "keys"
        keys.write_text("# nobody yet\n")
        text = self.assert_exit(0, self.parse, *self.line("--allow-clients", str(keys)))
        self.assertTrue(text.endswith("derper: flags and files are in order\n"), text)
        self.assertEqual([path.name for path in self.place.iterdir()], ["keys"])

    def test_notices(self) -> None:
        """What would have no effect is told."""
        text = self.assert_exit(0, self.parse, *self.line("--socket", "/s"))
        self.assertIn("derper: --socket has no effect", text)

    def test_warnings(self) -> None:
        """What a start would warn of is told, too, and nothing that it would merely mention."""
        limits = self.place / "limits"
        limits.write_text('{"MaxClient": 5}')
        text = self.assert_exit(0, self.parse, *self.line("--rate-config", str(limits)))
        self.assertIn('there is no limit "MaxClient", it is ignored; did you mean', text)
        self.assertNotIn("rate config applied", text)

    def test_bad_file(self) -> None:
        """A file that stops a start is found; flags are right here, the file is not."""
        keys = self.place / "keys"
        keys.write_text("\nnodekey:1\n")
        self.assert_exit(1, self.parse, *self.line("--allow-clients", str(keys)))
        self.assertIn('line 2: "nodekey:1" is no node key', self.stderr.getvalue())

    def test_bad_key(self) -> None:
        """So is a key file that is there and unusable."""
        (self.place / "derper.key").write_text("{}")
        self.assert_exit(1, self.parse, *self.line())
        self.assertIn("holds no PrivateKey", self.stderr.getvalue())

    def test_bad_proxy(self) -> None:
        """And a variable that matters for the given flags only."""
        self.patch(os, "environ", os.environ | {"HTTPS_PROXY": "socks5://a.test"})
        self.assert_exit(0, self.parse, *self.line())
        url = ("--verify-client-url", "https://a.test/verify")
        self.assert_exit(1, self.parse, *self.line(*url))
        self.assertIn("HTTPS_PROXY names no HTTP proxy", self.stderr.getvalue())


class MakeServiceTests(TapTestCase):
    """:func:`derp.tap.makeService`."""

    def build_with(self, build: Any) -> None:
        """Replace :mod:`derp.services` for one test."""
        module = ModuleType("derp.services")
        module.build = build  # type: ignore[attr-defined]
        self.patch(supervision, "supervise", lambda relay, reactor, clean_up: relay)
        before = sys.modules.get("derp.services")
        sys.modules["derp.services"] = module
        self.addCleanup(self._put_back, before)

    def _put_back(self, before: ModuleType | None) -> None:
        if before is None:
            del sys.modules["derp.services"]
        else:
            sys.modules["derp.services"] = before

    def test_builds(self) -> None:
        """The relay is built of the configuration on the running reactor, and put below ours."""
        relay = MultiService()
        seen: list[tuple[Config, object]] = []

        def build(config: Config, reactor: object) -> MultiService:
            seen.append((config, reactor))
            return relay

        self.build_with(build)
        self.patch(gc, "freeze", lambda: None)  # this process goes on
        options = self.parse("--dev")
        service = tap.makeService(options)
        self.assertEqual(seen, [(options.config, reactor)])
        self.assertIs(reactor.seconds, time.monotonic, "a clock that nobody sets")
        self.assertEqual(list(service), [relay])
        service.privilegedStartService()
        service.startService()
        self.assertTrue(relay.running)

    def test_notices_are_logged(self) -> None:
        """What has no effect is told in the log."""
        self.build_with(lambda config, reactor: MultiService())
        options = self.parse("--dev", "-a", ":80")
        with capturedLogs() as events:
            tap.makeService(options)
        self.assertEqual([event["notice"] for event in events], list(options.config.notices))

    def test_build_fails(self) -> None:
        """A key file, say, that is found unusable while building: a sentence, no traceback."""

        def build(config: Config, reactor: object) -> MultiService:
            raise ConfigError("-c: the key file is no JSON")

        self.build_with(build)
        self.assert_exit(1, tap.makeService, self.parse("--dev"))
        self.assertEqual(self.stderr.getvalue(), "derper: -c: the key file is no JSON\n")

    def test_start_fails(self) -> None:
        """A port in use stops the start and leaves no pid file behind."""
        pidfile = Path(self.mktemp())
        pidfile.write_text(str(os.getpid()))
        options = self.parse("--dev")
        options.parent = usage.Options()
        options.parent["pidfile"] = str(pidfile)
        self.build_with(lambda config, reactor: Refusing())
        service = tap.makeService(options)
        self.assert_exit(1, service.startService)
        self.assertIn("port 443 is in use", self.stderr.getvalue())
        self.assertFalse(pidfile.exists())

    def test_pid_file_of_another(self) -> None:
        """A start that fails beside a running relay leaves that one's pid file alone."""
        pidfile = Path(self.mktemp())
        pidfile.write_text("1")
        options = self.parse("--dev")
        options.parent = usage.Options()
        options.parent["pidfile"] = str(pidfile)
        self.build_with(lambda config, reactor: Refusing())
        self.assert_exit(1, tap.makeService(options).startService)
        self.assertEqual(pidfile.read_text(), "1")

    def test_daemon(self) -> None:
        """A daemon's terminal is at the end of twistd's pipe; the log has the whole sentence."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        options = self.parse("--dev")
        options.parent = usage.Options()
        options.parent["statusPipe"] = writer
        self.build_with(lambda config, reactor: Refusing())
        service = tap.makeService(options)
        with capturedLogs() as events:
            self.assert_exit(1, service.startService)
        self.assertEqual(os.read(reader, 100)[:20], b"1 derper: -a: port 4")
        self.assertIn("stop the other server", events[-1]["sentence"])
        self.assertEqual(self.stderr.getvalue(), "")


class PluginTests(SynchronousTestCase):
    """The plugin file."""

    def test_found(self) -> None:
        """Twistd finds the plugin by its name, and the plugin finds our options."""
        found = [plugin for plugin in getPlugins(IServiceMaker) if plugin.tapname == "derper"]
        self.assertEqual([plugin.module for plugin in found], ["derp.tap"])
        self.assertIs(found[0].options, tap.Options)
        self.assertIs(found[0].makeService, tap.makeService)

    def test_below_twistd(self) -> None:
        """Read through twistd's own options, flags arrive untouched by its getopt."""
        options = app.ServerOptions()
        options.parseOptions(["derper", "-dev", "--stun=false"])
        self.assertEqual(options.subCommand, "derper")
        self.assertFalse(options.subOptions.config.stun)
