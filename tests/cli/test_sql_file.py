"""Files of SQL: which part is the source, and which options reach a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import duckdb
import pytest

from duckdb_mistral.cli.sql_file import call, check_database, source_of, text_of
from duckdb_mistral.errors import ArgumentError

if TYPE_CHECKING:
    from pathlib import Path


def test_last_statement() -> None:
    """The last statement is the source, without its semicolon, and those before it are run."""
    with duckdb.connect() as con:
        source = source_of(con, "CREATE TABLE prompts (custom_id INTEGER);\nFROM prompts ;\n")
        assert source.strip() == "FROM prompts"
        assert con.execute("SELECT count(*) FROM prompts").fetchall() == [(0,)]


def test_no_statement() -> None:
    """A text without a statement is told in a sentence."""
    with duckdb.connect() as con, pytest.raises(ArgumentError, match="holds no statement"):
        source_of(con, "-- nothing yet")


def test_text_of(tmp_path: Path) -> None:
    """A file is read as UTF-8, and one that is no text is told by its name."""
    file = tmp_path / "prompts.sql"
    file.write_text("SELECT 'é'", encoding="utf-8")
    assert text_of(file) == "SELECT 'é'"
    file.write_bytes(b"SELECT '\xff'")
    with pytest.raises(ArgumentError, match=r"prompts\.sql is not UTF-8 text"):
        text_of(file)


@pytest.mark.parametrize(
    ("models", "model"), [((), None), (("",), ""), (("one",), "one"), (("one", "two"), ["one", "two"])]
)
def test_call(models: tuple[str, ...], model: str | list[str] | None) -> None:
    """Options that were not given are left to the function, and several models are a list."""
    called, given = call("preview", "FROM prompts", {"model": models, "system": None, "force": False})
    assert given == {"source": "FROM prompts", "force": False} | ({"model": model} if models else {})
    assert called == f"preview({', '.join(f'{name} := ${name}' for name in given)})"


def test_databases(tmp_path: Path) -> None:
    """A database has to be there, unless it is in memory or lies elsewhere."""
    (tmp_path / "here.duckdb").touch()
    for database in (str(tmp_path / "here.duckdb"), ":memory:", ":memory:name", "md:tickets", "s3://bucket/a.duckdb"):
        check_database(database)
    with pytest.raises(click.UsageError, match=r"There is no database .*there\.duckdb"):
        check_database(str(tmp_path / "there.duckdb"))
