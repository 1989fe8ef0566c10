"""Text from anywhere, as a terminal may show it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from duckdb_mistral.errors import SourceError
from duckdb_mistral.printable import printable


def test_escapes() -> None:
    """Control characters are shown as their escapes; line feeds, tabs and all other text stay."""
    assert printable("\x1b]0;title\x07\x9b31m\r\x00") == r"\x1b]0;title\x07\x9b31m\x0d\x00"
    assert printable("a\tb\n\u202egnp.exe") == "a\tb\n\\u202egnp.exe"
    assert printable("naïve 日本 😀 שלום") == "naïve 日本 😀 שלום"


@given(st.text(st.characters()))
def test_any_text(text: str) -> None:
    """What is returned has no control character but tab and line feed, can be encoded, and is returned as it is."""
    shown = printable(text)
    assert not [
        character
        for character in shown
        if character not in "\t\n" and (character < " " or "\x7f" <= character < "\xa0")
    ]
    assert shown.encode().decode() == shown == printable(shown)


def test_errors() -> None:
    """The sentence of an error holds no control character of the data that it tells of."""
    assert str(SourceError("custom_id \x1b[2J is there twice")) == r"custom_id \x1b[2J is there twice"
