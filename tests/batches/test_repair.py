"""The ledger built anew: what was not sent is not forgotten, and an older submission does not stand for a newer one."""

from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import UUID

import duckdb
import pytest
from support import answered, connect, environment_of, make_staging, rows, run_forked, settings_of, submitted

from duckdb_mistral.batches.context import Context
from duckdb_mistral.batches.repair import Repair, repair
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.errors import LedgerError
from duckdb_mistral.runtime.failpoints import VARIABLE
from duckdb_mistral.settings import Settings
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path

CREATE = {"method": "POST", "path": "/v1/batch/jobs"}
KILLED = -9
DOCTOR = "import sys; from duckdb_mistral.cli.commands import main; sys.argv[1:] = ['doctor']; main()"
REPAIR = DOCTOR.replace("']", "', '--repair']")
LIST = {"method": "GET", "path": "/v1/batch/jobs"}
DOWNLOAD = {"method": "GET", "path": "/v1/files/[^/]+/content"}


def lose_ledger(home: Path) -> None:
    """Remove the ledger."""
    for path in home.glob("ledger.sqlite*"):
        path.unlink()


def repaired(emulator: Emulator, home: Path) -> Repair:
    """Build the ledger of `home` anew."""
    with closing(Context(Settings.resolve(settings_of(emulator, home)))) as context:
        return repair(context)


def test_parts_that_were_not_sent(tmp_path: Path, home: Path) -> None:
    """Parts that waited for room when the ledger was lost are sent by the same submit, and every row comes back."""
    limits = {"max_requests_per_job": 2, "max_pending_requests": 2}
    with Emulator(tmp_path / "server", max_pending_requests=6) as server:
        with connect(server, home, **limits) as con:
            make_staging(con, 6)
            submission_id = submitted(con, arguments="timeout_hours := 48")
        lose_ledger(home)
        done = repaired(server, home)
        assert (done.restored_submissions, done.restored_jobs, done.unsent_jobs) == (1, 1, 2)
        with connect(server, home, **limits | {"max_pending_requests": 6}) as con:
            make_staging(con, 6)
            assert submitted(con, arguments="timeout_hours := 48") == submission_id
            assert len(answered(con, submission_id)) == 6
        witness = server.witness()
        assert (witness["creates_received"], witness["rows_accepted_more_than_once"]) == (3, 0)


def test_part_that_is_gone(emulator: Emulator, home: Path) -> None:
    """A submission of which a part is neither at the server nor here does not stand for its content any more."""
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "status": 429, "skip": 1})
    with connect(emulator, home, max_requests_per_job=2) as con:
        make_staging(con, 6)
        submission_id = submitted(con)
        lose_ledger(home)
        for path in (home / "spool" / submission_id).glob("part-00002.*"):
            path.unlink()
    assert repaired(emulator, home).unsent_jobs == 0
    with connect(emulator, home, max_requests_per_job=2) as con:
        make_staging(con, 6)
        anew = submitted(con)
        assert anew != submission_id
        assert len(answered(con, anew)) == 6


def test_rows_that_were_answered_before(emulator: Emulator, home: Path) -> None:
    """Rows that a submission found answered come back from its results after a repair."""
    with connect(emulator, home) as con:
        make_staging(con, 4)
        answered(con, submitted(con))
        con.execute("INSERT INTO staging VALUES ('new', 'another prompt')")
        submission_id = submitted(con, arguments="reuse := 'requests'")
        expected = answered(con, submission_id)
    lose_ledger(home)
    repaired(emulator, home)
    with connect(emulator, home) as con:
        make_staging(con, 4)
        con.execute("INSERT INTO staging VALUES ('new', 'another prompt')")
        assert answered(con, submission_id) == expected
        assert submitted(con, arguments="reuse := 'requests'") == submission_id
    lose_ledger(home)
    Home(home).found(submission_id).write_bytes(b"cut")
    repaired(emulator, home)
    with connect(emulator, home) as con:
        make_staging(con, 4)
        con.execute("INSERT INTO staging VALUES ('new', 'another prompt')")
        assert submitted(con, arguments="reuse := 'requests'") != submission_id


def test_older_submission_of_another_home(tmp_path: Path, home: Path) -> None:
    """What another home submitted earlier does not take the place of this home's own, and a later one does."""
    homes = (home, home.with_name("second"), home.with_name("third"))
    with Emulator(tmp_path / "server", job_seconds=60) as server:
        ids = []
        for one in homes:
            with connect(server, one) as con:
                make_staging(con)
                ids.append(submitted(con, arguments="force := true"))
                time.sleep(1.1)  # the server tells its time in seconds
        repaired(server, homes[1])
        with connect(server, homes[1]) as con:
            make_staging(con)
            assert submitted(con) == ids[2]
            assert len(rows(con, "FROM mistral_batch_status()")) == 3
        repaired(server, homes[2])
        with connect(server, homes[2]) as con:
            make_staging(con)
            assert submitted(con) == ids[2]
        assert server.witness()["creates_received"] == 3


