"""Creating one job: what its answer says, and what refuses it."""

from __future__ import annotations

import itertools
import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from batches.in_parts import CREATE, submit_parts
from postgres import new_ledger
from support import answered, connect, rows, settings_of, submitted

from duckdb_mistral.batches.context import Context
from duckdb_mistral.batches.create import Creator
from duckdb_mistral.errors import LedgerError
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.settings import Settings
from duckdb_mistral.state.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator
    from duckdb_mistral.jobs.job import Job


@pytest.mark.parametrize("times", [1, 2])
def test_file_that_is_not_found_yet(times: int, emulator: Emulator, home: Path) -> None:
    """A create that does not find its file is sent again, and the jobs after it are created too."""
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "status": 404, "skip": 1, "times": times})
    found = submit_parts(emulator, home, 3, reconcile_seconds=1)
    assert len({row["job_id"] for row in found}) == 3
    witness = emulator.witness()
    assert (witness["jobs_stored"], witness["uploads_stored"]) == (3, 3)


def test_billing_that_is_not_on(emulator: Emulator, home: Path) -> None:
    """A create that is refused until billing is on says so; the same statement then creates from the same file."""
    create = {"method": "POST", "path": "/v1/batch/jobs", "status": 402, "body": '{"message": "Payment required"}'}
    emulator.faults(create | {"times": 2})
    for _ in range(2):
        with pytest.raises(duckdb.Error, match=r"until billing is on \(HTTP 402: Payment required\)"):
            submit_parts(emulator, home, 3, reconcile_seconds=1)
    with connect(emulator, home) as con:
        (submission_id,) = {row["submission_id"] for row in rows(con, "FROM mistral_batch_status()")}
        with pytest.raises(duckdb.Error, match=r"not sent\. .*until billing is on.* Run the submit statement again"):
            con.execute("FROM mistral_batch_wait($id)", {"id": submission_id}).fetchall()
    found = submit_parts(emulator, home, 3, reconcile_seconds=1)
    assert {row["submission_id"] for row in found} == {submission_id}
    witness = emulator.witness()
    assert (witness["requests"]["upload"], witness["uploads_stored"], witness["jobs_stored"]) == (3, 3, 3)


@pytest.mark.fault("F54")
def test_create_that_is_answered_with_another_job(emulator: Emulator, home: Path) -> None:
    """A create whose answer names another job of ours is looked for, and each part has its own job."""
    first, *_ = submit_parts(emulator, home, 1)
    stripped = {"id": first["job_id"], "input_files": None}
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "change": stripped, "times": 2})
    found = submit_parts(emulator, home, 3)
    assert len({row["job_id"] for row in (first, *found)}) == 4
    assert emulator.witness()["jobs_stored"] == 4
    with connect(emulator, home) as con:
        assert len(rows(con, "FROM mistral_batch_status()")) == 4


