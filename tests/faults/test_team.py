"""Homes on several machines that share a ledger: each request is paid for once, whoever dies, sleeps or is late."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING

import duckdb
import pytest
from faults.harness import QUICK, Story, check_invariants
from faults.test_every_step import KILLED, STORY
from faults.test_many_processes import submitted_at_once
from faults.test_secrets import STORY as SECRETS
from forking import fork_to_stop
from postgres import is_there, new_ledger, schema_of, shared_server
from support import clean_environment, connect, environment_of, make_staging, rows, run_forked, submitted

from duckdb_mistral.api import transport
from duckdb_mistral.jobs import job as jobs_job
from duckdb_mistral.runtime.failpoints import VARIABLE
from duckdb_mistral.state import leases

if TYPE_CHECKING:
    from datetime import tzinfo
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

pytestmark = pytest.mark.skipif(not is_there(), reason="no PostgreSQL is installed here")

#: How long a lock outlives its holder here.
LEASE = 1.5
BRIEF = f"from duckdb_mistral.state import leases\nleases.LEASE_SECONDS = {LEASE}\n"
#: With these, a create leaves within two seconds, and others look for it for five.
TIMES = {"deadline_seconds": 2, "reconcile_seconds": 5}


@pytest.fixture
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for the locks of who died."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", LEASE)


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> str:
    """Return the address of a ledger of its own, through a pooler for tests with `either_way`."""
    made = new_ledger(getattr(request, "param", "postgresql"))
    assert made is not None
    return made


either_way = pytest.mark.parametrize("ledger", ["postgresql", "pgbouncer"], indirect=True)


def environment(emulator: Emulator, home: Path, ledger: str, failpoint: str = "", **settings: float) -> dict[str, str]:
    """Return the environment of a process on another machine."""
    told = {f"DUCKDB_MISTRAL_{name.upper()}": str(value) for name, value in (QUICK | settings).items()}
    return environment_of(emulator, home) | told | {"DUCKDB_MISTRAL_LEDGER": ledger, VARIABLE: failpoint}


@either_way
def test_whole_story(emulator: Emulator, home: Path, ledger: str) -> None:
    """With a shared ledger the whole way from the rows to their answers is as with a file, which is not made."""
    story = Story(emulator, home, settings={"ledger": ledger})
    story.go_on()
    check_invariants(story)
    assert not (home / "ledger.sqlite").exists()
    story.close()


@either_way
def test_same_content_from_another_home(emulator: Emulator, tmp_path: Path, ledger: str) -> None:
    """What one home submitted another one has as well, by its content and by its id, and reads its answers."""
    with (
        connect(emulator, tmp_path / "one", ledger=ledger) as one,
        connect(emulator, tmp_path / "two", ledger=ledger) as two,
    ):
        make_staging(one)
        make_staging(two)
        submission_id = submitted(one)
        (again,) = rows(two, "FROM mistral_batch_submit('staging')")
        assert (again["submission_id"], again["reused"]) == (submission_id, True)
        two.execute("FROM mistral_batch_wait($id, timeout_seconds := 60)", {"id": submission_id})
        for con in (one, two, one):
            query = f"SELECT custom_id, outcome FROM mistral_batch_results('{submission_id}') ORDER BY custom_id"
            assert rows(con, query) == [{"custom_id": str(number), "outcome": "ok"} for number in range(3)]
    witness = emulator.witness()
    # Each home reads the answers once, and the second one the custom_ids that the first one has.
    assert (witness["creates_received"], witness["requests"]["download"]) == (1, 3)


@either_way
def test_homes_that_submit_at_once(emulator: Emulator, tmp_path: Path, ledger: str) -> None:
    """Homes that submit the same ten thousand rows at the very same moment get one and the same job."""
    homes = [environment(emulator, tmp_path / str(number), ledger, deadline_seconds=30) for number in range(4)]
    said = submitted_at_once(tmp_path / "start", homes)
    assert len(said) == 1
    witness = emulator.witness()
    assert (witness["jobs_stored"], witness["uploads_stored"], witness["creates_received"]) == (1, 1, 1)
    assert witness["rows_accepted"] == 10_000


@either_way
@pytest.mark.usefixtures("_brief")
@pytest.mark.parametrize(
    "failpoint",
    ["after-spool", "after-intent", "before-upload", "after-upload", "before-create", "after-create", "after-record"],
)
def test_killed_on_another_machine(failpoint: str, emulator: Emulator, tmp_path: Path, ledger: str) -> None:
    """A machine that dies at any step is continued by another one, which has nothing of its files, and pays once."""
    dead, alive = tmp_path / "dead", tmp_path / "alive"
    child = run_forked(BRIEF + STORY, environment(emulator, dead, ledger, failpoint))
    assert child.returncode == KILLED, child.stderr
    story = Story(emulator, alive, settings={"ledger": ledger})
    assert {row["outcome"] for row in story.go_on()} == {"ok"}
    check_invariants(story)
    story.close()
    # The first one comes back, and has what the other one did.
    again = Story(emulator, dead, settings={"ledger": ledger})
    assert {row["outcome"] for row in again.go_on()} == {"ok"}
    check_invariants(again)
    again.close()


@pytest.mark.usefixtures("_brief")
@pytest.mark.parametrize("failpoint", ["before-create", "after-create"])
def test_stopped_on_another_machine(failpoint: str, emulator: Emulator, tmp_path: Path, ledger: str) -> None:
    """A process that sleeps before or after its create, for longer than its lock lives, pays for nothing again."""
    child = subprocess.Popen(
        [sys.executable, "-c", BRIEF + STORY],
        env=clean_environment() | environment(emulator, tmp_path / "asleep", ledger, f"stop:{failpoint}", **TIMES),
        stderr=subprocess.PIPE,
        text=True,
    )
    os.waitpid(child.pid, os.WUNTRACED)
    try:
        story = Story(emulator, tmp_path / "awake", settings=TIMES | {"ledger": ledger})
        assert {row["outcome"] for row in story.go_on()} == {"ok"}
    finally:
        os.kill(child.pid, signal.SIGCONT)
    said = child.communicate(timeout=60)[1]
    assert "Traceback" not in said
    assert child.returncode == 0 or "nothing more is sent" in said or "Run the statement again" in said
    check_invariants(story)
    story.close()


@either_way
@pytest.mark.usefixtures("_brief")
def test_stopped_in_a_transaction(emulator: Emulator, tmp_path: Path, ledger: str) -> None:
    """A process that sleeps before it commits what it records is not waited for, and takes over what others sent."""
    brief = f"{BRIEF}from duckdb_mistral.state import postgres\npostgres.IDLE_SECONDS = 1\n"
    told = environment(emulator, tmp_path / "asleep", ledger, "stop:before-commit:2", **TIMES)
    asleep = fork_to_stop(brief + STORY, clean_environment() | told)
    assert asleep is not None
    schema = schema_of(ledger)
    try:
        story = Story(emulator, tmp_path / "awake", settings=TIMES | {"ledger": ledger})
        story.submit()
        assert len(shared_server().execute(f"SELECT * FROM {schema}.submissions")) == 1
    except BaseException:
        asleep.kill()
        raise
    said = asleep.go_on()
    assert "Traceback" not in said
    assert "cannot be used" not in said
    assert {row["outcome"] for row in story.go_on()} == {"ok"}
    check_invariants(story)
    story.close()


@pytest.mark.usefixtures("_brief")
def test_stopped_between_dividing_and_recording(emulator: Emulator, tmp_path: Path, ledger: str) -> None:
    """A process that was stopped once it knew what to send records nothing where another has sent it meanwhile."""
    reuse = ", reuse := 'requests'"
    code = BRIEF + STORY.replace("submit('staging')", f"submit('staging'{reuse})")
    asleep = fork_to_stop(
        code, clean_environment() | environment(emulator, tmp_path / "asleep", ledger, "stop:after-spool:1")
    )
    assert asleep is not None
    try:
        story = Story(emulator, tmp_path / "awake", row_count=11, settings={"ledger": ledger}, arguments=reuse)
        story.submit()
    except BaseException:
        asleep.kill()
        raise
    assert "may have gone on with reuse, so nothing more is sent" in asleep.go_on()
    assert emulator.witness()["rows_accepted"] == 11
    assert {row["outcome"] for row in story.go_on()} == {"ok"}
    story.close()


@pytest.mark.usefixtures("_brief")
@pytest.mark.parametrize("hours", [-1, 1], ids=["behind", "ahead"])
@pytest.mark.parametrize("has_date", [True, False], ids=["told", "untold"])
def test_clocks_an_hour_apart(
    hours: int,
    has_date: bool,
    emulator: Emulator,
    tmp_path: Path,
    ledger: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A create that was begun elsewhere is looked for as long as ever, whatever this machine's clock says of it.

    That holds where the API tells the time of its answers, and where it does not.
    """
    times = TIMES | {"reconcile_seconds": 8}  # a busy machine takes some of it
    child = run_forked(BRIEF + STORY, environment(emulator, tmp_path / "dead", ledger, "before-create", **times))
    assert child.returncode == KILLED, child.stderr
    died = time.monotonic()
    if not has_date:
        monkeypatch.setattr(transport, "_server_time", lambda _: None)
    shifted(monkeypatch, hours)
    story = Story(emulator, tmp_path / "alive", settings=times | {"ledger": ledger})
    with pytest.raises(duckdb.Error, match=r"run the statement again in [1-8] seconds"):
        story.submit()
    assert emulator.witness()["creates_received"] == 0
    story.go_on()
    assert time.monotonic() - died >= times["reconcile_seconds"]
    check_invariants(story)
    story.close()


