"""Finding `sql/` and `dbt_package/`: inside an installed package, or beside the package in a checkout."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from string import Template

from duckdb_mistral.duck.qualifying import qualified

_PACKAGE = Path(__file__).resolve().parents[1]


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


@cache
def macros() -> tuple[str, ...]:
    """Return the statements of each macro file, with names that mean DuckDB's."""
    return tuple(qualified(path.read_text(encoding="utf-8")) for path in macro_files())


@cache
def template(name: str) -> Template:
    """Return the statement template `sql/templates/{name}.sql`, with names that mean DuckDB's."""
    return Template(qualified((sql_directory() / "templates" / f"{name}.sql").read_text(encoding="utf-8")))
