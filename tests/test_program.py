"""Tests for :mod:`derp.program`, by a program of two flags."""

from __future__ import annotations

import gc
import io
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module

import twisted.internet
from twisted.application.service import Service
from twisted.trial.unittest import SynchronousTestCase

from derp import program
from derp.errors import ConfigError
from derp.goflag import Flag, Kind, Value
from derp.program import ProgramOptions, Start, run_script


class ToyOptions(ProgramOptions):
    """Flags of a toy."""

    program = "toy"
    groups = (
        ("Toys", (Flag("loud", Kind.BOOL, False, "Make noise."),)),
        ("Other", (Flag("n", Kind.INT, 1, "How often."), Flag("version", Kind.BOOL, False, "?"))),
    )

    def postOptions(self) -> None:
        """Refuse what makes no sense."""
        if self["n"] == 0:
            raise ConfigError("-n: never is not often: give 1 or more")


class ScriptOptions(ToyOptions):
    """With something beneath the command line."""

    synopsis = "Usage: toy [flags]"

    def with_beneath(self, given: dict[str, Value]) -> Mapping[str, Value]:
        """As an environment would."""
        return {"loud": True} | given

    def remarks(self, error: BaseException) -> str:
        """Something else to say of it."""
        return " (so says the manual)"


class Toy(Service):
    """Starts, or cannot; has something to report in the end."""

    exit_code = 3

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def startService(self) -> None:
        """Fail, if that is what it is for."""
        if self.error:
            raise self.error
        super().startService()


class FakeReactor:
    """Runs for as long as nothing takes, then shuts down."""

    def __init__(self) -> None:
        self.stops: list[Callable[[], object]] = []

    def addSystemEventTrigger(self, phase: str, event: str, what: Callable[[], object]) -> None:
        """As the real one does."""
        assert (phase, event) == ("before", "shutdown")
        self.stops.append(what)

    def run(self) -> None:
        """Stop at once."""
        for stop in self.stops:
            stop()


class OptionsTests(SynchronousTestCase):
    """:class:`derp.program.ProgramOptions`."""

    def test_mapping(self) -> None:
        """Defaults, what was given, and what lies beneath; a subclass has no flag twice."""
        options = ScriptOptions()
        options.read(["-n=5"])
        self.assertEqual(dict(options), {"loud": True, "n": 5, "version": False})
        self.assertEqual(options.given, {"loud": True, "n": 5})
        self.assertEqual(
            [each for each in options.longOpt if each in ("loud", "n=")], ["loud", "n="]
        )
        options.read(["-loud=false"])
        self.assertIs(options["loud"], False)

    def test_usage(self) -> None:
        """Flags by task, behind how the program is called."""
        text = str(ScriptOptions())
        self.assertTrue(text.startswith("Usage: toy [flags]\n"))
        self.assertLess(text.index("Toys:"), text.index("Other:"))


class RunScriptTests(SynchronousTestCase):
    """:func:`derp.program.run_script`."""

    def setUp(self) -> None:
        """A reactor that does not run; no log begins."""
        self.patch(program, "begin_logging", lambda file: None)
        import_module("twisted.internet.reactor")  # so that there is something to replace
        self.patch(twisted.internet, "reactor", FakeReactor())
        self.frozen: list[object] = []
        self.patch(gc, "freeze", lambda: self.frozen.append(self.toy.running))

    def run_toy(self, *argv: str, error: Exception | None = None) -> tuple[object, str]:
        """Exit code, and what was said."""
        self.toy = Toy(error)
        said = io.StringIO()
        self.patch(sys, "__stderr__", said)
        with redirect_stderr(said), redirect_stdout(said):
            try:
                code: object = run_script(
                    ScriptOptions(), argv, lambda options: Start(self.toy, options)
                )
            except SystemExit as end:
                code = end.code
        return code, said.getvalue()

    def test_to_its_end(self) -> None:
        """It is stopped with the reactor, and the code is its own."""
        self.assertEqual(self.run_toy("-n", "2"), (3, ""))
        self.assertFalse(self.toy.running)
        self.assertEqual(self.frozen, [True], "what is up is no garbage")

    def test_unusable(self) -> None:
        """A sentence with its remarks; a wrong flag has the usage and another code."""
        sentence = "toy: -n: never is not often: give 1 or more (so says the manual)\n"
        self.assertEqual(self.run_toy("-n", "0"), (1, sentence))
        code, said = self.run_toy("-m")
        self.assertEqual(code, 2)
        self.assertTrue(said.startswith("Usage: toy") and said.endswith('no flag "-m"\n'), said)

    def test_start_fails(self) -> None:
        """Likewise, with the remarks behind it; what the system says stands alone."""
        error = ConfigError("-n: no room for 2")
        self.assertEqual(
            self.run_toy("-n=2", error=error), (1, f"toy: {error}\n(so says the manual)\n")
        )
        self.assertEqual(self.run_toy(error=OSError("no room")), (1, "toy: no room\n"))
