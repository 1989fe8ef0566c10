"""The Batch API over the official SDK: upload, create, read, cancel, download. Knows no DuckDB and no ledger.

Every answer is read as raw JSON beside the SDK's own models, so that a new or a missing field at the server
breaks nothing here. Creating a job is one POST, never repeated; only reads are.
"""

from __future__ import annotations

import hashlib
import importlib
import weakref
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from duckdb_mistral.api.listing import PAGE_SIZE, read_pages
from duckdb_mistral.api.pacing import PATIENCE, PIECE_BYTES, Allowance, OversizedError, write_lines
from duckdb_mistral.api.refusals import refusal
from duckdb_mistral.api.secrets import body_without_key, without_key
from duckdb_mistral.api.transport import NeverAsync, Transport
from duckdb_mistral.errors import (
    ApiError,
    ArgumentError,
    NotFoundError,
    OversleptError,
    UnreachableError,
)
from duckdb_mistral.jobs.job import JobReport, read_json
from duckdb_mistral.runtime import interrupts
from duckdb_mistral.runtime.failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from duckdb_mistral.runtime.retry_policy import Retry
    from duckdb_mistral.settings import Settings


class BatchClient:
    """One workspace of the Batch API; a context manager that closes its connections."""

    def __init__(self, settings: Settings, retry: Retry, *, transport: Any = None) -> None:
        """Make a client for the settings' key and address; `transport` takes the network's place in tests.

        Raises MissingKeyError where there is no key. Opens no connection yet.
        """
        self.server_url = settings.server_url
        self._deadline = settings.deadline_seconds
        self.retry = retry
        key = settings.required_key()
        self.account = account_of(key)
        self._authorization: Callable[[], dict[str, str]] = lambda: {"authorization": f"Bearer {key}"}
        self._hide_key: Callable[[str], str] = lambda text: without_key(text, key)
        self._body_without_key: Callable[[Any], Any] = lambda body: body_without_key(body, key)
        client = importlib.import_module("mistralai.client")
        self._transport = Transport(self.server_url, settings.deadline_seconds, transport=transport)
        # A session whose settings change lets go of a client that another thread may still be using.
        weakref.finalize(self, self._transport.close)
        self._sdk = client.Mistral(
            api_key=key, server_url=self.server_url, client=self._transport.client, async_client=NeverAsync()
        )
        # The SDK imports these when they are first asked for: here, not in several threads that Ctrl-C may meet there.
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
        """The server's clock as its last answer told it, in µs since 1970; None where none did."""
        return self._transport.server_time

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def upload(self, path: Path, name: str) -> str:
        """Upload a JSONL file for batches, streamed; return its id.

        One POST, repeated only where a limit refuses it (API: `POST /v1/files`, schema UploadFileOut).
        """
        body = self.retry.refused(lambda: self._upload_once(path, name))
        file_id = body.get("id")
        if not isinstance(file_id, str) or not file_id:
            raise ApiError(f"The Mistral API took {name} but its answer names no file. Run the statement again.")
        return file_id

    def file_exists(self, file_id: str) -> bool:
        """Tell whether an uploaded file is still there (API: `GET /v1/files/{file_id}`)."""
        try:
            self._read(f"look for file {file_id}", lambda: self._sdk.files.retrieve(file_id=file_id, retries=None))
        except NotFoundError:
            return False
        return True

    def find_file(self, name: str, size: int) -> str | None:
        """Return the id of an uploaded batch file by its name and size in bytes (API: `GET /v1/files`)."""
        body = self._read(f"look for {name}", lambda: self._sdk.files.list(search=name, purpose="batch", retries=None))
        for entry in body.get("data") or []:
            if isinstance(entry, dict) and (entry.get("filename"), entry.get("bytes")) == (name, size):
                return entry.get("id") or None
        return None

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

        Past `not_after`, by `clocks.awake`, nothing is sent: OversleptError. Raises UnreachableError with `sent` False
        where the API certainly took nothing, and an ApiError with a 3xx or 4xx status where it most likely did not.
        Any other ApiError leaves it unknown whether there is a job now: also an answer that names none, or one of
        another file.
        """
        what = "create the batch job"
        with self._transport.sending_until(not_after):
            body = self._call(
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
        if not is_id(report.job_id) or (report.input_files and file_id not in report.input_files):
            raise ApiError(
                f"Could not {what}: the answer of {self.server_url} names {report.job_id[:50]!r}, which is none of it."
            )
        return report

    def get(self, job_id: str) -> JobReport:
        """Return a job as it is now (API: `GET /v1/batch/jobs/{job_id}`)."""
        job_id = checked_id(job_id)
        what = f"read job {job_id}"
        return self._of(job_id, self._read(what, lambda: self._sdk.batch.jobs.get(job_id=job_id, retries=None)), what)

    def jobs(
        self,
        *,
        statuses: Sequence[str] | None = None,
        model: str | None = None,
        created_after: int | None = None,
    ) -> Iterator[JobReport]:
        """Yield the workspace's jobs, newest first, page after page (API: `GET /v1/batch/jobs`).

        `created_after` is in microseconds. The API's metadata filter is not used: the SDK sends it as loose
        query parameters, so callers filter what they get.
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
        """Yield the pages that `jobs` reads: what is new in each, and how many jobs the server says that there are."""
        options: dict[str, Any] = {}
        if statuses is not None:
            options["status"] = list(statuses)
        if model is not None:
            options["model"] = model
        if created_after is not None:
            options["created_after"] = datetime.fromtimestamp(created_after / 1_000_000, UTC)
        if oldest_first:
            options["order_by"] = "created"
        return read_pages(lambda number: self._page(number, options))

    def cancel(self, job_id: str) -> JobReport:
        """Ask for a job's cancellation (API: `POST /v1/batch/jobs/{job_id}/cancel`)."""
        job_id = checked_id(job_id)
        what = f"cancel job {job_id}"
        return self._of(
            job_id, self._call(what, lambda: self._sdk.batch.jobs.cancel(job_id=job_id, retries=None)), what
        )

    def download(self, file_id: str, target: Path, requests: int | None = None) -> None:
        """Stream a file's bytes into `target` (API: `GET /v1/files/{file_id}/content`).

        `requests` is how many lines it may have, where that is known; more than those could fill is not read. Of a line
        that is longer than any answer, the beginning is kept. Raises UnreachableError where the connection broke, and
        OSError where `target` cannot be written; what had come by then is left there. A clean end proves nothing: the
        caller counts rows.
        """
        file_id = checked_id(file_id)
        self.retry.read(lambda: self._download_once(file_id, target, requests))

    def models(self) -> list[dict[str, Any]]:
        """Return the models that the key may use (API: `GET /v1/models`, schema ModelList)."""
        body = self._read("list the models", lambda: self._sdk.models.list(retries=None))
        return [card for card in body.get("data") or [] if isinstance(card, dict)]

    def ask(self, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of the ordinary endpoint to one request: exactly one POST, paid at the ordinary price.

        The path of the endpoint is the API's own, such as '/v1/chat/completions'; the SDK has a method for each.
        """
        return self._call(
            f"ask {endpoint}",
            lambda: self._transport.client.post(
                f"{self.server_url}{endpoint}", json=body, headers=self._authorization()
            ),
        )

    def _upload_once(self, path: Path, name: str) -> dict[str, Any]:
        with path.open("rb") as content:
            return self._call(
                f"upload {name}",
                lambda: self._sdk.files.upload(
                    file={"file_name": name, "content": content}, purpose="batch", retries=None
                ),
            )

    def _page(self, page: int, options: dict[str, Any]) -> tuple[list[JobReport], int | None]:
        """Return the jobs of a page, and how many there are in all, None where the server does not tell."""
        interrupts.check()
        what = "list the batch jobs"
        body = self._read(
            what,
            lambda: self._sdk.batch.jobs.list(page=page, page_size=PAGE_SIZE, retries=None, **options),
        )
        entries = body.get("data", [])
        if not isinstance(entries, list):
            raise ApiError(f"Could not {what}: the answer of {self.server_url} holds no list.")
        total = body.get("total")
        return [_report(entry, what) for entry in entries], total if isinstance(total, int) else None

    def _download_once(self, file_id: str, target: Path, requests: int | None) -> None:
        what = f"download file {file_id}"
        failpoint("before-request")
        self._transport.forget()
        try:
            with self._transport.streaming():
                response = self._sdk.files.download(
                    file_id=file_id, retries=None, http_headers={"accept-encoding": "identity"}
                )
            with closing(response):
                allowance = self._allowance(file_id, response, requests)
                with target.open("wb") as file:
                    write_lines(allowance.spent(response.iter_bytes()), file)
        except self._transport.error as error:
            raise self._unreachable(what, error) from None
        except OversizedError:
            raise self._oversized(what) from None
        except OSError:  # the file's, not the network's: those are the SDK's HTTP errors
            raise
        except Exception as error:  # noqa: BLE001  mapped by the raw answer
            if self._transport.last is not None:
                self._transport.last.close()
            raise self._refused(what, error) from None
        failpoint("after-request")

    def _allowance(self, file_id: str, response: Any, requests: int | None) -> Allowance:
        """Return how much a download may take; raises OversizedError where it says itself that it is more."""
        length = response.headers.get("content-length", "")
        if length.isascii() and length.isdigit():
            allowance = Allowance.of(requests)
            if int(length[:20]) > allowance.most_bytes:
                raise OversizedError
            return allowance
        size = self._told_size(file_id)
        if size is None:
            return Allowance.of(requests, PATIENCE * self._deadline)
        return Allowance(most_bytes=2 * size + PIECE_BYTES)

    def _told_size(self, file_id: str) -> int | None:
        """Return how many bytes the server says that a file has; None where it does not say."""
        try:
            body = self._call(
                f"look for file {file_id}", lambda: self._sdk.files.retrieve(file_id=file_id, retries=None)
            )
        except ApiError:
            return None
        size = body.get("bytes")
        return size if isinstance(size, int) and size > 0 else None

    def _read(self, what: str, call: Callable[[], object]) -> dict[str, Any]:
        return self.retry.read(lambda: self._call(what, call))

    def _call(self, what: str, call: Callable[[], object]) -> dict[str, Any]:
        """Make one call through the SDK and return the JSON object of its answer.

        What the SDK's models make of the answer does not count: a job whose answer has an unknown shape
        was created all the same.
        """
        failpoint("before-request")
        self._transport.forget()
        problem: Exception | None = None
        try:
            call()
        except self._transport.error as error:
            raise self._unreachable(what, error) from None
        except OversizedError:
            raise self._oversized(what) from None
        except Exception as error:  # noqa: BLE001  mapped below, by the raw answer
            problem = error
        failpoint("after-request")
        response = self._transport.last
        if response is None or not response.is_success:
            raise self._refused(what, problem) from None
        try:
            body = self._body_without_key(read_json(response.content))
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise ApiError(f"Could not {what}: the answer of {self.server_url} is not a JSON object.") from None
        return body

    def _of(self, job_id: str, body: dict[str, Any], what: str) -> JobReport:
        """Return the report of a job; what is told of another one is told of nothing that was asked for."""
        report = _report(body, what)
        if not is_id(report.job_id) or checked_id(report.job_id) != job_id:
            raise ApiError(f"Could not {what}: the answer of {self.server_url} is about {report.job_id[:50]!r}.")
        return report

    def _unreachable(self, what: str, error: Exception) -> UnreachableError:
        if isinstance(error, self._transport.overslept):
            return OversleptError(sent=False)
        reason = self._hide_key(str(error)) or type(error).__name__
        sent = not isinstance(error, self._transport.not_sent)
        advice = "" if sent else " Check the network and the server_url setting (MISTRAL_SERVER_URL)."
        return UnreachableError(
            f"Could not {what}: {self.server_url} gave no answer ({reason}).{advice}",
            sent=sent,
            timed_out=isinstance(error, self._transport.timed_out),
        )

    def _oversized(self, what: str) -> ApiError:
        return ApiError(
            f"Could not {what}: the answer of {self.server_url} goes on beyond any size or time that it may take, and "
            "was not read to its end. Check the server_url setting (MISTRAL_SERVER_URL)."
        )

    def _refused(self, what: str, error: Exception | None) -> ApiError:
        """Turn an answer that is no success into the error that a person reads."""
        response = self._transport.last
        if response is None:
            return ApiError(f"Could not {what}: {type(error).__name__} in the SDK.")
        return refusal(what, self.server_url, response, self._hide_key)


def account_of(key: str) -> str:
    """Return a short hash that tells keys apart; the key cannot be had from it."""
    return hashlib.sha256(f"duckdb_mistral {key}".encode()).hexdigest()[:12]


def checked_id(value: str) -> str:
    """Return `value` as a UUID's text: an id goes into a path, so nothing else may.

    Raises ArgumentError.
    """
    try:
        return str(UUID(value))
    except ValueError:
        raise ArgumentError(
            f"{value!r} is not an id: submission, job and file ids look like 3f2a9c1e-0000-4000-8000-000000000000."
        ) from None


def is_id(value: str) -> bool:
    """Tell whether a text is a UUID's."""
    try:
        UUID(value)
    except ValueError:
        return False
    return True


def _report(body: dict[str, Any], what: str) -> JobReport:
    try:
        return JobReport.from_json(body)
    except (ValueError, AttributeError, RecursionError):
        raise ApiError(f"Could not {what}: the answer names no job.") from None
