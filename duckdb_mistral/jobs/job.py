"""The values that pass between the layers: a job, what the API says of it, and when it has ended."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """The API's words for a job (schema BatchJobStatus), and HELD and UNKNOWN, which are this package's.

    Any other word that the API may come to use is kept as text: JobReport.ended decides what it means.
    """

    #: Not created at the API yet: it waits for room under the pending limit.
    HELD = "HELD"
    #: A create was sent and its answer was lost; it is being looked for.
    UNKNOWN = "UNKNOWN"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    TIMEOUT_EXCEEDED = "TIMEOUT_EXCEEDED"
    CANCELLATION_REQUESTED = "CANCELLATION_REQUESTED"
    CANCELLED = "CANCELLED"


#: No job leaves these, but for a server that takes back what it said.
ENDED = frozenset({Status.SUCCESS, Status.FAILED, Status.TIMEOUT_EXCEEDED, Status.CANCELLED})
WORDS = frozenset(Status)
#: Ended, and not as the user wished.
ENDED_BADLY = ENDED - {Status.SUCCESS}
#: What counts against the workspace's pending limit.
PENDING = (Status.QUEUED, Status.RUNNING, Status.CANCELLATION_REQUESTED)

#: Job metadata keys that find a job again when the answer to its create was lost.
SUBMISSION_KEY = "duckdb_mistral_submission"
PART_KEY = "duckdb_mistral_part"
#: What makes two submissions the same, so that a lost ledger can be rebuilt from the workspace's jobs.
IDENTITY_KEY = "duckdb_mistral_identity"
#: How many jobs the submission has, and what it sends again what was left of: for the same purpose.
JOBS_KEY = "duckdb_mistral_jobs"
RETRY_KEY = "duckdb_mistral_retry_of"
#: Its models, where they are several: those of which no job was created are known by it alone.
MODELS_KEY = "duckdb_mistral_models"
#: How many of its rows share the request of another one, where any do: which ones is told by a file here alone.
COPIES_KEY = "duckdb_mistral_copies"
#: How many of its rows were answered before, where any were: the answers lie here alone.
ANSWERED_KEY = "duckdb_mistral_answered"
OWN_KEYS = frozenset(
    {SUBMISSION_KEY, PART_KEY, IDENTITY_KEY, JOBS_KEY, RETRY_KEY, MODELS_KEY, COPIES_KEY, ANSWERED_KEY}
)
#: The values of these are ids and hashes, of small letters.
HASHED_KEYS = frozenset({SUBMISSION_KEY, IDENTITY_KEY, RETRY_KEY})


class Step(StrEnum):
    """Where a job stands between this package and the API; the ledger moves it only along these arrows."""

    #: → SENDING or HELD or DROPPED
    PLANNED = "planned"
    #: The create is being sent, or its answer was lost: → CREATED or PLANNED or HELD or GIVEN_UP; or to itself, where a
    #: clock was set back and the time of looking for it begins again
    SENDING = "sending"
    #: Its answer was lost, and it is not wanted any more: → CREATED where the API has it all the same, else DROPPED; or
    #: to itself, as above
    GIVEN_UP = "given up"
    #: Refused for now, or no room: → SENDING or DROPPED
    HELD = "held"
    #: The API has it, and the id is known: the last step.
    CREATED = "created"
    #: Cancelled before it was created: the last step.
    DROPPED = "dropped"
    #: No job at all, but the rows of a submission that were answered before: the first and last step.
    ANSWERED = "answered"


#: The first second of the year 10000, which neither Python's times nor the API's filters know.
END_OF_TIME = 253_402_300_800
#: The largest number that a BIGINT and the ledger hold.
LARGEST_NUMBER = (1 << 63) - 1

#: Whether the API has such a job is not known.
LOST = (Step.SENDING, Step.GIVEN_UP)

ARROWS = {
    Step.PLANNED: frozenset({Step.SENDING, Step.HELD, Step.DROPPED}),
    Step.SENDING: frozenset({Step.CREATED, Step.PLANNED, Step.HELD, Step.GIVEN_UP, Step.SENDING}),
    Step.GIVEN_UP: frozenset({Step.CREATED, Step.DROPPED, Step.GIVEN_UP}),
    Step.HELD: frozenset({Step.SENDING, Step.DROPPED}),
    Step.CREATED: frozenset[Step](),
    Step.DROPPED: frozenset[Step](),
    Step.ANSWERED: frozenset[Step](),
}


@dataclass(frozen=True, kw_only=True)
class JobReport:
    """What the API says of one job (schema BatchJobOut), read tolerantly from its JSON.

    Times are microseconds since 1970 in UTC, as the ledger keeps them.
    """

    job_id: str
    status: str
    endpoint: str | None = None
    model: str | None = None
    total_requests: int = 0
    completed_requests: int = 0
    succeeded_requests: int = 0
    failed_requests: int = 0
    created_at: int | None = None
    started_at: int | None = None
    completed_at: int | None = None
    errors: tuple[tuple[str, int], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    input_files: tuple[str, ...] = ()
    output_file: str | None = None
    error_file: str | None = None

    @property
    def word(self) -> str:
        """The status as one of Status, where it is one but for its case and its spaces; else as the API says it."""
        word = re.sub(r"[\s-]+", "_", self.status.strip()).upper()
        return word if word in WORDS else self.status

    @property
    def ended(self) -> bool:
        """Whether the job has ended: by its word, or by its time of completion where we do not know the word."""
        return self.word in ENDED or (self.word not in PENDING and bool(self.completed_at))

    @property
    def told(self) -> str:
        """What results are made from: the status, the counts and the files, as one text."""
        counts = (self.total_requests, self.completed_requests, self.succeeded_requests, self.failed_requests)
        return json.dumps([self.word, *counts, self.output_file, self.error_file])

    @property
    def tags(self) -> dict[str, str]:
        """What we told of the job's submission in its metadata, also where a server changed the case of it."""
        told = {key.lower(): value for key, value in self.metadata if key.lower() in OWN_KEYS}
        return {key: value.lower() if key in HASHED_KEYS else value for key, value in told.items()}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> JobReport:
        """Read a BatchJobOut; what is missing, null or of another type is left at its default.

        Raises ValueError where there is no id: then it is no job.
        """
        job_id = body.get("id")
        if not isinstance(job_id, str) or not job_id:
            raise ValueError("no job id")
        metadata = body.get("metadata")
        return cls(
            job_id=job_id,
            status=_text(body.get("status")) or Status.UNKNOWN,
            endpoint=_text(body.get("endpoint")),
            model=_text(body.get("model")),
            total_requests=_whole(body.get("total_requests")) or 0,
            completed_requests=_whole(body.get("completed_requests")) or 0,
            succeeded_requests=_whole(body.get("succeeded_requests")) or 0,
            failed_requests=_whole(body.get("failed_requests")) or 0,
            created_at=_microseconds(body.get("created_at")),
            started_at=_microseconds(body.get("started_at")),
            completed_at=_microseconds(body.get("completed_at")),
            errors=_errors(body.get("errors")),
            metadata=tuple((str(key), _scalar(value)) for key, value in metadata.items())
            if isinstance(metadata, Mapping)
            else (),
            input_files=tuple(file for file in _list(body.get("input_files")) if isinstance(file, str)),
            output_file=_text(body.get("output_file")),
            error_file=_text(body.get("error_file")),
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job of the ledger: one part of a submission on one model, or a job that another program created."""

    key: int
    submission_id: str | None
    part: int
    model: str
    endpoint: str
    server_url: str
    step: Step
    #: The requests of this part, counted when it was built: the API's own total may lag.
    request_count: int
    input_bytes: int
    created_here_at: int
    #: When its create was sent, or its answer lost, by the server's clock and by this machine's.
    sent_at: int | None = None
    sent_here_at: int | None = None
    #: How long, in µs, the API may take at least until it lists a job of that create.
    least_wait: int | None = None
    checked_at: int | None = None
    message: str | None = None
    results: str | None = None
    #: The size of the results file when it was kept: a file of another size is damaged.
    results_bytes: int | None = None
    #: How many rows of the kept results have no answer; None where that was not counted.
    results_missing: int | None = None
    #: What the API had told of the job (JobReport.told) when its results were fetched.
    results_told: str | None = None
    report: JobReport | None = None

    @property
    def job_id(self) -> str | None:
        """The API's id of the job, or None while it has not been created."""
        return self.report.job_id if self.report else None

    @property
    def status(self) -> str:
        """The word that a user sees."""
        if self.report is not None:
            return self.report.status
        match self.step:
            case Step.SENDING | Step.GIVEN_UP:
                return Status.UNKNOWN
            case Step.DROPPED:
                return Status.CANCELLED
            case Step.ANSWERED:
                return Status.SUCCESS
        return Status.HELD

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of this job."""
        return self.step in (Step.DROPPED, Step.ANSWERED) or (self.report is not None and self.report.ended)

    @property
    def ended_badly(self) -> bool:
        """Whether the job ended by a word that says that it failed as a whole."""
        return self._word in ENDED_BADLY

    @property
    def succeeded(self) -> bool:
        """Whether the job ended with SUCCESS."""
        return self._word == Status.SUCCESS

    @property
    def _word(self) -> str:
        return self.report.word if self.report is not None else self.status

    def evolve(self, **changes: Any) -> Job:
        """Return this job with `changes`."""
        return replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The checked arguments of one mistral_batch_submit."""

    endpoint: str
    models: tuple[str, ...]
    timeout_hours: int = 24
    metadata: tuple[tuple[str, str], ...] = ()
    output: str | None = None
    #: US dollars; a submission that may cost more is refused.
    max_cost: float | None = None
    #: Whether requests that are the same, or were answered before, are left out.
    reuse_requests: bool = False
    force: bool = False
    #: The submission or job of which this sends again what it left.
    retry_of: str | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """One input file of a submission; every model of the submission runs on it."""

    submission_id: str
    part: int
    request_count: int
    input_bytes: int
    file_id: str | None = None
    #: Whether the file may be at the API although it has no `file_id` here; None where an older version wrote this row.
    upload_began: bool | None = False


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What one call of mistral_batch_submit asked for."""

    submission_id: str
    #: Everything that makes two submissions the same, as one hash.
    identity: str
    server_url: str
    #: A hash that tells one API key from another; the key cannot be had from it.
    account: str
    endpoint: str
    models: tuple[str, ...]
    timeout_hours: int
    metadata: tuple[tuple[str, str], ...]
    request_count: int
    input_bytes: int
    created_at: int
    output: str | None = None
    retry_of: str | None = None


def now() -> int:
    """Return this machine's time in microseconds since 1970, UTC."""
    return int(datetime.now(UTC).timestamp() * 1_000_000)


def given_metadata(metadata: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Return the metadata that somebody gave, without what we tell of a submission, which is true of that one alone."""
    return tuple(pair for pair in metadata if pair[0].lower() not in OWN_KEYS)


def read_json(text: str | bytes) -> Any:
    """Return what JSON holds; half a surrogate pair, which JSON may hold and UTF-8 may not, becomes a question mark.

    Raises ValueError where it is no JSON, or has more levels than Python can read.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("too many levels") from None
    content = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    if b"\\ud" not in content.lower() and b"\xed" not in content:  # which spares most texts to be read twice
        return found
    return json.loads(json.dumps(found, ensure_ascii=False).encode(errors="replace"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    """Return a text that says something, else None: an empty file id must not become a request."""
    return value if isinstance(value, str) and value else None


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if abs(value) <= LARGEST_NUMBER else None


def _microseconds(value: Any) -> int | None:
    seconds = _whole(value)
    return None if seconds is None or abs(seconds) >= END_OF_TIME else seconds * 1_000_000


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _errors(value: Any) -> tuple[tuple[str, int], ...]:
    """Read the errors of a job: each an object with a message, or the message alone; one may come without a list."""
    errors = value if isinstance(value, list) else [value]
    return tuple(map(_error, (error for error in errors if error not in (None, "", {}))))


def _error(value: Any) -> tuple[str, int]:
    if not isinstance(value, Mapping):
        return _scalar(value), 1
    message = next((value[name] for name in ("message", "detail", "error") if value.get(name)), "")
    return _scalar(message), _whole(value.get("count")) or 1
