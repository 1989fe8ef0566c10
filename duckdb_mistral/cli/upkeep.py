"""The commands that look after the state directory: doctor, clean and move."""

from __future__ import annotations

import sys

import click

from duckdb_mistral.cli.outcomes import ExitCode, told_errors
from duckdb_mistral.cli.tables import shown_as


@click.command()
@click.option("--repair", is_flag=True, help="Put a damaged ledger aside; rebuild it from the workspace's jobs.")
@told_errors
def doctor(repair: bool) -> None:
    """Check the key, the server, the versions and the state directory."""
    from duckdb_mistral.cli import doctor as checks

    if repair:
        checks.repair()
    if not checks.examine():
        sys.exit(ExitCode.NOT_DONE)


@click.command()
@click.option("--yes", "free", is_flag=True, help="Free it. Without this option, nothing is changed.")
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
    """Show what is in the state directory; with --yes, free what is not needed.

    That is: requests whose answers are all kept, and files that killed processes left behind. Files that another
    process is working on stay, and so does the ledger: nothing is paid for again.

    Kept results were paid for, and go only if --results or --older-than asks for it. They can be downloaded again
    only as long as the server keeps them; until they are, reuse := 'requests' does not find their answers.
    """
    from duckdb_mistral.cli.clean import run
    from duckdb_mistral.maintenance.clean import Asked

    run(Asked(identifiers=identifiers, older_than_days=older_than_days), free=free, shown=shown)


@click.command()
@click.option(
    "--to",
    "target",
    type=click.Choice(["team", "home"]),
    required=True,
    help="`team`: into what DUCKDB_MISTRAL_LEDGER and DUCKDB_MISTRAL_STORE name; `home`: back to the state directory.",
)
@told_errors
def move(target: str) -> None:
    """Move what is in the state directory to a team's ledger and store, or back.

    DUCKDB_MISTRAL_LEDGER names the team's ledger and DUCKDB_MISTRAL_STORE its store; one of them is enough. What is
    already there stays. A job that may be on its way to the API just now stops the move before its first row. A move
    that was cut short is completed by the same command, and none costs anything: nothing is sent.

    To the team, the ledger in the state directory is copied into the team's and sends nothing after that; kept
    results, and the hashes and keys of requests, are copied into the store. To home, all of the team's ledger is
    copied into the one in the state directory, and results come back from the store; the team's ledger and store stay
    as they are.
    """
    from duckdb_mistral.cli.move import run

    run(target)
