"""How what lies under `home` is called: names beside a path, what a name tells, and the names of the locks.

`Home` draws the whole tree.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job

LEDGER_FILES = ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm")
BUILDING = "ledger-unfinished"
ASIDE = "damaged-"
PARTIAL, FOUND, COPIES = "partial-", "found-", "copies-"
SCRATCH = "scratch-"
RETRY_SCRATCH = f"{SCRATCH}retry-"
_SPILL = "-spill"
_PART = re.compile(r"part-(\d+)\.jsonl")
#: What DuckDB puts before the name of a file that it is about to replace.
_TEMPORARY = "tmp_"
#: What follows the name that a file shares with those that it belongs to.
_ENDING = re.compile(r"(\.(lines|job)-\d+)?(\.brought-[0-9a-f]+)?\.[^.]+$")

#: The locks of one process at a time for all of `home`. A submission's own lock has its id for a name.
REUSE_LOCK, REPAIR_LOCK = "reuse", "repair"
_SPOOL_LOCK = "spool-"


def spool_lock(submission_id: str) -> str:
    """Return the lock of whoever fills a spool, from before it is made until it is recorded."""
    return f"{_SPOOL_LOCK}{submission_id}"


def results_lock(job: Job) -> str:
    """Return the lock of whoever keeps a job's results."""
    return f"results-{job.key}"


def retry_lock(root: str) -> str:
    """Return the lock of whoever retries a submission or a job."""
    return f"retry-{root}"


def create_lock(account: str) -> str:
    """Return the lock of whoever creates jobs in the workspace of an account."""
    return f"create-{account}"


def poll_lock(account: str) -> str:
    """Return the lock of whoever asks the API how the jobs of an account are, for all that wait for some."""
    return f"poll-{account}"


def is_of_files(lock: str) -> bool:
    """Tell whether a lock guards files under `home` alone, so that other machines need not know of it."""
    return lock.startswith(_SPOOL_LOCK)


# In a spool


def part_path(spool: Path, part: int) -> Path:
    """Return the input file of a part, counted from 1."""
    return spool / f"part-{part:05}.jsonl"


def part_number(path: Path) -> int | None:
    """Return which part an input file is; None for another file."""
    found = _PART.fullmatch(path.name)
    return None if found is None else int(found[1])


def keys_path(part: Path) -> Path:
    """Return where the keys of a part lie."""
    return part.with_suffix(".arrow")


def mark_path(spool: Path) -> Path:
    """Return the file that marks a spool as recorded; it holds the server and the account it is sent with."""
    return spool / "recorded.json"


def pending_path(spool: Path) -> Path:
    """Return where an input file of another job lies while it is compared with what a spool holds."""
    return spool / "pending.jsonl"


def spill_path(spool: Path) -> Path:
    """Return the directory, beside a spool, where DuckDB puts what finds no room in memory."""
    return spool.with_name(f"{spool.name}{_SPILL}")


def spool_of(path: Path) -> str:
    """Return the submission that a spool, or what spilled beside it, is of."""
    return path.name.removesuffix(_SPILL)


# Beside results, and on the way to them


def results_name(job: Job) -> str:
    """Return the name of the file that a job's results are kept in."""
    return f"{job.job_id or f'{job.submission_id}-{job.part}-{job.key}'}.parquet"


def line_path(results: Path, number: int) -> Path:
    """Return where the result file `number`, counted from 0, of a Parquet file lies."""
    return results.with_suffix(f".lines-{number}.jsonl")


def read_path(results: Path) -> Path:
    """Return where results are written before they are checked."""
    return results.with_suffix(".read")


def unfinished_path(target: Path, job: Job | None = None) -> Path:
    """Return where a Parquet file is written before it gets its name; by the job, where several may write it."""
    return target.with_suffix(".unfinished" if job is None else f".job-{job.key}.unfinished")


def brought_path(target: Path) -> Path:
    """Return where a file lies on its way from the store; each call another one, because nobody is waited for."""
    return target.with_suffix(f".brought-{uuid4().hex}.unfinished")


def fetched_path(scratch: Path, job: Job) -> Path:
    """Return where a job's results lie before they are kept."""
    return scratch / results_name(job)


def answers_path(scratch: Path, number: int) -> Path:
    """Return where the result file `number`, counted from 0, of a job is downloaded to."""
    return scratch / f"answers-{number}.jsonl"


def submitted_path(scratch: Path, job: Job) -> Path:
    """Return where the requests of a job are downloaded to."""
    return scratch / f"submitted-{job.key}.jsonl"


def joined_path(target: Path) -> Path:
    """Return where downloads become one file before it gets its name."""
    return target.with_suffix(".joined")


def piece_path(target: Path) -> Path:
    """Return where one of those downloads lies."""
    return target.with_suffix(".piece")


def scratch_spill(scratch: Path) -> Path:
    """Return the directory where DuckDB puts what finds no room in memory."""
    return scratch / "spill"


def is_scratch(path: Path) -> bool:
    """Tell whether a directory is of results on their way."""
    return path.name.startswith(SCRATCH)


def scratch_lock(scratch: Path) -> str:
    """Return the lock of whoever may be at a scratch directory: a collector, or a retry that fills a spool."""
    if scratch.name.startswith(RETRY_SCRATCH):
        return spool_lock(scratch.name.removeprefix(RETRY_SCRATCH))
    return f"results-{scratch.name.removeprefix(SCRATCH)}"


# What the names of files that belong together have in common


def stem_of(path: Path) -> str:
    """Return what the names of files that belong together have in common."""
    return _ENDING.sub("", path.name.removeprefix(_TEMPORARY))


def is_unfinished(path: Path) -> bool:
    """Tell whether a file gets its final name only once it is whole."""
    return path.suffix in (".read", ".unfinished") or path.name.startswith(_TEMPORARY)


def found_by(stem: str) -> str | None:
    """Return the submission of rows that were answered before; None for other files of `results`."""
    return stem.removeprefix(FOUND) if stem.startswith(FOUND) else None


def copied_by(stem: str) -> str | None:
    """Return the submission of rows that share a request; None for other files of `requests`."""
    return stem.removeprefix(COPIES) if stem.startswith(COPIES) else None


def is_partial(stem: str) -> bool:
    """Tell whether results are those that are not whole."""
    return stem.startswith(PARTIAL)


def job_named(stem: str) -> str:
    """Return what the results of a job, whole or partial, are called after."""
    return stem.removeprefix(PARTIAL)


def hashes_name(submission_id: str | None, part: int) -> str:
    """Return the name of the file that keeps the hashes of a part."""
    return f"{submission_id}-{part}.parquet"


def hashed_part(stem: str) -> tuple[str, str]:
    """Return the submission and the part, as text, whose hashes a file keeps."""
    submission_id, _, part = stem.rpartition("-")
    return submission_id or stem, part
