"""Tests for :mod:`derp.probe_tap`, the plugin and :mod:`derp.derpprobe_script`."""

from __future__ import annotations

import io
import os
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from twisted.application.service import IServiceMaker
from twisted.internet import reactor as global_reactor
from twisted.logger import capturedLogs
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from derp import __version__, derpprobe_script, probe_tap
from derp.probe_command_line import probe_config_from_flags
from derp.probe_flags import FLAGS

reactor: Any = global_reactor


class ProbeTapTestCase(SynchronousTestCase):
    """Catches what is said to the operator."""

    def setUp(self) -> None:
        """Put a file in the place of the terminal."""
        self.stderr = io.StringIO()
        self.patch(sys, "__stderr__", self.stderr)
        self.patch(reactor, "seconds", reactor.seconds)  # that of other tests stays as it is

    def parse(self, *argv: str) -> probe_tap.Options:
        """Options read from a command line."""
        options = probe_tap.Options()
        options.parseOptions(list(argv))
        return options

    def assert_exit(self, code: int, function: Any, *args: Any) -> str:
        """Call something that ends the process; return what it printed."""
        output = io.StringIO()
        with redirect_stdout(output):
            error = self.assertRaises(SystemExit, function, *args)
        self.assertEqual(error.code, code)
        return output.getvalue()


class OptionsTests(ProbeTapTestCase):
    """:class:`derp.probe_tap.Options`."""

    def test_config(self) -> None:
        """The line becomes what the flags mean in our environment."""
        options = self.parse("-spread=false", "--interval", "1m")
        given = {"spread": False, "interval": 60.0}
        self.assertEqual(options.config, probe_config_from_flags(given, os.environ))

    def test_mapping(self) -> None:
        """As any Twisted options these are a mapping, with defaults."""
        expected = {flag.name: flag.default for flag in FLAGS} | {"once": True}
        self.assertEqual(dict(self.parse("-once")), expected)

    def test_wrong_flag(self) -> None:
        """One sentence, where to read on, and exit code 1."""
        self.assert_exit(1, self.parse, "--onc")
        self.assertEqual(
            self.stderr.getvalue(),
            'derpprobe: there is no flag "--onc": did you mean --once?\n'
            "(twistd derpprobe --help lists the flags)\n",
        )

    def test_unusable_value(self) -> None:
        """The sentence alone."""
        self.assert_exit(1, self.parse, "--interval=0")
        self.assertTrue(self.stderr.getvalue().startswith("derpprobe: --interval: "))
        self.assertEqual(self.stderr.getvalue().count("\n"), 1)

    def test_help(self) -> None:
        """Help lists every flag, and is no error."""
        text = self.assert_exit(0, self.parse, "--help")
        for flag in FLAGS:
            self.assertIn(f"  {flag.spelling}", text)

    def test_version(self) -> None:
        """The version alone, before anything else is checked."""
        text = self.assert_exit(0, self.parse, "-version", "--interval=0")
        self.assertEqual(text, f"{__version__}\n")


class PluginTests(ProbeTapTestCase):
    """What twistd finds."""

    def test_found(self) -> None:
        """It is a plugin of that name."""
        makers = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "derpprobe"]
        self.assertEqual([maker.module for maker in makers], ["derp.probe_tap"])

    def test_bad_file(self) -> None:
        """What is found out while the service is made ends the start as well."""
        options = self.parse("-derp-map", "file:///nowhere/map.json", "-listen", "127.0.0.1:0")
        with capturedLogs():
            self.assert_exit(1, probe_tap.makeService, options)
        self.assertIn('--derp-map: cannot read "/nowhere/map.json"', self.stderr.getvalue())
        self.assertIs(reactor.seconds, time.monotonic, "a clock that nobody sets")


class ScriptTests(ProbeTapTestCase):
    """:func:`derp.derpprobe_script.run`, as far as no reactor runs."""

    def run_script(self, *argv: str) -> tuple[int, str]:
        """Exit code and stderr."""
        stderr = io.StringIO()
        with redirect_stderr(stderr):
            code = derpprobe_script.run(argv)
        return code, stderr.getvalue()

    def test_wrong_flag(self) -> None:
        """Usage and exit code 2."""
        code, said = self.run_script("-onc")
        self.assertEqual(code, 2)
        self.assertTrue(said.startswith("Usage: derpprobe [flags]\n"))
        self.assertTrue(said.endswith('there is no flag "-onc": did you mean --once?\n'))

    def test_unusable(self) -> None:
        """A sentence and exit code 1."""
        code, said = self.run_script("-bw-tun-ipv4-addr=10.0.0.1")
        self.assertEqual((code, said.count("\n")), (1, 1))
        self.assertTrue(said.startswith("derpprobe: --bw-tun-ipv4-addr: "))

    def test_version(self) -> None:
        """As the reference."""
        text = self.assert_exit(0, derpprobe_script.run, ["-version"])
        self.assertEqual(text, f"{__version__}\n")
