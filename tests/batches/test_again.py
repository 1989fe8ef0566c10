"""Parts that are sent a second time: only once the workspace was looked through several times, over some time."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import connect, make_staging, rows, submitted

from duckdb_mistral.batches import again
from duckdb_mistral.batches.again import OWN_REFUSALS, REFUSED_SECONDS, refused_seconds
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.errors import ApiError
from duckdb_mistral.jobs.job import now
from duckdb_mistral.runtime.retry_policy import Retry
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path

CREATE = {"method": "POST", "path": "/v1/batch/jobs"}
LIST = {"method": "GET", "path": "/v1/batch/jobs"}
#: The list shows no job that is younger than this.
LAGS = LIST | {"lag": 2.5, "times": 1_000}
#: Six seconds are enough for all that is tried here.
SETTINGS: dict[str, Any] = {"deadline_seconds": 2, "reconcile_seconds": 6}


def go_on(con: duckdb.DuckDBPyConnection) -> str:
    """Submit again, as the sentences say, until it is answered."""
    until = time.monotonic() + 40
    while True:
        try:
            return submitted(con)
        except duckdb.Error:
            assert time.monotonic() < until
            time.sleep(0.3)


@pytest.mark.fault("F47")
@pytest.mark.parametrize("status", [307, 400, 401, 404, 409, 422, 425, 429, 499])
def test_list_that_lags_after_a_refusal(status: int, emulator: Emulator, home: Path) -> None:
    """A job that was stored and refused all the same is found though the list shows it only after a while."""
    with connect(emulator, home, **SETTINGS) as con:
        make_staging(con)
        emulator.faults(CREATE | {"status": status, "after": True}, LAGS)
        submission_id = go_on(con)
        con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    witness = emulator.witness()
    assert (witness["jobs_stored"], witness["rows_accepted_more_than_once"]) == (1, 0)


@pytest.mark.fault("F05")
@pytest.mark.parametrize("looks", [1, 2, 3])
def test_list_that_is_empty_when_it_counts(looks: int, emulator: Emulator, home: Path) -> None:
    """A lost create that was looked for in vain for long enough is not sent again for what one look shows."""
    with connect(emulator, home, deadline_seconds=2, reconcile_seconds=1) as con:
        make_staging(con)
        emulator.faults(CREATE | {"close": True, "after": True}, LIST | {"change": {"data": []}, "times": 1_000})
        with pytest.raises(duckdb.Error, match="is not known"):
            submitted(con)
        time.sleep(2.2)
        # Each reading asks for a page alone where that is empty.
        emulator.faults(LIST | {"change": {"data": [], "total": 0}, "times": looks})
        submitted(con)
    assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F05")
@pytest.mark.parametrize("rule", [{"change": {"data": []}}, {"status": 200, "body": '{"message": "timed out"}'}])
def test_list_that_shows_nothing_for_good(rule: dict[str, Any], emulator: Emulator, home: Path) -> None:
    """A lost create is never sent again for a list that shows no job and counts one, or that is an error's JSON."""
    with connect(emulator, home, deadline_seconds=2, reconcile_seconds=0.2) as con:
        make_staging(con)
        emulator.faults(CREATE | {"close": True, "after": True}, LIST | rule | {"times": 1_000})
        for _ in range(3):
            with pytest.raises(duckdb.Error, match=r"is not known|incomplete: it holds 0 of the 1|contains no list"):
                submitted(con)
            time.sleep(1.2)
        emulator.faults()
        submitted(con)
    assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F46")
@pytest.mark.parametrize("step", ["planned", "held"])
def test_part_that_was_never_sent_and_a_list_that_is_not_whole(step: str, emulator: Emulator, home: Path) -> None:
    """A part that the ledger has not sent yet is not sent where the list, which may hold it, is not whole."""
    with connect(emulator, home, reconcile_seconds=0) as con:
        make_staging(con)
        submission_id = submitted(con)
        with sqlite3.connect(home / "ledger.sqlite") as ledger:
            ledger.execute(
                "UPDATE jobs SET step = ?, job_id = NULL, report = NULL, status = NULL, sent_at = NULL, "
                "sent_here_at = NULL, least_wait = NULL",
                [step],
            )
        ledger.close()
        emulator.faults(LIST | {"change": {"data": []}, "times": 1_000})
        with pytest.raises(duckdb.Error, match=r"is not known\. Nothing is sent twice: .* holds 0 of the 1 jobs"):
            submitted(con)
        emulator.faults()
        assert submitted(con) == submission_id
    assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F47")
def test_refusal_in_between_is_looked_for_as_a_lost_answer(emulator: Emulator, home: Path) -> None:
    """What the API does not say itself keeps a part from being sent again for all of reconcile_seconds."""
    with connect(emulator, home, deadline_seconds=2) as con:
        make_staging(con)
        emulator.faults(CREATE | {"status": 409})
        with pytest.raises(duckdb.Error, match="HTTP 409"):
            submitted(con)
        with pytest.raises(duckdb.Error, match=r"was sent before, .* HTTP 409.* in [56]\d seconds or later"):
            submitted(con)
    assert emulator.witness()["creates_received"] == 0


