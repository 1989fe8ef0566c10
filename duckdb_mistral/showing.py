"""Rows on standard output, in the form that --format asks for."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from duckdb_mistral.quoting import literal

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

FORMATS = ("table", "csv", "jsonl")


def shown_as(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --format."""
    option = click.option(
        "--format",
        "shown",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How rows are printed.",
    )
    return option(command)


def show(connection: duckdb.DuckDBPyConnection, select: str, given: dict[str, Any] | None, shown: str) -> None:
    """Print the rows of a SELECT on standard output; `shown` is one of FORMATS."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE shown_rows AS {select}", given)
    if shown == "table":
        _print_table(connection.sql("FROM shown_rows"))
    else:
        _copy_rows(connection, "(FORMAT csv, HEADER)" if shown == "csv" else "(FORMAT json)")


def _copy_rows(connection: duckdb.DuckDBPyConnection, form: str) -> None:
    """Write the rows after what stands on standard output; DuckDB would open its file anew, and empty it."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "rows"
        connection.execute(f"COPY (FROM shown_rows) TO {literal(path)} {form}")
        with path.open("rb") as rows:
            sys.stdout.flush()
            shutil.copyfileobj(rows, sys.stdout.buffer)


def _print_table(table: duckdb.DuckDBPyRelation) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if sys.stdout.isatty() else Console(width=200)
    printed = Table(*table.columns, box=None, pad_edge=False)
    for row in table.fetchall():
        printed.add_row(*(Text("" if value is None else str(value)) for value in row))
    console.print(printed)
