"""The life of a job: what it is asked to do, when it has done it, and what is told of it meanwhile."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from duckdb_mistral.emulator.answers import BadInputError, answer

if TYPE_CHECKING:
    from duckdb_mistral.emulator.store import Document, Store

ENDED = ("SUCCESS", "FAILED", "TIMEOUT_EXCEEDED", "CANCELLED")
PENDING = ("QUEUED", "RUNNING", "CANCELLATION_REQUESTED")
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
        if job["cancelled_at"] is not None and outcome is None:
            told = {"status": "CANCELLATION_REQUESTED", "completed": 0}
        elif outcome is not None and (share >= 1 or job["cancelled_at"] is not None):
            told = outcome
        elif share < QUEUED_SHARE and self._job_seconds:
            told = {"status": "QUEUED", "completed": 0}
        else:
            told = {"status": "RUNNING", "completed": int(job["total"] * min(share, 0.99))}
        ended = told is outcome
        completed = outcome["succeeded"] + outcome["failed"] if ended else told["completed"]
        return {
            "id": job["id"],
            "object": "batch",
            "input_files": job.get("input_files") or [],
            "metadata": job.get("metadata"),
            "endpoint": job["endpoint"],
            "model": job.get("model"),
            "agent_id": job.get("agent_id"),
            "output_file": outcome["output_file"] if ended else None,
            "error_file": outcome["error_file"] if ended else None,
            "errors": outcome["errors"] if ended else [],
            "outputs": None,
            "status": told["status"],
            "created_at": int(job["made_at"]),
            # A recorded answer of the real API has no total while the job is queued.
            "total_requests": 0 if told["status"] == "QUEUED" else job["total"],
            "completed_requests": completed,
            "succeeded_requests": outcome["succeeded"] if ended else completed,
            "failed_requests": outcome["failed"] if ended else 0,
            "started_at": None if told["status"] == "QUEUED" else int(job["made_at"]),
            "completed_at": outcome["ended_at"] if ended else None,
        }

    def _share(self, job: Document) -> float:
        seconds = self._job_seconds
        if job["asked"].startswith("seconds "):
            seconds = float(job["asked"].removeprefix("seconds "))
        return 1.0 if not seconds else (time.time() - job["made_at"]) / seconds

    def _run(self, job_id: str) -> None:
        """Do a job's work and keep its outcome; a cancel that came meanwhile runs it again."""
        job = self._store.get("jobs", job_id)
        if job is None:
            return
        outcome = self._outcome(job)
        with self._lock:
            now = self._store.get("jobs", job_id)
            if now is not None and now["cancelled_at"] == job["cancelled_at"]:
                self._store.change("jobs", job_id, outcome=outcome)

    def _outcome(self, job: Document) -> dict[str, Any]:
        asked, _, count = job["asked"].partition(" ")
        status = asked if asked in ENDED else "SUCCESS"
        result = {"status": status, "succeeded": 0, "failed": 0, "output_file": None, "error_file": None}
        result |= {"errors": [], "ended_at": int(time.time())}
        if status == "FAILED":
            return result | {"errors": [{"message": "The job asked to fail.", "count": 1}]}
        output, errors = self._store.scratch(), self._store.scratch()
        try:
            answered = answer(
                [self._store.content(file_id) for file_id in job["input_files"]],
                endpoint=job["endpoint"],
                model=job.get("model") or "",
                created=int(job["made_at"]),
                output=output,
                errors=errors,
                most=int(count) if asked in ENDED and count else None,
            )
            result |= {"succeeded": answered.succeeded, "failed": answered.failed}
            # A request that asked to be dropped is told as done all the same.
            if status == "SUCCESS":
                result["succeeded"] = answered.total - answered.failed
            result["output_file"] = self._keep(job, output, answered.succeeded, "batch_result")
            result["error_file"] = self._keep(job, errors, answered.failed, "batch_error")
        except BadInputError as error:
            return result | {"status": "FAILED", "errors": [{"message": str(error), "count": 1}]}
        finally:
            output.unlink(missing_ok=True)
            errors.unlink(missing_ok=True)
        return result | {"ended_at": int(time.time())}

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
