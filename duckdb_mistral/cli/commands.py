"""The command line `duckdb-mistral`: the functions without a connection of one's own, and the local server.

Data goes to standard output, everything else to standard error. Exit status 0 when what was asked was done, 1 when
it was not, 2 for wrong usage.
"""

from __future__ import annotations

import math
import os
import sys
from contextlib import contextmanager
from enum import IntEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from duckdb_mistral.cli.command_words import in_command_words
from duckdb_mistral.cli.job_tables import STATUS_COLUMNS, goes_on, tell_failures
from duckdb_mistral.cli.sql_file import call, check_database, request_options, source_of, spending_options, text_of
from duckdb_mistral.cli.tables import show, shown_as
from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import duckdb

RESULT_FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json"}
#: What a person looks at first; csv and jsonl hold every column.
SUBMIT_COLUMNS = "submission_id, job_id, part, status, model, total_requests AS requests, reused"
COST_COLUMNS = "job_id, part, model, answers, prompt_tokens, completion_tokens, format('{:.6f}', cost) AS cost, note"
ESTIMATE_COLUMNS = (
    "requests, jobs, input_tokens, max_output_tokens, "
    "format('{:.6f}', cost) AS cost, format('{:.6f}', expected_cost) AS expected_cost, note"
)
RESULT_COLUMNS = "custom_id, outcome, content, error"
#: Rows that a terminal shows of requests and results.
MOST_ROWS = 100


class ExitCode(IntEnum):
    """What the exit status of the command line means."""

    DONE = 0
    NOT_DONE = 1
    WRONG_USAGE = 2
    #: With --exit-status alone.
    NOT_ENDED = 3
    SOME_FAILED = 4


class Seconds(click.FloatRange):
    """A number of seconds: not negative, and finite, as what counts to it would never end otherwise."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; fail as wrong usage where it is none of seconds."""
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return seconds


def main() -> None:
    """Run the command line; never end with a traceback for what a person can mend."""
    if sys.stdout is None:
        fail("Standard output is closed, so nothing can be printed, and nothing was done. Send it to a file.")
    try:
        try:
            cli(prog_name="duckdb-mistral")
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:
            raise
        # What is left to be written would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # whoever reads has read enough
            sys.exit(ExitCode.NOT_DONE)
        fail(f"Standard output cannot be written: {error.strerror}. What was printed is not whole.")


def told_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """End a command that fails with the sentence of its error, on standard error."""

    @wraps(command)
    def guarded(*arguments: Any, **options: Any) -> Any:
        import duckdb

        try:
            return command(*arguments, **options)
        except MistralBatchError as error:
            fail(in_command_words(str(error)))
        except duckdb.Error as error:
            fail(_told(error))
        except KeyboardInterrupt:
            fail("Interrupted. What was submitted goes on; the same command continues from here.")

    return guarded


def fail(message: str, status: ExitCode = ExitCode.NOT_DONE) -> NoReturn:
    """Say what was not done, and end."""
    click.echo(printable(message), err=True)
    sys.exit(status)


def _told(error: duckdb.Error) -> str:
    """Return the sentence of an error without the word that DuckDB puts before it, and with advice for this place."""
    return in_command_words(str(error).removeprefix("Invalid Input Error: "))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="duckdb-mistral")
def cli() -> None:
    """Mistral's Batch API for tables: submit prompts, wait, and read the answers.

    The API key comes from MISTRAL_API_KEY. `duckdb-mistral demo` needs none.
    """


