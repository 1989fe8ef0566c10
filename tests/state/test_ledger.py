"""The ledger on either engine: what is written is read back, and one of two writers wins."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from submissions import JOB_ID, added, parts_of, report, submission

from duckdb_mistral.jobs.job import Step
from duckdb_mistral.jobs.report import Status
from duckdb_mistral.state.ledger import OtherJobError

if TYPE_CHECKING:
    from collections.abc import Callable

    from duckdb_mistral.state.ledger import Ledger


def test_what_is_added(ledger: Ledger) -> None:
    """A submission, its parts, and a planned job per part and model come back as they were."""
    made = added(ledger, output="STRUCT(a INTEGER)", retry_of="other")
    assert ledger.submission(made.submission_id) == ledger.live_submission("identity") == made
    assert ledger.submissions() == ledger.retries(["other"]) == [made]
    assert ledger.parts(made.submission_id) == parts_of(made)
    jobs = ledger.jobs(made.submission_id)
    assert [(job.part, job.model, job.step, job.request_count, job.input_bytes) for job in jobs] == [
        (part, model, Step.PLANNED, 15, 150) for part in (1, 2) for model in ("a", "b")
    ]
    assert ledger.jobs() == jobs
    assert ledger.jobs_by_key([jobs[2].key, jobs[0].key]) == [jobs[2], jobs[0]]


def test_known_submissions(ledger: Ledger) -> None:
    """Those of many ids that are of submissions are found."""
    made = added(ledger)
    others = [str(uuid4()) for _ in range(2_000)]
    assert ledger.known([*others, made.submission_id]) == {made.submission_id}
    assert ledger.known([]) == set()


def test_forgotten_submissions(ledger: Ledger) -> None:
    """What was forgotten before it was sent is gone, and a ledger that others share knows that it was."""
    made = added(ledger)
    assert not ledger.was_forgotten(made.submission_id)
    assert ledger.forget(made.submission_id)
    assert ledger.forget(made.submission_id)
    assert (ledger.submissions(), ledger.jobs(), ledger.parts(made.submission_id)) == ([], [], [])
    assert ledger.was_forgotten(made.submission_id) == ledger.shared
    again = added(ledger)
    assert ledger.move(ledger.jobs()[0], Step.SENDING)
    assert not ledger.forget(again.submission_id)
    assert ledger.submissions() == [again]


def test_jobs_of_a_part(ledger: Ledger) -> None:
    """The jobs of one part are those of its models, and no other submission's."""
    made = added(ledger)
    added(ledger, identity="another")
    assert ledger.jobs_of_part(made.submission_id, 2) == [
        job for job in ledger.jobs(made.submission_id) if job.part == 2
    ]


def test_counts_of_many_jobs(ledger: Ledger) -> None:
    """The counts of jobs that are known are found among many that are not."""
    ledger.adopt(report(), "https://example.com")
    others = [str(uuid4()) for _ in range(2_000)]
    assert ledger.request_counts([*others, JOB_ID]) == {JOB_ID: 15}
    assert ledger.request_counts([]) == {}


def test_jobs_by_many_keys(ledger: Ledger) -> None:
    """Jobs are read by more keys than a statement takes values, in the order of the keys."""
    jobs = ledger.jobs(added(ledger).submission_id)
    wanted = [job.key for job in jobs] * 70_000
    assert ledger.jobs_by_key(wanted) == jobs * 70_000


def test_what_is_not_there(ledger: Ledger) -> None:
    """What is not there is None or empty."""
    assert (ledger.submission("x"), ledger.live_submission("x"), ledger.job("x")) == (None, None, None)
    assert (ledger.submissions(), ledger.jobs(), ledger.jobs("x"), ledger.parts("x")) == ([], [], [], [])
    assert ledger.jobs_by_key([]) == []


