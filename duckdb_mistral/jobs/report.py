"""What the API says of a job, read tolerantly, and its words for how far one is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from duckdb_mistral.jobs.ids import is_id
from duckdb_mistral.jobs.tags import Tags

#: The first second of the year 10000, which neither Python's times nor the API's filters know.
END_OF_TIME = 253_402_300_800
#: The largest number that a BIGINT and the ledger hold.
LARGEST_NUMBER = (1 << 63) - 1


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
#: Ended, but not as the user wished.
ENDED_BADLY = ENDED - {Status.SUCCESS}
#: What counts against the workspace's pending limit.
PENDING = (Status.QUEUED, Status.RUNNING, Status.CANCELLATION_REQUESTED)


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

    @cached_property
    def tags(self) -> Tags:
        """What the job tells of the submission that it is of; nothing if it has no id that the API gives."""
        return Tags.from_metadata(self.metadata) if is_id(self.job_id) else Tags()

    def runs_on(self, file_id: str) -> bool:
        """Tell whether the job was created with an input file; one without an id that the API gives was not."""
        return file_id in self.input_files and is_id(self.job_id)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> JobReport:
        """Read a BatchJobOut; what is missing, null or of another type is left at its default.

        Raises ValueError if there is no id: then it is not a job.
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
