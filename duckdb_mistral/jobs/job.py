"""A job of the ledger and the submission that it is of, and the steps between this package and the API."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from duckdb_mistral.jobs.report import ENDED_BADLY, Status

if TYPE_CHECKING:
    from duckdb_mistral.jobs.report import JobReport


class Step(StrEnum):
    """Where a job stands between this package and the API; the ledger moves it only along these arrows."""

    #: → SENDING or HELD or DROPPED; or to itself, where a clock was set back and the time of looking for a refused
    #: create begins again
    PLANNED = "planned"
    #: The create is being sent, or its answer was lost: → CREATED or PLANNED or HELD or GIVEN_UP; or to itself, where a
    #: clock was set back and the time of looking for it begins again
    SENDING = "sending"
    #: Its answer was lost, and it is no longer wanted: → CREATED where the API has it all the same, else DROPPED; or
    #: to itself, as above
    GIVEN_UP = "given up"
    #: Refused for now, or no room: → SENDING or DROPPED; or to itself, as above
    HELD = "held"
    #: The API has it, and the id is known: the last step.
    CREATED = "created"
    #: Cancelled before it was created: the last step.
    DROPPED = "dropped"
    #: No job at all, but the rows of a submission that were answered before: the first and last step.
    ANSWERED = "answered"


#: Whether the API has such a job is not known.
LOST = (Step.SENDING, Step.GIVEN_UP)
#: Where all jobs of a submission stand of which the API has taken none.
UNTAKEN = (Step.PLANNED, Step.HELD, Step.ANSWERED)

ARROWS = {
    Step.PLANNED: frozenset({Step.SENDING, Step.HELD, Step.DROPPED, Step.PLANNED}),
    Step.SENDING: frozenset({Step.CREATED, Step.PLANNED, Step.HELD, Step.GIVEN_UP, Step.SENDING}),
    Step.GIVEN_UP: frozenset({Step.CREATED, Step.DROPPED, Step.GIVEN_UP}),
    Step.HELD: frozenset({Step.SENDING, Step.DROPPED, Step.HELD}),
    Step.CREATED: frozenset[Step](),
    Step.DROPPED: frozenset[Step](),
    Step.ANSWERED: frozenset[Step](),
}


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
    #: When its create was sent, refused, or its answer lost, by the API's clock and by the ledger's, which is this
    #: machine's or the PostgreSQL server's.
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
    def was_sent(self) -> bool:
        """Whether a create of this job has left, whatever came of it."""
        return self.sent_at is not None or self.sent_here_at is not None

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