@cli.command()
@click.option("--rows", type=click.IntRange(1, 233), default=233, show_default=True, help="How many rows to send.")
@click.option("--seconds", type=Seconds(), default=4.0, show_default=True, help="How long the local server takes.")
@told_errors
def demo(rows: int, seconds: float) -> None:
    """Run the main job on real text and a local server: no key, no network."""
    from duckdb_mistral.cli.demo import run

    run(rows=rows, job_seconds=seconds)


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8123, show_default=True, help="0 takes a free one.")
@click.option("--dir", "directory", type=click.Path(path_type=Path, file_okay=False), help="Where its state is kept.")
@click.option("--job-seconds", type=Seconds(), default=2.0, show_default=True, help="How long each job takes.")
@click.option("--upstream", metavar="URL", help="An OpenAI-compatible server whose models answer, not the echo.")
@click.option("--concurrency", type=click.IntRange(1), default=16, show_default=True, help="Its requests at once.")
def emulator(port: int, directory: Path | None, job_seconds: float, upstream: str | None, concurrency: int) -> None:
    """Run the local batch server; its answers are an echo, or those of your own models. Prints its address.

    A key for the upstream comes from EMULATOR_UPSTREAM_KEY.
    """
    try:
        from duckdb_mistral.emulator import Emulator, Upstream
    except ImportError as error:
        fail(str(error))
    models = None
    if upstream is not None:
        try:
            key = os.environ.get("EMULATOR_UPSTREAM_KEY") or None
            models = Upstream(url=upstream, concurrency=concurrency, key=key)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    server = Emulator(directory, port=port, job_seconds=0.0 if models else job_seconds, upstream=models)

    listens = False

    def listening(url: str) -> None:
        nonlocal listens
        listens = True
        settings = f"export MISTRAL_SERVER_URL={url} MISTRAL_API_KEY=local"
        click.echo(f"Serving until Ctrl-C. In another shell: {settings}", err=True)

    try:
        server.run(listening)
    except OSError as error:
        if listens:
            raise
        if error.filename is not None:
            fail(
                f"The local batch server cannot keep its state in {directory or 'a temporary directory'}: "
                f"{error.strerror} ({error.filename}). Choose another directory with --dir."
            )
        fail(f"The local batch server cannot listen on port {port} ({error.strerror}). Choose another with --port.")


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[DATABASE] [SHELL ARGUMENTS]")
@told_errors
def shell(arguments: tuple[str, ...]) -> None:
    """Open the official duckdb shell with the functions in it.

    All arguments are the shell's own: a database, -c "FROM mistral_batch_status()", -f FILE, -csv, -readonly and so on.
    The shell is the duckdb of the PATH, from version 1.5.1 on, or what the extra 'shell' installs. It does not get the
    API key.
    """
    from duckdb_mistral.shell.launcher import run

    sys.exit(run(arguments))


@cli.command()
@click.option("--sql", is_flag=True, help="Print the statements that a client runs: LOAD, and the functions.")
@told_errors
def extension(*, sql: bool) -> None:
    """Print the path of the DuckDB extension for this machine.

    Any DuckDB client from version 1.5.1 on that allows unsigned extensions can load it. With --sql come the statements
    that a connection runs to have the functions.
    """
    from duckdb_mistral.shell.extension import prepared_extension
    from duckdb_mistral.shell.statements import statements

    file = prepared_extension()
    click.echo("".join(statements(file)) if sql else file, nl=not sql)


@cli.command(hidden=True)
def helper() -> None:
    """Answer the calls of the extension in the process that starts this one."""
    from duckdb_mistral.shell.helper import main

    main()


@cli.command()
@request_options
@spending_options
@click.option("--metadata", metavar="JSON", help="Texts that travel with the job, as a JSON object.")
@click.option("--timeout-hours", type=int, default=24, show_default=True, help="When the API gives the job up.")
@click.option("--force", is_flag=True, help="Submit, and pay, again even if the same was submitted before.")
@shown_as
@told_errors
def submit(shown: str, **options: Any) -> None:
    """Submit the rows of FILE's last SELECT.

    It has the columns custom_id and prompt. The statements before it are run first.
    """
    _show_built("mistral_batch_submit", SUBMIT_COLUMNS, shown, options)


@cli.command()
@request_options
@spending_options
@click.option(
    "--pilot", type=click.IntRange(min=1), help="Ask the ordinary endpoint for so many rows, at its full price."
)
@shown_as
@told_errors
def estimate(shown: str, **options: Any) -> None:
    """Show what FILE would send, and cost at most.

    In US dollars at batch price. No network and no key, unless --pilot asks the API.
    """
    _show_built("mistral_batch_estimate", ESTIMATE_COLUMNS, shown, options)


@cli.command()
@request_options
@shown_as
@told_errors
def preview(shown: str, **options: Any) -> None:
    """Show the request bodies of FILE.

    They are what submit would send. No network and no key.
    """
    _show_built("mistral_batch_preview", "*", shown, options)


@cli.command()
@click.argument("identifier", metavar="ID")
@shown_as
@told_errors
def cost(identifier: str, shown: str) -> None:
    """Show what the ended jobs of ID did cost.

    In US dollars at batch price, from the tokens that their answers say.
    """
    columns = COST_COLUMNS if shown == "table" else "*"
    show(_connect(), f"SELECT {columns} FROM mistral_batch_cost($id)", {"id": identifier}, shown)


