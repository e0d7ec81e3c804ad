"""Tests for :mod:`derp.mesh_key_file`."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from derp import mesh_key_file
from derp.errors import ConfigError
from derp.flags import FLAGS
from derp.goflag import FlagValues, Value
from derp.mesh_key_file import MESH_KEY_VARIABLE, default_mesh_key_file, find_mesh_key

HEX = "0123456789abcdef" * 4
RAW = bytes.fromhex(HEX)


def flags(**given: Value) -> FlagValues:
    """Flags with the given ones, ``_`` for ``-``."""
    return FlagValues(FLAGS, {name.replace("_", "-"): value for name, value in given.items()})


class FindMeshKeyTests(SynchronousTestCase):
    """:func:`derp.mesh_key_file.find_mesh_key` looks where derper looks."""

    def setUp(self) -> None:
        """A home of our own, so that this machine's does not count."""
        self.home = Path(self.mktemp())
        (self.home / "keys").mkdir(parents=True)
        self.environ = {"HOME": str(self.home)}
        self.patch(mesh_key_file, "SHARED_MESH_KEY_FILE", str(self.home / "shared.key"))

    def write(self, content: bytes, name: str = "mesh.key") -> str:
        """Write a mesh key file and return its path."""
        path = self.home / name
        path.write_bytes(content)
        return str(path)

    def test_none(self) -> None:
        """No flag and no default file is no key, without a word."""
        self.assertEqual(find_mesh_key(flags(), self.environ), (None, ()))
        self.assertEqual(find_mesh_key(flags(), {}), (None, ()))

    def test_default_file(self) -> None:
        """A file in the home is found by itself, and the shared one before it."""
        path = self.write(HEX.encode(), "keys/derp-mesh.key")
        self.assertEqual(default_mesh_key_file(self.environ), path)
        self.assertEqual(find_mesh_key(flags(), self.environ), (RAW, ()))
        shared = self.write(HEX.encode(), "shared.key")
        self.assertEqual(default_mesh_key_file(self.environ), shared)

    def test_empty_flag_turns_the_default_off(self) -> None:
        """``--mesh-psk-file=`` means no mesh key, whatever files exist."""
        self.write(HEX.encode(), "keys/derp-mesh.key")
        self.assertEqual(find_mesh_key(flags(mesh_psk_file=""), self.environ), (None, ()))

    def test_white_space_and_case(self) -> None:
        """Line ends around the key and upper case are read."""
        path = self.write(f" \n{HEX.upper()}\r\n".encode())
        self.assertEqual(find_mesh_key(flags(mesh_psk_file=path), self.environ), (RAW, ()))

    def test_empty_file(self) -> None:
        """An empty file and the zero key are no key, which is worth a line."""
        for content in (b"", b"0" * 64):
            key, notices = find_mesh_key(flags(mesh_psk_file=self.write(content)), self.environ)
            self.assertIsNone(key)
            self.assertIn("holds no key", notices[0])

    def test_not_a_key(self) -> None:
        """Anything else stops the start; what the file holds is not repeated."""
        for content in (b" \n", b"secret" * 10, HEX.encode() + b"0", b"\xff" * 64, b"f" * 5000):
            path = self.write(content)
            given = flags(mesh_psk_file=path)
            error = self.assertRaises(ConfigError, find_mesh_key, given, self.environ)
            self.assertIn(f'--mesh-psk-file: "{path}" holds no mesh key', str(error))
            self.assertNotIn("secret", str(error))

    def test_unreadable(self) -> None:
        """A file that is not there, or is a directory, is named."""
        for path in (str(self.home / "missing"), str(self.home)):
            given = flags(mesh_psk_file=path)
            error = self.assertRaises(ConfigError, find_mesh_key, given, self.environ)
            self.assertIn(f'--mesh-psk-file: cannot read "{path}"', str(error))

    def test_dev(self) -> None:
        """With ``--dev`` only the variable counts, and a file given by flag is told of."""
        path = self.write(HEX.encode(), "keys/derp-mesh.key")
        self.assertEqual(find_mesh_key(flags(dev=True), self.environ), (None, ()))
        environ = self.environ | {MESH_KEY_VARIABLE: HEX}
        self.assertEqual(find_mesh_key(flags(dev=True), environ), (RAW, ()))
        _, notices = find_mesh_key(flags(dev=True, mesh_psk_file=path), environ)
        self.assertIn("--mesh-psk-file has no effect", notices[0])

    def test_variable_outside_dev(self) -> None:
        """The variable is for ``--dev`` alone."""
        environ = self.environ | {MESH_KEY_VARIABLE: "not a key"}
        self.assertEqual(find_mesh_key(flags(), environ), (None, ()))

    def test_bad_variable(self) -> None:
        """A variable that holds no key is named, its value is not."""
        environ = {MESH_KEY_VARIABLE: "secret"}
        error = self.assertRaises(ConfigError, find_mesh_key, flags(dev=True), environ)
        self.assertIn(f"environment variable {MESH_KEY_VARIABLE} holds no mesh key", str(error))
        self.assertNotIn("secret", str(error))
