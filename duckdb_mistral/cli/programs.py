"""The commands around other programs: the demo, the local server, the shell, the extension and the dbt package."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from duckdb_mistral.cli.outcomes import fail, told_errors
from duckdb_mistral.cli.types import Seconds
from duckdb_mistral.settings import variable


@click.command()
@click.option("--rows", type=click.IntRange(1, 233), default=233, show_default=True, help="How many rows to send.")
@click.option("--seconds", type=Seconds(), default=4.0, show_default=True, help="How long the local server takes.")
@told_errors
def demo(rows: int, seconds: float) -> None:
    """Run the main job on real text and a local server: no key, no network."""
    from duckdb_mistral.cli.demo import run

    run(rows=rows, job_seconds=seconds)


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8123, show_default=True, help="0 picks a free one.")
@click.option("--dir", "directory", type=click.Path(path_type=Path, file_okay=False), help="Where to keep its state.")
@click.option("--job-seconds", type=Seconds(), default=2.0, show_default=True, help="How long each job takes.")
@click.option(
    "--upstream",
    metavar="URL",
    multiple=True,
    help="An OpenAI-compatible server that answers instead of the echo. Several share the requests.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="How many requests each upstream gets at once.",
)
def emulator(
    port: int, directory: Path | None, job_seconds: float, upstream: tuple[str, ...], concurrency: int
) -> None:
    """Run the local batch server, which answers with an echo or with your own models. Prints its address.

    A key for the upstreams comes from EMULATOR_UPSTREAM_KEY.
    """
    try:
        from duckdb_mistral.emulator import Emulator, Upstream
    except ImportError as error:
        fail(str(error))
    models = None
    if upstream:
        try:
            key = variable("EMULATOR_UPSTREAM_KEY")
            models = Upstream(urls=upstream, concurrency=concurrency, key=key)
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


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[DATABASE] [SHELL ARGUMENTS]")
@told_errors
def shell(arguments: tuple[str, ...]) -> None:
    """Open the official duckdb shell with the functions in it.

    All arguments are the shell's own: a database, -c "FROM mistral_batch_status()", -f FILE, -csv, -readonly and so on.
    The shell is the duckdb on the PATH, from version 1.5.1 on, or the one that the extra 'shell' installs. It does not
    get the API key.
    """
    from duckdb_mistral.shell.launcher import run

    sys.exit(run(arguments))


@click.command()
@click.option("--sql", is_flag=True, help="Print the statements for a client to run: LOAD, and the functions.")
@told_errors
def extension(*, sql: bool) -> None:
    """Print the path of the DuckDB extension for this machine.

    Any DuckDB client from version 1.5.1 on that allows unsigned extensions can load it. With --sql, print the
    statements that give a connection the functions.
    """
    from duckdb_mistral.shell.extension import prepared_extension
    from duckdb_mistral.shell.statements import statements

    file = prepared_extension()
    click.echo("".join(statements(file)) if sql else file, nl=not sql)


@click.command(hidden=True)
def helper() -> None:
    """Answer calls from the extension, which runs in the process that starts this one."""
    from duckdb_mistral.shell.helper import main

    main()


@click.command("dbt-package")
def dbt_package() -> None:
    """Print the path of the dbt package, for `local:` in packages.yml."""
    from duckdb_mistral.duck import sql_files

    click.echo(sql_files.dbt_package())