def test_same_content_twice(ledger: Ledger) -> None:
    """The same content is recorded once while it lives, and nothing of the second stays."""
    first = added(ledger)
    second = submission()
    assert not ledger.add(second, parts_of(second))
    assert ledger.submission(second.submission_id) is None
    assert ledger.parts(second.submission_id) == []
    ledger.retire(first.submission_id)
    assert ledger.live_submission("identity") is None
    assert ledger.add(second, parts_of(second))
    assert ledger.live_submission("identity") == second


def test_writers_at_once(opened: Callable[[], Ledger]) -> None:
    """Of many writers of the same content one wins, whoever it is, and a move happens once."""
    opened()
    barrier = threading.Barrier(6)

    def add(_: int) -> bool:
        made = submission()
        barrier.wait()
        return opened().add(made, parts_of(made))

    def move(ledger: Ledger) -> bool:
        barrier.wait()
        return ledger.move(job, Step.SENDING)

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(add, range(6))) == [False] * 5 + [True]
        job = opened().jobs()[0]
        assert sorted(pool.map(move, [opened() for _ in range(6)])) == [False] * 5 + [True]


def test_moves(ledger: Ledger) -> None:
    """A move notes why, and the sending when; a stale view moves nothing."""
    job = ledger.jobs(added(ledger).submission_id)[0]
    assert ledger.move(job, Step.HELD, message="no room")
    assert not ledger.move(job, Step.SENDING)
    (held,) = ledger.jobs_by_key([job.key])
    assert (held.step, held.message, held.sent_at) == (Step.HELD, "no room", None)
    assert ledger.move(held, Step.SENDING, sent_at=7)
    (sending,) = ledger.jobs_by_key([job.key])
    assert (sending.step, sending.message, sending.sent_at) == (Step.SENDING, None, 7)
    assert ledger.created(sending, report())
    (created,) = ledger.jobs_by_key([job.key])
    assert (created.step, created.report, created.status) == (Step.CREATED, report(), "RUNNING")
    assert ledger.job(JOB_ID) == created
    assert created.checked_at
    assert not ledger.created(sending, report(job_id="another"))


def test_creates_that_begin(ledger: Ledger) -> None:
    """A create that begins is written down with its times, and with the answer to the one before it."""
    first, second, third, _ = ledger.jobs(added(ledger).submission_id)
    before = ledger.now()
    sending = ledger.begin(first, sent_at=7, least_wait=9)
    assert sending is not None
    assert ledger.jobs_by_key([first.key]) == [sending]
    assert (sending.step, sending.sent_at, sending.least_wait) == (Step.SENDING, 7, 9)
    assert before <= (sending.sent_here_at or 0) <= ledger.now()
    assert ledger.begin(first, sent_at=8, least_wait=9) is None
    following = ledger.begin(second, sent_at=None, least_wait=9, after=(sending, report()))
    assert following is not None
    created, begun = ledger.jobs_by_key([first.key, second.key])
    assert (created.step, created.report, begun) == (Step.CREATED, report(), following)
    assert before <= (begun.sent_at or 0) <= (begun.sent_here_at or 0) <= ledger.now()
    assert ledger.move(third, Step.HELD)
    assert ledger.begin(third, sent_at=7, least_wait=9, after=(following, report(job_id="another"))) is None
    assert [job.job_id for job in ledger.jobs()] == [JOB_ID, "another", None, None]


def test_create_that_begins_after_a_job_that_is_known(ledger: Ledger) -> None:
    """The job that answered the create before may have been adopted; as another part's it lets nothing begin."""
    jobs = ledger.jobs(added(ledger).submission_id)
    ledger.adopt(report(), "https://example.com")
    sending = ledger.begin(jobs[0], sent_at=1, least_wait=1)
    assert sending is not None
    following = ledger.begin(jobs[1], sent_at=1, least_wait=1, after=(sending, report()))
    assert following is not None
    found = ledger.job(JOB_ID)
    assert found is not None
    assert found.key == sending.key
    with pytest.raises(OtherJobError, match="is that of another part"):
        ledger.begin(jobs[2], sent_at=1, least_wait=1, after=(following, report()))
    assert [job.step for job in ledger.jobs()] == [Step.CREATED, Step.SENDING, Step.PLANNED, Step.PLANNED]


