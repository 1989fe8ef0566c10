"""Finding `sql/` and `dbt_package/`: inside an installed package, or beside the package in a checkout."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from string import Template
from textwrap import indent

from duckdb_mistral.duck.qualifying import qualified

_PACKAGE = Path(__file__).resolve().parents[1]
#: What stands, in a file of macros, for a text that several of them have in common.
_SHARED = re.compile(r"^( *)\$(\w+)", re.MULTILINE)


def sql_directory() -> Path:
    """Return the directory of the macros and the statement templates."""
    inside = _PACKAGE / "sql"
    return inside if inside.is_dir() else _PACKAGE.parent / "sql"


def dbt_package() -> Path:
    """Return the directory of the dbt package."""
    inside = _PACKAGE / "dbt_package"
    return inside if inside.is_dir() else _PACKAGE.parent / "dbt_package"


def macro_files() -> list[Path]:
    """Return the files that define the macros, in the order in which they run."""
    return sorted((sql_directory() / "macros").glob("*.sql"))


def macro_text(path: Path) -> str:
    """Return what a file of macros says: a line `$name` stands for `sql/shared/{name}.sql`, as deep as the line is."""
    return _SHARED.sub(lambda line: indent(_shared(line[2]), line[1]), path.read_text(encoding="utf-8"))


@cache
def macros() -> tuple[str, ...]:
    """Return the statements of each macro file, with names that mean DuckDB's."""
    return tuple(qualified(macro_text(path)) for path in macro_files())


@cache
def template(name: str) -> Template:
    """Return the statement template `sql/templates/{name}.sql`, with names that mean DuckDB's."""
    return Template(qualified((sql_directory() / "templates" / f"{name}.sql").read_text(encoding="utf-8")))


@cache
def _shared(name: str) -> str:
    return (sql_directory() / "shared" / f"{name}.sql").read_text(encoding="utf-8").rstrip("\n")
