"""The Batch API over the official SDK: upload, create, read, cancel, download. Knows no DuckDB and no ledger.

Every answer is read as raw JSON, independently of the SDK's models, so that a new or missing field at the server
breaks nothing here. What is asked for again and again is asked for without the SDK, which makes new classes of models
for each answer: that takes longer than all the rest of a small list. Creating a job is one POST that is never repeated;
only reads are.
"""

from __future__ import annotations

import importlib
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from duckdb_mistral.api.caller import Caller
from duckdb_mistral.api.downloads import Downloads
from duckdb_mistral.api.ids import checked_id
from duckdb_mistral.api.listing import PAGE_SIZE, Sought, read_pages
from duckdb_mistral.api.secrets import account_of
from duckdb_mistral.api.transport import NeverAsync, Transport
from duckdb_mistral.errors import ApiError, NotFoundError
from duckdb_mistral.jobs.ids import is_id
from duckdb_mistral.jobs.report import JobReport
from duckdb_mistral.jobs.tags import Tags
from duckdb_mistral.runtime import interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from duckdb_mistral.runtime.retry_policy import Retry
    from duckdb_mistral.settings import Settings

#: A list of files is not read for ever, where it repeats.
MOST_FILE_PAGES = 10


class BatchClient:
    """One workspace of the Batch API; a context manager that closes its connections."""

    def __init__(self, settings: Settings, retry: Retry, *, transport: Any = None) -> None:
        """Make a client for the settings' key and address; `transport` replaces the network in tests.

        Raises MissingKeyError if there is no key. Opens no connection yet.
        """
        self.server_url = settings.server_url
        self.retry = retry
        key = settings.required_key()
        self.account = account_of(key)
        client = importlib.import_module("mistralai.client")
        self._transport = Transport(self.server_url, settings.deadline_seconds, transport=transport)
        # When its settings change, a session drops a client that another thread may still be using.
        weakref.finalize(self, self._transport.close)
        self._caller = Caller(self._transport, self.server_url, key)
        self._sdk = client.Mistral(
            api_key=key, server_url=self.server_url, client=self._transport.client, async_client=NeverAsync()
        )
        self._downloads = Downloads(self._sdk, self._transport, self._caller, settings.deadline_seconds)
        # The SDK imports these on first use: do it here, not in several threads that Ctrl-C may interrupt.
        _ = self._sdk.files, self._sdk.batch.jobs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"BatchClient({self.server_url!r})"

    @property
    def server_time(self) -> int | None:
        """The server's clock according to its last answer, in µs since 1970; None if no answer gave a time."""
        return self._transport.server_time

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def upload(self, path: Path, name: str) -> str:
        """Upload a JSONL file for batches, streamed; return its id.

        One POST, repeated only if a limit refuses it (API: `POST /v1/files`, schema UploadFileOut).
        """
        body = self.retry.refused(lambda: self._upload_once(path, name))
        file_id = body.get("id")
        if not isinstance(file_id, str) or not file_id:
            raise ApiError(f"The Mistral API accepted {name}, but its answer names no file. Run the statement again.")
        return file_id

    def file_exists(self, file_id: str) -> bool:
        """Tell whether an uploaded file is still there (API: `GET /v1/files/{file_id}`)."""
        try:
            self.retry.read(lambda: self._downloads.described(file_id))
        except NotFoundError:
            return False
        return True

    def has_file(self, file_id: str) -> bool:
        """Tell whether the API has a file, of which it says so itself or in its list (API: `GET /v1/files`)."""
        try:
            body = self.retry.read(lambda: self._downloads.described(file_id))
        except NotFoundError:
            return any(entry.get("id") == file_id for entry in self._listed_files())
        return body.get("deleted") is not True

    def find_file(self, name: str, size: int) -> str | None:
        """Return the id of an uploaded batch file by its name and size in bytes (API: `GET /v1/files`)."""
        body = self._get(f"look for {name}", "/v1/files", search=name, purpose="batch")
        for entry in body.get("data") or []:
            if isinstance(entry, dict) and (entry.get("filename"), entry.get("bytes")) == (name, size):
                return entry.get("id") or None
        return None

    def files(self, search: str) -> Iterator[tuple[str, int]]:
        """Yield the names of the uploaded batch files that hold a text, and when they were made (API: `GET /v1/files`).

        The time is the server's, in seconds since 1970; 0 where it is not told.
        """
        for entry in self._listed_files(search=search, purpose="batch"):
            created_at = entry.get("created_at")
            yield str(entry.get("filename")), created_at if isinstance(created_at, int) else 0

    def create(
        self,
        *,
        file_id: str,
        endpoint: str,
        model: str,
        metadata: dict[str, str],
        timeout_hours: int,
        not_after: float | None = None,
    ) -> JobReport:
        """Create a job: exactly one POST (API: `POST /v1/batch/jobs`, schema BatchJobOut).

        After `not_after`, by `clocks.awake`, nothing is sent: OversleptError. Raises UnreachableError with `sent` False
        if the API certainly received nothing, and an ApiError with a 3xx or 4xx status if it most likely created no
        job. After any other ApiError it is unknown whether there is a job, including an answer that names no job, or
        one that may be another program's.
        """
        what = "create the batch job"
        with self._transport.sending_until(not_after):
            body = self._caller.call(
                what,
                lambda: self._sdk.batch.jobs.create(
                    input_files=[file_id],
                    endpoint=endpoint,
                    model=model,
                    metadata=metadata,
                    timeout_hours=timeout_hours,
                    retries=None,
                ),
            )
        report = _report(body, what)
        ours = Sought(tags=Tags.from_metadata(metadata.items()), model=model, file_id=file_id)
        if not is_id(report.job_id) or not ours.is_told_by(report):
            raise ApiError(
                f"Could not {what}: the answer of {self.server_url} names {report.job_id[:50]!r}, not that job."
            )
        return report

    def get(self, job_id: str) -> JobReport:
        """Return a job as it is now (API: `GET /v1/batch/jobs/{job_id}`)."""
        job_id = checked_id(job_id)
        what = f"read job {job_id}"
        return self._of(job_id, self._get(what, f"/v1/batch/jobs/{job_id}"), what)

    def jobs(
        self,
        *,
        statuses: Sequence[str] | None = None,
        model: str | None = None,
        created_after: int | None = None,
    ) -> Iterator[JobReport]:
        """Yield the workspace's jobs, newest first, page after page (API: `GET /v1/batch/jobs`).

        `created_after` is in microseconds. The API's metadata filter is not used, because servers differ in how they
        read it: callers filter the jobs themselves.
        """
        pages = self.pages(statuses=statuses, model=model, created_after=created_after)
        return (report for fresh, _ in pages for report in fresh)

    def pages(
        self,
        *,
        statuses: Sequence[str] | None = None,
        model: str | None = None,
        created_after: int | None = None,
        oldest_first: bool = False,
    ) -> Iterator[tuple[list[JobReport], int | None]]:
        """Yield the pages that `jobs` reads: the new jobs in each, and the total that the server reports."""
        options: dict[str, Any] = {}
        if statuses is not None:
            options["status"] = list(statuses)
        if model is not None:
            options["model"] = model
        if created_after is not None:
            after = datetime.fromtimestamp(created_after / 1_000_000, UTC)
            options["created_after"] = after.isoformat().replace("+00:00", "Z")
        options["order_by"] = "created" if oldest_first else "-created"
        return read_pages(lambda number: self._page(number, options))

    def cancel(self, job_id: str) -> JobReport:
        """Ask for a job's cancellation (API: `POST /v1/batch/jobs/{job_id}/cancel`)."""
        job_id = checked_id(job_id)
        what = f"cancel job {job_id}"
        return self._of(
            job_id, self._caller.call(what, lambda: self._sdk.batch.jobs.cancel(job_id=job_id, retries=None)), what
        )

    def download(self, file_id: str, target: Path, requests: int | None = None) -> None:
        """Stream a file's bytes into `target` (API: `GET /v1/files/{file_id}/content`).

        `requests` is how many lines it may have, if that is known; more than those could fill is not read. Of a line
        longer than any answer, only the beginning is kept. Raises UnreachableError if the connection broke, and OSError
        if `target` cannot be written; what arrived before that stays in `target`. A clean end proves nothing: the
        caller counts rows.
        """
        file_id = checked_id(file_id)
        self.retry.read(lambda: self._downloads.download(file_id, target, requests))

    def models(self) -> list[dict[str, Any]]:
        """Return the models that the key may use (API: `GET /v1/models`, schema ModelList)."""
        body = self._get("list the models", "/v1/models")
        return [card for card in body.get("data") or [] if isinstance(card, dict)]

    def ask(self, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the ordinary endpoint's answer to one request: exactly one POST, at the ordinary price.

        `endpoint` is the API's own path, such as '/v1/chat/completions'; the SDK has a method for each instead.
        """
        return self._caller.post(f"ask {endpoint}", endpoint, body)

    def _upload_once(self, path: Path, name: str) -> dict[str, Any]:
        with path.open("rb") as content:
            return self._caller.call(
                f"upload {name}",
                lambda: self._sdk.files.upload(
                    file={"file_name": name, "content": content}, purpose="batch", retries=None
                ),
            )

    def _page(self, page: int, options: dict[str, Any]) -> tuple[list[JobReport], int | None]:
        """Return the jobs of a page, and the total number of jobs, None if the server does not report it."""
        interrupts.check()
        what = "list the batch jobs"
        body = self._get(what, "/v1/batch/jobs", page=page, page_size=PAGE_SIZE, **options)
        total = body.get("total")
        # An empty page may go without its list (schema BatchJobsOut), but an error's JSON is not an empty workspace.
        entries = body.get("data", [] if isinstance(total, int) else None)
        if not isinstance(entries, list):
            raise ApiError(f"Could not {what}: the answer of {self.server_url} contains no list.")
        return [_report(entry, what) for entry in entries], total if isinstance(total, int) else None

    def _listed_files(self, **options: Any) -> Iterator[dict[str, Any]]:
        """Yield what the list of files tells of each."""
        for number in range(MOST_FILE_PAGES):
            body = self._get("list the files", "/v1/files", page=number, page_size=PAGE_SIZE, **options)
            entries = [entry for entry in body.get("data") or [] if isinstance(entry, dict)]
            yield from entries
            if len(entries) < PAGE_SIZE:
                return

    def _get(self, what: str, path: str, **parameters: Any) -> dict[str, Any]:
        return self.retry.read(lambda: self._caller.get(what, path, **parameters))

    def _of(self, job_id: str, body: dict[str, Any], what: str) -> JobReport:
        """Return the report of a job; raise ApiError if the answer is about another job."""
        report = _report(body, what)
        if not is_id(report.job_id) or checked_id(report.job_id) != job_id:
            raise ApiError(f"Could not {what}: the answer of {self.server_url} is about {report.job_id[:50]!r}.")
        return report


def _report(body: dict[str, Any], what: str) -> JobReport:
    try:
        return JobReport.from_json(body)
    except (ValueError, AttributeError, RecursionError):
        raise ApiError(f"Could not {what}: the answer names no job.") from None
