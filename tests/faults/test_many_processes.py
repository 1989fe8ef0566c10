"""Several processes, threads and accounts on one ledger."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from faults.harness import Story, check_invariants
from support import KEY, clean_environment, connect, environment_of, make_staging, rows, submitted

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

SUBMIT = """
import sys, time, pathlib
import duckdb_mistral
con = duckdb_mistral.connect()
con.execute("CREATE TABLE staging AS SELECT range AS custom_id, 'prompt ' || range AS prompt FROM range(10000)")
print("ready", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
print("", con.execute("SELECT job_id FROM mistral_batch_submit('staging')").fetchall()[0][0])
"""


def submitted_at_once(start: Path, environments: list[dict[str, str]]) -> set[str]:
    """Submit the same rows in as many processes, at the moment at which `start` is made; return all jobs."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", SUBMIT, str(start)],
            env=clean_environment() | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for environment in environments
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    start.touch()
    return {child.communicate(timeout=120)[0].split()[-1] for child in children}


@pytest.mark.fault("F14")
def test_four_processes_submit_the_same(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """Four processes that submit the same ten thousand rows at once get one and the same job."""
    said = submitted_at_once(tmp_path / "start", [environment_of(emulator, home)] * 4)
    assert len(said) == 1
    assert said != {""}
    witness = emulator.witness()
    assert (witness["jobs_stored"], witness["uploads_stored"], witness["creates_received"]) == (1, 1, 1)
    assert witness["rows_accepted"] == 10_000


@pytest.mark.fault("F11")
def test_threads_submit_the_same(emulator: Emulator, home: Path) -> None:
    """Threads with a cursor each that submit the same rows get one and the same job."""
    import duckdb_mistral

    with connect(emulator, home) as con:
        make_staging(con, 100)
        found: list[Any] = []

        def submit() -> None:
            with con.cursor() as cursor:
                duckdb_mistral.register(cursor)
                found.append(submitted(cursor))

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert len(set(found)) == 1
    assert emulator.witness()["creates_received"] == 1


@pytest.mark.fault("F16")
def test_another_account(tmp_path: Path, home: Path) -> None:
    """Another workspace's key is told that the submission is not its own, and pays for nothing unless forced."""
    with Emulator(tmp_path / "server", separate_workspaces=True) as emulator:
        with connect(emulator, home) as con:
            make_staging(con)
            submission_id = submitted(con)
        with connect(emulator, home, api_key="another-key") as con:
            make_staging(con)
            with pytest.raises(duckdb.Error, match=r"with another API key .* Nothing was sent\.") as raised:
                submitted(con)
            assert KEY not in str(raised.value)
            assert emulator.witness()["creates_received"] == 1
            assert submitted(con, arguments="force := true") != submission_id
            assert emulator.witness()["creates_received"] == 2


@pytest.mark.fault("F16")
def test_another_key_of_the_same_workspace(emulator: Emulator, home: Path) -> None:
    """A new key of the same workspace goes on with what the old one submitted."""
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con)
    with connect(emulator, home, api_key="a-new-key") as con:
        make_staging(con)
        assert submitted(con) == submission_id
    assert emulator.witness()["creates_received"] == 1


