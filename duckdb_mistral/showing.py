"""Rows on standard output, in the form that --format asks for."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from duckdb_mistral.printable import printable
from duckdb_mistral.quoting import literal

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb
    from rich.table import Table

FORMATS = ("table", "csv", "jsonl")
#: The columns of a table that may take several lines.
TEXTS = {"model", "content", "error", "what", "custom_id", "note", "body"}


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


def show(connection: duckdb.DuckDBPyConnection, select: str, given: dict[str, Any] | None, shown: str) -> int:
    """Print the rows of a SELECT on standard output, and return their number; `shown` is one of FORMATS."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE shown_rows AS {select}", given)
    if shown == "table":
        _print_table(connection.sql("FROM shown_rows"))
    else:
        _copy_rows(connection, "(FORMAT csv, HEADER)" if shown == "csv" else "(FORMAT json)")
    return len(connection.table("shown_rows"))


def _copy_rows(connection: duckdb.DuckDBPyConnection, form: str) -> None:
    """Write the rows after what stands on standard output; DuckDB would open its file anew, and empty it.

    They are exact but on a terminal, which control characters of an answer must not reach.
    """
    with TemporaryDirectory() as directory:
        path = Path(directory) / "rows"
        connection.execute(f"COPY (FROM shown_rows) TO {literal(path)} {form}")
        sys.stdout.flush()
        if sys.stdout.isatty():
            with path.open(encoding="utf-8", errors="replace", newline="") as texts:
                while text := texts.read(1 << 16):
                    sys.stdout.write(printable(text))
        else:
            with path.open("rb") as rows:
                shutil.copyfileobj(rows, sys.stdout.buffer)


def _print_table(table: duckdb.DuckDBPyRelation) -> None:
    from rich.console import Console
    from rich.measure import Measurement

    console = Console() if sys.stdout.isatty() else Console(width=200)
    printed = _table(table)
    two_ids = {"submission_id", "job_id"} <= set(table.columns)
    wide = console.options.update(width=sys.maxsize)
    needed = Measurement.get(console, wide, printed).minimum
    if two_ids and needed > console.width:
        # One id of each row is enough to go on with.
        table = table.project("coalesce(submission_id, job_id) AS id, * EXCLUDE (submission_id, job_id)")
        printed = _table(table)
        needed = Measurement.get(console, wide, printed).minimum
    if needed > console.width:
        # What takes two lines can be put together again, what is cut off cannot.
        printed = _table(table, folded=True)
    console.print(printed)


def _table(rows: duckdb.DuckDBPyRelation, *, folded: bool = False) -> Table:
    from rich.table import Table
    from rich.text import Text

    printed = Table(box=None, pad_edge=False)
    for name in rows.columns:
        # An id is there to be copied and a number to be read, so text makes room for them.
        whole = name not in TEXTS and not folded
        printed.add_column(name, no_wrap=whole, overflow="ignore" if whole else "fold")
    for row in rows.fetchall():
        printed.add_row(*(Text("" if value is None else printable(str(value))) for value in row))
    return printed
