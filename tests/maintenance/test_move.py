"""Moving in with a team and out again: the same statements send nothing and read all answers, whatever was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from postgres import is_there, shared_server
from submissions import added
from support import (
    answered,
    asked_for_money,
    connect,
    environment_of,
    make_staging,
    rows,
    run_forked,
    settings_of,
    submitted,
)

from duckdb_mistral.batches.context import Context
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.errors import LedgerError, SettingError, StoreError
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.maintenance.move import Moved, move_home, move_to_team
from duckdb_mistral.results import convert
from duckdb_mistral.runtime.failpoints import VARIABLE
from duckdb_mistral.settings import Settings
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not is_there(), reason="no PostgreSQL is installed here")

KILLED = -9
#: The loop is cut into strides, so that workers share it.
STRIDES = range(3)
MOVE = """
from duckdb_mistral.cli.commands import main
main()
"""


@pytest.fixture
def team(tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a team: a ledger and a store of their own."""
    (tmp_path / "store").mkdir()
    return {"ledger": shared_server().new_url(), "store": f"file://{tmp_path / 'store'}"}


def context_of(emulator: Emulator, home: Path, **others: Any) -> Context:
    """Return the context of a home."""
    return Context(Settings.resolve(settings_of(emulator, home, **others)))


def moved(emulator: Emulator, home: Path, target: str, **others: Any) -> Moved:
    """Move to the team, or home."""
    with closing(context_of(emulator, home, **others)) as context:
        return move_to_team(context) if target == "team" else move_home(context)


def fill(emulator: Emulator, home: Path) -> dict[str, list[dict[str, Any]]]:
    """Submit a chat with repeated rows, and then the same rows and more, under `home`; return their answers by id."""
    with connect(emulator, home) as con:
        con.execute("CREATE TABLE staging AS SELECT range AS custom_id, 'p' || range % 2 AS prompt FROM range(4)")
        first = submitted(con, arguments="reuse := 'requests'")
        found = {first: answered(con, first)}
        con.execute("INSERT INTO staging SELECT range, 'q' || range FROM range(4, 7)")
        second = submitted(con, arguments="reuse := 'requests'")
        return found | {second: answered(con, second)}


def submit_again(emulator: Emulator, home: Path, count: int = 7, **others: Any) -> str:
    """Run the last statement of `fill` once more; return the submission that it names."""
    with connect(emulator, home, **others) as con:
        con.execute(
            "CREATE TABLE staging AS SELECT range AS custom_id, "
            f"if(range < 4, 'p' || range % 2, 'q' || range) AS prompt FROM range({count})"
        )
        return submitted(con, arguments="reuse := 'requests'")


def read(emulator: Emulator, home: Path, found: dict[str, list[dict[str, Any]]], **others: Any) -> dict[str, Any]:
    """Return the answers of submissions, read once more."""
    with connect(emulator, home, **others) as con:
        return {one: rows(con, f"FROM mistral_batch_results('{one}') ORDER BY custom_id") for one in found}


def dump(address: str | None, home: Path) -> tuple[list[Any], list[Any]]:
    """Return the submissions and jobs of a ledger."""
    ledger = Ledger(Home(home), address)
    with closing(ledger.database):
        return ledger.submissions(), [job.evolve(key=0) for job in ledger.jobs()]


def command(emulator: Emulator, home: Path, target: str, team: dict[str, Any], failpoint: str = "") -> tuple[int, str]:
    """Run the command in a process of its own; return its exit status and what it said."""
    told = {f"DUCKDB_MISTRAL_{name.upper()}": value for name, value in team.items()}
    environment = environment_of(emulator, home) | told | {VARIABLE: failpoint}
    child = run_forked(MOVE, environment, "move", "--to", target)
    return child.returncode, child.stdout + child.stderr