@pytest.mark.parametrize("step", [Step.PLANNED, Step.HELD, Step.CREATED])
def test_moves_that_there_are_none_of(ledger: Ledger, step: Step) -> None:
    """What is no arrow of Step is a mistake of the program, and changes nothing."""
    job = ledger.jobs(added(ledger).submission_id)[0]
    assert ledger.move(job, Step.DROPPED)
    (dropped,) = ledger.jobs_by_key([job.key])
    with pytest.raises(ValueError, match=f"no job moves from dropped to {step}"):
        ledger.move(dropped, step)
    assert ledger.jobs_by_key([job.key]) == [dropped]


@pytest.mark.parametrize("ended", ["SUCCESS", "FAILED", "TIMEOUT_EXCEEDED", "CANCELLED"])
def test_ended_jobs_do_not_go_on(ledger: Ledger, ended: str) -> None:
    """A late answer about a job that has ended does not open it again."""
    ledger.adopt(report(), "https://example.com")
    ledger.record(report(status=ended, completed_requests=15))
    for late in (Status.RUNNING, Status.UNKNOWN, "SHINY"):
        ledger.record(report(status=late))
        job = ledger.job(JOB_ID)
        assert job is not None
        assert (job.status, job.report and job.report.completed_requests) == (ended, 15)


def test_record_of_an_unknown_job(ledger: Ledger) -> None:
    """What the API says of a job that the ledger does not have is passed over."""
    ledger.record(report())
    assert ledger.job(JOB_ID) is None


def test_adopted_jobs(ledger: Ledger) -> None:
    """A job of another program is kept by its id, once, and is no submission of ours."""
    first = ledger.adopt(report(), "https://example.com")
    again = ledger.adopt(report(status="SUCCESS"), "https://example.com")
    assert again == ledger.job(JOB_ID)
    assert (again.key, again.status, again.submission_id) == (first.key, "SUCCESS", None)
    assert (first.step, first.request_count, first.endpoint) == (Step.CREATED, 15, "/v1/chat/completions")
    assert ledger.jobs() == []


def test_report_that_utf_8_cannot_hold(ledger: Ledger) -> None:
    """Half a surrogate pair, which an older version wrote down as it came, is read back as a question mark."""
    half = "cut \ud83d"
    adopted = ledger.adopt(report(errors=((half, 1),), metadata=((half, half),)), "https://example.com")
    assert adopted.report is not None
    assert (adopted.report.errors, adopted.report.metadata) == ((("cut ?", 1),), (("cut ?", "cut ?"),))


def test_requests_of_an_adopted_job_are_counted_later(ledger: Ledger) -> None:
    """The requests of another program's job are those that the API counts once it has begun; ours are as sent."""
    ledger.adopt(report(total_requests=0), "https://example.com")
    ledger.record(report(total_requests=20))
    ledger.record(report(total_requests=0, status="CANCELLED"))
    (mine, *_) = ledger.jobs(added(ledger).submission_id)
    ledger.move(mine, Step.SENDING)
    (mine,) = ledger.jobs_by_key([mine.key])
    ledger.created(mine, report(job_id="ours", total_requests=0))
    ledger.record(report(job_id="ours", total_requests=7))
    assert [job and job.request_count for job in (ledger.job(JOB_ID), ledger.job("ours"))] == [20, 15]


