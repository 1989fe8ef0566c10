"""The SQL files: found, complete, and with no placeholder that nobody fills."""

from __future__ import annotations

import re

import duckdb
import pytest

from duckdb_mistral.duck.sql_files import macro_files, macro_text, sql_directory, template

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


def test_shared_text_is_shared() -> None:
    """Every text that macros share stands in several of them, and is put in whole, as deep as its name stood."""
    files = [path.read_text(encoding="utf-8") for path in macro_files()]
    for path in (sql_directory() / "shared").glob("*.sql"):
        assert sum(bool(re.search(rf"^ *\${path.stem}\b", text, re.MULTILINE)) for text in files) > 1, path.name
    assert not any("$" in macro_text(path) for path in macro_files())
    (estimate,) = (macro_text(path) for path in macro_files() if path.stem.endswith("estimate"))
    assert estimate.startswith("CREATE OR REPLACE TEMP MACRO mistral_batch_estimate(\n  source,\n  model := NULL,\n")


def test_macros_parse() -> None:
    """DuckDB parses every macro file as macros and their comments, and nothing else."""
    with duckdb.connect() as engine:
        for path in macro_files():
            statements = engine.extract_statements(macro_text(path))
            assert len(statements) >= 2
            assert len(statements) % 2 == 0
