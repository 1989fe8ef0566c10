"""The hashes of requests: how two requests are known to be the same, and what stays of them once they are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb

from duckdb_mistral.duck.jsonl import register_requests
from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.errors import LedgerError
from duckdb_mistral.requests.keys import read_keys
from duckdb_mistral.results.convert import PARQUET
from duckdb_mistral.results.provenance import is_of, option, said_by
from duckdb_mistral.state.names import unfinished_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.state.home import Home


def keys_sql(engine: duckdb.DuckDBPyConnection, requests: Sequence[Path]) -> str:
    """Return a SELECT of the keys of spooled requests; where they are not beside them, the requests are read."""
    selects = []
    for number, path in enumerate(requests):
        keys = read_keys(path)
        if keys is None:
            register_requests(engine, f"lines_{number}", [path])
            selects.append(template("hashed_requests").substitute(lines=f"lines_{number}"))
        else:
            engine.register(f"keys_{number}", keys)
            selects.append(f"SELECT custom_id, request FROM keys_{number}")
    return " UNION ALL ".join(selects)


def keep_hashes(engine: duckdb.DuckDBPyConnection, requests: Path, home: Home, job: Job) -> bool:
    """Keep the hashes of a job's request file, before the file goes; False where they cannot be written.

    The engine is one of our own. The caller holds the lock of the job's results.
    """
    target = home.hashes(job)
    scratch = unfinished_path(target, job)
    try:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        options = f"{PARQUET}, {option(_requests_said(job))}"
        engine.execute(f"COPY ({keys_sql(engine, [requests])}) TO {literal(scratch)} ({options})")
        scratch.chmod(0o600)
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
        return None


def has_hashes(hashes: Path, job: Job) -> bool:
    """Tell whether the file of a job's hashes is there; raises LedgerError where it is that of other requests.

    Damage is told where it is read. Either way nothing is sent: what was answered would be paid for twice.
    """
    if not hashes.exists():
        return False
    if said_by(hashes) is not None and not is_of(hashes, **_requests_said(job)):
        raise LedgerError(
            f"The hashes in {hashes} are not those of submission {job.submission_id}'s requests, so what was "
            "answered before is not known, and nothing was sent. Put the right file back, or remove this one to pay "
            "for those requests again."
        )
    return True


def _requests_said(job: Job) -> dict[str, Any]:
    return {"submission": job.submission_id, "part": job.part}
