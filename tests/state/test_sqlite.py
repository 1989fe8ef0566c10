"""The ledger's file: whose it is, of which version, and what is told where it is damaged or its disk is full."""

from __future__ import annotations

import re
import shutil
import sqlite3
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from submissions import added, filled
from support import KEY, connect, make_staging, no_room, run_python, submitted

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.tables import SCHEMA_VERSION

if TYPE_CHECKING:
    from duckdb_mistral.emulator import Emulator
    from duckdb_mistral.jobs.job import Job

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture
def ledger(home: Path) -> Ledger:
    """Return an empty ledger."""
    return Ledger(Home(home))


def test_new_ledger_that_many_open_at_once(tmp_path: Path) -> None:
    """Many that open a new ledger at the same moment all have it: none is told that another one is writing."""
    with ThreadPoolExecutor(6) as pool:
        for number in range(40):
            home = Home(tmp_path / str(number))
            together = threading.Barrier(6)

            def opened(home: Home = home, together: threading.Barrier = together) -> list[Job]:
                together.wait()
                return Ledger(home).jobs()

            assert [each.result() for each in [pool.submit(opened) for _ in range(6)]] == [[]] * 6


def test_for_the_owner_alone(home: Path, ledger: Ledger) -> None:
    """The directory and its files are for their owner alone."""
    added(ledger)
    assert home.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in home.iterdir()} == {0o600}


def test_wal(home: Path, ledger: Ledger) -> None:
    """The ledger is kept in WAL, so that readers and a writer do not stop each other."""
    with sqlite3.connect(ledger.path) as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    plain.close()


def test_newer_version(home: Path, ledger: Ledger) -> None:
    """A ledger of a newer version is refused by both numbers, and not touched."""
    with sqlite3.connect(ledger.path) as plain:
        plain.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    plain.close()
    with pytest.raises(LedgerError, match=rf"newer .*\(its version is 99, this one knows {SCHEMA_VERSION}\)"):
        Ledger(Home(home))


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_damaged_file(home: Path, ledger: Ledger, kept: float) -> None:
    """A file that is damaged is told by its path, with what to do."""
    for number in range(50):
        added(ledger, identity=str(number))
    with sqlite3.connect(ledger.path) as plain:
        plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    plain.close()
    data = ledger.path.read_bytes()
    start = max(4096, int(len(data) * kept)) if kept else 0
    ledger.path.write_bytes(data[:start] + b"\xa5" * (len(data) - start))
    with pytest.raises(LedgerError, match=re.escape(f"The ledger {ledger.path} is damaged (")):
        Ledger(Home(home)).jobs()


def test_home_that_is_a_file(tmp_path: Path) -> None:
    """A home that cannot be made is told, with what to set."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(LedgerError, match=r"cannot be written.*DUCKDB_MISTRAL_HOME"):
        Ledger(Home(tmp_path / "file"))


def test_full_disk(home: Path, ledger: Ledger) -> None:
    """A ledger on a disk without room is read as before, and what cannot be written is told, with what to do."""
    made = added(ledger)
    for path in home.glob("ledger.sqlite-*"):
        path.unlink()
    with no_room():
        full = Ledger(Home(home))
        assert full.submissions() == [made]
        with pytest.raises(LedgerError, match=r"cannot be used .* so nothing is sent\. .*`duckdb-mistral clean`"):
            added(full, identity="another")
    assert Ledger(Home(home)).submissions() == [made]


def test_second_process(home: Path, ledger: Ledger) -> None:
    """What one process wrote, another reads while the first is still there."""
    made = added(ledger)
    code = (
        "import sys; from pathlib import Path; from duckdb_mistral.state.home import Home; "
        "from duckdb_mistral.state.ledger import Ledger; "
        "print(Ledger(Home(Path(sys.argv[1]))).live_submission('identity').submission_id)"
    )
    child = run_python(code, {}, str(home))
    assert child.stdout.strip() == made.submission_id, child.stderr


def test_key_is_never_written(emulator: Emulator, home: Path) -> None:
    """After a submission the key stands in no file under home."""
    with connect(emulator, home) as con:
        make_staging(con)
        submitted(con)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_ledger_of_version_1(tmp_path: Path) -> None:
    """A ledger of version 1 is brought up to date where it lies, and what it knows is read as before."""
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.executescript((DATA / "ledger-1.sql").read_text(encoding="utf-8"))
    connection.close()
    (job,) = Ledger(Home(tmp_path)).jobs()
    assert (job.status, job.request_count, job.results_bytes) == ("SUCCESS", 3, None)
    assert [part.upload_began for part in Ledger(Home(tmp_path)).parts(str(job.submission_id))] == [None]
    fresh = Ledger(Home(tmp_path / "fresh")).path
    assert columns_of(tmp_path / "ledger.sqlite") == columns_of(fresh)
    (again,) = Ledger(Home(tmp_path)).jobs()
    assert again == job


def columns_of(path: Path) -> list[tuple[object, ...]]:
    """Return the columns and indexes of every table of a ledger, and its version."""
    with sqlite3.connect(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        found = [tuple(row) for (table,) in tables for row in connection.execute(f"PRAGMA table_info({table})")]
        found += connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY name").fetchall()
        found += connection.execute("SELECT value FROM meta").fetchall()
    connection.close()
    return found


@pytest.mark.parametrize("version", ["abc", "-1", "0", "", "3.5", "²", "9" * 5000])
def test_version_that_is_none(version: str, tmp_path: Path) -> None:
    """A ledger whose version is none is told as damaged or as newer, in a sentence."""
    Ledger(Home(tmp_path))
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", [version])
    connection.close()
    with pytest.raises(LedgerError, match=r"is damaged \(its version is '"):
        Ledger(Home(tmp_path))


def test_one_file_between_statements(home: Path, ledger: Ledger) -> None:
    """While it is kept open, what is written lies in the log; afterwards all of it is in the one file."""
    (told, *_) = filled(ledger, 1)
    with ledger.kept_open(), ledger.kept_open():
        ledger.record(replace(told, status="SUCCESS"))
        assert (home / "ledger.sqlite-wal").exists()
    assert [path.name for path in home.iterdir()] == ["ledger.sqlite"]
    assert [job.status for job in Ledger(Home(home)).jobs()] == ["SUCCESS"]


def test_other_file_while_it_is_kept_open(home: Path, ledger: Ledger) -> None:
    """If a backup is put in the ledger's place meanwhile, it is read and written, and not the file that is gone."""
    filled(ledger, 1)
    shutil.copytree(home, home.with_name("backup"))
    with ledger.kept_open():
        ledger.set_account("of-many", "before")
        (home / "ledger.sqlite").replace(home.with_name("aside"))
        for path in home.glob("ledger.sqlite-*"):
            path.unlink()
        shutil.copy(home.with_name("backup") / "ledger.sqlite", home)
        assert [submission.account for submission in ledger.submissions()] != ["before"]
        ledger.set_account("of-many", "after")
    assert [submission.account for submission in Ledger(Home(home)).submissions()] == ["after"]