@pytest.mark.fault("F15")
def test_changed_table(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A table that has changed is another submission, and the old one stays listed."""
    make_staging(con)
    first = submitted(con)
    con.execute("UPDATE staging SET prompt = 'changed' WHERE custom_id = '1'")
    second = submitted(con)
    assert first != second
    listed = [row["submission_id"] for row in rows(con, "FROM mistral_batch_status()")]
    assert listed == [first, second]


@pytest.mark.newest
@pytest.mark.fault("F18")
def test_parts_under_a_pending_limit(tmp_path: Path, home: Path) -> None:
    """A thousand rows in parts of fifty under a limit of a hundred all come back, and never more were pending."""
    with Emulator(tmp_path / "server", job_seconds=0.5, max_pending_requests=100) as emulator:
        story = Story(
            emulator, home, row_count=1_000, settings={"max_requests_per_job": 50, "max_pending_requests": 100}
        )
        first = story.submit()
        assert len(first) == 20
        assert "HELD" in {row["status"] for row in first}
        story.wait()
        found = story.results()
        assert {row["outcome"] for row in found} == {"ok"}
        witness = emulator.witness()
        assert witness["peak_pending_requests"] <= 100
        assert witness["creates_received"] == 20
        check_invariants(story, jobs=20)
        story.close()


def test_pending_limit_of_the_server(tmp_path: Path, home: Path) -> None:
    """Where the server's limit is lower than ours, refused parts wait, and all come back."""
    with Emulator(tmp_path / "server", job_seconds=0.1, max_pending_requests=40) as emulator:
        story = Story(emulator, home, row_count=100, settings={"max_requests_per_job": 20})
        story.go_on()
        assert emulator.witness()["peak_pending_requests"] <= 40
        check_invariants(story, jobs=5)
        story.close()


def test_two_processes_wait_and_pump(tmp_path: Path, home: Path) -> None:
    """Several waiters on one submission with held parts create each part once."""
    with Emulator(tmp_path / "server", job_seconds=0.1, max_pending_requests=40) as emulator:
        limits = {"max_requests_per_job": 20, "max_pending_requests": 40}
        story = Story(emulator, home, row_count=200, settings=limits)
        (submission_id,) = {row["submission_id"] for row in story.submit()}
        environment = clean_environment() | environment_of(emulator, home)
        environment |= {f"DUCKDB_MISTRAL_{name.upper()}": str(value) for name, value in limits.items()}
        wait = f"""
import duckdb_mistral
duckdb_mistral.connect().execute("FROM mistral_batch_wait('{submission_id}', timeout_seconds := 60)").fetchall()
"""
        children = [subprocess.Popen([sys.executable, "-c", wait], env=environment) for _ in range(3)]
        story.wait()
        assert [child.wait(timeout=60) for child in children] == [0, 0, 0]
        assert emulator.witness()["creates_received"] == 10
        check_invariants(story, jobs=10)
        story.close()


def test_ledger_is_private(con: duckdb.DuckDBPyConnection, home: Path) -> None:
    """The state directory is its owner's alone, and so is every file in it."""
    make_staging(con)
    story = rows(con, "FROM mistral_batch_submit('staging')")
    con.execute("FROM mistral_batch_wait($id)", {"id": story[0]["submission_id"]})
    con.execute(f"FROM mistral_batch_results('{story[0]['submission_id']}')")
    assert home.stat().st_mode & 0o777 == 0o700
    for path in home.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.fault("F40")
def test_cancel_is_idempotent(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A cancel may come twice, after the end, and with its answer lost; what was answered is kept."""
    make_staging(con, 20)
    submission_id = submitted(con, arguments="metadata := {emulate: 'seconds 3'}")
    time.sleep(0.5)
    emulator.faults({"method": "POST", "path": ".*/cancel", "close": True, "after": True})
    with pytest.raises(duckdb.Error, match="gave no answer"):
        con.execute("FROM mistral_batch_cancel($id)", {"id": submission_id}).fetchall()
    for _ in range(2):
        (row,) = rows(con, "FROM mistral_batch_cancel($id)", {"id": submission_id})
        assert row["status"] in ("CANCELLATION_REQUESTED", "CANCELLED")
    con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    (row,) = rows(con, "FROM mistral_batch_cancel($id)", {"id": submission_id})
    assert row["status"] == "CANCELLED"
    outcomes = {row["outcome"] for row in rows(con, f"FROM mistral_batch_results('{submission_id}')")}
    assert outcomes <= {"ok", "missing"}
    assert "missing" in outcomes


def test_cancel_drops_what_is_held(tmp_path: Path, home: Path) -> None:
    """A cancelled submission creates none of the parts that waited for room."""
    with Emulator(tmp_path / "server", job_seconds=60, max_pending_requests=20) as emulator:
        story = Story(emulator, home, row_count=60, settings={"max_requests_per_job": 20, "max_pending_requests": 20})
        (submission_id,) = {row["submission_id"] for row in story.submit()}
        cancelled = rows(story.con, "FROM mistral_batch_cancel($id)", {"id": submission_id})
        assert [row["status"] for row in cancelled][1:] == ["CANCELLED", "CANCELLED"]
        story.wait()
        found = story.results()
        assert len(found) == 60
        assert {row["outcome"] for row in found} <= {"ok", "missing"}
        assert emulator.witness()["creates_received"] == 1
        story.close()
