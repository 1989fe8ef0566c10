"""What lies under `home`: told, and freed where nothing needs it, whoever is killed and whoever else is at work."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from support import (
    answered,
    asked_for_money,
    connect,
    environment_of,
    make_staging,
    no_room,
    rows,
    run_forked,
    settings_of,
    submitted,
)

from duckdb_mistral.batches import create, download, fetch, retention, submit, upload
from duckdb_mistral.batches.context import Context
from duckdb_mistral.batches.spools import new_spool
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.errors import LedgerError, NotEndedError, UnknownJobError
from duckdb_mistral.jobs.job import now
from duckdb_mistral.maintenance.clean import DAY, Asked, clean
from duckdb_mistral.requests import spool
from duckdb_mistral.results import convert
from duckdb_mistral.runtime.failpoints import VARIABLE
from duckdb_mistral.runtime.retry_policy import Retry
from duckdb_mistral.settings import Settings
from duckdb_mistral.state import sqlite
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.inventory import Kind
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.locks import Locks

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

REUSE = "reuse := 'requests'"
KILLED = -9
CLEAN = "from duckdb_mistral.cli.commands import main; main()"
SUBMIT = """
import sys
import duckdb_mistral
con = duckdb_mistral.connect()
con.execute("CREATE TABLE staging AS SELECT range::VARCHAR AS custom_id, 'prompt ' || range AS prompt FROM range(9)")
submission_id = con.execute(f"FROM mistral_batch_submit('staging'{sys.argv[1]})").fetchall()[0][0]
con.execute("FROM mistral_batch_wait($id)", {"id": submission_id}).fetchall()
con.execute(f"FROM mistral_batch_results('{submission_id}')").fetchall()
"""


def cleaned(emulator: Emulator, home: Path, *identifiers: str, free: bool = True, days: int | None = None) -> Any:
    """Clean, and return the number of files of each kind that there is."""
    context = Context(Settings.resolve(settings_of(emulator, home)))
    found = clean(context, Asked(identifiers=identifiers, older_than_days=days), free=free)
    return {heap.kind: heap.files for heap in found}


def tree(home: Path) -> dict[str, bytes]:
    """Return the files under `home`, but for locks and what SQLite does with its own."""
    files = [path for path in home.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in files
        if path.parent.name != "locks" and not path.name.startswith("ledger.sqlite")
    }


def litter(home: Path) -> list[Path]:
    """Leave what killed processes leave, as files without a meaning; return them."""
    left = [
        home / "spool" / "0a-killed" / "part-00001.jsonl",
        home / "spool" / "0a-killed" / "part-00001.arrow",
        home / "spool" / "0a-killed-spill" / "duckdb_temp_block-1.block",
        home / "results" / "scratch-1" / "answers-0.jsonl",
        home / "results" / "scratch-1" / "spill" / "duckdb_temp_block-2.block",
        home / "results" / "scratch-retry-0b-killed" / "submitted-1.jsonl",
        home / "results" / "0c-killed.read",
        home / "results" / "0c-killed.unfinished",
        home / "results" / "found-0d-killed.parquet",
        home / "requests" / "copies-0d-killed.parquet",
        home / "requests" / "0d-killed-1.unfinished",
        home / "requests" / "tmp_0d-killed-2.unfinished",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left over")
    return left


def lose_interest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a collector do no more than keep results, as one does that is killed then."""
    monkeypatch.setattr("duckdb_mistral.batches.fetch.drop_requests", lambda *_: False)


# What is told, and what is freed


