"""A file of SQL as the source for commands that build requests, and the options that those commands share."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from duckdb_mistral.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb


def _each(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decorator that gives a command all these options, in this order."""
    return lambda command: reduce(lambda given, option: option(given), reversed(options), command)


#: The file, the database, and the options that describe requests; the functions have their own defaults.
request_options = _each(
    click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    click.option("--database", "-d", default=":memory:", show_default=True, help="The DuckDB database to read from."),
    click.option("--model", multiple=True, help="The model, instead of the setting; repeatable."),
    click.option("--endpoint", default="/v1/chat/completions", show_default=True, help="The endpoint of the requests."),
    click.option("--system", help="A system message before every prompt."),
    click.option("--params", metavar="JSON", help="Body fields for every request, as a JSON object."),
    click.option("--output", metavar="TYPE", help="A DuckDB type that the model must answer in: 'STRUCT(…)'."),
)
#: The options that limit the cost.
spending_options = _each(
    click.option(
        "--reuse",
        type=click.Choice(["submission", "requests"]),
        default="submission",
        show_default=True,
        help="Never pay again for the same submission, or for the same request.",
    ),
    click.option("--max-cost", type=float, help="Refuse to send anything that may cost more US dollars than this."),
)


def check_database(database: str) -> None:
    """Refuse a database that DuckDB would create; one that is not a local file has a scheme."""
    # A single letter before the colon is a drive.
    elsewhere = database.startswith(":memory:") or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", database)
    if not elsewhere and not Path(database).exists():
        raise click.UsageError(f"There is no database {database}.")


def text_of(file: Path) -> str:
    """Read a file of SQL."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ArgumentError(f"{file} is not UTF-8 text. Save it as UTF-8; nothing was sent.") from None
    except OSError as error:
        raise ArgumentError(f"{file} cannot be read: {error.strerror}. Nothing was sent.") from None


def source_of(connection: duckdb.DuckDBPyConnection, text: str) -> str:
    """Run all statements of a text except the last, and return the last, which is the source."""
    statements = connection.extract_statements(text)
    if not statements:
        raise ArgumentError("The file holds no statement; its last one must be a SELECT of custom_id and prompt.")
    for statement in statements[:-1]:
        connection.execute(statement)
    return statements[-1].query.strip().rstrip(";")


def call(function: str, source: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the call of a function with a source and the given options, and its parameters."""
    models: tuple[str, ...] = options.pop("model")
    given: dict[str, Any] = {"source": source}
    if models:
        given["model"] = list(models) if len(models) > 1 else models[0]
    given |= options
    given = {name: value for name, value in given.items() if value is not None}
    return f"{function}({', '.join(f'{name} := ${name}' for name in given)})", given