@pytest.mark.parametrize("retried", [False, True])
def test_one_that_failed_as_a_whole(retried: bool, slow: Emulator, home: Path) -> None:
    """Of two submissions of the same content, a repair lets the earlier one count if only the later one failed."""
    ids = []
    with connect(slow, home.with_name("another-home")) as con:
        make_staging(con)
        for number in range(2):
            ids.append(submitted(con, arguments="force := true"))
            if number or retried:
                con.execute("FROM mistral_batch_cancel($id)", {"id": ids[-1]})
                con.execute("FROM mistral_batch_wait($id)", {"id": ids[-1]})
            time.sleep(1.1)  # the server tells its time in seconds
        if retried:
            con.execute("FROM mistral_batch_retry($id)", {"id": ids[0]})
    before = slow.witness()["jobs_stored"]
    repaired(slow, home)
    with connect(slow, home) as con:
        make_staging(con)
        assert submitted(con) == ids[0]
    assert slow.witness()["jobs_stored"] == before


def test_unsent_parts_of_another_home(emulator: Emulator, home: Path) -> None:
    """A submission of which another home still has parts to send does not stand for its content here."""
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "status": 429, "skip": 1})
    with connect(emulator, home.with_name("another-home"), max_requests_per_job=2) as con:
        make_staging(con, 6)
        submitted(con)
    repaired(emulator, home)
    with connect(emulator, home) as con:
        make_staging(con, 6)
        assert len(answered(con, submitted(con))) == 6


def test_kept_results(emulator: Emulator, home: Path) -> None:
    """Results that are kept are known after a repair, and are not paid again where the server's file is gone."""
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        expected = answered(con, submission_id)
    lose_ledger(home)
    repaired(emulator, home)
    emulator.faults(DOWNLOAD | {"status": 404, "times": 1000})
    with connect(emulator, home) as con:
        assert rows(con, "FROM mistral_batch_results() ORDER BY custom_id") == expected
        assert not rows(con, f"FROM mistral_batch_retry('{submission_id}')")
    assert emulator.witness()["creates_received"] == 1


