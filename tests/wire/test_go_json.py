"""Tests of :mod:`derp.wire.go_json`; logins and maps have more in their own tests."""

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ProtocolError
from derp.wire.go_json import field, fields_of, parse_object


class GoJSONTests(SynchronousTestCase):
    """Go's habits, where they differ from Python's."""

    def test_names_in_any_case(self) -> None:
        """A name is found however it was written; the last of several counts."""
        self.assertEqual(parse_object('{"FooBar":1,"FOOBAR":2}', "it"), {"foobar": 2})

    def test_null(self) -> None:
        """``null`` is an empty object, and a field at its default."""
        self.assertEqual(parse_object(b"null", "it"), {})
        self.assertEqual(field({"a": None}, "a", 7, "it"), 7)

    def test_types(self) -> None:
        """A field has the type of its default; only a whole number may stand for a fraction."""
        for value, default in ((True, 0), (1, True), (1.0, 0), ("1", 1), (1, ""), ([], "")):
            self.assertRaises(ProtocolError, field, {"a": value}, "a", default, "it")
        self.assertEqual(field({"a": 3}, "a", 0.0, "it"), 3.0)
        self.assertIs(type(field({"a": 3}, "a", 0.0, "it")), float)
        self.assertRaises(ProtocolError, field, {"a": True}, "a", 0.0, "it")
        self.assertRaises(ProtocolError, field, {"a": 10**400}, "a", 0.0, "it")

    def test_errors_say_where(self) -> None:
        """An error names the field and what held it."""
        error = self.assertRaises(ProtocolError, field, {"a": "x"}, "a", 0, "the thing")
        self.assertEqual(str(error), "'a' of the thing is no integer")
        error = self.assertRaises(ProtocolError, fields_of, [], "the thing")
        self.assertEqual(str(error), "the thing holds no JSON object")

    @given(st.binary(max_size=60) | st.text(max_size=60))
    def test_garbage(self, data: Any) -> None:
        """Anything is an object or a ProtocolError."""
        with contextlib.suppress(ProtocolError):
            self.assertIsInstance(parse_object(data, "it"), dict)