@cli.command()
@click.argument("identifier", metavar="[ID]", required=False)
@click.option("--watch", "-w", "watched", is_flag=True, help="Show progress until all jobs have ended, or Ctrl-C.")
@shown_as
@told_errors
def status(identifier: str | None, watched: bool, shown: str) -> None:
    """Show how far the jobs of ID are, or of every submission."""
    from duckdb_mistral.functions.progress import follow
    from duckdb_mistral.functions.register import on_trouble

    left = watched and not follow(identifier)
    connection = _connect()
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


@cli.command()
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
    connection = _connect()
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
            fail(_told(error), ExitCode.NOT_ENDED)
        raise


@cli.command()
@click.argument("identifier", metavar="ID")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="A .parquet, .csv or .jsonl file."
)
@click.option("--partial", is_flag=True, help="Read what there is where the result files are not whole.")
@shown_as
@told_errors
def results(identifier: str, output: Path | None, partial: bool, shown: str) -> None:
    """Write the results of ID to a file, or show them."""
    connection = _connect()
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


@cli.command()
@click.argument("identifier", metavar="ID")
@shown_as
@told_errors
def cancel(identifier: str, shown: str) -> None:
    """Ask for the cancellation of the jobs of ID; what was answered so far is kept."""
    show(_connect(), "SELECT * FROM mistral_batch_cancel($id)", {"id": identifier}, shown, STATUS_COLUMNS)


@cli.command()
@click.argument("identifier", metavar="ID")
@shown_as
@told_errors
def retry(identifier: str, shown: str) -> None:
    """Submit again what failed or has no result of ID.

    The results of the submission, or of another program's job, then hold both.
    """
    columns = SUBMIT_COLUMNS if shown == "table" else "*"
    if not show(_connect(), f"SELECT {columns} FROM mistral_batch_retry($id)", {"id": identifier}, shown):
        click.echo("Nothing was sent: every request has its answer.", err=True)


@cli.command("dbt-package")
def dbt_package() -> None:
    """Print the path of the dbt package, for `local:` in packages.yml."""
    from duckdb_mistral.duck import sql_files

    click.echo(sql_files.dbt_package())


@cli.command()
@click.option("--repair", is_flag=True, help="Put a damaged ledger aside; build it anew from the workspace's jobs.")
@told_errors
def doctor(repair: bool) -> None:
    """Check the key, the server, the versions and the state directory."""
    from duckdb_mistral.cli import doctor as checks

    if repair:
        checks.repair()
    if not checks.examine():
        sys.exit(ExitCode.NOT_DONE)


@cli.command()
@click.option("--yes", "free", is_flag=True, help="Free it. Without this, nothing is changed.")
@click.option("--results", "identifiers", multiple=True, metavar="ID", help="Also the kept results of ID; repeatable.")
@click.option(
    "--older-than",
    "older_than_days",
    type=click.IntRange(min=0),
    metavar="DAYS",
    help="Also the kept results of submissions that have ended and were made more than DAYS days ago.",
)
@shown_as
@told_errors
def clean(*, free: bool, identifiers: tuple[str, ...], older_than_days: int | None, shown: str) -> None:
    """Show what lies in the state directory; with --yes, free what is not needed.

    That is requests whose answers are all kept, and what killed processes have left. What another process is at
    stays, and so does the ledger: nothing is paid for again.

    Kept results were paid for, and go only where --results or --older-than asks for it. They can be downloaded again
    only as long as the server keeps them; until then reuse := 'requests' does not find their answers.
    """
    from duckdb_mistral.cli.clean import run
    from duckdb_mistral.maintenance.clean import Asked

    run(Asked(identifiers=identifiers, older_than_days=older_than_days), free=free, shown=shown)


def _connect(database: str = ":memory:") -> duckdb.DuckDBPyConnection:
    from duckdb_mistral.functions.register import connect

    return connect(database)


def _show_built(function: str, columns: str, shown: str, options: dict[str, Any]) -> None:
    """Show the rows of a function that builds requests from a file of SQL."""
    database = options.pop("database")
    check_database(database)
    text = text_of(options.pop("file"))
    connection = _connect(database)
    called, given = call(function, source_of(connection, text), options)
    most = MOST_ROWS if function == "mistral_batch_preview" else None
    show(connection, f"SELECT {columns if shown == 'table' else '*'} FROM {called}", given, shown, most=most)
