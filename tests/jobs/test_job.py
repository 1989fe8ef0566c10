"""The values of jobs: what the API says, read tolerantly, and what a user sees of it."""

from __future__ import annotations

from typing import Any

import pytest

from duckdb_mistral.jobs.job import ARROWS, Job, Step, now
from duckdb_mistral.jobs.report import ENDED, ENDED_BADLY, JobReport, Status
from duckdb_mistral.runtime.json_text import read_json

JOB = Job(
    key=1,
    submission_id="submission",
    part=1,
    model="m",
    endpoint="/v1/chat/completions",
    server_url="https://example.com",
    step=Step.PLANNED,
    request_count=3,
    input_bytes=5,
    created_here_at=0,
)


def test_report_as_described() -> None:
    """A job as the API's text describes it is read in full, its times as microseconds."""
    report = JobReport.from_json(
        {
            "id": "a",
            "object": "batch",
            "status": "SUCCESS",
            "endpoint": "/v1/chat/completions",
            "model": "m",
            "total_requests": 5,
            "completed_requests": 4,
            "succeeded_requests": 3,
            "failed_requests": 1,
            "created_at": 1,
            "started_at": 2,
            "completed_at": 3,
            "errors": [{"message": "bad", "count": 2}],
            "metadata": {"team": "search", "number": 7, "list": [1]},
            "input_files": ["in"],
            "output_file": "out",
            "error_file": "errors",
        }
    )
    assert report == JobReport(
        job_id="a",
        status="SUCCESS",
        endpoint="/v1/chat/completions",
        model="m",
        total_requests=5,
        completed_requests=4,
        succeeded_requests=3,
        failed_requests=1,
        created_at=1_000_000,
        started_at=2_000_000,
        completed_at=3_000_000,
        errors=(("bad", 2),),
        metadata=(("team", "search"), ("number", "7"), ("list", "[1]")),
        input_files=("in",),
        output_file="out",
        error_file="errors",
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"status": None, "errors": None, "metadata": None, "input_files": None, "output_file": None},
        {"status": 7, "errors": {}, "metadata": [], "input_files": "x", "output_file": "", "error_file": ""},
        {"total_requests": None, "completed_requests": "4", "created_at": "2026-01-01", "started_at": []},
        {"total_requests": float("nan"), "completed_requests": float("inf"), "failed_requests": True},
        {"total_requests": 10**30, "completed_requests": -(10**30), "succeeded_requests": 1e300},
        {"created_at": 10**17, "started_at": 253_402_300_800, "completed_at": 1e18},
    ],
)
def test_report_of_another_shape(body: dict[str, Any]) -> None:
    """What is missing, null, of another type or too large is left at its default; the job counts as not ended."""
    report = JobReport.from_json(body | {"id": "a"})
    assert report == JobReport(job_id="a", status="UNKNOWN")
    assert not report.ended


def test_report_with_odd_errors() -> None:
    """Errors of another shape are kept as far as they can be read."""
    errors = [{"message": {"deep": 1}, "count": None}, "text", {"count": 3}, None, 7, {"detail": "late", "count": 2}]
    read = (('{"deep": 1}', 1), ("text", 1), ("", 3), ("7", 1), ("late", 2))
    assert JobReport.from_json({"id": "a", "errors": errors}).errors == read


@pytest.mark.parametrize(("errors", "read"), [("bad file", "bad file"), ({"message": "bad file"}, "bad file")])
def test_report_with_one_error(errors: Any, read: str) -> None:
    """An error that comes without a list is kept as a list of one is."""
    assert JobReport.from_json({"id": "a", "errors": errors}).errors == ((read, 1),)


@pytest.mark.parametrize("word", ["EXPIRED", "PARTIAL", "Done", "UNKNOWN", None, "Success!"])
def test_words_that_are_new(word: str | None) -> None:
    """A job whose word is not known, or that has none, has ended once it has a time of completion."""
    assert not JobReport.from_json({"id": "a", "status": word}).ended
    assert not JobReport.from_json({"id": "a", "status": word, "completed_at": 0}).ended
    assert JobReport.from_json({"id": "a", "status": word, "completed_at": 1_700_000_000}).ended


