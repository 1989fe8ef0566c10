"""Moving rows into another ledger, of each engine: what is new, what is known, and which submission stays live."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from submissions import JOB_ID, added, parts_of, report, submission

from duckdb_mistral.jobs.job import Job, Step
from duckdb_mistral.state import moving
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.moving import Merged, merge, read_rows
from duckdb_mistral.state.tables import submissions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from duckdb_mistral.jobs.job import Submission


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Ledger]:
    """Yield the ledger that rows come from."""
    ledger = Ledger(Home(tmp_path / "own"))
    yield ledger
    ledger.database.close()


def move(own: Ledger, ledger: Ledger, *, wins: bool = False) -> Merged:
    """Move the rows of one ledger into another."""
    return merge(ledger.database, read_rows(own.database), wins=wins)


def create(ledger: Ledger, job: Job, **told: object) -> None:
    """Create a job, as the API tells."""
    assert ledger.move(job, Step.SENDING)
    assert ledger.created(job.evolve(step=Step.SENDING), report(**told))


def jobs_of(ledger: Ledger) -> list[Job]:
    """Return all jobs without what is of their ledger alone."""
    return [job.evolve(key=0, checked_at=None) for job in ledger.jobs()]


def live(ledger: Ledger) -> set[str]:
    """Return the submissions that stand for their contents."""
    rows = ledger.database.rows(sa.select(submissions.c.submission_id).where(submissions.c.live))
    return {row.submission_id for row in rows}


def known_in_both(own: Ledger, ledger: Ledger) -> Submission:
    """Add the same submission to both ledgers."""
    made = added(own)
    assert ledger.add(made, parts_of(made))
    return made


def steps(ledger: Ledger) -> list[Step]:
    """Return the steps of all jobs."""
    return [job.step for job in ledger.jobs()]


def test_all_rows(own: Ledger, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """All submissions, parts and jobs arrive as they were, and the second time nothing is new."""
    monkeypatch.setattr(moving, "MOST_ROWS", 3)
    made = added(own)
    create(own, own.jobs()[0])
    own.set_files([replace(own.parts(made.submission_id)[0], file_id="file")])
    own.keep_results(own.jobs()[0], "kept.parquet", 7, 1)
    added(own, identity="second", retry_of=made.submission_id, output="STRUCT(a INT)")
    own.adopt(report(job_id="another"), "https://example.com")
    done = move(own, ledger)
    assert done == Merged(submissions=2, jobs=9, known_submissions=0, completed_jobs=0)
    assert ledger.submissions() == own.submissions()
    assert ledger.parts(made.submission_id) == own.parts(made.submission_id)
    assert jobs_of(ledger) == jobs_of(own)
    adopted = ledger.job("another")
    assert adopted is not None
    assert adopted.submission_id is None
    assert live(ledger) == live(own)
    done = move(own, ledger)
    assert done == Merged(submissions=0, jobs=0, known_submissions=2, completed_jobs=0)


@pytest.mark.parametrize("step", [Step.PLANNED, Step.HELD, Step.DROPPED])
def test_created_here(step: Step, own: Ledger, ledger: Ledger) -> None:
    """A job that was not sent there becomes created by what is known here, and takes the place of an adopted one."""
    known_in_both(own, ledger)
    create(own, own.jobs()[0])
    if step is not Step.PLANNED:
        assert ledger.move(ledger.jobs()[0], step)
    ledger.adopt(report(), "https://example.com")
    done = move(own, ledger)
    assert (done.jobs, done.completed_jobs) == (0, 1)
    found = ledger.job(JOB_ID)
    assert found is not None
    assert found.submission_id is not None
    assert steps(ledger) == [Step.CREATED, *[Step.PLANNED] * 3]


@pytest.mark.parametrize("wins", [False, True])
def test_created_there(wins: bool, own: Ledger, ledger: Ledger) -> None:
    """A job that was created there stays so, whatever is known here."""
    known_in_both(own, ledger)
    create(ledger, ledger.jobs()[0])
    before = jobs_of(ledger)
    move(own, ledger, wins=wins)
    assert jobs_of(ledger) == before


def test_dropped_here(own: Ledger, ledger: Ledger) -> None:
    """What was cancelled here before it was sent is not sent from there."""
    known_in_both(own, ledger)
    assert own.move(own.jobs()[0], Step.DROPPED)
    ledger.hold(ledger.jobs()[0].submission_id or "", "no room")
    move(own, ledger)
    assert steps(ledger) == [Step.DROPPED, *[Step.HELD] * 3]


def test_end_and_results(own: Ledger, ledger: Ledger) -> None:
    """The end of a job, and its results, are taken over where they are known on one side alone."""
    known_in_both(own, ledger)
    for each in (own, ledger):
        create(each, each.jobs()[0])
    own.record(report(status="SUCCESS"))
    assert move(own, ledger).completed_jobs == 1
    own.keep_results(own.jobs()[0], "kept.parquet", 7, 1)
    assert move(own, ledger).completed_jobs == 1
    assert jobs_of(ledger)[0] == jobs_of(own)[0]
    own.keep_results(own.jobs()[0], None)
    assert move(own, ledger, wins=True).completed_jobs == 0


def test_who_wins(own: Ledger, ledger: Ledger) -> None:
    """Where both know as much of a job, its row stays, or that of the ledger that wins takes its place."""
    known_in_both(own, ledger)
    for each, told in ((own, "here"), (ledger, "there")):
        create(each, each.jobs()[0])
        each.keep_results(each.jobs()[0], told, 7, 1)
    assert move(own, ledger).completed_jobs == 0
    assert ledger.jobs()[0].results == "there"
    assert move(own, ledger, wins=True).completed_jobs == 1
    assert ledger.jobs()[0].results == "here"


def test_live_one_stays(own: Ledger, ledger: Ledger) -> None:
    """The submission that stands for a content there still does; of another one nothing more is sent."""
    theirs = added(ledger)
    added(own)
    create(own, own.jobs()[0])
    move(own, ledger)
    assert live(ledger) == {theirs.submission_id}
    assert sorted(steps(ledger)) == sorted([Step.CREATED, *[Step.DROPPED] * 3, *[Step.PLANNED] * 4])


def test_live_one_gives_way(own: Ledger, ledger: Ledger) -> None:
    """With the ledger that wins, its submission stands for the content, and nothing more of the other one is sent."""
    theirs = added(ledger)
    ours = added(own)
    move(own, ledger, wins=True)
    assert live(ledger) == {ours.submission_id}
    assert {job.step for job in ledger.jobs(theirs.submission_id)} == {Step.DROPPED}
    assert {job.step for job in ledger.jobs(ours.submission_id)} == {Step.PLANNED}


def test_retired_here(own: Ledger, ledger: Ledger) -> None:
    """A submission that was retired here and not sent there is retired there, and its successor stands for it."""
    first = known_in_both(own, ledger)
    own.retire(first.submission_id)
    second = added(own)
    move(own, ledger)
    assert live(ledger) == {second.submission_id}
    assert {job.step for job in ledger.jobs(first.submission_id)} == {Step.DROPPED}


def test_incomplete_there(own: Ledger, ledger: Ledger) -> None:
    """A submission that was restored there in part is completed, and stands for its content again."""
    made = added(own)
    create(own, own.jobs()[0])
    ledger.restore(replace(made, request_count=15), parts_of(made)[:1], {(1, "a"): report()}, live=False)
    done = move(own, ledger)
    assert (done.submissions, done.jobs) == (0, 2)
    assert live(ledger) == {made.submission_id}
    assert steps(ledger)[2:] == [Step.PLANNED] * 2
    assert ledger.parts(made.submission_id) == own.parts(made.submission_id)


def test_job_of_another_part(own: Ledger, ledger: Ledger) -> None:
    """A job that counts there as that of another submission stays that, and is told where it is missing."""
    added(ledger, identity="other")
    create(ledger, ledger.jobs()[0])
    ours = added(own)
    create(own, own.jobs()[0])
    move(own, ledger)
    job = ledger.jobs(ours.submission_id)[0]
    assert (job.step, job.job_id) == (Step.DROPPED, None)
    assert f"Job {JOB_ID} counts as that of part 1" in (job.message or "")


def test_refused_create(own: Ledger, ledger: Ledger) -> None:
    """A create that was refused is looked for anew, by the clock of the ledger that it came to."""
    added(own)
    job, *_ = own.jobs()
    assert own.move(job, Step.SENDING)
    assert own.move(job.evolve(step=Step.SENDING), Step.HELD, refused=True, sent_here_at=5)
    before = ledger.now()
    move(own, ledger)
    (sent,) = (job.sent_here_at for job in ledger.jobs() if job.was_sent)
    assert sent is not None
    assert before <= sent <= ledger.now()


def test_sizes_left_out(own: Ledger, ledger: Ledger) -> None:
    """Where each home has results files of its own, their sizes are not those of the ledger."""
    made = submission()
    assert own.add(made, parts_of(made), (3, "found.parquet", 9))
    create(own, own.jobs()[0])
    own.keep_results(own.jobs()[0], "kept.parquet", 7, 0)
    merge(ledger.database, read_rows(own.database), wins=False, sized=False)
    assert {job.results: job.results_bytes for job in ledger.jobs() if job.results} == {
        "kept.parquet": None,
        "found.parquet": 9,
    }
    moving.record_sizes(ledger.database, {job.key: ("kept.parquet", 8) for job in ledger.jobs()})
    assert {job.results_bytes for job in ledger.jobs()} == {8, 9, None}


def test_another_process_adds_the_same(
    own: Ledger, ledger: Ledger, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another process records the same content meanwhile, its submission stays the live one."""
    if not ledger.shared:
        pytest.skip("a file has one writer")
    added(own)
    theirs = submission()
    other = Ledger(Home(home), ledger.database.address.url)  # type: ignore[attr-defined]
    judged = moving._Merge._judged

    def slow(self: moving._Merge) -> object:
        found = judged(self)
        other.add(theirs, parts_of(theirs))
        return found

    with closing(other.database):
        monkeypatch.setattr(moving._Merge, "_judged", slow)
        move(own, ledger)
    assert live(ledger) == {theirs.submission_id}
    assert len(ledger.submissions()) == 2
