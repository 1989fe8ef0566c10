"""The commands that build requests from a file of SQL: submit, estimate and preview."""

from __future__ import annotations

from typing import Any

import click

from duckdb_mistral.cli.connection import connect
from duckdb_mistral.cli.job_tables import SUBMIT_COLUMNS
from duckdb_mistral.cli.outcomes import told_errors
from duckdb_mistral.cli.sql_file import call, check_database, request_options, source_of, spending_options, text_of
from duckdb_mistral.cli.tables import MOST_ROWS, show, shown_as

#: The columns that a person looks at first; csv and jsonl hold every column.
ESTIMATE_COLUMNS = (
    "requests, jobs, input_tokens, max_output_tokens, "
    "format('{:.6f}', cost) AS cost, format('{:.6f}', expected_cost) AS expected_cost, note"
)


@click.command()
@request_options
@spending_options
@click.option("--metadata", metavar="JSON", help="Text that travels with the job, as a JSON object.")
@click.option("--timeout-hours", type=int, default=24, show_default=True, help="When the API gives up on the job.")
@click.option("--force", is_flag=True, help="Submit and pay again, even if the same was submitted before.")
@shown_as
@told_errors
def submit(shown: str, **options: Any) -> None:
    """Submit the rows of FILE's last SELECT.

    It has the columns custom_id and prompt. The statements before it are run first.
    """
    _show_built("mistral_batch_submit", SUBMIT_COLUMNS, shown, options)


@click.command()
@request_options
@spending_options
@click.option(
    "--pilot", type=click.IntRange(min=1), help="Send this many rows to the ordinary endpoint, at its full price."
)
@shown_as
@told_errors
def estimate(shown: str, **options: Any) -> None:
    """Show what FILE would send, and the most that it can cost.

    Costs are in US dollars at batch price. No network and no key, unless --pilot asks the API.
    """
    _show_built("mistral_batch_estimate", ESTIMATE_COLUMNS, shown, options)


@click.command()
@request_options
@shown_as
@told_errors
def preview(shown: str, **options: Any) -> None:
    """Show the request bodies that submit would send for FILE.

    No network and no key.
    """
    _show_built("mistral_batch_preview", "*", shown, options)


def _show_built(function: str, columns: str, shown: str, options: dict[str, Any]) -> None:
    """Show the rows of a function that builds requests from a file of SQL."""
    database = options.pop("database")
    check_database(database)
    text = text_of(options.pop("file"))
    connection = connect(database)
    called, given = call(function, source_of(connection, text), options)
    most = MOST_ROWS if function == "mistral_batch_preview" else None
    show(connection, f"SELECT {columns if shown == 'table' else '*'} FROM {called}", given, shown, most=most)
