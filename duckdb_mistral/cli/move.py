"""The command move: what went where, in a sentence or two."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import click

from duckdb_mistral.batches.context import Context
from duckdb_mistral.maintenance.move import move_home, move_to_team

if TYPE_CHECKING:
    from collections.abc import Iterator

    from duckdb_mistral.maintenance.carry import Carried
    from duckdb_mistral.maintenance.move import Moved, Watch

#: A long move tells how far it has come, with so many seconds in between.
TOLD_SECONDS = 5


def run(target: str) -> None:
    """Move to the `team`, or `home`, and print what was done; raises what the move raises."""
    with closing(Context.of_environment()) as context:
        to_team = target == "team"
        moved = (move_to_team if to_team else move_home)(context, _telling())
        sentences = [*_rows(context, moved, to_team=to_team), *_files(context, moved, to_team=to_team)]
        sentences += _what_next(context, moved, to_team=to_team)
    for sentence in sentences:
        click.echo(sentence)


def _telling() -> Watch:
    """Return a function that tells on standard error, now and then, which files have been carried."""
    last = time.monotonic()

    def watch(carried: Carried) -> None:
        nonlocal last
        if time.monotonic() - last >= TOLD_SECONDS:
            last = time.monotonic()
            click.echo(f"{_counted(carried.files, 'file')}, {carried.size:,} bytes so far …", err=True)

    return watch


def _rows(context: Context, moved: Moved, *, to_team: bool) -> Iterator[str]:
    """Tell of the ledger."""
    if context.settings.ledger is None:
        return
    if moved.rows is None:
        yield f"There is no ledger under {context.home}, so none was moved."
        return
    rows = moved.rows
    there = f"the ledger {context.ledger.place}" if to_team else f"the ledger under {context.home}"
    yield f"To {there}: {_counted(rows.submissions, 'submission')} with {_counted(rows.jobs, 'job')}."
    if rows.known_submissions:
        told = f"{_counted(rows.known_submissions, 'submission')} it knew already"
        yield f"{told}; {_counted(rows.completed_jobs, 'job')} of them brought up to date."


def _files(context: Context, moved: Moved, *, to_team: bool) -> Iterator[str]:
    """Tell of the files."""
    store, files = context.home.store, moved.files
    if store is None:
        return
    where = f"the store {store}" if to_team else str(context.home)
    yield f"To {where}: {_counted(files.files, 'file')}, {files.size:,} bytes; {files.there:,} already there."
    if files.lost:
        yield (
            f"The results of {_counted(files.lost, 'job')} are neither here nor in the store: they are downloaded "
            "again when they are read, as long as the server keeps them."
        )


def _what_next(context: Context, moved: Moved, *, to_team: bool) -> Iterator[str]:
    """Tell what the settings have to be from here on, and what stays."""
    if context.settings.ledger is None:
        if not to_team:
            yield f"The store {context.home.store} stays as it is."
        return
    if to_team and moved.rows is not None:
        yield (
            f"The ledger under {context.home} sends nothing from here on: leave DUCKDB_MISTRAL_LEDGER set. "
            "`duckdb-mistral move --to home` is the way back."
        )
    if not to_team:
        yield (
            f"The ledger {context.ledger.place} stays as it is, for others who use it. Unset DUCKDB_MISTRAL_LEDGER to "
            f"go on with the one under {context.home}; what has not been sent yet, send from one of them alone."
        )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
