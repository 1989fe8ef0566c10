"""Values as SQL: DuckDB reads back what was quoted."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckdb_mistral.duck.quoting import identifier, literal, literals


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(deadline=None)
def test_any_text(text: str) -> None:
    """Any text comes back as it is, quotes, backslashes and NULs included."""
    with duckdb.connect() as engine:
        assert engine.execute(f"SELECT {literal(text)}").fetchall() == [(text,)]


@pytest.mark.parametrize(("value", "text"), [(None, None), (5, "5"), (Path("a/it's"), "a/it's")])
def test_other_values(value: object, text: str | None) -> None:
    """Other values are quoted as their text, and None is NULL."""
    with duckdb.connect() as engine:
        assert engine.execute(f"SELECT {literal(value)}").fetchall() == [(text,)]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=40))
@settings(deadline=None)
def test_any_name(name: str) -> None:
    """Any text without a NUL names a column, as it is."""
    with duckdb.connect() as engine:
        assert engine.execute(f"SELECT 1 AS {identifier(name)}").description[0][0] == name


def test_several_values() -> None:
    """Several values are the members of a list."""
    with duckdb.connect() as engine:
        assert engine.execute(f"SELECT [{literals(['a', None, chr(39)])}]").fetchall() == [(["a", None, "'"],)]