def test_kept_results_that_were_damaged(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results that cannot be read, or that lost the lines beside them, are fetched again after a repair."""
    monkeypatch.setattr("duckdb_mistral.results.convert.LARGE_BYTES", 1)
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        expected = answered(con, submission_id)
    (lines,) = (home / "results").glob("*.jsonl")
    (kept,) = (home / "results").glob("*.parquet")
    for damage in (lines.unlink, lambda: kept.write_bytes(kept.read_bytes()[:-4])):
        damage()
        lose_ledger(home)
        repaired(emulator, home)
        assert [job.results for job in Ledger(Home(home)).jobs()] == [None]
        with connect(emulator, home) as con:
            assert answered(con, submission_id) == expected


@pytest.mark.parametrize("cancelled", [None, 0, 1])
def test_two_jobs_of_one_part(cancelled: int | None, tmp_path: Path, home: Path) -> None:
    """Of two jobs that were created for the same part, one that was not cancelled is restored, and no row twice."""
    with Emulator(tmp_path / "server", job_seconds=1) as server:
        with connect(server, home, reconcile_seconds=0, deadline_seconds=2) as con:
            make_staging(con)
            server.faults(
                CREATE | {"close": True, "after": True}, LIST | {"change": {"data": [], "total": 0}, "times": 1000}
            )
            with pytest.raises(duckdb.Error, match="is not known"):
                submitted(con)
            submission_id = submitted(con)
            server.faults()
            job_ids = sorted(row["job_id"] for row in rows(con, "FROM mistral_batch_jobs()"))
            if cancelled is not None:
                con.execute("FROM mistral_batch_cancel($id)", {"id": job_ids[cancelled]})
        lose_ledger(home)
        assert repaired(server, home).restored_jobs == 1
        with connect(server, home) as con:
            make_staging(con)
            assert submitted(con) == submission_id
            assert [(row["custom_id"], row["outcome"]) for row in answered(con, submission_id)] == [
                (str(number), "ok") for number in range(3)
            ]
        assert server.witness()["jobs_stored"] == len(job_ids) == 2


def test_newer_ledger(emulator: Emulator, home: Path) -> None:
    """A ledger of a newer version is not damaged, and a repair leaves it where it is."""
    Ledger(Home(home))
    with closing(sqlite3.connect(home / "ledger.sqlite")) as connection, connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    with pytest.raises(LedgerError, match="was written by a newer duckdb_mistral"):
        repaired(emulator, home)
    assert [path.name for path in home.iterdir() if path.name != "locks"] == ["ledger.sqlite"]


@pytest.mark.newest
def test_killed_repair(emulator: Emulator, home: Path) -> None:
    """A repair that is killed half-way leaves no ledger that forgot the rest, and the next one restores all."""
    with connect(emulator, home) as con:
        make_staging(con, 3, "one")
        make_staging(con, 4, "two")
        first, second = submitted(con, "one"), submitted(con, "two")
        answered(con, first)
        answered(con, second)
    lose_ledger(home)
    (home / "ledger.sqlite").write_bytes(b"not a ledger".ljust(8192))
    for point in ("after-commit:1", "after-commit:2", "after-commit:5", "after-aside"):
        killed = run_forked(REPAIR, environment_of(emulator, home) | {VARIABLE: point})
        assert killed.returncode == KILLED, killed.stderr
        with connect(emulator, home) as con:
            make_staging(con, 4, "two")
            with pytest.raises(duckdb.Error, match=r"is damaged|is gone") as raised:
                submitted(con, "two")
            assert "`duckdb-mistral doctor --repair`" in str(raised.value)
    done = run_forked(REPAIR, environment_of(emulator, home) | {VARIABLE: "after-commit:6"})
    assert "Restored from the workspace: 2 submissions with 2 jobs." in done.stdout, done.stderr
    assert sorted(path.name for path in home.glob("ledger*")) == ["ledger.sqlite"]
    assert [path.name for path in home.glob("damaged-*/*")] == ["ledger.sqlite"]
    with connect(emulator, home) as con:
        make_staging(con, 4, "two")
        assert submitted(con, "two") == second
        assert len(answered(con, first)) == 3
    assert emulator.witness()["creates_received"] == 2


@pytest.mark.parametrize("empty", [False, True])
def test_lost_ledger(empty: bool, emulator: Emulator, home: Path) -> None:
    """Where the ledger is gone, or empty, but not what it knew, nothing is sent or removed until it is repaired."""
    emulator.faults(CREATE | {"status": 429, "skip": 1})
    with connect(emulator, home, max_requests_per_job=2) as con:
        make_staging(con, 4)
        submission_id = submitted(con)
    lose_ledger(home)
    if empty:  # as a full disk or a failed copy leaves it
        (home / "ledger.sqlite").touch()
    before = emulator.witness()["requests"]
    spooled = sorted((home / "spool").rglob("*"))
    with connect(emulator, home, max_requests_per_job=2) as con:
        make_staging(con, 4)
        for query in ("mistral_batch_submit('staging')", "mistral_batch_status()", "mistral_batch_results()"):
            with pytest.raises(duckdb.Error, match=r"The ledger under .* is gone, .* `duckdb-mistral doctor --repair`"):
                rows(con, f"FROM {query}")
    told = run_forked(DOCTOR, environment_of(emulator, home))
    assert f"not ok  state      The ledger under {home} is gone" in told.stdout
    assert told.returncode == 1
    assert bool(list(home.glob("ledger*"))) == empty
    assert sorted((home / "spool").rglob("*")) == spooled
    assert emulator.witness()["requests"].get("create") == before.get("create")
    assert run_forked(REPAIR, environment_of(emulator, home)).returncode == 0
    with connect(emulator, home, max_requests_per_job=2) as con:
        make_staging(con, 4)
        assert submitted(con) == submission_id
        assert len(answered(con, submission_id)) == 4


def test_repairs_at_once(emulator: Emulator, home: Path) -> None:
    """Of two repairs at once one builds the ledger, and the other finds it built."""
    with connect(emulator, home) as con:
        for number in range(3):
            submitted(con, f"SELECT '{number}' AS custom_id, 'prompt {number}' AS prompt")
    lose_ledger(home)
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: repaired(emulator, home), range(2)))
    assert sorted(one.restored_submissions for one in done) == [0, 3]
    assert len(Ledger(Home(home)).submissions()) == 3


@pytest.mark.parametrize("ids", [(UUID(int=1), UUID(int=2)), (UUID(int=2), UUID(int=1))])
def test_cancelled_in_the_same_second(
    ids: tuple[UUID, UUID], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two submissions of the same content in one second, one that was cancelled does not stand for it."""
    monkeypatch.setattr("duckdb_mistral.batches.spools.uuid4", iter([*ids, UUID(int=3)]).__next__)
    with Emulator(tmp_path / "server", job_seconds=0.5) as server:
        with connect(server, home) as con:
            make_staging(con)
            time.sleep(1 - time.time() % 1)
            first = submitted(con)
            con.execute("FROM mistral_batch_cancel($id)", {"id": first})
            con.execute("FROM mistral_batch_wait($id)", {"id": first})
            second = submitted(con)
            assert (first, second) == tuple(map(str, ids))
            answered(con, second)
        lose_ledger(home)
        repaired(server, home)
        with connect(server, home) as con:
            make_staging(con)
            assert submitted(con) == second
        assert server.witness()["creates_received"] == 2


def test_model_without_a_job(emulator: Emulator, home: Path) -> None:
    """Of two models, the one that waited when the ledger was lost is sent by the same submit, and the other not."""
    models = "model := ['mistral-small-latest', 'ministral-3b-latest']"
    emulator.faults(CREATE | {"status": 429, "skip": 1})
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con, arguments=models)
    lose_ledger(home)
    done = repaired(emulator, home)
    assert (done.restored_jobs, done.unsent_jobs) == (1, 1)
    with connect(emulator, home) as con:
        make_staging(con)
        assert submitted(con, arguments=models) == submission_id
        found = [(row["model"], row["custom_id"], row["outcome"]) for row in answered(con, submission_id)]
        assert sorted(found) == [
            (model, str(number), "ok")
            for model in ("ministral-3b-latest", "mistral-small-latest")
            for number in range(3)
        ]
    assert emulator.witness()["jobs_stored"] == 2