def test_job_that_was_adopted_before_it_is_recorded(ledger: Ledger) -> None:
    """A job of ours that was looked at by its id before its creation was recorded is one job afterwards, and ours."""
    (job, other, *_) = ledger.jobs(added(ledger).submission_id)
    for one in (job, other):
        assert ledger.move(one, Step.SENDING)
    sending, stale = ledger.jobs_by_key([job.key, other.key])
    assert ledger.move(stale, Step.PLANNED)
    adopted = ledger.adopt(report(), "https://example.com")
    assert not ledger.created(stale, report())
    assert ledger.job(JOB_ID) == adopted
    assert ledger.created(sending, report())
    found = ledger.job(JOB_ID)
    assert found is not None
    assert (found.key, found.submission_id) == (job.key, job.submission_id)
    assert adopted.key not in {one.key for one in ledger.jobs()}


def test_files_results_and_account(ledger: Ledger) -> None:
    """Uploaded files, kept results and a changed account are noted, and can be taken back."""
    made = added(ledger)
    first, second = ledger.parts(made.submission_id)
    files = [replace(first, file_id="it's one"), replace(second, file_id="file")]
    ledger.set_files(files[1:])
    assert ledger.parts(made.submission_id) == [first, files[1]]
    ledger.set_files(files)
    assert ledger.parts(made.submission_id) == files
    ledger.set_files([first])
    assert ledger.parts(made.submission_id) == [first, files[1]]
    ledger.begin_uploads([second])
    assert [part.upload_began for part in ledger.parts(made.submission_id)] == [first.upload_began, True]
    ledger.set_files([])
    ledger.begin_uploads([])
    job = ledger.jobs()[0]
    ledger.keep_results(job, "name.parquet")
    assert ledger.jobs()[0].results == "name.parquet"
    ledger.keep_results(job, None)
    assert ledger.jobs()[0].results is None
    ledger.set_account(made.submission_id, "other")
    assert ledger.submission(made.submission_id) == replace(made, account="other")


def test_retire_drops_what_was_never_created(ledger: Ledger) -> None:
    """Giving a submission up drops its waiting jobs, and leaves what was sent, or may have been."""
    made = added(ledger)
    first, second, third, _ = ledger.jobs()
    assert ledger.move(first, Step.SENDING)
    assert ledger.created(ledger.jobs_by_key([first.key])[0], report())
    assert ledger.move(second, Step.SENDING)
    assert ledger.move(third, Step.HELD)
    ledger.retire(made.submission_id)
    assert [job.step for job in ledger.jobs()] == [Step.CREATED, Step.GIVEN_UP, Step.DROPPED, Step.DROPPED]


def test_order_of_submissions(ledger: Ledger) -> None:
    """Jobs and submissions come in the order in which they were made."""
    late = added(ledger, identity="late", created_at=2)
    early = added(ledger, identity="early", created_at=1)
    assert ledger.submissions() == [early, late]
    assert list(dict.fromkeys(job.submission_id for job in ledger.jobs())) == [early.submission_id, late.submission_id]


def test_end_that_is_taken_back(ledger: Ledger) -> None:
    """A job leaves its end only where it was asked for anew, and not once its results are whole."""
    added(ledger)
    (job, *_) = ledger.jobs()
    assert ledger.move(job, Step.SENDING)
    assert ledger.created(ledger.jobs_by_key([job.key])[0], report(status="FAILED"))
    runs = report(status="RUNNING")

    def status() -> str:
        return ledger.jobs_by_key([job.key])[0].status

    ledger.record(runs)
    assert status() == "FAILED"
    ledger.record(runs, anew=True)
    assert status() == "RUNNING"
    ledger.record(report(status="EXPIRED", completed_at=1))
    ledger.record(runs)
    assert status() == "EXPIRED"
    ledger.keep_results(ledger.jobs_by_key([job.key])[0], "name.parquet", 1, 2)
    ledger.record(runs, anew=True)
    assert status() == "RUNNING"
    ledger.record(report(status="SUCCESS"))
    ledger.keep_results(ledger.jobs_by_key([job.key])[0], "name.parquet", 1, 0)
    ledger.record(runs, anew=True)
    assert status() == "SUCCESS"
