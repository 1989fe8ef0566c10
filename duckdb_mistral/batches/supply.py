"""The requests of parts that were spooled on another machine, or under a `home` that is gone.

A store has the keys of every part from before the part is recorded: its custom_ids. So whoever submits the same rows
cuts the same part from them, byte for byte as long; what was recorded and not sent can then be sent from here. Whether
it was sent is looked for first, as always.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from duckdb_mistral.batches.hashes import bring_keys
from duckdb_mistral.duck.engine import own_engine
from duckdb_mistral.duck.jsonl import register_requests
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.errors import SourceError
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.requests.keys import read_keys
from duckdb_mistral.requests.spool import Spool
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state.names import keys_path, scratch_spill, spill_path, spool_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Part, Submission
    from duckdb_mistral.requests.spool import SpooledPart
    from duckdb_mistral.state.home import Home


def put_keys(home: Home, parts: Iterable[SpooledPart]) -> None:
    """Put the keys of parts that are about to be recorded into the store, if there is one; raises StoreError."""
    if home.store is not None:
        for part in parts:
            home.store.put(keys_path(part.path))


def lacking(context: Context, submission: Submission) -> list[Part]:
    """Return the parts of a submission that were not sent, and whose requests are neither here nor at the API.

    Without a store or a shared ledger there are none: each submission is sent from one `home`.
    """
    if context.home.store is None and not context.ledger.shared:
        return []
    jobs = context.ledger.jobs(submission.submission_id)
    unsent = {job.part for job in jobs if job.step in (Step.PLANNED, Step.HELD)}
    parts = context.ledger.parts(submission.submission_id) if unsent else []
    return [part for part in parts if part.part in unsent and part.file_id is None and not context.home.holds(part)]


def elsewhere(context: Context) -> str:
    """Return what is told of parts that are lacking."""
    others = "; so does any other that submits the same rows" if context.home.store is not None else ""
    return f"Its requests are under the home that submitted them, which sends them once there is room{others}."


def supply(context: Context, submission: Submission, requests: Sequence[Path]) -> None:
    """Cut the parts that are lacking from request files that hold the rows of the same submission.

    The caller holds the submission's lock. A part that these do not make stays lacking. Raises StoreError.
    """
    for part in lacking(context, submission):
        path = context.home.part(part.submission_id, part.part)
        if part.input_bytes and bring_keys(context.home, path, part.request_count):
            _cut(context, part, path, requests)


def _cut(context: Context, part: Part, path: Path, requests: Sequence[Path]) -> None:
    """Write the requests of a part, whose keys are here, to their place."""
    directory = spill_path(path.parent)
    release = context.locks.held(spool_lock(part.submission_id))
    shutil.rmtree(directory, ignore_errors=True)
    spool = Spool(directory, max_requests=part.request_count, max_bytes=part.input_bytes, release=release)
    try:
        with own_engine(scratch_spill(directory)) as engine:
            engine.register("part_keys", read_keys(path))
            register_requests(engine, "request_lines", requests)
            spool.create_function(engine)
            engine.execute(template("cut_requests").substitute())
        cut = spool.finish()
        counts = [(one.request_count, one.input_bytes) for one in cut]
        if counts == [(part.request_count, part.input_bytes)]:
            keys_path(cut[0].path).replace(keys_path(path))
            failpoint("before-supplied")
            cut[0].path.replace(path)
    except SourceError as error:
        raise SourceError(f"{error} These were to be part {part.part} of {part.submission_id}, not sent yet.") from None
    finally:
        spool.discard()
