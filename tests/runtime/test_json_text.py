"""Values for JSON: text is read, and what JSON cannot hold is refused."""

from __future__ import annotations

from typing import Any

import pytest

from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.runtime.json_text import given_json


@pytest.mark.parametrize(("value", "given"), [('{"a": [null]}', {"a": [None]}), ({"a": "x"}, {"a": "x"}), ("5", 5)])
def test_given(value: Any, given: Any) -> None:
    """Text is read as JSON, and anything else is taken as it is."""
    assert given_json("params", value) == given


@pytest.mark.parametrize(
    "value", ["NaN", '{"a": 1e999}', '{"a": ["\\ud800"]}', '{"a": [-Infinity]}', {"a": float("nan")}, {"a": "\ud800"}]
)
def test_what_json_cannot_hold(value: Any) -> None:
    """NaN, infinite numbers and half a character are refused at any depth, in text and in values."""
    with pytest.raises(ArgumentError, match=r"^params holds what JSON cannot hold: NaN, .* Nothing was sent\.$"):
        given_json("params", value)


def test_text_that_is_no_json() -> None:
    """Text that is no JSON is shown, as far as that is of use."""
    with pytest.raises(ArgumentError, match=r"^params is text, but not JSON: 'x{80}'\. Nothing was sent\.$"):
        given_json("params", "x" * 500)


def test_too_many_levels() -> None:
    """Text of more levels than Python can read is refused in a sentence."""
    with pytest.raises(ArgumentError, match=r"^params has more levels than can be read\. Nothing was sent\.$"):
        given_json("params", "[" * 100_000 + "]" * 100_000)
