"""Tests for :mod:`derp.start_block`: what is said of protection is what there is."""

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.start_block import protections

OPEN = "admission: none, whoever finds this relay may use it"
ON_HANG_UP = "connected clients are not asked about again but on SIGHUP"


class ProtectionTests(SynchronousTestCase):
    """:func:`derp.start_block.protections`."""

    def admission(self, **flags: object) -> list[str]:
        """The lines before those about time-outs."""
        lines = protections(replace(Config(), **flags))  # type: ignore[arg-type]
        end = next(n for n, line in enumerate(lines) if line.startswith("a client that takes"))
        return lines[:end]

    def test_none(self) -> None:
        """An open relay says so."""
        self.assertEqual(self.admission(), [OPEN])

    def test_each(self) -> None:
        """Each kind of source with what decides, none with what may be secret."""
        self.assertEqual(
            self.admission(
                allow_clients="/keys",
                verify_clients=True,
                socket=("/a", "/b"),
                verify_client_url=("https://u:p@a.test/verify?token=1",),
            ),
            [
                "admission: clients in /keys (--allow-clients)",
                "           and known to tailscaled at /a or /b (--verify-clients)",
                "           and agreed to by https://a.test/verify, which admits all while "
                "unreachable",
                ON_HANG_UP,
            ],
        )

    def test_policy(self) -> None:
        """Alternatives are told from conditions, failing closed from open."""
        lines = self.admission(
            allow_clients="/keys",
            verify_client_url=("https://a.test/",),
            verify_client_url_fail_open=False,
            verify_policy="any",
            reverify_interval=300.0,
        )
        self.assertEqual(
            lines[1:],
            [
                "           or agreed to by https://a.test/, which refuses while unreachable",
                "clients no longer admitted are closed within 5m0s",
            ],
        )

    def test_default_socket(self) -> None:
        """The socket that will be asked is named also if the operator did not."""
        self.assertRegex(self.admission(verify_clients=True)[0], r"tailscaled at \S+\.sock ")
