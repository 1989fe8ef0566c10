"""The life of a job: what it is asked to do, when it is done, and what it reports in the meantime."""

from __future__ import annotations

import shutil
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from duckdb_mistral.emulator.answers import BadInputError, answer, count_requests
from duckdb_mistral.emulator.relay import Relay
from duckdb_mistral.emulator.shapes import told_job
from duckdb_mistral.emulator.store import count_lines

if TYPE_CHECKING:
    from duckdb_mistral.emulator.store import Document, Store
    from duckdb_mistral.emulator.upstream import Upstream

ENDED = ("SUCCESS", "FAILED", "TIMEOUT_EXCEEDED", "CANCELLED")
PENDING = ("QUEUED", "RUNNING", "CANCELLATION_REQUESTED")
STATUSES = ENDED + PENDING
#: The files of lines that an upstream has answered so far for a job.
PARTIALS = ("output", "errors")
#: A job is QUEUED for this share of its time.
QUEUED_SHARE = 0.1


class Worker:
    """Runs the jobs of a store, one after another, and reports their progress."""

    def __init__(self, store: Store, *, job_seconds: float = 0.0, upstream: Upstream | None = None) -> None:
        """Run jobs for `store`: with the echo, for at least `job_seconds` to the outside, or with `upstream`."""
        self._store = store
        self._job_seconds = job_seconds
        self._upstream = upstream
        self._relays: dict[str, Relay] = {}
        self._is_closing = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="emulator-job")
        self._lock = threading.RLock()
        for job in reversed(store.all("jobs")):
            if job["outcome"] is None:
                self._pool.submit(self._run, job["id"])

    def close(self) -> None:
        """Stop after the current job; other jobs, and an upstream's job, continue when the store is opened again."""
        with self._lock:
            self._is_closing = True
            for relay in self._relays.values():
                relay.stop()
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
            "asked": "" if self._upstream else (fields.get("metadata") or {}).get("emulate", ""),
        }
        self._store.put("jobs", job)
        self._pool.submit(self._run, job["id"])
        return job

    def cancel(self, job: Document) -> Document:
        """Ask a job to stop; requests that it has reported as done keep their answers."""
        with self._lock:
            job = self._store.get("jobs", job["id"]) or job
            if job["cancelled_at"] is not None or self.ended(job):
                return job
            if self._upstream is not None:
                job = self._store.change("jobs", job["id"], cancelled_at=time.time())
                if job["id"] in self._relays:
                    self._relays[job["id"]].stop()
                else:
                    job = self._store.change("jobs", job["id"], outcome=self._collected(job, "CANCELLED"))
            else:
                done = self.report(job)["completed_requests"]
                job = self._store.change(
                    "jobs", job["id"], cancelled_at=time.time(), outcome=None, asked=f"CANCELLED {done}"
                )
                self._pool.submit(self._run, job["id"])
        return job

    def ended(self, job: Document) -> bool:
        """Tell whether a job has ended to the outside."""
        return self.report(job)["status"] in ENDED

    def report(self, job: Document) -> dict[str, Any]:
        """Return a job as the API shows it (schema BatchJobOut)."""
        outcome = job["outcome"]
        share = self._share(job)
        if outcome is None and self._upstream is not None:
            return self._report_of_relay(job)
        if outcome is not None and (share >= 1 or job["cancelled_at"] is not None):
            counts = {"succeeded": outcome["succeeded"], "failed": outcome["failed"]}
            return told_job(job, outcome["status"], **counts, ended=True)
        if job["cancelled_at"] is not None:
            return told_job(job, "CANCELLATION_REQUESTED", succeeded=0, failed=0, ended=False)
        if share < QUEUED_SHARE:
            return told_job(job, "QUEUED", succeeded=0, failed=0, ended=False)
        done = int(job["total"] * min(share, 0.99))
        return told_job(job, "RUNNING", succeeded=done, failed=0, ended=False)

    def _report_of_relay(self, job: Document) -> dict[str, Any]:
        """Return an upstream's job that has not ended, with its current counts."""
        relay = self._relays.get(job["id"])
        status = "QUEUED" if relay is None else "RUNNING"
        if job["cancelled_at"] is not None:
            status = "CANCELLATION_REQUESTED"
        succeeded, failed = (relay.succeeded, relay.failed) if relay else (0, 0)
        return told_job(job, status, succeeded=succeeded, failed=failed, ended=False)

    def _share(self, job: Document) -> float:
        seconds = self._job_seconds
        if job["asked"].startswith("seconds "):
            seconds = float(job["asked"].removeprefix("seconds "))
        return 1.0 if not seconds else (time.time() - job["made_at"]) / seconds

    def _run(self, job_id: str) -> None:
        """Do a job's work and keep its outcome; after a cancel in the meantime, run it again."""
        job = self._store.get("jobs", job_id)
        if job is None or job["outcome"] is not None:
            return
        try:
            outcome = self._outcome(job) if self._upstream is None else self._relayed(job, self._upstream)
        except Exception as error:  # noqa: BLE001  a job ends, whatever happens
            traceback.print_exc()
            outcome = _ending("FAILED") | {"errors": [{"message": f"The server failed: {error}", "count": 1}]}
        with self._lock:
            self._relays.pop(job_id, None)
            now = self._store.get("jobs", job_id)
            is_done_with = self._upstream is not None or (now or job)["cancelled_at"] == job["cancelled_at"]
            if now is not None and now["outcome"] is None and is_done_with:
                self._store.change("jobs", job_id, outcome=outcome)
            if outcome is not None and outcome["status"] != "FAILED":
                for kind in PARTIALS:
                    self._store.partial(job_id, kind).unlink(missing_ok=True)

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
        # A request that asked for no answer still counts as done.
        succeeded = answered.total - answered.failed
        ending = _ending(status) | files | {"succeeded": succeeded, "failed": answered.failed}
        return ending | {"total": answered.total} if status == "SUCCESS" and not count else ending

    def _relayed(self, job: Document, upstream: Upstream) -> dict[str, Any] | None:
        """Return the outcome of a job that an upstream answers, or None if it will be continued later."""
        inputs = [self._store.content(file_id) for file_id in job["input_files"]]
        try:
            total = count_requests(inputs)
        except BadInputError as error:
            return _ending("FAILED") | {"errors": [{"message": str(error), "count": 1}]}
        relay = Relay(upstream, job_id=job["id"], endpoint=job["endpoint"], model=job["model"])
        with self._lock:
            now = self._store.get("jobs", job["id"]) or job
            if self._is_closing or now["outcome"] is not None:
                return None
            self._relays[job["id"]] = relay
        until = job["made_at"] + job["timeout_hours"] * 3600
        output, errors = (self._store.partial(job["id"], kind) for kind in PARTIALS)
        if relay.run(inputs, output, errors, total=total, until=until):
            return self._collected(job, "SUCCESS") | {"total": total}
        if (self._store.get("jobs", job["id"]) or job)["cancelled_at"] is not None:
            return self._collected(job, "CANCELLED")
        return self._collected(job, "TIMEOUT_EXCEEDED") if time.time() >= until else None

    def _collected(self, job: Document, status: str) -> dict[str, Any]:
        """Return the outcome of a job that an upstream has answered, wholly or in part."""
        paths = [self._store.partial(job["id"], kind) for kind in PARTIALS]
        counts = [count_lines(path) if path.exists() else 0 for path in paths]
        ids = []
        for path, count, sample_type in zip(paths, counts, ("batch_result", "batch_error"), strict=True):
            copied = self._store.scratch()
            if count:  # a copy, so that no request is repeated if the process ends before the outcome is kept
                shutil.copyfile(path, copied)
            ids.append(self._keep(job, copied, count, sample_type))
        return _ending(status) | dict(
            zip(("output_file", "error_file", "succeeded", "failed"), (*ids, *counts), strict=True)
        )

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
