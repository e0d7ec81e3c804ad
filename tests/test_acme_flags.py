"""Tests for :mod:`derp.acme_flags`; what its flags mean together: ``test_command_line``."""

from twisted.trial.unittest import SynchronousTestCase

from derp.acme_flags import parse_command
from derp.errors import ConfigError


class CommandTests(SynchronousTestCase):
    """``--acme-dns-hook``."""

    def test_split(self) -> None:
        """As a shell splits, without being one."""
        self.assertEqual(parse_command("/bin/hook 'a b' $HOME"), ("/bin/hook", "a b", "$HOME"))
        for text in (" ", "'"):
            self.assertRaises(ConfigError, parse_command, text)
