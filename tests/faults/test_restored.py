"""A ledger that is older than the world, or empty beside a workspace that is not: nothing is paid again, or removed."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from faults.harness import CREATE, QUICK, UPLOAD, Story, check_invariants
from support import answered, connect, environment_of, make_staging, rows, run_forked, settings_of, submitted

from duckdb_mistral.batches.context import Context
from duckdb_mistral.batches.upload import Uploader
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.maintenance.clean import Asked, clean
from duckdb_mistral.settings import Settings
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.inventory import Kind
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.names import mark_path

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.jobs.job import Submission

DOCTOR = "import sys; from duckdb_mistral.cli.commands import main; sys.argv[1:1] = ['doctor']; main()"
OLDER = r"is older than the requests beside it: .*`duckdb-mistral doctor --repair`"
PARTS = {"max_requests_per_job": 4, "max_pending_requests": 4}


def save(home: Path, *, ledger_only: bool = False) -> Path:
    """Copy a home, or its ledger alone, as a backup does."""
    backup = home.with_name("backup")
    if ledger_only:
        backup.mkdir()
        for path in home.glob("ledger.sqlite*"):
            shutil.copy(path, backup)
    else:
        shutil.copytree(home, backup)
    return backup


def put_back(backup: Path, home: Path, *, ledger_only: bool = False) -> None:
    """Put a backup in place of what there is."""
    if ledger_only:
        for path in home.glob("ledger.sqlite*"):
            path.unlink()
        for path in backup.glob("ledger.sqlite*"):
            shutil.copy(path, home)
    else:
        shutil.rmtree(home)
        shutil.copytree(backup, home)


def doctor(emulator: Emulator, home: Path, *arguments: str, **others: str) -> tuple[int, str]:
    """Run the check-up; return its exit status and what it said."""
    done = run_forked(DOCTOR, environment_of(emulator, home) | others, *arguments)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.fault("F46")
def test_ledger_from_before_a_submission(emulator: Emulator, home: Path) -> None:
    """A ledger that forgot a submission sends and removes nothing until a repair, whatever the statement."""
    with connect(emulator, home) as con:
        make_staging(con, 1, "first")
        answered(con, submitted(con, "first"))
    backup = save(home, ledger_only=True)
    story = Story(emulator, home)
    (submission_id,) = {row["submission_id"] for row in story.submit()}
    story.close()
    put_back(backup, home, ledger_only=True)
    spool = home / "spool" / submission_id
    before = sorted(path.name for path in spool.iterdir())
    creates = emulator.witness()["creates_received"]

    story = Story(emulator, home)
    make_staging(story.con, 3, "unrelated")
    for source in ("staging", "unrelated"):
        with pytest.raises(duckdb.Error, match=OLDER):
            submitted(story.con, source)
    status, said = doctor(emulator, home)
    assert status == 1
    assert "is older than the requests beside it" in said
    heaps = clean(Context(Settings.resolve(settings_of(emulator, home))), Asked(), free=True)
    assert Kind.LEFTOVER not in {heap.kind for heap in heaps}
    assert sorted(path.name for path in spool.iterdir()) == before
    assert emulator.witness()["creates_received"] == creates

    status, said = doctor(emulator, home, "--repair")
    assert (status, "1 submission with 1 job" in said) == (0, True), said
    assert {row["submission_id"] for row in story.submit()} == {submission_id}
    assert len(submitted(story.con, "unrelated")) > 0
    assert len(answered(story.con, submission_id)) == 10
    assert emulator.witness()["jobs_stored"] == 3
    assert not spool.exists()
    story.close()


@pytest.mark.fault("F46")
def test_what_was_recorded_and_never_created(emulator: Emulator, home: Path) -> None:
    """Where a forgotten submission has no job in the workspace, a repair lets its statement build it anew."""
    with connect(emulator, home) as con:
        make_staging(con, 1, "first")
        submitted(con, "first")
    backup = save(home, ledger_only=True)
    emulator.faults(UPLOAD | {"status": 500})
    with connect(emulator, home) as con:
        make_staging(con)
        with pytest.raises(duckdb.Error, match="HTTP 500"):
            submitted(con)
        put_back(backup, home, ledger_only=True)
    with connect(emulator, home) as con:
        make_staging(con)
        with pytest.raises(duckdb.Error, match=OLDER):
            submitted(con)
        doctor(emulator, home, "--repair", MISTRAL_API_KEY="another-key")
        with pytest.raises(duckdb.Error, match=OLDER):  # whose jobs another key may not see
            submitted(con)
        assert doctor(emulator, home, "--repair")[0] == 0
        assert len(answered(con, submitted(con))) == 3
    assert emulator.witness()["rows_accepted"] == 4


@pytest.mark.fault("F46")
@pytest.mark.parametrize("ledger_only", [False, True])
@pytest.mark.parametrize("refusal", [{"status": 429}, {"status": 422}, {"close": True}, {"status": 500, "after": True}])
def test_home_from_before_the_creates(
    refusal: dict[str, Any], ledger_only: bool, emulator: Emulator, home: Path
) -> None:
    """A home that is put back to when its part waited, was refused or had lost its answer pays for nothing again."""
    emulator.faults(
        CREATE | refusal, {"method": "GET", "path": "/v1/batch/jobs", "change": {"data": [], "total": 0}, "skip": 2}
    )
    story = Story(emulator, home, settings={"reconcile_seconds": 0.2})
    try:
        story.submit()
    except duckdb.Error as error:
        assert "status" in refusal or "not known" in str(error)  # noqa: PT017
    story.close()
    backup = save(home, ledger_only=ledger_only)
    emulator.faults()
    story = Story(emulator, home, settings={"reconcile_seconds": 0.2})
    expected = story.go_on()
    story.close()
    put_back(backup, home, ledger_only=ledger_only)
    story = Story(emulator, home, settings={"reconcile_seconds": 0.2})
    if "status" in refusal and refusal["status"] == 429:  # a status alone goes on with what was held
        story.con.execute("FROM mistral_batch_status()").fetchall()
    assert story.go_on() == expected
    check_invariants(story)
    story.close()


@pytest.mark.fault("F46")
@pytest.mark.parametrize("reuse", ["submission", "requests"])
def test_ledger_from_before_the_upload(reuse: str, emulator: Emulator, home: Path) -> None:
    """A ledger that knows of no upload, put back when the requests are gone already, pays for nothing again."""
    emulator.faults(UPLOAD | {"status": 500})
    story = Story(emulator, home, arguments=f", reuse := '{reuse}'")
    with pytest.raises(duckdb.Error, match="HTTP 500"):
        story.submit()
    story.close()
    backup = save(home, ledger_only=True)
    story = Story(emulator, home, arguments=story.arguments)
    expected = story.go_on()
    story.close()
    assert not list((home / "spool").iterdir())
    put_back(backup, home, ledger_only=True)
    story = Story(emulator, home, arguments=story.arguments)
    assert story.go_on() == expected
    check_invariants(story)
    story.close()


@pytest.mark.fault("F46")
def test_unsent_parts_of_a_home_that_was_put_back(tmp_path: Path, home: Path) -> None:
    """Parts that were created since a backup are taken over, those that were not are sent, and a repair does so too."""
    with Emulator(tmp_path / "server", job_seconds=0.2) as emulator:
        story = Story(emulator, home, settings=PARTS)
        assert [row["status"] for row in story.submit()][1:] == ["HELD", "HELD"]
        backup = save(home)
        expected = story.go_on()
        story.close()
        put_back(backup, home)
        status, said = doctor(emulator, home, "--repair")
        assert status == 0, said
        assert "2 jobs" in said
        story = Story(emulator, home, settings=PARTS)
        assert [row["custom_id"] for row in story.go_on()] == [row["custom_id"] for row in expected]
        check_invariants(story, jobs=3)
        story.close()


@pytest.mark.fault("F46")
def test_cancel_of_a_part_that_was_refused_by_nobody(tmp_path: Path, home: Path) -> None:
    """A part whose create was stored, and answered as refused, is found by a cancel, and cancelled."""
    with Emulator(tmp_path / "server", job_seconds=60) as emulator:
        emulator.faults(CREATE | {"status": 409, "after": True})
        with connect(emulator, home) as con:
            make_staging(con)
            with pytest.raises(duckdb.Error, match="HTTP 409"):
                submitted(con)
            (row,) = rows(con, "FROM mistral_batch_status()")
            assert (row["status"], row["job_id"]) == ("HELD", None)
            (row,) = rows(con, "FROM mistral_batch_cancel($id)", {"id": row["submission_id"]})
            assert row["job_id"] is not None
            assert row["status"] in ("CANCELLATION_REQUESTED", "CANCELLED")


# A workspace that remembers more than the home


@pytest.mark.parametrize("count", [3, 10])
def test_home_that_is_lost(count: int, emulator: Emulator, home: Path) -> None:
    """An empty home takes over what the workspace remembers of the same content, and reads its results."""
    arguments = ", timeout_hours := 48, output := 'STRUCT(a INTEGER)', metadata := {team: 'x'}"
    settings = {"max_requests_per_job": 3}
    story = Story(emulator, home, row_count=count, arguments=arguments, settings=settings)
    expected = story.go_on()
    (submission_id,) = {row["submission_id"] for row in story.submit()}
    story.close()
    before = emulator.witness()
    for number in range(2):
        other = home.with_name(f"empty-{number}")
        story = Story(emulator, other, row_count=count, arguments=arguments, settings=settings)
        found = story.submit()
        assert {(row["submission_id"], row["reused"]) for row in found} == {(submission_id, True)}
        assert [row["total_requests"] for row in found] == [min(3, count - start) for start in range(0, count, 3)]
        story.wait()
        assert story.results() == expected
        check_invariants(story, jobs=len(found))
        story.close()
    after = emulator.witness()
    assert [after[name] for name in ("creates_received", "uploads_stored")] == [
        before[name] for name in ("creates_received", "uploads_stored")
    ]


def test_running_job_of_another_home(tmp_path: Path, home: Path) -> None:
    """A job that another home created a moment ago is taken over before the API has counted its requests."""
    with Emulator(tmp_path / "server", job_seconds=4) as emulator:
        first = Story(emulator, home)
        first.submit()
        emulator.faults({"method": "GET", "path": "/v1/batch/jobs", "jobs": {"total_requests": 0}})
        second = Story(emulator, home.with_name("second"))
        assert [row["reused"] for row in second.submit()] == [True]
        assert len(second.go_on()) == 10
        assert [row["total_requests"] for row in rows(second.con, "FROM mistral_batch_status()")] == [10]
        check_invariants(second)
        first.close()
        second.close()


def test_retries_are_taken_over(emulator: Emulator, home: Path) -> None:
    """What a retry answered in another home stands in the results of the submission that is taken over."""
    source = "FROM (VALUES (1, 'fine'), (2, '[[error 500]]')) t(custom_id, prompt)"
    with connect(emulator, home) as con:
        submission_id = submitted(con, source)
        con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
        (retry,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
        expected = answered(con, submission_id)
        assert retry["job_id"] in {row["job_id"] for row in expected}
    with connect(emulator, home.with_name("empty")) as con:
        assert submitted(con, source) == submission_id
        assert answered(con, submission_id) == expected
    assert emulator.witness()["creates_received"] == 2


def test_what_is_not_taken_over(emulator: Emulator, home: Path) -> None:
    """What failed as a whole, what is known by files of its home alone, and what is forced are sent anew."""
    shared = "SELECT range AS custom_id, 'prompt ' || range % 2 AS prompt FROM range(4)"
    submits = (
        ("staging", "metadata := {emulate: 'FAILED 0'}", False),
        (shared, "reuse := 'requests'", False),
        ("staging", "force := true", False),
        ("staging", "timeout_hours := 5", True),
    )
    ids = []
    for one in (home, home.with_name("empty")):
        with connect(emulator, one) as con:
            make_staging(con)
            ids.append([submitted(con, source, arguments) for source, arguments, _ in submits])
            for submission_id in ids[-1]:
                con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    assert [first == second for first, second in zip(*ids, strict=True)] == [taken for *_, taken in submits]


def test_submission_that_another_home_has_not_finished(tmp_path: Path, home: Path) -> None:
    """A submission of which another home has created a part is told, not taken for the whole, and later taken over."""
    with Emulator(tmp_path / "server", job_seconds=0.5) as emulator:
        first = Story(emulator, home, settings=PARTS)
        first.submit()
        second = Story(emulator, home.with_name("second"), settings=PARTS)
        with pytest.raises(
            duckdb.Error, match=r"from another home, and so far 1 of its 3 jobs have been created\. Nothing"
        ):
            second.submit()
        expected = first.go_on()
        assert second.go_on() == expected
        check_invariants(second, jobs=3)
        first.close()
        second.close()


def test_new_home_and_a_list_that_is_not_whole(emulator: Emulator, home: Path) -> None:
    """Where the list holds less than it counts, narrower lists are read too, and an empty home sends only by force."""
    settings = {"deadline_seconds": 5}
    with connect(emulator, home, **settings) as con:
        make_staging(con)
        submission_id = submitted(con)
    with connect(emulator, home.with_name("second"), **settings) as con:
        make_staging(con)
        hidden = {"method": "GET", "path": "/v1/batch/jobs", "change": {"data": []}, "times": 1000}
        emulator.faults(hidden)
        with pytest.raises(duckdb.Error, match=r"from another home is not known: .* 0 of the 1 jobs .* Nothing was"):
            submitted(con)
        assert emulator.witness()["jobs_stored"] == 1
        # The first four are the readings of the whole list.
        emulator.faults(hidden | {"times": 4})
        assert submitted(con) == submission_id
        emulator.faults(hidden)
        assert submitted(con, arguments="force := true") != submission_id
    witness = emulator.witness()
    assert (witness["jobs_stored"], witness["rows_accepted"]) == (2, 6)


@pytest.mark.parametrize("jobs", [1, 150])
def test_home_that_is_quicker(jobs: int, emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another home creates between the look at the start and the first create is taken over, not sent again."""
    if jobs > 1:  # a list of several pages
        with connect(emulator, home.with_name("third"), max_requests_per_job=1) as con:
            make_staging(con, jobs, "many")
            submitted(con, "many")
    stored = emulator.witness()["jobs_stored"]
    quicker = Story(emulator, home.with_name("second"))
    slower = Story(emulator, home)
    upload = Uploader.uploaded
    once = threading.Lock()

    def uploaded(uploader: Uploader, submission: Submission, *others: Any) -> Any:
        if once.acquire(blocking=False):
            quicker.submit()
        return upload(uploader, submission, *others)

    monkeypatch.setattr(Uploader, "uploaded", uploaded)
    (found,) = slower.submit()
    assert found["reused"]
    assert emulator.witness()["jobs_stored"] == stored + 1
    assert {row["submission_id"] for row in rows(quicker.con, "FROM mistral_batch_status()")} == {
        found["submission_id"]
    }
    assert [row["submission_id"] for row in rows(slower.con, "FROM mistral_batch_status()")] == [found["submission_id"]]
    assert len(slower.go_on()) == 10
    assert list((home / "spool").iterdir()) == []
    quicker.close()
    slower.close()


def test_mark_of_what_was_sent(tmp_path: Path, home: Path) -> None:
    """A submission's directory is marked while its requests wait, and gone, mark and all, once they are answered."""
    with Emulator(tmp_path / "server", job_seconds=0.2) as emulator:
        story = Story(emulator, home, settings=PARTS | QUICK)
        (submission_id,) = {row["submission_id"] for row in story.submit()}
        assert mark_path(Home(home).spool(submission_id)).exists()
        assert Ledger(Home(home)).submission(submission_id) is not None
        story.go_on()
        assert not (home / "spool" / submission_id).exists()
        story.close()
