"""The pages that list flags, variables and metrics say what the code says."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from derp import environment
from derp.environment_flags import DOMAIN_FAMILY, PLAIN_FAMILY, VARIABLES
from derp.flags import FLAGS
from tests.docs.names import FLAG_NAMES, KNOBS, SETTINGS
from tests.docs.pages import ROOT, all_pages

FOREIGN_FLAGS = frozenset({"--flag", "--ulimit", "--user", "--volumes", "--sysctl", "--pidfile"})
"""Of docker and twistd, which the text mentions by themselves; and the word for any.
One letter alone is not looked at: every program has its own."""
FOREIGN_NAMES = frozenset({"DERP_PORT", "DERP_SERVICE_HOST"})
"""Kubernetes', which mean nothing to a relay."""


def _reference() -> ModuleType:
    """``docs/reference.py``, which is in no package."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = _reference()


def literals(text: str) -> list[str]:
    """What a page has between double backquotes."""
    return re.findall(r"``(.+?)``", text, re.DOTALL)


class ReferenceTests(SynchronousTestCase):
    """The written pages are those of this code."""

    def test_pages_are_current(self) -> None:
        """Whoever changes a flag, a variable or a metric writes the pages anew."""
        for name, text in reference.pages().items():
            written = (ROOT / "docs" / name).read_text(encoding="utf-8")
            self.assertEqual(written, text, "run: python docs/reference.py")

    def test_everything_is_there(self) -> None:
        """No flag, variable or knob is left out."""
        made = reference.pages()
        for flag in FLAGS:
            self.assertIn(f"\n``{flag.spelling}`` *", made["flags.rst"])
        for name in VARIABLES:
            self.assertIn(f"* - ``{name}``\n", made["environment.rst"])
        self.assertLessEqual(KNOBS, set(reference.KNOBS))
        self.assertIn(environment.QUEUE_DEPTH, KNOBS)

    def test_derper_names(self) -> None:
        """Each of derper's metrics is listed, beside a name that /metrics really has."""
        sources = reference.make_sources()
        self.assertEqual(set(reference.DERPER_NAMES), set(reference.derper_names(sources)))
        ours = {reference.sample_name(each) for each in reference.families(sources)}
        for text in filter(None, reference.DERPER_NAMES.values()):
            name = re.search(r"[a-z]\w*_\w+", text)
            assert name is not None
            self.assertIn(name[0], ours, text)


class MigrationTests(SynchronousTestCase):
    """The page for people who come from somewhere else leaves nothing out."""

    def test_every_variable(self) -> None:
        """Each variable of an image stands beside its flag, with what differs."""
        text = (ROOT / "docs" / "migrating.rst").read_text(encoding="utf-8")
        rows = re.findall(r"^``([A-Z_]+)`` +``(--?[a-z-]+)`` +\S", text, re.MULTILINE)
        spellings = {flag.name: flag.spelling for flag in FLAGS}
        images = DOMAIN_FAMILY | PLAIN_FAMILY
        expected = [(name, spellings[flag]) for name, flag in images.items()]
        self.assertEqual(sorted(rows), sorted(expected))


class NameTests(SynchronousTestCase):
    """No page has a name for something that does not exist."""

    def each_literal(self) -> list[tuple[str, str]]:
        """Page and literal; the benchmarks have options of their own."""
        return [
            (page.name, literal)
            for page in all_pages()
            if page.parent.name != "bench"
            for literal in literals(page.read_text(encoding="utf-8"))
        ]

    def test_flags(self) -> None:
        """A flag that the text mentions is one."""
        for page, literal in self.each_literal():
            if not literal.startswith("-") or literal.split()[0].split("=")[0] in FOREIGN_FLAGS:
                continue
            for word in re.findall(r"(?<![\w-])--?([a-z][a-z0-9-]+)", literal):
                self.assertIn(word, FLAG_NAMES, f"{page}: {literal}")

    def test_variables(self) -> None:
        """A variable that the text mentions is one."""
        for page, literal in self.each_literal():
            for name in re.findall(r"\b(?:DERP|TS|TAILSCALE)_[A-Z_]*[A-Z]\b", literal):
                if name not in FOREIGN_NAMES:
                    self.assertIn(name, SETTINGS, f"{page}: {literal}")

    def test_metrics(self) -> None:
        """A metric that the text mentions is one."""
        sources = reference.make_sources()
        known = {name for each in reference.families(sources) for name in _sample_names(each)}
        known |= {each.name for each in reference.families(sources)}
        known |= set(reference.derper_names(sources))
        count = 0
        for page, literal in self.each_literal():
            for name in re.findall(r"\b(?:derp|stun|tls_listener)_[a-z_]+\b(?!…|\.)", literal):
                if page != "relay-client.rst" and not name.endswith("_"):
                    self.assertIn(name, known, f"{page}: {literal}")
                    count += 1
        self.assertGreater(count, 20)


class SentenceTests(SynchronousTestCase):
    """What troubleshooting quotes is what the relay says."""

    def test_quoted(self) -> None:
        """Each sentence in the first column of a table is in the code, but for its dots."""
        page = (ROOT / "docs" / "troubleshooting.rst").read_text(encoding="utf-8")
        code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "derp").rglob("*.py"))
        code = re.sub(r'"\s*\n\s*f?"', "", code).replace("{FLAG}", "--allow-clients")
        count = 0
        for head, body in re.findall(
            r"^=+ +=+\n(\w[^\n]*)\n=+ +=+\n(.*?)^=+ +=+\n", page, re.MULTILINE | re.DOTALL
        ):
            if not head.startswith(("it says", "reason", "line")):
                continue
            for quoted in re.findall(r"^``([^`]+)``", body, re.MULTILINE):
                for part in filter(None, map(str.strip, quoted.split("..."))):
                    self.assertIn(part.strip(":"), code, quoted)
                    count += 1
        self.assertGreater(count, 20)


def _sample_names(metric: object) -> set[str]:
    base = str(reference.sample_name(metric))
    return {base, f"{base}_bucket", f"{base}_sum", f"{base}_count"}
