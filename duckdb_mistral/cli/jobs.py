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
#: The columns that a person looks at first; csv and jsonl hold every column.
COST_COLUMNS = "job_id, part, model, answers, prompt_tokens, completion_tokens, format('{:.6f}', cost) AS cost, note"
RESULT_COLUMNS = "custom_id, outcome, content, error"


@click.command()
@click.argument("identifier", metavar="ID")
@shown_as
@told_errors
def cost(identifier: str, shown: str) -> None:
    """Show what the ended jobs of ID cost.

    Costs are in US dollars at batch price, from the token counts in the answers.
    """
    columns = COST_COLUMNS if shown == "table" else "*"
    show(connect(), f"SELECT {columns} FROM mistral_batch_cost($id)", {"id": identifier}, shown)


@click.command()
@click.argument("identifier", metavar="[ID]", required=False)
@click.option("--watch", "-w", "watched", is_flag=True, help="Show progress until all jobs have ended, or Ctrl-C.")
@shown_as
@told_errors
def status(identifier: str | None, watched: bool, shown: str) -> None:
    """Show the progress of the jobs of ID, or of every submission."""
    from duckdb_mistral.functions.progress import follow
    from duckdb_mistral.functions.register import on_trouble

    left = watched and not follow(identifier)
    connection = connect()
    troubles: list[str] = []
    on_trouble(connection, troubles.append)
    rows = show(connection, "SELECT * FROM mistral_batch_status($id)", {"id": identifier}, shown, STATUS_COLUMNS)
    if not rows:
        click.echo("Nothing has been submitted from here yet.", err=True)
    for trouble in troubles[:1]:
        click.echo(f"{trouble} The table shows the last known state.", err=True)
    if rows and identifier is not None:
        tell_failures(connection)
    if left:
        fail("Not all jobs have ended. Those that were sent run on; the same command watches them again.")


@click.command()
@click.argument("identifier", metavar="ID")
@click.option("--timeout", "timeout_seconds", type=Seconds(), help="Give up after this many seconds; the jobs run on.")
@click.option(
    "--exit-status", "by_status", is_flag=True, help="Exit with 3 if jobs have not ended, 4 if requests failed."
)
@shown_as
@told_errors
def wait(identifier: str, timeout_seconds: float | None, by_status: bool, shown: str) -> None:
    """Wait until every job of ID has ended, showing progress.

    The exit status is 0 once they have ended, even if they are FAILED or CANCELLED or some requests failed: the last
    lines say how many, and what to do. With --exit-status it is 4 in that case.
    """
    given = {"id": identifier, "timeout": timeout_seconds}
    connection = connect()
    # With more threads, DuckDB 1.5 may keep a core busy while a thread other than the caller's waits.
    connection.execute("SET threads = 1")
    select = "SELECT * FROM mistral_batch_wait($id, timeout_seconds := $timeout)"
    with _not_ended(connection, identifier, by_status):
        rows = show(connection, select, given, shown, STATUS_COLUMNS)
    if rows and tell_failures(connection) and by_status:
        sys.exit(ExitCode.SOME_FAILED)


@contextmanager
def _not_ended(connection: duckdb.DuckDBPyConnection, identifier: str, by_status: bool) -> Iterator[None]:
    """If a wait fails while jobs go on, exit with the status for that if `by_status` asks for it."""
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
@click.option("--partial", is_flag=True, help="Read what there is, even if the result files are incomplete.")
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
        raise click.UsageError(f"{output.name} does not end in one of {', '.join(RESULT_FORMATS)}.")
    source = click.get_current_context().get_parameter_source("shown")
    if source is click.core.ParameterSource.COMMANDLINE and output.suffix.lower() != f".{shown}":
        raise click.UsageError(f"{output.name} names a different format than --format {shown}. Leave one of them out.")
    written = connection.execute(f"COPY (FROM {read}) TO {literal(output)} (FORMAT {form})").fetchone()
    click.echo(f"{written[0] if written else 0:,} results written to {output}", err=True)


@click.command()
@click.argument("identifier", metavar="ID")
@shown_as
@told_errors
def cancel(identifier: str, shown: str) -> None:
    """Ask for the cancellation of the jobs of ID; answers given so far are kept."""
    show(connect(), "SELECT * FROM mistral_batch_cancel($id)", {"id": identifier}, shown, STATUS_COLUMNS)


@click.command()
@click.argument("identifier", metavar="ID")
@shown_as
@told_errors
def retry(identifier: str, shown: str) -> None:
    """Submit again the requests of ID that failed or have no result.

    The results of the submission, or of another program's job, then hold both runs.
    """
    columns = SUBMIT_COLUMNS if shown == "table" else "*"
    if not show(connect(), f"SELECT {columns} FROM mistral_batch_retry($id)", {"id": identifier}, shown):
        click.echo("Nothing was sent: every request has its answer.", err=True)