def shifted(monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """Set this machine's clock, as far as the ledger and the search for lost answers read it."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(time.time() + hours * 3600, tz)

    monkeypatch.setattr(jobs_job, "datetime", Shifted)


def test_nothing_tells_the_password(emulator: Emulator, home: Path, ledger: str) -> None:
    """With debug logging on, the password is in no output, no file and no table of a whole run."""
    address = ledger.replace("postgres@", "postgres:canary-password@")
    child = run_forked(SECRETS, environment(emulator, home, address))
    assert child.returncode == 0, child.stderr
    assert "DEBUG" in child.stderr
    assert "canary" not in child.stdout + child.stderr
    assert not [path for path in home.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]
    schema = schema_of(ledger)
    for table in ("meta", "submissions", "parts", "jobs", "locks"):
        assert "canary" not in str(shared_server().execute(f"SELECT * FROM {schema}.{table}"))
    assert shared_server().execute(f"SELECT * FROM {schema}.locks WHERE owner <> ''") == []


def test_part_whose_requests_lie_elsewhere(emulator: Emulator, tmp_path: Path, ledger: str) -> None:
    """A part that waits for room, and whose requests another home has, is HELD here, and is sent from there."""
    room = {"ledger": ledger, "max_requests_per_job": 2, "max_pending_requests": 2}
    with connect(emulator, tmp_path / "one", **room) as one, connect(emulator, tmp_path / "two", **room) as two:
        make_staging(one, 4)
        submission_id = submitted(one)
        statuses = rows(two, f"SELECT status, errors FROM mistral_batch_status('{submission_id}') ORDER BY part")
        assert statuses[1]["status"] == "HELD"
        assert "under the home that submitted them" in statuses[1]["errors"][0]["message"]
        one.execute(f"FROM mistral_batch_wait('{submission_id}', timeout_seconds := 60)")
        assert len(rows(two, f"FROM mistral_batch_results('{submission_id}')")) == 4
    assert emulator.witness()["rows_accepted"] == 4