def test_cancelled_parts(tmp_path: Path, home: Path) -> None:
    """A part that waited when its submission was cancelled is not sent after a repair, until it is asked for anew."""
    limits = {"max_requests_per_job": 2, "max_pending_requests": 2}
    with Emulator(tmp_path / "server", job_seconds=60) as server:
        with connect(server, home, **limits) as con:
            make_staging(con, 4)
            submission_id = submitted(con)
            con.execute("FROM mistral_batch_cancel($id)", {"id": submission_id})
            con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
        lose_ledger(home)
        assert repaired(server, home).unsent_jobs == 0
        with connect(server, home, **limits) as con:
            make_staging(con, 4)
            assert [row["status"] for row in rows(con, "FROM mistral_batch_status()")] == ["CANCELLED"] * 2
            assert submitted(con) != submission_id


def test_rows_that_share_a_request(emulator: Emulator, home: Path) -> None:
    """A submission whose rows share requests stands for its content only where it is known which rows do."""
    source = "SELECT range::VARCHAR AS custom_id, 'prompt ' || range % 2 AS prompt FROM range(5)"
    with connect(emulator, home) as con:
        submission_id = submitted(con, source, "reuse := 'requests'")
        expected = answered(con, submission_id)
        assert [row["custom_id"] for row in expected] == ["0", "1", "2", "3", "4"]
    lose_ledger(home)
    repaired(emulator, home)
    with connect(emulator, home) as con:
        assert submitted(con, source, "reuse := 'requests'") == submission_id
        assert answered(con, submission_id) == expected
    other = home.with_name("another-home")
    repaired(emulator, other)
    with connect(emulator, other) as con:
        anew = submitted(con, source, "reuse := 'requests'")
        assert anew != submission_id
        assert [row["custom_id"] for row in answered(con, anew)] == ["0", "1", "2", "3", "4"]


def test_copies_are_told_of_their_submission_alone(con: duckdb.DuckDBPyConnection) -> None:
    """The number of rows that share requests travels with the jobs of their submission, not with those of a retry."""
    source = "SELECT range::VARCHAR AS custom_id, 'prompt ' || range % 2 AS prompt FROM range(5)"
    submission_id = submitted(con, source, "reuse := 'requests', metadata := {emulate: 'FAILED 0'}")
    con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    con.execute("FROM mistral_batch_retry($id)", {"id": submission_id})
    told = {
        row["metadata"].get("duckdb_mistral_retry_of"): row["metadata"].get("duckdb_mistral_copies")
        for row in rows(con, "FROM mistral_batch_jobs()")
    }
    assert told == {None: "3", submission_id: None}


def test_retry(emulator: Emulator, home: Path) -> None:
    """What a retry has answered stands in the results of the first submission after a repair, and is not sent again."""
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con, arguments="metadata := {emulate: 'FAILED 0'}")
        con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
        con.execute("FROM mistral_batch_retry($id)", {"id": submission_id})
        expected = answered(con, submission_id)
    lose_ledger(home)
    repaired(emulator, home)
    creates = emulator.witness()["creates_received"]
    with connect(emulator, home) as con:
        assert answered(con, submission_id) == expected
        (submission, retry) = Ledger(Home(home)).submissions()
        assert (submission.submission_id, retry.retry_of) == (submission_id, submission_id)
    assert emulator.witness()["creates_received"] == creates == 2
