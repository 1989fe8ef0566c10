"""The requests of a job that was sent: as they were spooled here, as the server has them, or their custom_ids alone."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from duckdb_mistral.batches.hashes import bring_keys, kept_hashes
from duckdb_mistral.errors import NotFoundError
from duckdb_mistral.results.provenance import said_by
from duckdb_mistral.state.names import joined_path, keys_path, piece_path, submitted_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.state.home import Home


def submitted(context: Context, job: Job, scratch: Path) -> Path | None:
    """Return the file of a job's requests: as spooled here, else as the server has them, else None.

    What is downloaded comes into the directory `scratch`.
    """
    if job.submission_id is not None:
        path = context.home.part(job.submission_id, job.part)
        with suppress(FileNotFoundError):
            if job.input_bytes in (path.stat().st_size, 0):  # 0 if the ledger was rebuilt; else it is damaged
                return path
    inputs = job.report.input_files if job.report is not None else ()
    path = submitted_path(scratch, job)
    if not inputs:
        return None
    if not path.exists():
        try:
            _download_joined(context, inputs, path)
        except NotFoundError:
            return None
    return path


def submitted_or_custom_ids(context: Context, job: Job, scratch: Path) -> Path | None:
    """Return the file of a job's requests, as `submitted` does, or else what is kept of their custom_ids.

    What the store has of these is a fraction of the file that the server has.
    """
    home = context.home
    if home.store is not None and not home.part(job.submission_id or "", job.part).exists():
        return _kept_custom_ids(home, job) or submitted(context, job, scratch)
    return submitted(context, job, scratch) or _kept_custom_ids(home, job)


def _kept_custom_ids(home: Home, job: Job) -> Path | None:
    """Return what is kept of a job's requests once they are gone, or are on another machine: custom_ids and hashes."""
    if job.submission_id is None:
        return None
    path = kept_hashes(home, job)
    found = None if path is None else said_by(path)
    if found is not None and job.request_count in (found[1], 0):
        return path
    part = home.part(job.submission_id, job.part)
    return keys_path(part) if bring_keys(home, part, job.request_count) else None


def _download_joined(context: Context, file_ids: Sequence[str], target: Path) -> None:
    """Download files of lines as one; another program's job may have several input files."""
    if len(file_ids) == 1:
        context.client.download(file_ids[0], target)
        return
    joined, piece = joined_path(target), piece_path(target)
    with joined.open("wb") as whole:
        for file_id in file_ids:
            context.client.download(file_id, piece)
            with piece.open("rb") as lines:
                shutil.copyfileobj(lines, whole)
            whole.write(b"\n")  # the last line may not end
    joined.replace(target)
