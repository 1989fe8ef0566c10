"""The hashes of requests: how two requests are known to be the same, and what stays of them once they are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb

from duckdb_mistral.duck.jsonl import register_requests
from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.errors import LedgerError, StoreError
from duckdb_mistral.requests.keys import keys_in
from duckdb_mistral.results.convert import PARQUET
from duckdb_mistral.results.provenance import is_of, option, said_by
from duckdb_mistral.state.names import keys_path, unfinished_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.state.home import Home


def keys_sql(engine: duckdb.DuckDBPyConnection, requests: Sequence[Path]) -> str:
    """Return a SELECT of the keys of spooled requests; where they are not beside them, the requests are read."""
    selects = []
    for number, path in enumerate(requests):
        keys = keys_in(keys_path(path))
        if keys is None:
            register_requests(engine, f"lines_{number}", [path])
            selects.append(template("hashed_requests").substitute(lines=f"lines_{number}"))
        else:
            engine.register(f"keys_{number}", keys)
            selects.append(f"SELECT custom_id, request FROM keys_{number}")
    return " UNION ALL ".join(selects)


def keep_hashes(engine: duckdb.DuckDBPyConnection, requests: Path, home: Home, job: Job) -> bool:
    """Keep the hashes of a job's request file, before the file goes; False where they cannot be written.

    The engine is one of our own. The caller holds the lock of the job's results. Raises StoreError if they cannot be
    put into the store.
    """
    target = home.hashes(job)
    scratch = unfinished_path(target, job)
    try:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        options = f"{PARQUET}, {option(_requests_said(job))}"
        engine.execute(f"COPY ({keys_sql(engine, [requests])}) TO {literal(scratch)} ({options})")
        scratch.chmod(0o600)
        if home.store is not None:
            home.store.put(target, scratch)
        scratch.replace(target)
    except (OSError, duckdb.Error):
        return False
    finally:
        scratch.unlink(missing_ok=True)
    return True


def kept_hashes(home: Home, job: Job) -> Path | None:
    """Return the file that `home.hashes` names, where it is there and is that of the job's requests."""
    path = home.hashes(job)
    try:
        return path if is_of(path, **_requests_said(job)) else None
    except FileNotFoundError:
        return path if _brought(home, job) else None


def has_hashes(home: Home, job: Job) -> bool:
    """Tell whether the file of a job's hashes is there; raises LedgerError where it is that of other requests.

    Damage is told where it is read. Either way nothing is sent: what was answered would be paid for twice. The same
    where they are in the store and cannot be brought: that raises StoreError.
    """
    hashes = home.hashes(job)
    if not hashes.exists() and not _brought(home, job):
        return False
    if said_by(hashes) is not None and not is_of(hashes, **_requests_said(job)):
        raise LedgerError(
            f"The hashes in {hashes} are not those of submission {job.submission_id}'s requests, so what was "
            "answered before is not known, and nothing was sent. Put the right file back, or remove this one to pay "
            "for those requests again."
        )
    return True


def _brought(home: Home, job: Job) -> bool:
    """Bring the hashes of a job's requests from the store, if it has them, and all of them."""

    def are_whole(brought: Path) -> bool:
        found = said_by(brought)
        counted = found is not None and job.request_count in (found[1], 0)
        return counted and is_of(brought, **_requests_said(job))

    return home.store is not None and home.store.get(home.hashes(job), are_whole)


def known_part(home: Home, job: Job) -> Path | None:
    """Return the part of a job whose keys `keys_sql` can read; None where neither its requests nor its keys are here.

    Where the requests are gone, or on another machine, the keys are brought from the store. Raises StoreError if it
    cannot be asked, and where it has lost the keys of requests that were recorded here: they may have been answered.
    """
    part = home.part(job.submission_id or "", job.part)
    if part.exists() or bring_keys(home, part, job.request_count):
        return part
    if home.store is not None and job.input_bytes:  # not those of a job that was found in the workspace
        raise StoreError(
            f"Which requests part {job.part} of submission {job.submission_id} had is known neither under {home} nor "
            f"in the store {home.store}, so whether they were answered is not known, and nothing was sent. Correct "
            "the setting store, or leave out reuse := 'requests' to pay for all requests."
        )
    return None


def bring_keys(home: Home, part: Path, count: int) -> bool:
    """Tell whether the keys of a part, which has so many requests, are here, or could be brought from the store."""

    def are_whole(path: Path) -> bool:
        keys = keys_in(path)
        return keys is not None and count in (len(keys), 0)

    path = keys_path(part)
    return home.store is not None and (are_whole(path) or home.store.get(path, are_whole))


def _requests_said(job: Job) -> dict[str, Any]:
    return {"submission": job.submission_id, "part": job.part}
