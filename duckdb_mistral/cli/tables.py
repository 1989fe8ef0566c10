"""Rows on standard output, in the form that --format asks for."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb
    from rich.table import Table

FORMATS = ("table", "csv", "jsonl")
#: Rows that a terminal shows of requests and results.
MOST_ROWS = 100
#: The columns of a table that may take several lines; the least characters for each, and the least as a last resort.
TEXTS = {"model", "content", "error", "what", "custom_id", "note", "body"}
NARROW = 20
NARROWEST = 9
#: The spaces between two columns.
GAP = 2


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


def show(
    connection: duckdb.DuckDBPyConnection,
    select: str,
    given: dict[str, Any] | None,
    shown: str,
    columns: str = "*",
    most: int | None = None,
) -> int:
    """Print the rows of a SELECT on standard output, and return their number; `shown` is one of FORMATS.

    A table has only the `columns`, and on a terminal at most `most` rows, followed by how many more there are.
    Afterwards the table shown_rows holds the rows.
    """
    import duckdb

    try:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE shown_rows AS {select}", given)
    except duckdb.Error as error:  # DuckDB points at the place in this statement, which nobody has written
        raise type(error)(str(error).partition("\n\nLINE ")[0]) from None
    total = len(connection.table("shown_rows"))
    if shown == "table":
        limit = f" LIMIT {most}" if most is not None and sys.stdout.isatty() else ""
        print_table(connection.sql(f"SELECT {columns} FROM shown_rows{limit}"))
        if limit and most is not None and total > most:
            click.echo(f"{total - most:,} more of {total:,} rows. --format csv or jsonl prints all of them.", err=True)
    else:
        _copy_rows(connection, "(FORMAT csv, HEADER)" if shown == "csv" else "(FORMAT json)")
    return total


def _copy_rows(connection: duckdb.DuckDBPyConnection, form: str) -> None:
    """Append the rows to standard output; DuckDB would reopen its file, and empty it.

    They are exact except on a terminal, where control characters in an answer are escaped.
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


def print_table(rows: duckdb.DuckDBPyRelation) -> None:
    """Print rows as a table in which no id is cut or broken across lines, so that it can be copied.

    If a terminal is too narrow for all columns, keep only one id per row; then drop the part's number if it is the
    same in all rows; then give each row a line per column.
    """
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=200)
    names, values = list(rows.columns), [[_shown(value) for value in row] for row in rows.fetchall()]
    for narrowed in (_with_one_id, _without_part):
        if _width(names, values, NARROW) > console.width:
            names, values = narrowed(names, values)
    if _width(names, values) <= console.width:
        console.print(_table(names, values))
    elif values and _record_width(names, values) <= console.width:
        for number, row in enumerate(values):
            console.print(*([] if number == 0 else [""]), _record(names, row), sep="\n")
    else:
        # Text broken across lines can be put together again; text that is cut off cannot.
        console.print(_table(names, values, folded=True))


def _shown(value: Any) -> str:
    return "" if value is None else printable(str(value))


def _with_one_id(names: list[str], values: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Return rows in which one id replaces both: the submission's or, without one, the job's."""
    if not {"submission_id", "job_id"} <= set(names):
        return names, values
    submission, job = names.index("submission_id"), names.index("job_id")
    kept = [place for place in range(len(names)) if place not in (submission, job)]
    return ["id", *(names[place] for place in kept)], [
        [row[submission] or row[job], *(row[place] for place in kept)] for row in values
    ]


def _without_part(names: list[str], values: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Return rows without the part's number if all of them are the first and only part."""
    if "part" not in names or {row[names.index("part")] for row in values} - {"", "1"}:
        return names, values
    kept = [place for place, name in enumerate(names) if name != "part"]
    return [names[place] for place in kept], [[row[place] for place in kept] for row in values]


def _widths(names: list[str], values: list[list[str]]) -> list[int]:
    """Return each column's width on a terminal if nothing takes several lines."""
    from rich.cells import cell_len

    return [
        max(cell_len(text) for text in (name, *column))
        for name, column in zip(names, zip(*values, strict=True) if values else [()] * len(names), strict=True)
    ]


def _width(names: list[str], values: list[list[str]], least: int = NARROWEST) -> int:
    """Return the width that a table needs: whole columns, but only `least` for those that may take several lines."""
    widths = zip(names, _widths(names, values), strict=True)
    return sum(min(width, least) if name in TEXTS else width for name, width in widths) + GAP * (len(names) - 1)


def _record_width(names: list[str], values: list[list[str]]) -> int:
    """Return the width needed if each row takes a line per column."""
    widths = zip(names, _widths(names, values), strict=True)
    whole = max((width for name, width in widths if name not in TEXTS), default=NARROWEST)
    return max(map(len, names)) + GAP + whole


def _table(names: list[str], values: list[list[str]], *, folded: bool = False) -> Table:
    from rich.table import Table
    from rich.text import Text

    printed = Table(box=None, pad_edge=False)
    for name in names:
        # Ids must be copied and numbers read, so text makes room for them.
        whole = name not in TEXTS and not folded
        printed.add_column(name, no_wrap=whole, overflow="ignore" if whole else "fold")
    for row in values:
        printed.add_row(*map(Text, row))
    return printed


def _record(names: list[str], row: list[str]) -> Table:
    """Return one row as a table with a line per column that is not empty."""
    from rich.table import Table
    from rich.text import Text

    printed = Table(box=None, pad_edge=False, show_header=False)
    printed.add_column(no_wrap=True, style="bold")
    printed.add_column(overflow="fold")
    for name, text in zip(names, row, strict=True):
        if text:
            printed.add_row(Text(name), Text(text))
    return printed
