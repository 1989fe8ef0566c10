"""The command clean: what is under `home` as a table, and the outcome in a sentence or two."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from duckdb_mistral.batches.context import Context
from duckdb_mistral.cli.tables import show
from duckdb_mistral.maintenance.clean import clean
from duckdb_mistral.maintenance.stored import Stored
from duckdb_mistral.state.inventory import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duckdb_mistral.maintenance.clean import Asked
    from duckdb_mistral.state.home import Home
    from duckdb_mistral.state.inventory import Heap


def run(asked: Asked, *, free: bool, shown: str) -> None:
    """Print what is there, one row per kind; with `free`, free what can be freed. Raises what `clean` raises."""
    import duckdb

    with closing(Context.of_environment()) as context:
        heaps = clean(context, asked, free=free)
        in_store = list(_of_store(context))
    if heaps or shown != "table":
        columns = "*"
        if shown == "table":
            freed = "freed" if free else "freed by --yes"
            columns = f"what, files, format('{{:,}}', bytes) AS bytes, if(freed, 'yes', 'no') AS \"{freed}\""
        heap = "STRUCT(what VARCHAR, files BIGINT, bytes BIGINT, freed BOOLEAN)"
        select = f"SELECT {columns} FROM (SELECT unnest($heaps::{heap}[], recursive := true))"
        given = [
            {"what": heap.kind.value, "files": heap.files, "bytes": heap.size, "freed": heap.freed} for heap in heaps
        ]
        with duckdb.connect(":memory:") as engine:
            show(engine, select, {"heaps": given}, shown)
    click.echo(" ".join([*_sentences(heaps, asked, context.home, free=free), *in_store]), err=True)


def _of_store(context: Context) -> Iterable[str]:
    """Tell of the store, whose files stay."""
    store = context.home.store
    if store is None or not context.home.ledger.exists():
        return
    yield f"What the store {store} has stays there, and is brought back when it is needed."
    unnamed = Stored(context, store).unnamed()
    if unnamed:
        files = "file there is" if len(unnamed) == 1 else "files there are"
        yield (
            f"{len(unnamed):,} {files} of nothing that this ledger knows ({sum(unnamed):,} bytes): another ledger may "
            "know them."
        )


def _sentences(heaps: list[Heap], asked: Asked, home: Home, *, free: bool) -> Iterable[str]:
    if not heaps:
        yield f"There is nothing under {home} yet."
        return
    freed = [heap for heap in heaps if heap.freed]
    if free:
        yield f"Freed {_amount(freed)} under {home}." if freed else f"There was nothing to free under {home}."
    else:
        yield f"{home} holds {_amount(heaps)}."
        yield f"The same command with --yes frees {_amount(freed)}." if freed else "None of it can be freed."
    results = [heap for heap in freed if heap.kind is Kind.ASKED]
    if results:
        yield (
            f"{_amount(results)} of that {'were' if free else 'are'} kept results. They were paid for, and can be "
            "downloaded again only as long as the server keeps them."
        )
    elif home.store is None and (asked.identifiers or asked.older_than_days is not None):
        yield "No results that --results or --older-than name are kept here."


def _amount(heaps: Iterable[Heap]) -> str:
    heaps = list(heaps)
    files = sum(heap.files for heap in heaps)
    return f"{sum(heap.size for heap in heaps):,} bytes in {files:,} {'file' if files == 1 else 'files'}"
