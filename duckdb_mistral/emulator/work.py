"""The life of a job: what it is asked to do, when it has done it, and what is told of it meanwhile."""

from __future__ import annotations

import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from duckdb_mistral.emulator.answers import BadInputError, answer
from duckdb_mistral.emulator.shapes import told_job

if TYPE_CHECKING:
    from duckdb_mistral.emulator.store import Document, Store

ENDED = ("SUCCESS", "FAILED", "TIMEOUT_EXCEEDED", "CANCELLED")
PENDING = ("QUEUED", "RUNNING", "CANCELLATION_REQUESTED")
STATUSES = ENDED + PENDING
#: A job is told as QUEUED for this share of its time.
QUEUED_SHARE = 0.1


class Worker:
    """Runs the jobs of a store, one after another, and tells how far they are."""

    def __init__(self, store: Store, *, job_seconds: float = 0.0) -> None:
        """Run jobs for `store`; each is told as running for at least `job_seconds`."""
        self._store = store
        self._job_seconds = job_seconds
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="emulator-job")
        self._lock = threading.Lock()
        for job in reversed(store.all("jobs")):
            if job["outcome"] is None:
                self._pool.submit(self._run, job["id"])

    def close(self) -> None:
        """Stop after the job at hand; what is left goes on when the store is opened again."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def create(self, fields: dict[str, Any], *, workspace: str, total: int) -> Document:
        """Store a new job and start it."""
        job = fields | {
            "id": str(uuid4()),
            "workspace": workspace,
            "made_at": time.time(),
            "total": total,
            "outcome": None,
            "cancelled_at": None,
            "asked": (fields.get("metadata") or {}).get("emulate", ""),
        }
        self._store.put("jobs", job)
        self._pool.submit(self._run, job["id"])
        return job

    def cancel(self, job: Document) -> Document:
        """Ask a job to stop; the requests that were told as done by now keep their answers."""
        with self._lock:
            job = self._store.get("jobs", job["id"]) or job
            if job["cancelled_at"] is None and not self.ended(job):
                done = self.report(job)["completed_requests"]
                job = self._store.change(
                    "jobs", job["id"], cancelled_at=time.time(), outcome=None, asked=f"CANCELLED {done}"
                )
                self._pool.submit(self._run, job["id"])
        return job

    def ended(self, job: Document) -> bool:
        """Tell whether a job is told as ended."""
        return self.report(job)["status"] in ENDED

    def report(self, job: Document) -> dict[str, Any]:
        """Return a job as the API tells it (schema BatchJobOut)."""
        outcome = job["outcome"]
        share = self._share(job)
        if outcome is not None and (share >= 1 or job["cancelled_at"] is not None):
            counts = {"succeeded": outcome["succeeded"], "failed": outcome["failed"]}
            return told_job(job, outcome["status"], **counts, ended=True)
        if job["cancelled_at"] is not None:
            return told_job(job, "CANCELLATION_REQUESTED", succeeded=0, failed=0, ended=False)
        if share < QUEUED_SHARE:
            return told_job(job, "QUEUED", succeeded=0, failed=0, ended=False)
        done = int(job["total"] * min(share, 0.99))
        return told_job(job, "RUNNING", succeeded=done, failed=0, ended=False)

    def _share(self, job: Document) -> float:
        seconds = self._job_seconds
        if job["asked"].startswith("seconds "):
            seconds = float(job["asked"].removeprefix("seconds "))
        return 1.0 if not seconds else (time.time() - job["made_at"]) / seconds

    def _run(self, job_id: str) -> None:
        """Do a job's work and keep its outcome; a cancel that came meanwhile runs it again."""
        job = self._store.get("jobs", job_id)
        if job is None or job["outcome"] is not None:
            return
        try:
            outcome = self._outcome(job)
        except Exception as error:  # noqa: BLE001  a job ends, whatever happens
            traceback.print_exc()
            outcome = _ending("FAILED") | {"errors": [{"message": f"The server failed: {error}", "count": 1}]}
        with self._lock:
            now = self._store.get("jobs", job_id)
            if now is not None and now["cancelled_at"] == job["cancelled_at"]:
                self._store.change("jobs", job_id, outcome=outcome)

    def _outcome(self, job: Document) -> dict[str, Any]:
        asked, _, count = job["asked"].partition(" ")
        status = asked if asked in ENDED else "SUCCESS"
        if status == "FAILED":
            return _ending("FAILED") | {"errors": [{"message": "The job asked to fail.", "count": 1}]}
        output, errors = self._store.scratch(), self._store.scratch()
        try:
            answered = answer(
                [self._store.content(file_id) for file_id in job["input_files"]],
                endpoint=job["endpoint"],
                model=job["model"] or job["agent_id"],
                created=int(job["made_at"]),
                output=output,
                errors=errors,
                most=int(count) if asked in ENDED and count else None,
            )
            files = {
                "output_file": self._keep(job, output, answered.succeeded, "batch_result"),
                "error_file": self._keep(job, errors, answered.failed, "batch_error"),
            }
        except BadInputError as error:
            return _ending("FAILED") | {"errors": [{"message": str(error), "count": 1}]}
        finally:
            output.unlink(missing_ok=True)
            errors.unlink(missing_ok=True)
        # A request that asked to have no answer is told as done all the same.
        succeeded = answered.total - answered.failed
        ending = _ending(status) | files | {"succeeded": succeeded, "failed": answered.failed}
        return ending | {"total": answered.total} if status == "SUCCESS" and not count else ending

    def _keep(self, job: Document, path: Any, rows: int, sample_type: str) -> str | None:
        if not rows:
            return None
        document = self._store.add_file(
            path,
            name=f"{job['id']}_{sample_type}.jsonl",
            purpose="batch",
            workspace=job["workspace"],
            sample_type=sample_type,
        )
        identifier: str = document["id"]
        return identifier


def _ending(status: str) -> dict[str, Any]:
    """Return the outcome of a job without any answers."""
    nothing: dict[str, Any] = {"succeeded": 0, "failed": 0, "output_file": None, "error_file": None, "errors": []}
    return nothing | {"status": status, "ended_at": int(time.time())}