def test_nothing_is_changed_unasked(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """Without being told to free, clean changes no file, and counts each one once."""
    make_staging(con)
    answered(con, submitted(con))
    left = litter(home)
    before = tree(home)
    found = cleaned(emulator, home, free=False)
    assert tree(home) == before
    assert found[Kind.LEFTOVER] == len(left)
    assert (found[Kind.RESULTS], found[Kind.HASHES]) == (1, 1)
    assert sum(found.values()) == len([path for path in home.rglob("*") if path.is_file()])


def test_leftovers_are_freed(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """All that killed processes leave is freed, and nothing else."""
    make_staging(con)
    answered(con, submitted(con))
    before = tree(home)
    left = litter(home)
    assert cleaned(emulator, home)[Kind.LEFTOVER] == len(left)
    assert tree(home) == before
    assert not any((home / "spool").glob("*"))
    assert Kind.LEFTOVER not in cleaned(emulator, home)


def test_full_disk(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """On a disk without room, clean frees what it can."""
    make_staging(con)
    answered(con, submitted(con))
    left = litter(home)
    con.close()
    for path in home.glob("ledger.sqlite-*"):
        path.unlink()
    with no_room():
        assert cleaned(emulator, home)[Kind.LEFTOVER] == len(left)
    assert not any(path.exists() for path in left)


def test_answers_stay_and_are_not_paid_again(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """After a clean, the same submit and the same requests cost nothing, and results are read without a network."""
    with Emulator(tmp_path / "another") as server:
        con = connect(server, home)
        make_staging(con, 5)
        submission_id = submitted(con)
        first = answered(con, submission_id)
        cleaned(server, home)
        before = asked_for_money(server)
        assert submitted(con) == submission_id
        con.execute("CREATE TABLE later AS SELECT 'x' || custom_id AS custom_id, prompt FROM staging")
        later = submitted(con, "later", REUSE)
        assert len(answered(con, later)) == 5
        cleaned(server, home)
        assert asked_for_money(server) == before
    read = f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id"
    assert rows(con, read) == first
    assert len(rows(con, f"FROM mistral_batch_results('{later}')")) == 5
    con.close()


@pytest.mark.parametrize("models", ["'mistral-small-latest'", "['mistral-small-latest', 'ministral-8b-latest']"])
def test_requests_that_were_answered(
    models: str,
    con: duckdb.DuckDBPyConnection,
    emulator: Emulator,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Requests whose answers were kept by a process that was killed then are freed, and are still found again."""
    make_staging(con)
    with monkeypatch.context() as patch:
        lose_interest(patch)
        answered(con, submitted(con, arguments=f"model := {models}"))
    assert cleaned(emulator, home, free=False)[Kind.ANSWERED] == 2
    assert cleaned(emulator, home)[Kind.ANSWERED] == 2
    assert not any((home / "spool").iterdir())
    before = asked_for_money(emulator)
    con.execute("CREATE TABLE later AS SELECT 'x' || custom_id AS custom_id, prompt FROM staging")
    assert len(answered(con, submitted(con, "later", REUSE))) == 3
    assert asked_for_money(emulator) == before


def test_requests_that_are_needed(emulator: Emulator, home: Path) -> None:
    """Requests stay while a job is not created, has not ended, is not collected, or left something to retry."""
    with connect(emulator, home, max_requests_per_job=3, max_pending_requests=3) as con:
        make_staging(con, 6)
        submission_id = submitted(con)
        held = [row["status"] for row in rows(con, "FROM mistral_batch_status($id)", {"id": submission_id})]
        assert len(held) == 2
        assert cleaned(emulator, home)[Kind.NEEDED] == 4
        con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
        assert cleaned(emulator, home)[Kind.NEEDED] == 4
        assert len(answered(con, submission_id)) == 6
        con.execute("CREATE TABLE failing AS SELECT 1 AS custom_id, '[[error 500]]' AS prompt")
        failed = submitted(con, "failing")
        answered(con, failed)
        assert cleaned(emulator, home)[Kind.NEEDED] == 2
        (again,) = rows(con, "FROM mistral_batch_retry($id)", {"id": failed})
        assert again["total_requests"] == 1


def test_hashes_that_cannot_be_written(
    con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests whose hashes cannot be written down stay, and are counted as needed."""
    make_staging(con)
    with monkeypatch.context() as patch:
        lose_interest(patch)
        answered(con, submitted(con))
    monkeypatch.setattr("duckdb_mistral.batches.retention.keep_hashes", lambda *_: False)
    assert cleaned(emulator, home)[Kind.NEEDED] == 2


def test_results_that_cannot_be_read(
    con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests whose kept results are damaged stay."""
    make_staging(con)
    with monkeypatch.context() as patch:
        lose_interest(patch)
        answered(con, submitted(con))
    (results,) = (home / "results").glob("*.parquet")
    results.write_bytes(bytes(results.stat().st_size))
    assert cleaned(emulator, home)[Kind.NEEDED] == 2


# Kept results


def test_results_by_name(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """Kept results go only by name and when told to free, with the raw lines beside them, and can be fetched again."""
    make_staging(con)
    submission_id = submitted(con)
    first = answered(con, submission_id)
    con.execute("CREATE TABLE others AS SELECT 'x' || custom_id AS custom_id, prompt || '!' AS prompt FROM staging")
    others = answered(con, submitted(con, "others"))
    (job,) = rows(con, "FROM mistral_batch_status($id)", {"id": submission_id})
    for number in range(2):
        (home / "results" / f"{job['job_id']}.lines-{number}.jsonl").write_bytes(b"{}")
    assert cleaned(emulator, home)[Kind.RESULTS] == 4
    before = tree(home)
    assert cleaned(emulator, home, submission_id, free=False)[Kind.ASKED] == 3
    assert tree(home) == before
    found = cleaned(emulator, home, submission_id)
    assert (found[Kind.ASKED], found[Kind.RESULTS]) == (3, 1)
    assert not list((home / "results").glob(f"*{job['job_id']}*"))
    money = asked_for_money(emulator)
    assert answered(con, submission_id) == first
    assert cleaned(emulator, home, job["job_id"])[Kind.ASKED] == 1
    assert submitted(con) == submission_id
    assert asked_for_money(emulator) == money
    assert rows(con, "FROM mistral_batch_results() WHERE custom_id LIKE 'x%' ORDER BY custom_id") == others


def test_partial_results(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """Partial results stay until the whole ones are kept, which another machine may do; then they are freed."""
    make_staging(con)
    emulator.faults({"method": "GET", "path": "/v1/files/[^/]+/content", "status": 503, "times": 999})
    submission_id = submitted(con)
    (job,) = rows(con, "FROM mistral_batch_wait($id)", {"id": submission_id})
    assert len(rows(con, "FROM mistral_batch_results($id, partial := true)", {"id": submission_id})) == 3
    partial = home / "results" / f"partial-{job['job_id']}.parquet"
    content = partial.read_bytes()
    assert cleaned(emulator, home)[Kind.RESULTS] == 1
    emulator.faults()
    first = answered(con, submission_id)
    partial.write_bytes(content)  # as on the disk of a machine that did not keep the whole ones
    assert cleaned(emulator, home, free=False)[Kind.REPLACED] == 1
    assert cleaned(emulator, home)[Kind.REPLACED] == 1
    assert not partial.exists()
    assert answered(con, submission_id) == first


def test_results_by_age(
    con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By age go the results of submissions, and of other programs' jobs, that were made so many days ago and ended."""
    make_staging(con)
    submission_id = submitted(con)
    answered(con, submission_id)
    (job,) = rows(con, "FROM mistral_batch_status($id)", {"id": submission_id})
    with connect(emulator, home.parent / "another") as other:
        answered(other, job["job_id"])
        assert cleaned(emulator, home.parent / "another", days=1).get(Kind.ASKED) is None
        later = now() + 3 * DAY
        monkeypatch.setattr("duckdb_mistral.maintenance.clean.now", lambda: later)
        assert Kind.ASKED not in cleaned(emulator, home, days=4)
        assert cleaned(emulator, home, days=2)[Kind.ASKED] == 1
        assert cleaned(emulator, home.parent / "another", days=2)[Kind.ASKED] == 1


def test_what_was_reused_stays(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """What a submission found answered lies nowhere else at the server, so it stays even where all is asked for."""
    make_staging(con)
    answered(con, submitted(con))
    con.execute("CREATE TABLE later AS SELECT 'x' || custom_id AS custom_id, prompt FROM staging")
    later = submitted(con, "later", REUSE)
    found = answered(con, later)
    assert cleaned(emulator, home, later, days=0)[Kind.RESULTS] == 1
    assert answered(con, later) == found


def test_results_of_what_has_not_ended(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """Results of a submission that goes on cannot be asked for by name, and by age they stay."""
    with Emulator(tmp_path / "slow", job_seconds=1000) as slow, connect(slow, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        with pytest.raises(NotEndedError, match=r"once it has ended. Nothing was removed"):
            cleaned(slow, home, submission_id)
        assert cleaned(slow, home, days=0)[Kind.NEEDED] == 2


@pytest.mark.parametrize("identifier", ["nonsense", "3f2a9c1e-0000-4000-8000-000000000000"])
def test_unknown_name(identifier: str, con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """Results of what the ledger does not know cannot be asked for, and the server is not asked either."""
    make_staging(con)
    answered(con, submitted(con))
    before = emulator.witness()["requests"]
    with pytest.raises(UnknownJobError, match=f"no submission or job {identifier} in the ledger"):
        cleaned(emulator, home, identifier)
    with pytest.raises(UnknownJobError, match=f"no submission or job {identifier} in the ledger"):
        cleaned(emulator, home.parent / "absent", identifier)
    assert emulator.witness()["requests"] == before


# At the same time


def clean_at_every_step(monkeypatch: pytest.MonkeyPatch, emulator: Emulator, home: Path) -> list[dict[Kind, int]]:
    """Let another process's clean run at each step of this one's work; return what it finds each time."""
    found: list[dict[Kind, int]] = []
    within = False

    def step(name: str, *, writes: bool = False) -> None:
        nonlocal within
        if not within and name != "before-free":
            within = True
            try:
                found.append(cleaned(emulator, home, days=0))
            finally:
                within = False

    for module in (spool, submit, upload, create, sqlite, download, fetch, retention):
        monkeypatch.setattr(module, "failpoint", step)
    return found


@pytest.mark.parametrize("arguments", ["", REUSE])
def test_submit_in_flight(
    arguments: str,
    con: duckdb.DuckDBPyConnection,
    emulator: Emulator,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clean at every step of a submit and its results frees nothing of them, and all ends as without it."""
    make_staging(con, 4)
    if arguments:
        answered(con, submitted(con))
        con.execute("INSERT INTO staging SELECT 'x' || range, 'prompt ' || range // 2 FROM range(20)")
    else:
        Ledger(Home(home))  # while its tables are being made, nothing but wait can be done
    before = tree(home)
    wanted = con.execute("SELECT count(*) FROM staging").fetchall()[0][0]
    with monkeypatch.context() as patch:
        found = clean_at_every_step(patch, emulator, home)
        submission_id = submitted(con, arguments=arguments)
        con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
        submitting_steps = len(found)
        results = rows(con, f"FROM mistral_batch_results('{submission_id}')")
    assert submitting_steps > 8
    assert len(found) > submitting_steps
    assert any(Kind.BUSY in kinds for kinds in found)
    assert not any(Kind.LEFTOVER in kinds or Kind.ANSWERED in kinds for kinds in found)
    assert {row["outcome"] for row in results} == {"ok"}
    assert len(results) == wanted
    assert before.keys() - tree(home).keys() == {name for name in before if name.startswith("results/") and arguments}
    assert submitted(con, arguments=arguments) == submission_id
    assert emulator.witness()["creates_received"] == (2 if arguments else 1)


@pytest.mark.newest
def test_clean_of_another_process(
    con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command of another process passes over what is being spooled, recorded, sent and collected."""
    said = []

    def step(name: str, *, writes: bool = False) -> None:
        if name in ("before-spool-write", "after-spool", "before-create", "before-keep"):
            child = run_forked(CLEAN, environment_of(emulator, home), "clean", "--yes")
            said.append((name, child.stderr))

    make_staging(con)
    with monkeypatch.context() as patch:
        for module in (spool, submit, upload, create, download, fetch, retention):
            patch.setattr(module, "failpoint", step)
        assert len(answered(con, submitted(con))) == 3
    assert [name for name, _ in said] == ["before-spool-write", "after-spool", "before-create", "before-keep"]
    assert {sentence for _, sentence in said} == {f"There was nothing to free under {home}.\n"}


def test_retry_in_flight(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path, monkeypatch: Any) -> None:
    """A clean at every step of a retry, whose requests come from the server, frees nothing of it."""
    con.execute("CREATE TABLE failing AS SELECT range AS custom_id, '[[error 500]]' AS prompt FROM range(3)")
    submission_id = submitted(con, "failing")
    answered(con, submission_id)
    shutil.rmtree(home / "spool")
    with monkeypatch.context() as patch:
        found = clean_at_every_step(patch, emulator, home)
        (again,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert again["total_requests"] == 3
    assert any(kinds.get(Kind.BUSY, 0) >= 2 for kinds in found)
    assert not any(Kind.LEFTOVER in kinds for kinds in found)


def test_another_submit_in_flight(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """What another submit spills stays when this one removes what killed ones have left."""
    open_spool = new_spool(Context(Settings.resolve(settings_of(emulator, home))))
    spilled = [home / "spool" / f"{name}-spill" / "block" for name in (open_spool.directory.name, "0a-killed")]
    for path in spilled:
        path.parent.mkdir()
        path.touch()
    make_staging(con)
    submitted(con)
    assert [path.exists() for path in spilled] == [True, False]
    assert cleaned(emulator, home)[Kind.BUSY] == 1
    open_spool.discard()
    assert cleaned(emulator, home)[Kind.LEFTOVER] == 1
    assert not spilled[0].exists()


def test_collected_by_another(
    con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a job's results are being collected, its requests, its results and its scratch are passed over."""
    make_staging(con)
    submission_id = submitted(con)
    with monkeypatch.context() as patch:
        lose_interest(patch)
        answered(con, submission_id)
    (job,) = Ledger(Home(home)).jobs()
    (home / "results" / f"scratch-{job.key}").mkdir()
    (home / "results" / f"scratch-{job.key}" / "answers-0.jsonl").touch()
    (home / "results" / f"{job.job_id}.read").touch()
    (home / "requests").mkdir()
    (home / "requests" / f"{submission_id}-1.unfinished").touch()
    before = tree(home)
    with Locks(Home(home), Retry()).waiting(f"results-{job.key}"):
        found = cleaned(emulator, home, submission_id)
    assert tree(home) == before
    assert (found[Kind.BUSY], found[Kind.NEEDED]) == (4, 2)
    found = cleaned(emulator, home, submission_id)
    assert (found[Kind.ANSWERED], found[Kind.ASKED]) == (2, 1)
    assert list(tree(home)) == [f"requests/{submission_id}-1.parquet"]


# Killed


#: With reuse, the second write is that of the requests that are sent.
STEPS = {
    "": ("before-spool-write", "after-spool", "after-create", "before-download", "after-keep", "before-drop"),
    f", {REUSE}": ("before-spool-write:2", "after-spool", "after-intent", "before-drop"),
}


@pytest.mark.newest
@pytest.mark.parametrize(("arguments", "step"), [(key, step) for key, steps in STEPS.items() for step in steps])
def test_killed_submit(
    step: str, arguments: str, con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path
) -> None:
    """Where a process was killed, a clean frees what it left, and the same statements go on and pay once."""
    con.execute(
        "CREATE TABLE staging AS SELECT range::VARCHAR AS custom_id, 'prompt ' || range AS prompt FROM range(3)"
    )
    answered(con, submitted(con, arguments=REUSE))
    child = run_forked(SUBMIT, environment_of(emulator, home) | {VARIABLE: step}, arguments)
    assert child.returncode == KILLED, child.stderr
    cleaned(emulator, home)
    known = {submission.submission_id for submission in Ledger(Home(home)).submissions()}
    assert {path.name for path in (home / "spool").iterdir()} <= known
    assert not any(path.is_dir() for path in (home / "results").iterdir())
    assert Kind.LEFTOVER not in cleaned(emulator, home)
    child = run_forked(SUBMIT, environment_of(emulator, home), arguments)
    assert child.returncode == 0, child.stderr
    assert emulator.witness()["rows_accepted"] == 3 + (6 if arguments else 9)
    assert emulator.witness()["creates_received"] == 2
    cleaned(emulator, home)
    left = {name.partition("/")[0] for name in tree(home)}
    assert left == {"results", "requests"}
    assert not any(path.is_dir() for path in (home / "results").iterdir())
    assert len(rows(con, "FROM mistral_batch_results()")) == 12


@pytest.mark.newest
def test_killed_clean(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clean that is killed at any step is finished by the next one, and no answer is lost."""
    monkeypatch.setattr(convert, "LARGE_BYTES", 0)  # so that two files are the results
    with connect(emulator, home) as con, monkeypatch.context() as patch:
        lose_interest(patch)
        make_staging(con)
        submission_id = submitted(con)
        first = answered(con, submission_id)
    litter(home)
    statuses = []
    for step in ("before-drop:1", "before-drop:2", *(f"before-free:{number}" for number in range(1, 4))):
        arguments = ("clean", "--yes", "--results", submission_id)
        child = run_forked(CLEAN, environment_of(emulator, home) | {VARIABLE: step}, *arguments)
        statuses.append(child.returncode)
        assert child.returncode in (0, KILLED), child.stderr
        with connect(emulator, home) as con:
            assert answered(con, submission_id) == first
            assert submitted_again(con) == submission_id
    assert statuses.count(KILLED) >= 4
    found = cleaned(emulator, home)
    assert found.keys() == {Kind.RESULTS, Kind.HASHES, Kind.LEDGER, Kind.LOCKS, Kind.LEFTOVER}
    assert emulator.witness()["creates_received"] == 1


def submitted_again(con: duckdb.DuckDBPyConnection) -> str:
    """Submit the usual rows on a new connection."""
    make_staging(con)
    return submitted(con)


# The ledger, and a home that cannot be used


def test_damaged_ledger(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """With a damaged ledger nothing is removed, and the sentence says so."""
    make_staging(con)
    answered(con, submitted(con))
    litter(home)
    con.close()
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (home / name).unlink(missing_ok=True)
    (home / "ledger.sqlite").write_bytes(b"not a ledger".ljust(8192))
    before = tree(home)
    with pytest.raises(LedgerError, match=r"is damaged .* Nothing was removed"):
        cleaned(emulator, home)
    assert tree(home) == before


def test_lost_ledger(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """Without a ledger nothing is removed, and none is made."""
    make_staging(con)
    answered(con, submitted(con))
    litter(home)
    con.close()
    for path in home.glob("ledger.sqlite*"):
        path.unlink()
    before = tree(home)
    with pytest.raises(LedgerError, match=r"There is no ledger under .* nothing was removed"):
        cleaned(emulator, home)
    assert tree(home) == before
    assert not list(home.glob("ledger*"))


@pytest.mark.parametrize("aside", [True, False])
def test_ledger_that_may_have_forgotten(
    aside: bool, con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path
) -> None:
    """What unknown submissions reused, and unknown results, stay where another ledger may have known them."""
    make_staging(con)
    answered(con, submitted(con))
    if aside:
        (home / "damaged-20260101-000000").mkdir()
        (home / "damaged-20260101-000000" / "ledger.sqlite").touch()
    else:
        (home / "results" / "3f2a9c1e-0000-4000-8000-000000000000.parquet").touch()
    litter(home)
    found = cleaned(emulator, home, days=0)
    assert found[Kind.STRANGE] == (2 if aside else 3)
    assert found.get(Kind.ASIDE) == (1 if aside else None)
    assert (home / "results" / "found-0d-killed.parquet").exists()
    assert (home / "requests" / "copies-0d-killed.parquet").exists()
    assert found[Kind.LEFTOVER] == 10


def test_no_home(emulator: Emulator, home: Path) -> None:
    """A home that does not exist holds nothing, and is not made."""
    assert cleaned(emulator, home) == {}
    assert not home.exists()


def test_other_files_stay(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """Files and directories that are not of this package are counted as such and stay."""
    make_staging(con)
    answered(con, submitted(con))
    others = [home / "prices.json", home / "mine" / "a.txt", home / "spool" / "note", home / "results" / "mine" / "b"]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert cleaned(emulator, home, days=0)[Kind.OTHER] == 4
    assert all(path.exists() for path in others)


def test_files_that_cannot_be_removed(
    con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that may not be written is told in a sentence that names it."""
    make_staging(con)
    answered(con, submitted(con))
    litter(home)

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(LedgerError, match=r"0a-killed\S* could not be read or removed \(Permission denied\)"):
        cleaned(emulator, home)
