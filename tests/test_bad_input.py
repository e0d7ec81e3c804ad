"""What a container's operator gets wrong, and what he gets for it: one sentence, exit code 1."""

from __future__ import annotations

import io
import os
import socket
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from derp import derper_script, volumes

CONTAINER = {"HOME": "/root", "HOSTNAME": "3f2a9c0d1e4b", "container": "oci"}

BAD: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "a word for a boolean": (
        {"DERP_DOMAIN": "a.test", "DERP_STUN": "maybe"},
        ("variable DERP_STUN:", '"maybe"', "write true or false"),
    ),
    "a port that is none": (
        {"DERP_DOMAIN": "a.test", "DERP_STUN_PORT": "70000"},
        ("70000", "from 0 to 65535", "set by DERP_STUN_PORT"),
    ),
    "a port that is none, second family": (
        {"HTTP_PORT": "70000", "VERIFY_CLIENTS": "false"},
        ("70000", "from 0 to 65535", "set by HTTP_PORT"),
    ),
    "an address without its colon": (
        {"DERP_DOMAIN": "a.test", "DERP_ADDR": "443"},
        ("-a", "443", "set by DERP_ADDR"),
    ),
    "no name": (
        {"DERP_CERT_MODE": "letsencrypt"},
        ("your-hostname.com", "set DERP_DOMAIN"),
    ),
    "the images' own name": (
        {"DERP_DOMAIN": "your-hostname.com"},
        ("your-hostname.com stands for yours", "set DERP_DOMAIN"),
    ),
    "no name, second family": (
        {"CERT_MODE": "letsencrypt", "VERIFY_CLIENTS": "false"},
        ("127.0.0.1 is an IP address", "set by CERT_MODE", "has the default of HOSTNAME"),
    ),
    "nothing at all": ({}, ("derper -hostname", "DERP_DOMAIN=")),
    "a socket that is not there": (
        {"DERP_DOMAIN": "a.test", "DERP_VERIFY_CLIENTS": "true", "SOCKET": "/none/tailscaled.sock"},
        ('SOCKET: there is no socket "/none/tailscaled.sock"', "mount the directory"),
    ),
    "a socket that is not there by default": (
        {"ADDR": ":443"},
        ("VERIFY_CLIENTS: there is no socket", "set VERIFY_CLIENTS to false"),
    ),
    "the same twice, differently": (
        {"DERP_ADDR": ":443", "ADDR": ":8443"},
        ("DERP_ADDR and ADDR", "remove one of them"),
    ),
    "two spellings that differ": (
        {"SECRETS_PREFIX": "prod/derp", "SECRET_PREFIX": "dev/derp"},
        ("SECRETS_PREFIX and SECRET_PREFIX", "remove one of them"),
    ),
    "a volume of root's": (
        {"DERP_DOMAIN": "a.test", "DERP_CERT_DIR": "{place}"},
        ("{place}", "chown -R 10001", "--user 0", "set by DERP_CERT_DIR"),
    ),
    "a volume of root's, second family": (
        {"HOSTNAME": "192.0.2.7", "CERT_DIR": "{place}", "VERIFY_CLIENTS": "false"},
        ("{place}", "chown -R 10001", "--user 0", "set by CERT_DIR"),
    ),
    "a key on a volume of root's": (
        {"DEV": "false", "CERT_DIR": "{place}", "HOSTNAME": "a.test", "VERIFY_CLIENTS": "false"},
        ("-c {place}", "chown -R 10001", "--user 0"),
    ),
}
"""Variables, and what the sentence says; ``{place}`` is a directory that others may write to."""


class BadInputTests(SynchronousTestCase):
    """One sentence that names the variable and the cure; nothing is written or started."""

    def setUp(self) -> None:
        """A container whose only directory belongs to root, and we do not."""
        self.place = Path(self.mktemp()).absolute()
        self.place.mkdir()
        self.patch(volumes.os, "access", lambda path, mode: str(path) != str(self.place))
        self.patch(os, "geteuid", lambda: 10001)
        self.patch(socket, "gethostname", lambda: CONTAINER["HOSTNAME"])
        self.patch(derper_script, "makeService", self.fail)
        self.patch(derper_script, "has_root_key_path", lambda: True)

    def run_with(self, variables: dict[str, str]) -> tuple[object, str, str]:
        """Exit code, stdout, stderr."""
        filled = {name: value.format(place=self.place) for name, value in variables.items()}
        argv = ("-c", f"{self.place}/derper.key") if "DEV" in variables else ()
        self.patch(os, "environ", CONTAINER | filled)
        stdout, stderr = io.StringIO(), io.StringIO()
        self.patch(sys, "__stderr__", stderr)
        with redirect_stdout(stdout), redirect_stderr(stderr):
            code = derper_script.run(argv)
        return code, stdout.getvalue(), stderr.getvalue()

    def test_each(self) -> None:
        """Every mistake of the list."""
        for name, (variables, said) in BAD.items():
            with self.subTest(name):
                code, stdout, stderr = self.run_with(variables)
                self.assertEqual((code, stdout), (1, ""))
                self.assertEqual(stderr.count("\n"), 1, stderr)
                self.assertTrue(stderr.startswith("derper: "))
                for part in said:
                    self.assertIn(part.format(place=self.place), stderr)
                self.assertEqual(list(self.place.iterdir()), [])
