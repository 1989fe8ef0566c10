"""Submitting what was spooled: recorded once, whatever the number of statements and processes that ask for it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from duckdb_mistral.api.listing import read
from duckdb_mistral.batches.access import check_account
from duckdb_mistral.batches.adopt import adopted, found_elsewhere
from duckdb_mistral.batches.anew import failed_as_a_whole, found_instead
from duckdb_mistral.batches.give_way import forget_untaken, plan_of
from duckdb_mistral.batches.intent import identity_of, planned
from duckdb_mistral.batches.reuse import are_answered, divide
from duckdb_mistral.batches.reuse_files import forget
from duckdb_mistral.batches.send import Sender
from duckdb_mistral.batches.supply import lacking, put_keys, supply
from duckdb_mistral.batches.turns import OvertakenError
from duckdb_mistral.errors import ApiError
from duckdb_mistral.jobs.job import Job, Step, Submission
from duckdb_mistral.requests.spool import SpooledPart
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state.names import REUSE_LOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb_mistral.api.listing import Listing
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.batches.reuse_files import Reused
    from duckdb_mistral.jobs.plan import Plan
    from duckdb_mistral.requests.spool import Spool


class Submitter:
    """Submits to the workspace of one context."""

    def __init__(self, context: Context) -> None:
        """Work with the ledger and the client of `context`."""
        self._context = context
        self._ledger = context.ledger

    def submit(self, plan: Plan, spool: Spool, fingerprint: str) -> list[tuple[Job, bool]]:
        """Return the jobs of what was spooled, each with whether it had existed before this call.

        The same content returns the same jobs. A submission whose jobs have all ended badly, or `force`, sends
        it again. Raises ArgumentError, before anything is recorded, if what would be sent may cost more than the plan
        allows, and OutcomeUnknownError where a create's answer was lost.
        """
        self._context.settings.required_key()
        spool.finish()
        with self._ledger.kept_open():
            return self._submitted(plan, spool, identity_of(self._context, plan, fingerprint))

    def _submitted(self, plan: Plan, spool: Spool, identity: str) -> list[tuple[Job, bool]]:
        known, listed = self._ledger.live_submission(identity), None
        if known is not None and not plan.force:
            self._supply(known, spool)
        if not plan.force and (known is None or self._is_unsent(known)):
            listed = read(self._context.client)
            if known is None or self.forget_lost(known, listed) or self._gives_way(known, listed):
                known = adopted(self._context, plan, identity, listed)
        stands = None if plan.force else known
        if stands is not None and failed_as_a_whole(self._context, stands):
            listed = read(self._context.client)
            stands = found_instead(self._context, plan, stands, listed)
        if stands is not None:
            known = stands
            unsent = self._unsent(known)
            if unsent:
                self._check_cost(plan, unsent)
            # A rebuilt ledger does not know it.
            known = replace(known, timeout_hours=plan.timeout_hours)
            if plan.reuse_requests and self._planned_jobs(known):
                return self._resume_rest(plan, identity, spool, listed, known)
            return self._resume(plan, known, listed)
        if not plan.reuse_requests:
            self._check_cost(plan, spool.finish())
            put_keys(self._context.home, spool.finish())  # before anything is recorded
            self._retire(known)
            return self._record(plan, identity, spool, listed)
        return self._record_rest(plan, identity, spool, listed, known)

    def _supply(self, known: Submission, spool: Spool) -> None:
        """Make the requests be here of what another machine recorded and did not send; these are of the same rows."""
        if lacking(self._context, known):
            with self._context.locks.waiting(known.submission_id):
                supply(self._context, known, [part.path for part in spool.finish()])

    def _check_cost(self, plan: Plan, sent: Sequence[SpooledPart]) -> None:
        if plan.max_cost is not None:
            from duckdb_mistral.pricing.plans import check_cost

            check_cost(plan, sent, self._context.settings)

    def _record_rest(
        self, plan: Plan, identity: str, spool: Spool, listed: Listing | None, known: Submission | None
    ) -> list[tuple[Job, bool]]:
        """Record and send those requests of a spool that nobody has sent before; `known` gives way to them."""
        with ExitStack() as stack:
            # Of two at once, the later one has to see what the other one is about to send.
            stack.enter_context(self._context.locks.waiting(REUSE_LOCK))
            live = self._ledger.live_submission(identity)
            if live is None or (known is not None and live.submission_id == known.submission_id):
                fresh, reused = divide(self._context, plan, spool)
                stack.callback(fresh.discard)
                stack.callback(self._forget_unrecorded, fresh.directory.name)
                self._check_cost(plan, fresh.finish())
                put_keys(self._context.home, fresh.finish())
                self._retire(known)
                return self._record(plan, identity, fresh, listed, reused)
        # The other one submitted the same, and may not have come to send it.
        return self._resume_rest(plan, identity, spool, None, live)

    def _resume_rest(
        self, plan: Plan, identity: str, spool: Spool, listed: Listing | None, known: Submission
    ) -> list[tuple[Job, bool]]:
        """Resume a submission, unless what it did not come to send was answered in other jobs since.

        Then it gives way, and only what nobody has sent is recorded anew.
        """
        with self._context.locks.waiting(REUSE_LOCK):
            if not are_answered(self._context, plan, self._planned_jobs(known)):
                return self._resume(plan, known, listed)
        return self._record_rest(plan, identity, spool, listed, known)

    def _planned_jobs(self, submission: Submission) -> list[Job]:
        """Return the jobs that no submit came to, or that were refused; other statements do not wait for them."""
        return [job for job in self._jobs(submission) if job.step is Step.PLANNED]

    def _forget_unrecorded(self, submission_id: str) -> None:
        if self._ledger.submission(submission_id) is None:
            forget(self._context.home, submission_id)

    def resume(self, submission: Submission) -> list[tuple[Job, bool]]:
        """Create what is not created yet, once whoever is at it has finished; return the jobs as `submit` does."""
        return self._resume(plan_of(submission), submission, None)

    def _resume(self, plan: Plan, submission: Submission, listed: Listing | None) -> list[tuple[Job, bool]]:
        """Resume a submission, or take over what another home has created in its place."""
        with self._context.locks.waiting(submission.submission_id):
            rows = self._advance_or_forget(submission, listed if self._is_unsent(submission) else None)
        return self._taken_over(plan, submission.identity) if rows is None else rows

    def _advance_or_forget(
        self, submission: Submission, listed: Listing | None, *, is_new: bool = False
    ) -> list[tuple[Job, bool]] | None:
        """Return what `_advance` does; None where another home was quicker, and the submission is forgotten."""
        while True:
            try:
                return self._advance(submission, listed, is_new=is_new)
            except OvertakenError:
                if forget_untaken(self._context, submission):
                    return None
                listed, is_new = None, False  # another machine has sent some of it meanwhile

    def _is_unsent(self, submission: Submission) -> bool:
        """Tell whether no create of a submission has left so far: a killed process had come to its uploads at most."""
        jobs = [job for job in self._jobs(submission) if job.step is not Step.ANSWERED]
        return bool(jobs) and all(job.step in (Step.PLANNED, Step.HELD) and not job.was_sent for job in jobs)

    def _gives_way(self, known: Submission, listed: Listing) -> bool:
        """Forget a submission of which nothing was sent, where another home has created its jobs since."""
        return bool(found_elsewhere(self._context, known.identity, listed)) and self._forget_unsent(known)

    def forget_lost(self, submission: Submission, listed: Listing | None = None) -> bool:
        """Forget a submission of which nothing was sent, and part of whose requests is gone: they are built again.

        A process that was stopped, and taken for dead, recorded them too late. `listed` is what the workspace lists:
        if that has a job of the submission, the ledger is what is old.
        """
        parts = self._ledger.parts(submission.submission_id)
        files = [part.file_id for part in parts if part.file_id is not None]
        is_lost = any(part.file_id is None and not self._context.home.holds(part) for part in parts)
        if not is_lost or not self._is_unsent(submission):
            return False
        listed = listed or read(self._context.client)
        is_there = bool(listed.told_of(submission.submission_id, files))
        return listed.is_whole and not is_there and self._forget_unsent(submission)

    def _forget_unsent(self, submission: Submission) -> bool:
        with self._context.locks.waiting(submission.submission_id):
            return self._is_unsent(submission) and forget_untaken(self._context, submission)

    def _taken_over(self, plan: Plan, identity: str) -> list[tuple[Job, bool]]:
        """Return the jobs of the same content that another process was quicker with, or another home."""
        first = self._ledger.live_submission(identity) or adopted(
            self._context, plan, identity, read(self._context.client)
        )
        if first is None:  # retired between the two looks
            raise ApiError("Another process submitted the same requests and gave them up. Run the statement again.")
        return self.resume(first)

    def _unsent(self, submission: Submission) -> list[SpooledPart]:
        """Return the requests of a submission that a resume would send."""
        wanted = {job.part for job in self._jobs(submission) if job.step in (Step.PLANNED, Step.HELD)}
        home = self._context.home
        parts = [
            SpooledPart(
                part=part.part,
                path=home.part(submission.submission_id, part.part),
                request_count=part.request_count,
                input_bytes=part.input_bytes,
            )
            for part in self._ledger.parts(submission.submission_id)
            if part.part in wanted
        ]
        return [part for part in parts if part.path.exists()]

    def _retire(self, known: Submission | None) -> None:
        if known is None:
            return
        with self._context.locks.waiting(known.submission_id):
            self._ledger.retire(known.submission_id)

    def _record(
        self, plan: Plan, identity: str, spool: Spool, listed: Listing | None, reused: Reused | None = None
    ) -> list[tuple[Job, bool]]:
        """Record what is about to be sent, then send it; `listed` is what the workspace had before that.

        Where another process was quicker with the same content, or another home, its jobs are returned.
        """
        submission, parts = planned(self._context, plan, identity, spool, reused)
        with self._context.locks.waiting(submission.submission_id):
            failpoint("after-spool")
            answered = None
            if reused is not None and reused.results is not None:
                answered = (reused.found, reused.results.name, reused.results.stat().st_size)
            # A process that was stopped for long does not know what others have sent since it divided the requests.
            under = REUSE_LOCK if plan.reuse_requests or plan.retry_of is not None else None
            if self._ledger.add(submission, parts, answered, under=under):
                if parts:
                    spool.keep()
                failpoint("after-intent")
                rows = self._advance_or_forget(submission, listed, is_new=True)
                if rows is not None:
                    return rows
        return self._taken_over(plan, identity)

    def _advance(
        self, submission: Submission, listed: Listing | None = None, *, is_new: bool = False
    ) -> list[tuple[Job, bool]]:
        settled = (Step.CREATED, Step.ANSWERED, Step.DROPPED)
        jobs = self._jobs(submission)
        before = {job.key for job in jobs if job.step in settled}
        if len(before) < len(jobs):
            check_account(self._context, submission, take_over=True)
            Sender(self._context).advance(submission, before=listed, is_new=is_new)
            jobs = self._jobs(submission)
        return [(job, job.key in before) for job in jobs]

    def _jobs(self, submission: Submission) -> list[Job]:
        return self._ledger.jobs(submission.submission_id)