def test_there_and_back(emulator: Emulator, home: Path, team: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way the same statement sends nothing and all answers are read as before, from an empty home too."""
    monkeypatch.setattr(convert, "LARGE_BYTES", 1)
    found = fill(emulator, home)
    last = [*found][-1]
    before = dump(None, home)
    paid = asked_for_money(emulator)
    done = moved(emulator, home, "team", **team)
    assert done.rows is not None
    assert (done.rows.submissions, done.rows.jobs, done.rows.known_submissions) == (2, 3, 0)
    assert done.files.files >= 7  # results with their lines, found rows, shared rows, hashes
    assert done.files.there == done.files.lost == 0
    assert done.files.size == sum(path.stat().st_size for path in home.parent.joinpath("store").rglob("*.*"))
    assert dump(team["ledger"], home) == before
    downloads = emulator.witness()["requests"]["download"]
    empty = home.with_name("empty")
    for each in (home, empty):
        assert submit_again(emulator, each, **team) == last
        assert read(emulator, each, found, **team) == found
    assert emulator.witness()["requests"]["download"] == downloads

    shutil.rmtree(empty)
    for back in (empty, home):
        done = moved(emulator, back, "home", **team)
        assert done.rows is not None
        assert done.rows.submissions == (2 if back == empty else 0)
        assert done.rows.completed_jobs == done.files.lost == 0
        assert dump(None, back) == before
    home.parent.joinpath("store").rename(home.with_name("away"))
    for back in (empty, home):
        assert submit_again(emulator, back) == last
        assert read(emulator, back, found) == found
    assert emulator.witness()["requests"]["download"] == downloads
    assert asked_for_money(emulator) == paid
    # Answers are still found by their requests.
    submit_again(emulator, empty, 8)
    assert emulator.witness()["rows_accepted"] == 6


def test_again_moves_nothing(emulator: Emulator, home: Path, team: dict[str, Any]) -> None:
    """A second move finds all of it there, and changes nothing."""
    fill(emulator, home)
    first = moved(emulator, home, "team", **team)
    before = dump(team["ledger"], home)
    again = moved(emulator, home, "team", **team)
    assert again.rows is not None
    assert (again.rows.submissions, again.rows.jobs, again.rows.completed_jobs) == (0, 0, 0)
    assert again.rows.known_submissions == 2
    assert (again.files.files, again.files.there) == (0, first.files.files)
    assert dump(team["ledger"], home) == before


def test_ledger_alone(emulator: Emulator, home: Path, team: dict[str, Any]) -> None:
    """With a ledger alone its own home reads what it kept, another one downloads it, and a store can follow."""
    found = fill(emulator, home)
    del found[[*found][-1]]  # whose rows that were answered before only its own home has
    paid = asked_for_money(emulator)
    done = moved(emulator, home, "team", ledger=team["ledger"])
    assert done.files.files == 0
    downloads = emulator.witness()["requests"]["download"]
    assert read(emulator, home, found, ledger=team["ledger"]) == found
    assert emulator.witness()["requests"]["download"] == downloads
    moved(emulator, home, "team", **team)
    assert read(emulator, home.with_name("empty"), found, **team) == found
    assert emulator.witness()["requests"]["download"] == downloads
    assert asked_for_money(emulator) == paid
    with closing(context_of(emulator, home, **team)) as context:
        assert all(job.results_bytes for job in context.ledger.jobs())


def test_store_alone(emulator: Emulator, home: Path, team: dict[str, Any]) -> None:
    """With a store alone the ledger stays in use, and home gets back from there what it has lost."""
    found = fill(emulator, home)
    store = {"store": team["store"]}
    done = moved(emulator, home, "team", **store)
    assert done.rows is None
    assert done.files.files >= 5
    shutil.rmtree(home / "results")
    shutil.rmtree(home / "requests")
    downloads = emulator.witness()["requests"]["download"]
    back = moved(emulator, home, "home", **store)
    assert back.files.files == done.files.files
    assert read(emulator, home, found) == found
    assert emulator.witness()["requests"]["download"] == downloads


def test_neither(emulator: Emulator, home: Path) -> None:
    """Without the settings of a team there is nothing to move to or from, and no home is made."""
    for target in ("team", "home"):
        with pytest.raises(SettingError, match="Neither DUCKDB_MISTRAL_LEDGER nor DUCKDB_MISTRAL_STORE is set"):
            moved(emulator, home, target)
    assert not home.exists()


def test_nothing_to_move(emulator: Emulator, home: Path, team: dict[str, Any]) -> None:
    """A home without a ledger has no rows to move, and gets none by that."""
    assert moved(emulator, home, "team", **team).rows is None
    assert not (home / "ledger.sqlite").exists()


def test_stamped_ledger(emulator: Emulator, home: Path, team: dict[str, Any]) -> None:
    """A ledger that was moved refuses, also a connection that was open before; back home it is used again."""
    with connect(emulator, home) as open_before:
        make_staging(open_before)
        submission_id = submitted(open_before)
        moved(emulator, home, "team", **team)
        paid = asked_for_money(emulator)
        with connect(emulator, home) as con:
            make_staging(con, 4)
            told = rf"The ledger under {home} was moved to the ledger at 127\.0\.0\.1.* Set DUCKDB_MISTRAL_LEDGER"
            with pytest.raises(duckdb.Error, match=told):
                submitted(con)
        make_staging(open_before, 5, "more")
        with pytest.raises(duckdb.Error, match="was moved to the ledger"):
            submitted(open_before, "more")
        assert asked_for_money(emulator) == paid
        moved(emulator, home, "home", **team)
        assert submitted(open_before) == submission_id
        submitted(open_before, "more")
    assert asked_for_money(emulator) == (paid[0] + 1, paid[1] + 1)


def test_older_version(emulator: Emulator, home: Path, team: dict[str, Any]) -> None:
    """A program that knows nothing of the stamp cannot write into the ledger, and reads why."""
    fill(emulator, home)
    moved(emulator, home, "team", **team)
    with closing(sqlite3.connect(home / "ledger.sqlite")) as plain:
        for statement in (
            "UPDATE jobs SET step = 'sending'",
            "DELETE FROM parts",
            "INSERT INTO parts SELECT submission_id, 9, 1, 1, NULL, NULL FROM submissions LIMIT 1",
            "UPDATE submissions SET live = 0",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="was moved to the ledger at"):
                plain.execute(statement)


@pytest.mark.parametrize("target", ["team", "home"])
def test_job_on_its_way(target: str, emulator: Emulator, home: Path, team: dict[str, Any]) -> None:
    """While a job may be on its way nothing is moved either way, and both ledgers stay in use."""
    address = None if target == "team" else team["ledger"]
    ledger = Ledger(Home(home), address)
    with closing(ledger.database):
        added(ledger)
        job, *_ = ledger.jobs()
        assert ledger.move(job, Step.SENDING)
        with pytest.raises(LedgerError, match=r"may be on its way .* run `duckdb-mistral status` until"):
            moved(emulator, home, target, **team)
        ledger.hold("", "it can still be written")
    other = dump(team["ledger"] if target == "team" else None, home)
    assert other == ([], [])


def test_another_ledger(emulator: Emulator, home: Path, team: dict[str, Any]) -> None:
    """A ledger that was moved to one database is moved neither to nor from another one."""
    fill(emulator, home)
    moved(emulator, home, "team", **team)
    other = team | {"ledger": shared_server().new_url()}
    for target in ("team", "home"):
        with pytest.raises(LedgerError, match="is another one, so nothing was moved"):
            moved(emulator, home, target, **other)
    assert dump(other["ledger"], home) == ([], [])


def test_servers_that_are_down(emulator: Emulator, home: Path, team: dict[str, Any]) -> None:
    """Where the database or the store cannot be used a sentence says so, and the ledger stays as it was."""
    fill(emulator, home)
    before = dump(None, home)
    with pytest.raises(LedgerError, match=r"127\.0\.0\.1:9/team cannot be reached") as refused:
        moved(emulator, home, "team", **team | {"ledger": "postgresql://me:canary-password@127.0.0.1:9/team"})
    assert "canary" not in str(refused.value)
    with pytest.raises(StoreError, match="could not be listed"):
        moved(emulator, home, "team", **team | {"store": f"file://{home.with_name('nowhere')}"})
    assert dump(None, home) == before


def test_home_that_cannot_be_written(emulator: Emulator, home: Path, team: dict[str, Any]) -> None:
    """Where home cannot be written a sentence says so, and the same command moves all of it later."""
    fill(emulator, home)
    locks = home / "locks"
    shutil.rmtree(locks)
    locks.touch()
    with pytest.raises(LedgerError, match="cannot be written"):
        moved(emulator, home, "team", **team)
    locks.unlink()
    done = moved(emulator, home, "team", **team)
    assert done.rows is not None
    assert done.rows.submissions == 2


def test_home_that_is_read_only(
    emulator: Emulator, home: Path, team: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From and to a home that can only be read, nothing is moved, as a sentence says."""
    fill(emulator, home)
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    for target in ("team", "home"):
        with pytest.raises(LedgerError, match=f"The state directory {home} is read-only for this user"):
            moved(emulator, home, target, **team)
    monkeypatch.undo()
    assert dump(team["ledger"], home) == ([], [])
    assert len(dump(None, home)[0]) == 2


def test_requests_that_were_not_sent(emulator: Emulator, home: Path, team: dict[str, Any]) -> None:
    """What was recorded and not sent is sent once from the team's ledger, by the same statement of another home."""
    limits = {"max_requests_per_job": 2, "max_pending_requests": 2}
    with connect(emulator, home, **limits) as con:
        make_staging(con, 4)
        submission_id = submitted(con)
        assert {row["status"] for row in rows(con, "FROM mistral_batch_status()")} >= {"HELD"}
    moved(emulator, home, "team", **team)
    empty = home.with_name("empty")
    with connect(emulator, empty, max_requests_per_job=2, **team) as con:
        make_staging(con, 4)
        assert submitted(con) == submission_id
        assert {row["outcome"] for row in answered(con, submission_id)} == {"ok"}
    assert emulator.witness()["rows_accepted"] == 4
    moved(emulator, home, "home", **team)
    with connect(emulator, home, max_requests_per_job=2) as con:
        make_staging(con, 4)
        assert submitted(con) == submission_id
        assert len(answered(con, submission_id)) == 4
    assert emulator.witness()["rows_accepted"] == 4


def test_forgotten_by_another_home(emulator: Emulator, home: Path, team: dict[str, Any]) -> None:
    """Requests that another home has forgotten do not make a ledger that comes home count as older than them."""
    last = [*fill(emulator, home)][-1]
    moved(emulator, home, "team", **team)
    ledger = Ledger(Home(home), team["ledger"])
    with closing(ledger.database):
        submission = added(ledger)
        spool = home / "spool" / submission.submission_id
        spool.mkdir()
        (spool / "recorded.json").touch()
        assert ledger.forget(submission.submission_id)
    moved(emulator, home, "home", **team)
    assert submit_again(emulator, home) == last


@pytest.mark.newest
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("target", ["team", "home"])
def test_killed_at_every_step(
    target: str, stride: int, tmp_path: Path, team: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """A move that is killed at its Nth step is completed by the next one, for every N, and nothing is paid again."""
    with Emulator(tmp_path / "server") as emulator:
        origin = tmp_path / "origin"
        found = fill(emulator, origin)
        last = [*found][-1]
        paid = asked_for_money(emulator)
        every = request.config.getoption("--every")
        number, status = (stride + 1 - len(STRIDES)) * every, KILLED
        while status == KILLED:
            number += len(STRIDES) * every
            home, store = tmp_path / f"home-{number}", tmp_path / f"store-{number}"
            shutil.copytree(origin, home)
            store.mkdir()
            to = team | {"ledger": shared_server().new_url(), "store": f"file://{store}"}
            if target == "home":
                assert command(emulator, home, "team", to)[0] == 0
                home = tmp_path / f"back-{number}"
            status, said = command(emulator, home, target, to, f"*:{number}")
            assert status in (0, KILLED), said
            # Before it is completed, a statement with either settings is answered or refused.
            for settings in ({}, to) if target == "team" else ():
                with contextlib.suppress(duckdb.Error):
                    assert submit_again(emulator, home, **settings) == last
            assert command(emulator, home, target, to)[0] == 0
            settings = to if target == "team" else {}
            assert submit_again(emulator, home, **settings) == last
            assert read(emulator, home, found, **settings) == found
            assert asked_for_money(emulator) == paid
        assert number > 12


@pytest.mark.parametrize(("target", "numbers"), [("team", (1, 5, 9)), ("home", (1, 3))])
def test_full_disk(target: str, numbers: tuple[int, ...], emulator: Emulator, home: Path, team: dict[str, Any]) -> None:
    """Where the disk is full from some step on a sentence says so, and the same command does the rest later."""
    found = fill(emulator, home)
    if target == "home":
        assert command(emulator, home, "team", team)[0] == 0
        home = home.with_name("back")
    for number in numbers:
        status, said = command(emulator, home, target, team, f"full:*:{number}")
        assert status == 1, said
        assert "No space left on device" in said
        assert "Traceback" not in said
    assert command(emulator, home, target, team)[0] == 0
    paid = asked_for_money(emulator)
    assert read(emulator, home, found, **team if target == "team" else {}) == found
    assert asked_for_money(emulator) == paid