@pytest.mark.parametrize("word", ["success", " SUCCESS ", "Timeout exceeded", "timeout-exceeded", "Cancelled\n"])
def test_words_in_another_spelling(word: str) -> None:
    """A word that is known but for its case and its spaces means what it says, and is shown as it came."""
    report = JobReport.from_json({"id": "a", "status": word})
    assert report.ended
    assert report.status == word
    assert JOB.evolve(report=report).ended_badly is ("success" not in word.lower())


@pytest.mark.parametrize("word", ["running", "QUEUED", "Cancellation requested"])
def test_words_that_go_on(word: str) -> None:
    """A job that goes on by its word has not ended, whatever its times say."""
    assert not JobReport.from_json({"id": "a", "status": word, "completed_at": 1_700_000_000}).ended


def test_largest_numbers_of_a_report() -> None:
    """Numbers are kept up to what a BIGINT holds, and times up to the end of the year 9999."""
    report = JobReport.from_json({"id": "a", "total_requests": 2**63 - 1, "created_at": 253_402_300_799})
    assert (report.total_requests, report.created_at) == (2**63 - 1, 253_402_300_799_000_000)
    errors = [{"message": "bad", "count": 10**30}]
    assert JobReport.from_json({"id": "a", "errors": errors}).errors == (("bad", 1),)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'{"k\udc00": ["cut \ud83d", 1]}', {"k?": ["cut ?", 1]}),
        (rb'"\ud83d\ude00 \u00e9"', "😀 é"),
        (b'"\xed\xa0\xbd"', "?"),
        ('"\ud83d"', "?"),
        ('"\ud55c"', "한"),
    ],
    ids=["escaped halves", "escaped whole", "half in bytes", "half in text", "another character"],
)
def test_half_a_surrogate_pair(text: str | bytes, value: Any) -> None:
    """Of a text that JSON holds, what UTF-8 cannot hold is replaced, and nothing else."""
    assert read_json(text) == value


@pytest.mark.parametrize("body", [{}, {"id": None}, {"id": ""}, {"id": 5}])
def test_report_without_an_id(body: dict[str, Any]) -> None:
    """Without an id there is no job."""
    with pytest.raises(ValueError, match="no job id"):
        JobReport.from_json(body)


@pytest.mark.parametrize("status", [*Status, "SHINY"])
def test_which_statuses_have_ended(status: str) -> None:
    """The four last words of the API have ended; no other has, known or not."""
    ended = status in ("SUCCESS", "FAILED", "TIMEOUT_EXCEEDED", "CANCELLED")
    assert (status in ENDED) is ended
    assert (status in ENDED_BADLY) is (ended and status != "SUCCESS")
    job = JOB.evolve(step=Step.CREATED, report=JobReport(job_id="a", status=status))
    assert (job.ended, job.ended_badly, job.status, job.job_id) == (ended, ended and status != "SUCCESS", status, "a")


@pytest.mark.parametrize(
    ("step", "status", "ended"),
    [
        (Step.PLANNED, "HELD", False),
        (Step.HELD, "HELD", False),
        (Step.SENDING, "UNKNOWN", False),
        (Step.GIVEN_UP, "UNKNOWN", False),
        (Step.DROPPED, "CANCELLED", True),
    ],
)
def test_status_before_the_api_knows(step: Step, status: str, ended: bool) -> None:
    """A job that the API does not know yet has a word of ours, and has only ended where it was dropped."""
    job = JOB.evolve(step=step)
    assert (job.status, job.ended, job.ended_badly, job.job_id) == (status, ended, ended, None)


def test_arrows() -> None:
    """A create is only ever recorded from where it was sent, which is dropped from there by way of being given up."""
    assert set(ARROWS) == set(Step)
    assert [step for step in Step if Step.CREATED in ARROWS[step]] == [Step.SENDING, Step.GIVEN_UP]
    assert not ARROWS[Step.CREATED] | ARROWS[Step.DROPPED]
    assert Step.DROPPED not in ARROWS[Step.SENDING]


def test_now() -> None:
    """Time is counted in microseconds, and does not stand still."""
    assert 1_700_000_000_000_000 < now() <= now() < 10_000_000_000_000_000