def test_fork_while_it_is_kept_open(home: Path, ledger: Ledger) -> None:
    """What is idle is closed before a fork, and what is written afterwards is there for both."""
    filled(ledger, 1)
    code = """
    import os, sys
    from pathlib import Path
    from duckdb_mistral.state.home import Home
    from duckdb_mistral.state.ledger import Ledger

    home = Path(sys.argv[1])
    ledger = Ledger(Home(home))
    with ledger.kept_open():
        (job,) = ledger.jobs()
        child = os.fork()
        if not child:
            Ledger(Home(home)).set_account("of-many", "the child's")
            os._exit(ledger.database._engine.pool.checkedin())
        print(os.waitpid(child, 0)[1], ledger.submissions()[0].account)
        ledger.set_account("of-many", "the parent's")
    print(ledger.submissions()[0].account)
    """
    child = run_python(textwrap.dedent(code), {}, str(home))
    assert (child.stdout, child.stderr) == ("0 the child's\nthe parent's\n", "")


FORKED = """
import os, sys, threading
from pathlib import Path
from duckdb_mistral.errors import LedgerError
from duckdb_mistral.state import fork_gate
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger

home, fork_gate.FORK_SECONDS = Path(sys.argv[1]), float(sys.argv[2])
ledger, begun = Ledger(Home(home)), threading.Event()

def read():
    with ledger.database.reading() as connection:
        begun.set()
        threading.Event().wait(0.5)  # in the middle of its use
        assert connection.exec_driver_sql("SELECT count(*) FROM submissions").scalar_one() == 1

reader = threading.Thread(target=read)
reader.start()
begun.wait()
child = os.fork()
if not child:
    try:
        for number in range(20):
            Ledger(Home(home)).set_account("of-many", f"the child's {number}")
    except LedgerError as error:
        print(str(error).partition(",")[0].replace(str(home), "HOME"), flush=True)
    os._exit(0)
reader.join()
os.waitpid(child, 0)
for number in range(20):
    ledger.set_account("of-many", f"the parent's {number}")
print(Ledger(Home(home)).submissions()[0].account, ledger.database.damage())
"""


def test_fork_while_another_thread_reads(home: Path, ledger: Ledger) -> None:
    """A fork waits until other threads have done with the ledger, and both processes write to it afterwards."""
    filled(ledger, 1)
    child = run_python(FORKED, {}, str(home), "5")
    assert (child.stdout, child.stderr) == ("the parent's 19 None\n", "")


def test_fork_while_another_thread_goes_on_reading(home: Path, ledger: Ledger) -> None:
    """Where a thread takes too long the child refuses the ledger, which would be damaged, and the parent goes on."""
    filled(ledger, 1)
    child = run_python(FORKED, {}, str(home), "0.1")
    told = "This process was forked while another thread was using the ledger HOME/ledger.sqlite"
    assert (child.stdout, child.stderr) == (f"{told}\nthe parent's 19 None\n", "")
