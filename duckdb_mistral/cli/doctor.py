"""The check-up: key, server, versions and state directory, each in one line that says what to do."""

from __future__ import annotations

import platform
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import click

from duckdb_mistral.errors import MissingKeyError, MistralBatchError
from duckdb_mistral.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from duckdb_mistral.batches.context import Context

PACKAGES = ("duckdb-mistral", "duckdb", "mistralai", "pyarrow", "sqlalchemy")
#: A check-up answers soon, or says that it got no answer.
BUDGET_SECONDS = 5.0


def examine() -> bool:
    """Print one line per check on standard output; return whether all is well."""
    try:
        settings = Settings.resolve({})
    except MistralBatchError as error:
        click.echo(f"not ok  settings   {error}")
        return False
    checks: tuple[tuple[str, Callable[[Settings], Iterator[str]]], ...] = (
        ("versions", _versions),
        ("ledger", _ledger),
        ("state", _state),
        ("store", _store),
        ("key", _key),
        ("server", _server),
    )
    well = True
    for name, check in checks:
        try:
            for line in check(settings):
                click.echo(f"ok      {name:10} {line}")
        except MistralBatchError as error:
            well = False
            click.echo(f"not ok  {name:10} {error}")
    return well


def repair() -> None:
    """Rebuild the ledger from the workspace's jobs, and print what was done."""
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.batches.repair import repair as repaired

    with closing(Context.of_environment()) as context:
        done = repaired(context)
    if done.put_aside is not None:
        click.echo(f"The damaged ledger is now in {done.put_aside}.")
    submissions, jobs = _counted(done.restored_submissions, "submission"), _counted(done.restored_jobs, "job")
    click.echo(f"Restored from the workspace: {submissions} with {jobs}.")
    if done.unsent_jobs:
        click.echo(
            f"Not sent yet: {_counted(done.unsent_jobs, 'job')}. Run the same submit statements again to send them."
        )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _versions(_: Settings) -> Iterator[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError as error:
            raise MistralBatchError(f"The package {package} is not installed: pip install {package}") from error
    yield f"Python {platform.python_version()}, {', '.join(found)}"


def _ledger(settings: Settings) -> Iterator[str]:
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.maintenance.move import own_ledger
    from duckdb_mistral.state.tables import SCHEMA_VERSION

    if settings.ledger is not None:
        with closing(Context(settings)) as context:
            told = own_ledger(context.home)
            yield f"{context.ledger.database.about()}, tables of version {SCHEMA_VERSION}: {_counts(context)}"
            if told is not None:
                yield told


def _state(settings: Settings) -> Iterator[str]:
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.state.owner import open_home

    with closing(Context(settings)) as context:
        counts = f": {_counts(context)}" if settings.ledger is None else ""
        writable = open_home(settings.home)
    told = "is writable" if writable else "is read-only for this user, who can only read kept results"
    yield f"{settings.home} {told}{counts}"


def _counts(context: Context) -> str:
    """Return how much the ledger holds, where it is not older than what lies beside it."""
    from duckdb_mistral.batches.spools import check_memory

    ledger = context.ledger
    check_memory(context.home, ledger)
    submissions, jobs = ledger.submissions(), ledger.jobs()
    open_jobs = sum(not job.ended for job in jobs)
    return f"{len(submissions)} submissions, {len(jobs)} jobs, {open_jobs} not ended"


def _store(settings: Settings) -> Iterator[str]:
    import tempfile
    from pathlib import Path

    from duckdb_mistral.state.store import Store

    if settings.store is not None:
        with tempfile.TemporaryDirectory() as scratch:
            Store(settings.store, settings.home).check(Path(scratch))
        yield f"{settings.store} can be written, read and listed"


def _key(settings: Settings) -> Iterator[str]:
    settings.required_key()
    yield "an API key is set"


def _server(settings: Settings) -> Iterator[str]:
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.runtime.retry_policy import Retry

    if not settings.api_key:
        raise MissingKeyError(f"{settings.server_url} was not checked, because that needs a key.")
    with closing(Context(settings, retry=Retry(budget_seconds=BUDGET_SECONDS))) as context:
        models = {str(card.get("id")) for card in context.client.models()}
    yield f"{settings.server_url} takes the key and offers {len(models)} models"
    if settings.model not in models:
        raise MistralBatchError(
            f"The default model {settings.model} is not among them. FROM mistral_models() lists them; set "
            "DUCKDB_MISTRAL_MODEL to one."
        )
