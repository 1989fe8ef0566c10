"""The SQL files: found, complete, and with no placeholder that nobody fills."""

from __future__ import annotations

import duckdb
import pytest

from duckdb_mistral.duck.sql_files import macro_files, sql_directory, template

TEMPLATES = sorted(path.stem for path in (sql_directory() / "templates").glob("*.sql"))


def test_macro_files_in_order() -> None:
    """The macros come in the order of their numbers, each file with a comment on each of its macros."""
    files = macro_files()
    assert files == sorted(files)
    assert files
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert text.count("CREATE OR REPLACE TEMP MACRO") == text.count("COMMENT ON MACRO TABLE"), path.name


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_is_filled_whole(name: str) -> None:
    """A template says in a comment what it is, and refuses to be filled in part."""
    found = template(name)
    assert found.template.startswith("-- ")
    assert template(name) is found
    names = found.get_identifiers()
    assert found.is_valid()
    if names:
        with pytest.raises(KeyError):
            found.substitute(dict.fromkeys(names[1:], "x"))


def test_no_template_of_a_name() -> None:
    """A name without a file is an error of the program."""
    with pytest.raises(FileNotFoundError):
        template("nothing")


def test_macros_parse() -> None:
    """DuckDB parses every macro file as macros and their comments, and nothing else."""
    with duckdb.connect() as engine:
        for path in macro_files():
            statements = engine.extract_statements(path.read_text(encoding="utf-8"))
            assert len(statements) >= 2
            assert len(statements) % 2 == 0