@pytest.mark.fault("F48")
@pytest.mark.parametrize("status", [302, 429])
@pytest.mark.parametrize("jump", [-5, 3600])
def test_clock_that_jumps_after_a_refusal(
    status: int, jump: int, emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that was stored and refused is looked for as long as before though this machine's clock is set."""
    with connect(emulator, home, deadline_seconds=2, reconcile_seconds=6) as con:
        make_staging(con)
        emulator.faults(CREATE | {"status": status, "after": True}, LIST | {"lag": 4, "times": 1_000})
        with contextlib.suppress(duckdb.Error):
            submitted(con)
        (job,) = Ledger(Home(home)).jobs()
        assert job.sent_at is not None
        monkeypatch.setattr("duckdb_mistral.state.sqlite.now", lambda: now() + jump * 1_000_000)
        submission_id = go_on(con)
        while rows(con, "SELECT job_id FROM mistral_batch_status($id)", {"id": submission_id}) == [{"job_id": None}]:
            time.sleep(0.1)
    witness = emulator.witness()
    assert (witness["jobs_stored"], witness["rows_accepted_more_than_once"]) == (1, 0)


def test_refusal_of_the_apis_own(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that the API itself refused is sent by the next statement, once that has looked for it some times."""
    monkeypatch.setattr(again, "REFUSED_SECONDS", 1.0)
    with connect(emulator, home) as con:
        make_staging(con)
        emulator.faults(CREATE | {"status": 402})
        with pytest.raises(duckdb.Error, match=r"HTTP 402|billing"):
            submitted(con)
        before = emulator.witness()["requests"]["list_jobs"]
        submitted(con)
        assert emulator.witness()["requests"]["list_jobs"] >= before + again.LOOKS
    assert emulator.witness()["jobs_stored"] == 1


def test_what_never_left_is_sent_at_once(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for where the create never left this machine."""
    from duckdb_mistral.api.client import BatchClient
    from duckdb_mistral.errors import UnreachableError

    def unreachable(*_: Any, **__: Any) -> Any:
        raise UnreachableError("Nobody there.", sent=False)

    with connect(emulator, home) as con:
        make_staging(con)
        with monkeypatch.context() as patch:
            patch.setattr(BatchClient, "create", unreachable)
            with pytest.raises(duckdb.Error, match="Nobody there"):
                submitted(con)
        monkeypatch.setattr(Retry, "pause", lambda *_: pytest.fail("it waits"))
        submitted(con)


def test_status_sends_what_was_refused_a_moment_ago(emulator: Emulator, home: Path) -> None:
    """A part that the limit has just held is looked for, and created, by the next status that finds room."""
    with connect(emulator, home, reconcile_seconds=2) as con:
        make_staging(con)
        emulator.faults(CREATE | {"status": 429}, LIST | {"lag": 1.0, "times": 1_000})
        (row,) = rows(con, "FROM mistral_batch_submit('staging')")
        assert row["status"] == "HELD"
        (row,) = rows(con, "FROM mistral_batch_status()")
        assert row["status"] != "HELD"
    assert emulator.witness()["creates_received"] == 1


def test_status_without_room_waits_for_nothing(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room, a status looks once for a part that was refused, and goes on."""
    with Emulator(tmp_path / "full", job_seconds=60) as emulator, connect(emulator, home) as con:
        make_staging(con)
        emulator.faults(CREATE | {"status": 429})
        submitted(con)
        with connect(emulator, home, max_pending_requests=4) as full:
            submitted(full, "SELECT range AS custom_id, 'other' AS prompt FROM range(4)")
            monkeypatch.setattr(Retry, "pause", lambda *_: pytest.fail("it waits"))
            assert {row["status"] for row in rows(full, "FROM mistral_batch_status()")} == {"HELD", "QUEUED"}


def test_wait_that_ends_before_it_is_sure(emulator: Emulator, home: Path) -> None:
    """A wait whose time is short does not go on looking past it, and sends nothing."""
    with connect(emulator, home) as con:
        make_staging(con)
        emulator.faults(CREATE | {"status": 429})
        (row,) = rows(con, "FROM mistral_batch_submit('staging')")
        with pytest.raises(duckdb.Error, match=r"gave up after 0\.1 seconds"):
            con.execute("FROM mistral_batch_wait($id, timeout_seconds := 0.1)", {"id": row["submission_id"]})
    assert emulator.witness()["jobs_stored"] == 0


def test_how_long_a_refusal_is_looked_for() -> None:
    """The API's own refusals are looked for a little, others as long as lost answers, never longer."""

    def refused(status: int, reconcile: float) -> float:
        error = ApiError("no")
        error.status_code = status
        return refused_seconds(error, reconcile)

    assert {refused(status, 60.0) for status in OWN_REFUSALS} == {REFUSED_SECONDS}
    assert {refused(status, 60.0) for status in (301, 405, 409, 423, 425, 499)} == {60.0}
    assert {refused(status, 3.0) for status in (422, 499)} == {3.0}
    assert refused(429, 0.0) == 0.0