@pytest.mark.fault("F54")
@pytest.mark.parametrize("changes", [{"input_files": []}, {"input_files": None, "metadata": None}, {"model": "other"}])
def test_create_that_is_answered_with_a_job_of_others(changes: dict[str, Any], emulator: Emulator, home: Path) -> None:
    """An answer that names another program's job, and not our file, is not believed: the job is looked for instead."""
    with connect(emulator, home.with_name("other")) as con:
        submitted(con, "SELECT 'a' AS custom_id, 'other' AS prompt")
    (theirs,) = Context(Settings.resolve(settings_of(emulator, home), {})).client.jobs()
    body = {"id": theirs.job_id, "status": theirs.status, "metadata": dict(theirs.metadata)} | changes
    emulator.faults(CREATE | {"after": True, "status": 200, "body": json.dumps(body)})
    with connect(emulator, home) as con:
        submission_id = submitted(con, "SELECT 'a' AS custom_id, 'ours' AS prompt")
        (row,) = answered(con, submission_id)
    assert (row["outcome"], row["content"]) == ("ok", "echo: ours")
    assert emulator.witness()["jobs_stored"] == 2


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the settings for a ledger on each engine."""
    address = new_ledger(request.param)
    return {} if address is None else {"ledger": address}


def jobs_of(emulator: Emulator, home: Path, ledger: dict[str, Any]) -> list[Job]:
    """Return the jobs as the ledger has them."""
    with closing(Context(Settings.resolve(settings_of(emulator, home, **ledger), {}))) as context:
        return context.ledger.jobs()


def fail(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int, error: BaseException) -> None:
    """Let one call of a method fail, counted from 0."""
    method, calls = getattr(owner, name), itertools.count()

    def called(*arguments: Any, **others: Any) -> Any:
        if next(calls) == call:
            raise error
        return method(*arguments, **others)

    monkeypatch.setattr(owner, name, called)


def test_refusal_after_other_creates(emulator: Emulator, home: Path, ledger: dict[str, Any]) -> None:
    """If a create is refused, those before it are recorded, and those after it count as never sent."""
    emulator.faults(CREATE | {"status": 402, "skip": 2})
    with pytest.raises(duckdb.Error, match="until billing is on"):
        submit_parts(emulator, home, 5, reconcile_seconds=1, **ledger)
    first, second, refused, *unsent = jobs_of(emulator, home, ledger)
    assert {first.step, second.step} == {Step.CREATED}
    assert (refused.step, "until billing is on" in str(refused.message)) == (Step.PLANNED, True)
    assert {(job.step, job.message, job.was_sent) for job in unsent} == {(Step.PLANNED, None, False)}
    found = submit_parts(emulator, home, 5, reconcile_seconds=1, **ledger)
    witness = emulator.witness()
    assert (witness["creates_received"], witness["jobs_stored"], witness["uploads_stored"]) == (5, 5, 5)
    assert len({row["job_id"] for row in found}) == 5


def test_limit_after_other_creates(emulator: Emulator, home: Path, ledger: dict[str, Any]) -> None:
    """If the API's limit refuses a create, it and those after it wait for room."""
    emulator.faults(CREATE | {"status": 429, "skip": 2})
    submit_parts(emulator, home, 5, **ledger)
    assert [job.step for job in jobs_of(emulator, home, ledger)] == [Step.CREATED] * 2 + [Step.HELD] * 3


def test_lost_answer_after_other_creates(emulator: Emulator, home: Path, ledger: dict[str, Any]) -> None:
    """If the answer to a create is lost, its job is found, and those after it are created once."""
    emulator.faults(CREATE | {"close": True, "after": True, "skip": 1})
    found = submit_parts(emulator, home, 5, **ledger)
    assert len({row["job_id"] for row in found} - {None}) == 5
    witness = emulator.witness()
    assert (witness["creates_received"], witness["jobs_stored"]) == (5, 5)


@pytest.mark.parametrize("is_back", [True, False])
def test_answer_that_cannot_be_recorded(
    emulator: Emulator, home: Path, ledger: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, is_back: bool
) -> None:
    """What was created before the ledger is away for a moment is recorded then, or said, and nothing is skipped."""
    fail(monkeypatch, Ledger, "begin", 1, LedgerError("The ledger is away."))
    if not is_back:
        fail(monkeypatch, Ledger, "created", 0, LedgerError("The ledger is away."))
    lost = r"Job \S+ was created, but that could not be recorded\. The ledger is away\."
    with pytest.raises(duckdb.Error, match=r"Error: The ledger is away\." if is_back else lost):
        submit_parts(emulator, home, 5, **ledger)
    expected = Step.CREATED if is_back else Step.SENDING
    assert [job.step for job in jobs_of(emulator, home, ledger)] == [expected] + [Step.PLANNED] * 4
    found = submit_parts(emulator, home, 5, **ledger)
    assert len({row["job_id"] for row in found} - {None}) == 5
    witness = emulator.witness()
    assert (witness["creates_received"], witness["jobs_stored"]) == (5, 5)


def test_interrupt_before_an_answer_is_recorded(
    emulator: Emulator, home: Path, ledger: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who interrupts a submit whose ledger is away reads of the interrupt, and the next one finds what was sent."""
    fail(monkeypatch, Creator, "create", 2, KeyboardInterrupt())
    fail(monkeypatch, Ledger, "created", 0, LedgerError("The ledger is away."))
    with pytest.raises(duckdb.Error, match="Interrupted"):
        submit_parts(emulator, home, 5, **ledger)
    found = submit_parts(emulator, home, 5, **ledger)
    assert len({row["job_id"] for row in found} - {None}) == 5
    assert emulator.witness()["jobs_stored"] == 5
