"""The commands that follow jobs: status, wait, results, cost, cancel and retry."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from duckdb_mistral.cli.connection import connect
from duckdb_mistral.cli.job_tables import STATUS_COLUMNS, SUBMIT_COLUMNS, goes_on, tell_failures
from duckdb_mistral.cli.outcomes import ExitCode, fail, sentence_of, told_errors
from duckdb_mistral.cli.tables import MOST_ROWS, show, shown_as
from duckdb_mistral.cli.types import Seconds
from duckdb_mistral.duck.quoting import literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

RESULT_FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json"}
#: What a person looks at first; csv and jsonl hold every column.
COST_COLUMNS = "job_id, part, model, answers, prompt_tokens, completion_tokens, format('{:.6f}', cost) AS cost, note"
RESULT_COLUMNS = "custom_id, outcome, content, error"


@click.command()
@click.argument("identifier", metavar="ID")
@shown_as
@told_errors
def cost(identifier: str, shown: str) -> None:
    """Show what the ended jobs of ID did cost.

    In US dollars at batch price, from the tokens that their answers say.
    """
    columns = COST_COLUMNS if shown == "table" else "*"
    show(connect(), f"SELECT {columns} FROM mistral_batch_cost($id)", {"id": identifier}, shown)


@click.command()
@click.argument("identifier", metavar="[ID]", required=False)
@click.option("--watch", "-w", "watched", is_flag=True, help="Show progress until all jobs have ended, or Ctrl-C.")
@shown_as
@told_errors
def status(identifier: str | None, watched: bool, shown: str) -> None:
    """Show how far the jobs of ID are, or of every submission."""
    from duckdb_mistral.functions.progress import follow
    from duckdb_mistral.functions.register import on_trouble

    left = watched and not follow(identifier)
    connection = connect()
    troubles: list[str] = []
    on_trouble(connection, troubles.append)
    rows = show(connection, "SELECT * FROM mistral_batch_status($id)", {"id": identifier}, shown, STATUS_COLUMNS)
    if not rows:
        click.echo("Nothing was submitted from here yet.", err=True)
    for trouble in troubles[:1]:
        click.echo(f"{trouble} Shown is what it told last.", err=True)
    if rows and identifier is not None:
        tell_failures(connection)
    if left:
        fail("Not all jobs have ended. Those that were sent go on; the same command watches them again.")


@click.command()
@click.argument("identifier", metavar="ID")
@click.option("--timeout", "timeout_seconds", type=Seconds(), help="Give up after so many seconds; the jobs run on.")
@click.option(
    "--exit-status", "by_status", is_flag=True, help="End with 3 where jobs have not ended, 4 where requests failed."
)
@shown_as
@told_errors
def wait(identifier: str, timeout_seconds: float | None, by_status: bool, shown: str) -> None:
    """Wait until every job of ID has ended, showing progress.

    The exit status is 0 once they have, however they ended, also FAILED or CANCELLED and with requests that failed:
    the last lines tell how many, and what to do. With --exit-status it is 4 then.
    """
    given = {"id": identifier, "timeout": timeout_seconds}
    connection = connect()
    # With more, DuckDB 1.5 may keep a core busy for as long as another thread than the caller's waits.
    connection.execute("SET threads = 1")
    select = "SELECT * FROM mistral_batch_wait($id, timeout_seconds := $timeout)"
    with _not_ended(connection, identifier, by_status):
        rows = show(connection, select, given, shown, STATUS_COLUMNS)
    if rows and tell_failures(connection) and by_status:
        sys.exit(ExitCode.SOME_FAILED)


@contextmanager
def _not_ended(connection: duckdb.DuckDBPyConnection, identifier: str, by_status: bool) -> Iterator[None]:
    """Where a wait fails while jobs go on, end with the status of that if it is wanted."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        if by_status and goes_on(connection, identifier):
            fail(sentence_of(error), ExitCode.NOT_ENDED)
        raise


@click.command()
@click.argument("identifier", metavar="ID")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="A .parquet, .csv or .jsonl file."
)
@click.option("--partial", is_flag=True, help="Read what there is where the result files are not whole.")
@shown_as
@told_errors
def results(identifier: str, output: Path | None, partial: bool, shown: str) -> None:
    """Write the results of ID to a file, or show them."""
    connection = connect()
    read = f"mistral_batch_results({literal(identifier)}, partial := {partial})"
    if output is None:
        columns = RESULT_COLUMNS if shown == "table" else "*"
        show(connection, f"SELECT {columns} FROM {read}", None, shown, most=MOST_ROWS)
        return
    form = RESULT_FORMATS.get(output.suffix.lower())
    if form is None:
        raise click.UsageError(f"{output.name} ends in none of {', '.join(RESULT_FORMATS)}.")
    source = click.get_current_context().get_parameter_source("shown")
    if source is click.core.ParameterSource.COMMANDLINE and output.suffix.lower() != f".{shown}":
        raise click.UsageError(f"The name {output.name} says another format than --format {shown}. Leave one out.")
    written = connection.execute(f"COPY (FROM {read}) TO {literal(output)} (FORMAT {form})").fetchone()
    click.echo(f"{written[0] if written else 0:,} results written to {output}", err=True)


@click.command()
@click.argument("identifier", metavar="ID")
@shown_as
@told_errors
def cancel(identifier: str, shown: str) -> None:
    """Ask for the cancellation of the jobs of ID; what was answered so far is kept."""
    show(connect(), "SELECT * FROM mistral_batch_cancel($id)", {"id": identifier}, shown, STATUS_COLUMNS)


@click.command()
@click.argument("identifier", metavar="ID")
@shown_as
@told_errors
def retry(identifier: str, shown: str) -> None:
    """Submit again what failed or has no result of ID.

    The results of the submission, or of another program's job, then hold both.
    """
    columns = SUBMIT_COLUMNS if shown == "table" else "*"
    if not show(connect(), f"SELECT {columns} FROM mistral_batch_retry($id)", {"id": identifier}, shown):
        click.echo("Nothing was sent: every request has its answer.", err=True)
