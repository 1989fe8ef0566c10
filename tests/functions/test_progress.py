"""What a person sees while waiting: on standard error alone, a line where something changed, bars on a terminal."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from duckdb_mistral.batches.describe import describe
from duckdb_mistral.functions.progress import watching
from duckdb_mistral.jobs.job import Job, Step
from duckdb_mistral.jobs.report import JobReport

if TYPE_CHECKING:
    import pytest


def job(completed: int, status: str = "RUNNING", key: int = 1) -> Job:
    """Return a job of 1,000 requests."""
    return Job(
        key=key,
        submission_id="submission",
        part=1,
        model="m",
        endpoint="/v1/chat/completions",
        server_url="https://example.com",
        step=Step.CREATED,
        request_count=1000,
        input_bytes=1,
        created_here_at=0,
        report=JobReport(job_id="job-1234-5678", status=status, completed_requests=completed),
    )


def test_a_line_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no terminal, a line is written for each change, and nothing on standard output."""
    with watching() as watch:
        for completed in (0, 0, 500, 500, 1000):
            watch([job(completed)], None)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "Job job-1234-5678 is RUNNING: 0 of 1,000 requests are done.",
        "Job job-1234-5678 is RUNNING: 500 of 1,000 requests are done.",
        "Job job-1234-5678 is RUNNING: 1,000 of 1,000 requests are done.",
    ]


def test_lines_of_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the API could not be asked, the line says so, once, and that it is asked again."""
    said: list[str | None] = [None, "It gave no answer.", "It gave no answer.", None]
    with watching() as watch:
        for trouble in said:
            watch([job(0)], trouble)
    line = "Job job-1234-5678 is RUNNING: 0 of 1,000 requests are done."
    assert capsys.readouterr().err.splitlines() == [line, f"{line} It gave no answer. Asking again.", line]


def test_trouble_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, what keeps the API from being asked stands above the bars, once."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with watching() as watch:
        watch([job(0)], "[It] gave no answer.")
        watch([job(0)], "[It] gave no answer.")
    assert terminal.getvalue().count("[It] gave no answer. Asking again.") == 1


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal there is a bar per job, with its status and its counts, and nothing on standard output."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with watching() as watch:
        watch([job(0), job(0, key=2)], None)
        watch([job(250), job(1000, "SUCCESS", key=2)], None)
        watch([job(250), job(0, "SUCCESS", key=2).evolve(step=Step.CREATED)], None)
    shown = terminal.getvalue()
    assert capsys.readouterr().out == ""
    assert "job-1234 RUNNING" in shown
    assert "job-1234 SUCCESS" in shown
    assert "250/1000" in shown
    assert "1000/1000" in shown


def test_bar_of_a_job_that_is_not_created(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that waits for room has a bar too."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with watching() as watch:
        watch([job(0).evolve(step=Step.HELD, report=None)], None)
    assert "not created HELD" in terminal.getvalue()


def test_several_jobs() -> None:
    """Several jobs are told in one sentence, by status."""
    assert describe([job(100), job(1000, "SUCCESS", 2), job(0, "QUEUED", 3), job(5, key=4)]) == (
        "Of 4 jobs, 2 RUNNING, 1 SUCCESS, 1 QUEUED: 1,105 of 4,000 requests are done."
    )
    held = job(0).evolve(step=Step.HELD, report=None)
    assert describe([job(0).evolve(step=Step.ANSWERED, report=None)]) == "All 1,000 requests were answered before."
    assert describe([held]) == "Job (not created yet) is HELD: 0 of 1,000 requests are done."
