"""The one owner of every path under `home`: no other module joins a path.

```text
ledger.sqlite, -wal, -shm            the ledger
ledger-unfinished/                   a home whose ledger is being built, before it takes the place of a damaged one
damaged-<time>/                      a damaged ledger that was put aside
locks/<name>.lock                    locks between processes
spool/<submission>/                  requests, until their answers are kept
    part-00001.jsonl                 one input file
    part-00001.arrow                 its keys: the custom_ids and the hashes of the bodies
    recorded.json                    the mark of a submission that the ledger knows
    pending.jsonl                    an input file of another job, while it is compared
spool/<submission>-spill/            what DuckDB finds no room for in memory
requests/<submission>-<part>.parquet the hashes of requests that are gone
requests/copies-<submission>.parquet which rows share the request of another one
results/<job>.parquet                the kept results of a job
results/<job>.lines-0.jsonl          the result file that its responses are in, where it is large
results/partial-<job>.parquet        what there is of results that are not whole
results/found-<submission>.parquet   the rows of a submission that were answered before
results/scratch-<key>/               results on their way, by the job's key in the ledger
results/scratch-retry-<submission>/  the same, of what a retry sends again
```

These names are a format: a home of an earlier version is read as it is. How a single name is made, and what one tells,
is in `names`. Where there is a store, what it keeps has the same names there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from duckdb_mistral.state import names

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job, Part
    from duckdb_mistral.state.store import Store


@dataclass(frozen=True)
class Home:
    """The state directory `path`, and where everything in it lies; none of it need exist."""

    path: Path
    #: What keeps results for other machines too; this directory is a cache of it then.
    store: Store | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """Return the directory as sentences name it."""
        return str(self.path)

    # The ledger and the locks

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.ledger_files[0]

    @property
    def ledger_log(self) -> Path:
        """What SQLite has written and not brought into the ledger's file yet."""
        return self.ledger_files[1]

    @property
    def ledger_files(self) -> tuple[Path, ...]:
        """Everything that SQLite keeps of the ledger, its file first."""
        return tuple(self.path / name for name in names.LEDGER_FILES)

    @property
    def building(self) -> Home:
        """The home that a ledger is built in where there is none that is sound."""
        return Home(self.path / names.BUILDING)

    @property
    def asides(self) -> list[Path]:
        """The directories of damaged ledgers that were put aside."""
        return sorted(self.path.glob(f"{names.ASIDE}*"))

    def new_aside(self) -> tuple[Path, dict[Path, Path]]:
        """Return a directory for a ledger that is damaged now, and where each of its files goes in there."""
        directory = self.path / f"{names.ASIDE}{time.strftime('%Y%m%d-%H%M%S')}"
        return directory, {file: directory / file.name for file in self.ledger_files}

    @property
    def locks(self) -> Path:
        """The directory of the locks."""
        return self.path / "locks"

    def lock(self, name: str) -> Path:
        """Return the file of the lock `name`."""
        return self.locks / f"{name}.lock"

    # Requests

    @property
    def explained(self) -> tuple[Path, ...]:
        """The directories in which only the ledger says what a file is for."""
        return (self.spools, self.results, self.hashed)

    @property
    def spools(self) -> Path:
        """The directory of the spools."""
        return self.path / "spool"

    def spool(self, submission_id: str) -> Path:
        """Return the directory of a submission's requests."""
        return self.spools / submission_id

    def part(self, submission_id: str, part: int) -> Path:
        """Return where a part's requests lie until their results are whole."""
        return names.part_path(self.spool(submission_id), part)

    def holds(self, part: Part) -> bool:
        """Tell whether a part's requests lie here, whole as far as their size tells."""
        try:
            return self.part(part.submission_id, part.part).stat().st_size == part.input_bytes
        except FileNotFoundError:
            return False

    @property
    def hashed(self) -> Path:
        """The directory of what is kept of requests that are gone."""
        return self.path / "requests"

    def hashes(self, job: Job) -> Path:
        """Return the file that keeps the hashes of a job's requests, (custom_id, request), once they are gone."""
        return self.hashed / names.hashes_name(job.submission_id, job.part)

    def copies(self, submission_id: str) -> Path:
        """Return the file that says which rows of a submission share a request: (custom_id, sent_as)."""
        return self.hashed / f"{names.COPIES}{submission_id}.parquet"

    # Results

    @property
    def results(self) -> Path:
        """The directory of the kept results."""
        return self.path / "results"

    def kept(self, name: str) -> Path:
        """Return the results file that the ledger knows by `name`."""
        return self.results / name

    def results_of(self, job: Job) -> Path:
        """Return where a job's whole results are kept."""
        return self.kept(names.results_name(job))

    def partial(self, job: Job) -> Path:
        """Return where a job's results are kept that are not whole."""
        return self.kept(f"{names.PARTIAL}{names.results_name(job)}")

    def found(self, submission_id: str) -> Path:
        """Return the file of the rows of a submission that were answered before."""
        return self.kept(f"{names.FOUND}{submission_id}.parquet")

    def submission_of(self, path: Path) -> str | None:
        """Return the submission whose rows that were answered before, copies or hashes a file keeps; else None."""
        stem = names.stem_of(path)
        if path.parent == self.results:
            return names.found_by(stem)
        return (names.copied_by(stem) or names.hashed_part(stem)[0]) if path.parent == self.hashed else None

    def scratch(self, job: Job) -> Path:
        """Return the directory of a job's results on their way; whoever holds `names.results_lock` works there."""
        return self.results / f"{names.SCRATCH}{job.key}"

    def retry_scratch(self, submission_id: str) -> Path:
        """Return the same for a retry, by the spool that it fills; whoever holds `names.spool_lock` works there."""
        return self.results / f"{names.RETRY_SCRATCH}{submission_id}"
