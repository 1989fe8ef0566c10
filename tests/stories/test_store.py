"""A store and a ledger that several homes share: nothing is lost with a home, and nothing is paid twice.

Until there is a ledger that machines share, the ledger's file is copied from home to home.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from pyarrow import parquet
from support import answered, connect, environment_of, make_staging, rows, run_forked, submitted

from duckdb_mistral.results import convert

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

REUSE = "reuse := 'requests'"
QUICK: dict[str, Any] = {"deadline_seconds": 3, "reconcile_seconds": 0.5}
NO_FILES = {"method": "GET", "path": "/v1/files/[^/]+/content", "status": 404, "times": 999}
CACHED = ("spool", "results", "requests")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return the directory of a store."""
    path = tmp_path / "store"
    path.mkdir()
    return path


def at(emulator: Emulator, home: Path, directory: Path, **settings: Any) -> duckdb.DuckDBPyConnection:
    """Return a connection of a home whose store is a directory."""
    return connect(emulator, home, store=f"file://{directory}", **QUICK | settings)


def vanish(home: Path) -> None:
    """Remove all that is under a home but the ledger and its locks."""
    for name in CACHED:
        shutil.rmtree(home / name, ignore_errors=True)


def other_home(home: Path, name: str) -> Path:
    """Return a home on another machine with the same ledger, and nothing else."""
    other = home.with_name(name)
    other.mkdir(mode=0o700)
    with (
        closing(sqlite3.connect(home / "ledger.sqlite")) as ledger,
        closing(sqlite3.connect(other / "ledger.sqlite")) as to,
    ):
        ledger.backup(to)
    return other


def sent(emulator: Emulator) -> tuple[int, int]:
    """Return how many requests were accepted, and how many of these more than once."""
    counts = emulator.witness()
    return counts["rows_accepted"], counts["rows_accepted_more_than_once"]


@pytest.fixture(params=["small", "large"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let results be small, all in their Parquet file, or large, with their lines beside it."""
    if request.param == "large":
        monkeypatch.setattr(convert, "LARGE_BYTES", 1)
    return str(request.param)


@pytest.fixture(params=["file", "bucket", "google_bucket"])
def store(request: pytest.FixtureRequest, directory: Path) -> str:
    """Return the URL of a store: of a directory, of a bucket, and of a bucket of Google's."""
    return f"file://{directory}" if request.param == "file" else str(request.getfixturevalue(request.param))


def test_three_homes(store: str, size: str, emulator: Emulator, home: Path) -> None:
    """Of three homes on disks of their own, one pays; all have every answer, once the provider's files are gone too."""
    with connect(emulator, home, store=store) as con:
        make_staging(con, 20)
        submission_id = submitted(con)
        first = answered(con, submission_id)
    assert len(first) == 20
    emulator.faults(NO_FILES)
    for name in ("second", "third"):
        with connect(emulator, other_home(home, name), store=store) as con:
            make_staging(con, 20)
            assert submitted(con) == submission_id
            assert rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id") == first
            assert rows(con, "FROM mistral_batch_results() ORDER BY custom_id") == first
            assert rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id}) == []
    assert sent(emulator) == (20, 0)
    emulator.faults()
    with connect(emulator, other_home(home, "fourth"), store=store) as con:
        make_staging(con, 21)
        found = answered(con, submitted(con, arguments=REUSE))
        assert [row["reused"] for row in found].count(False) == 1
        assert len(found) == 21
    assert sent(emulator) == (21, 0)


def test_a_home_that_vanishes_between_any_two_calls(size: str, emulator: Emulator, home: Path, directory: Path) -> None:
    """Whatever lies beside the ledger may go between two calls: every answer is there, and none is paid for twice."""
    with at(emulator, home, directory, max_requests_per_job=4) as con:
        con.execute(
            "CREATE TABLE staging AS SELECT range AS custom_id, "
            "if(range % 5 = 1, '[[error 500]] ' || range, 'fine ' || range % 7) AS prompt FROM range(10)"
        )
        submission_id = submitted(con, arguments=REUSE)
        vanish(home)
        assert submitted(con, arguments=REUSE) == submission_id
        vanish(home)
        con.execute("FROM mistral_batch_wait($id, timeout_seconds := 60)", {"id": submission_id})
        vanish(home)
        first = rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id::INTEGER")
        assert [row["custom_id"] for row in first] == [str(number) for number in range(10)]
        assert [row["outcome"] for row in first].count("error") == 2
        accepted, _ = sent(emulator)
        vanish(home)
        assert rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id::INTEGER") == first
        vanish(home)
        (retry,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
        assert retry["total_requests"] == 2
        vanish(home)
        found = answered(con, submission_id)
        assert [row["outcome"] for row in found].count("error") == 2
        vanish(home)
        con.execute("INSERT INTO staging VALUES (10, 'new')")
        vanish(home)
        later = answered(con, submitted(con, arguments=REUSE))
        vanish(home)
        assert rows(con, "SELECT count(*) AS n FROM mistral_batch_results()") == [{"n": 21}]
        assert len(later) == 11
        # What failed is sent again, and the new row.
        assert sent(emulator)[0] == accepted + 2 + 3


KILLED = """
import sys
import duckdb_mistral
con = duckdb_mistral.connect()
con.execute("CREATE TABLE staging AS SELECT range::VARCHAR AS custom_id, 'prompt ' || range AS prompt FROM range(6)")
con.execute("FROM mistral_batch_submit('staging')").fetchall()
"""
MOMENTS = [
    *(
        "before-put:1",
        "before-put:3",
        "after-spool",
        "after-intent",
        "before-upload",
        "before-upload:2",
        "after-upload:2",
    ),
    *("before-create", "after-create", "before-create:2", "after-create:2", "after-record:2", "after-create:3"),
]


def killing(emulator: Emulator, home: Path, directory: Path) -> dict[str, str]:
    """Return the environment of a process that submits in parts, and whose lost answers are not looked for long."""
    return environment_of(emulator, home) | {
        "DUCKDB_MISTRAL_STORE": f"file://{directory}",
        "DUCKDB_MISTRAL_MAX_REQUESTS_PER_JOB": "2",
        "DUCKDB_MISTRAL_RECONCILE_SECONDS": "0.5",
        "DUCKDB_MISTRAL_DEADLINE_SECONDS": "1",
    }


def killed_at(moment: str, emulator: Emulator, home: Path, directory: Path, **limits: str) -> None:
    """Let a process that submits three parts be killed."""
    environment = killing(emulator, home, directory) | {"DUCKDB_MISTRAL_FAILPOINT": moment}
    environment |= {f"DUCKDB_MISTRAL_{name}": value for name, value in limits.items()}
    assert run_forked(KILLED, environment).returncode == -9


def go_on(con: duckdb.DuckDBPyConnection, query: str = "FROM mistral_batch_submit('staging')") -> str:
    """Submit, or retry, until nothing is left to be found out."""
    for _ in range(50):
        try:
            return str(rows(con, query)[0]["submission_id"])
        except duckdb.Error as error:
            said = str(error)
            if "run the statement again" not in said:
                raise
            time.sleep(0.2)
    raise AssertionError(said)


#: With room for one part, the others wait, and are not uploaded yet.
HELD = [(moment, {"MAX_PENDING_REQUESTS": "2"}) for moment in ("before-create", "after-create", "after-record")]


@pytest.mark.parametrize(("moment", "limits"), [*((moment, {}) for moment in MOMENTS), *HELD])
def test_the_machine_with_the_spool_died(
    moment: str, limits: dict[str, str], emulator: Emulator, home: Path, directory: Path
) -> None:
    """Whenever a machine dies that submits, another one with the same ledger and rows goes on; each is paid once."""
    killed_at(moment, emulator, home, directory, **limits)
    with at(emulator, other_home(home, "other"), directory) as con:
        make_staging(con, 6)
        found = answered(con, go_on(con))
    assert [(row["custom_id"], row["outcome"]) for row in found] == [(str(number), "ok") for number in range(6)]
    assert sent(emulator) == (6, 0)


RETRIED = """
import os
import duckdb_mistral
con = duckdb_mistral.connect()
con.execute("CREATE TABLE staging AS SELECT range AS custom_id, '[[error 500]] ' || range AS prompt FROM range(6)")
(submission_id,) = {row[0] for row in con.execute("FROM mistral_batch_submit('staging')").fetchall()}
con.execute("FROM mistral_batch_wait($id)", {"id": submission_id}).fetchall()
os.environ["DUCKDB_MISTRAL_MAX_PENDING_REQUESTS"] = os.environ["LIMIT"]
os.environ["DUCKDB_MISTRAL_FAILPOINT"] = os.environ["MOMENT"]
con.execute("FROM mistral_batch_retry($id)", {"id": submission_id}).fetchall()
"""


@pytest.mark.parametrize("limit", ["2", "1000000"])
@pytest.mark.parametrize("moment", ["after-intent", "before-create", "after-create", "after-record"])
def test_the_machine_that_retried_died(
    moment: str, limit: str, emulator: Emulator, home: Path, directory: Path
) -> None:
    """Whenever a machine dies that retries, another one with the same ledger goes on; each row is sent again once."""
    environment = killing(emulator, home, directory) | {"MOMENT": moment, "LIMIT": limit}
    assert run_forked(RETRIED, environment).returncode == -9
    with closing(sqlite3.connect(home / "ledger.sqlite")) as ledger:
        ((submission_id,),) = ledger.execute("SELECT submission_id FROM submissions WHERE retry_of IS NULL").fetchall()
    with at(emulator, other_home(home, "other"), directory) as con:
        go_on(con, f"FROM mistral_batch_retry('{submission_id}')")
        found = answered(con, submission_id)
    assert [(row["custom_id"], row["outcome"]) for row in found] == [(str(number), "error") for number in range(6)]
    assert emulator.witness()["rows_accepted"] == 12


def test_parts_that_are_cut_are_the_same(emulator: Emulator, home: Path, directory: Path) -> None:
    """What another machine sends of a submission are its parts, of its id, even with other limits and another order."""
    killed_at("before-upload:3", emulator, home, directory)
    with closing(sqlite3.connect(home / "ledger.sqlite")) as ledger:
        ((submission_id,),) = ledger.execute("SELECT submission_id FROM submissions").fetchall()
        parts = ledger.execute("SELECT part, request_count, input_bytes FROM parts ORDER BY part").fetchall()
    lines = {part: (home / "spool" / submission_id / f"part-{part:05}.jsonl").read_bytes() for part, _, _ in parts}
    other = other_home(home, "other")
    with at(emulator, other, directory, max_requests_per_job=5) as con:
        make_staging(con, 6)
        con.execute("CREATE TABLE backwards AS FROM staging ORDER BY custom_id DESC")
        jobs = rows(con, "FROM mistral_batch_submit('backwards') ORDER BY part")
    assert [(row["submission_id"], row["total_requests"]) for row in jobs] == [(submission_id, 2)] * 3
    for part, _, size in parts:
        cut = (other / "spool" / submission_id / f"part-{part:05}.jsonl").read_bytes()
        assert len(cut) == size
        assert sorted(cut.splitlines()) == sorted(lines[part].splitlines())
    assert sent(emulator) == (6, 0)


def test_other_rows_are_not_taken_for_parts(emulator: Emulator, home: Path, directory: Path) -> None:
    """Rows that are not those of a submission make another one, and the first still waits for its own."""
    killed_at("before-create:2", emulator, home, directory)
    other = other_home(home, "other")
    with at(emulator, other, directory) as con:
        make_staging(con, 5)
        second = submitted(con)
        (first,) = {row["submission_id"] for row in rows(con, "FROM mistral_batch_status()")} - {second}
        statuses = [row["status"] for row in rows(con, "FROM mistral_batch_status($id) ORDER BY part", {"id": first})]
    assert "HELD" in statuses
    assert sent(emulator)[0] in (7, 9)


def test_a_part_that_waits_on_another_machine(emulator: Emulator, home: Path, directory: Path) -> None:
    """A status elsewhere says where the requests of a HELD part are; a submit of the same rows sends it from there."""
    with at(emulator, home, directory, max_requests_per_job=2, max_pending_requests=2) as con:
        make_staging(con, 6)
        submission_id = submitted(con)
    other = other_home(home, "other")
    with at(emulator, other, directory, max_requests_per_job=2) as con:
        make_staging(con, 6)
        told = rows(con, "FROM mistral_batch_status($id) ORDER BY part", {"id": submission_id})
        assert [row["status"] for row in told[1:]] == ["HELD", "HELD"]
        assert "Its requests are under the home that submitted them" in told[1]["errors"][0]["message"]
        assert submitted(con) == submission_id
        found = answered(con, submission_id)
    assert [row["outcome"] for row in found] == ["ok"] * 6
    assert sent(emulator) == (6, 0)


def test_completeness_without_the_spool(emulator: Emulator, home: Path, directory: Path) -> None:
    """Which rows there should be is known from the store, if neither the spool nor the provider's input is left."""
    with at(emulator, home, directory) as con:
        make_staging(con, 3)
        submission_id = submitted(con)
        con.execute("FROM mistral_batch_wait($id, timeout_seconds := 60)", {"id": submission_id})
    with at(emulator, other_home(home, "other"), directory) as con:
        cut = {"method": "GET", "path": "/v1/files/[^/]+/content", "cut": 100, "times": 99}
        emulator.faults(cut)
        found = rows(con, f"FROM mistral_batch_results('{submission_id}', partial := true) ORDER BY custom_id")
        assert [row["custom_id"] for row in found] == ["0", "1", "2"]
        emulator.faults()
        found = rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id")
        assert [row["outcome"] for row in found] == ["ok"] * 3
    assert emulator.witness()["requests"]["download"] < 10


def refusals(con: duckdb.DuckDBPyConnection, submission_id: str, source: str = "later") -> list[str]:
    """Return what every call says that might take kept results for missing; none of them may go through."""
    said = []
    for query in (
        f"FROM mistral_batch_results('{submission_id}')",
        f"FROM mistral_batch_retry('{submission_id}')",
        f"FROM mistral_batch_submit('{source}', {REUSE})",
    ):
        with pytest.raises(duckdb.Error) as caught:
            con.execute(query).fetchall()
        said.append(str(caught.value))
    return said


def test_a_store_that_is_down(emulator: Emulator, home: Path, directory: Path) -> None:
    """While the store is away, kept answers are not reported missing and nothing is paid again."""
    with at(emulator, home, directory) as con:
        con.execute(
            "CREATE TABLE staging AS SELECT range AS custom_id, "
            "if(range = 1, '[[error 500]]', 'fine ' || range) AS prompt FROM range(4)"
        )
        submission_id = submitted(con)
        first = answered(con, submission_id)
        con.execute("CREATE TABLE later AS FROM staging WHERE custom_id <> 1 UNION ALL SELECT 9, 'new'")
        vanish(home)
        away = directory.with_name("away")
        directory.rename(away)
        for said in refusals(con, submission_id):
            assert f"there is no directory {directory}" in said
        with pytest.raises(duckdb.Error, match="there is no directory"):
            rows(con, f"FROM mistral_batch_results('{submission_id}', partial := true)")
        with pytest.raises(duckdb.Error, match=r"part-00001.arrow could not be written to the store"):
            submitted(con, "(SELECT 7 AS custom_id, 'another' AS prompt)")
        assert [row["status"] for row in rows(con, "FROM mistral_batch_status()")] == ["SUCCESS"]
        assert sent(emulator) == (4, 0)
        away.rename(directory)
        assert rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id") == first
        assert [row["reused"] for row in answered(con, submitted(con, "later", REUSE))] == [True] * 3 + [False]
    assert sent(emulator) == (5, 0)


def test_a_forced_submit_while_the_store_is_down(emulator: Emulator, home: Path, directory: Path) -> None:
    """A submit that the store keeps from being recorded changes nothing: the same rows are still known after it."""
    with at(emulator, home, directory) as con:
        make_staging(con)
        submission_id = submitted(con)
        away = directory.with_name("away")
        directory.rename(away)
        with pytest.raises(duckdb.Error, match="could not be written to the store"):
            submitted(con, arguments="force := true")
        away.rename(directory)
        assert submitted(con) == submission_id
    assert sent(emulator) == (3, 0)


def test_a_store_that_went_down_while_results_came(emulator: Emulator, home: Path, directory: Path) -> None:
    """Results that cannot be put are not kept, and say so; the next read puts them."""
    with at(emulator, home, directory) as con:
        make_staging(con)
        submission_id = submitted(con)
        con.execute("FROM mistral_batch_wait($id, timeout_seconds := 60)", {"id": submission_id})
        away = directory.with_name("away")
        directory.rename(away)
        with pytest.raises(duckdb.Error, match=r"results/.*parquet could not be written to the store"):
            rows(con, f"FROM mistral_batch_results('{submission_id}')")
        with closing(sqlite3.connect(home / "ledger.sqlite")) as ledger:
            assert ledger.execute("SELECT results FROM jobs").fetchall() == [(None,)]
        away.rename(directory)
        assert len(answered(con, submission_id)) == 3
    assert len(list((directory / "results").glob("*.parquet"))) == 1


def test_an_object_that_is_lost(emulator: Emulator, home: Path, directory: Path) -> None:
    """Results that the store has lost are fetched from the server again; where that has none, nothing is paid."""
    with at(emulator, home, directory) as con:
        make_staging(con)
        submission_id = submitted(con)
        first = answered(con, submission_id)
        con.execute("CREATE TABLE later AS FROM staging UNION ALL SELECT '9', 'new'")
        (result,) = (directory / "results").glob("*.parquet")
        kept = result.read_bytes()
        for lose in (result.unlink, lambda: result.write_bytes(kept[:-1])):
            vanish(home)
            lose()
            emulator.faults(NO_FILES)
            for said in refusals(con, submission_id):
                assert f"were kept as {result.name}, and are gone from" in said
                assert "the store file://" in said
            assert sent(emulator) == (3, 0)
            found = rows(con, f"FROM mistral_batch_results('{submission_id}', partial := true)")
            assert [row["outcome"] for row in found] == ["missing"] * 3
            emulator.faults()
            assert rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id") == first
            assert result.exists()
        assert rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id}) == []
        assert [row["reused"] for row in answered(con, submitted(con, "later", REUSE))] == [True] * 3 + [False]
    assert sent(emulator) == (4, 0)


def test_two_ledgers_in_one_store(emulator: Emulator, home: Path, directory: Path, size: str) -> None:
    """Results of a job that another ledger put again, otherwise, are read by the first one too."""
    with at(emulator, home, directory) as con:
        make_staging(con)
        submission_id = submitted(con)
        answered(con, submission_id)
        read = f"SELECT * EXCLUDE (response) FROM mistral_batch_results('{submission_id}') ORDER BY custom_id"
        first = rows(con, read)
        (result,) = (directory / "results").glob("*.parquet")
        before = result.stat().st_size
        with at(emulator, home.with_name("another"), directory) as other:
            make_staging(other)
            shutil.rmtree(directory / "results")
            assert submitted(other) == submission_id
            answered(other, submission_id)
        table = parquet.read_table(result)
        parquet.write_table(table, result, compression="none")  # as another version would write it
        assert result.stat().st_size != before
        vanish(home)
        emulator.faults(NO_FILES)
        assert rows(con, read) == first
        vanish(home)
        assert rows(con, read) == first
    assert sent(emulator) == (3, 0)


def test_hashes_that_are_lost(emulator: Emulator, home: Path, directory: Path) -> None:
    """Where it is not known which requests a job had, reuse := 'requests' sends nothing, and says so."""
    with at(emulator, home, directory) as con:
        make_staging(con)
        submission_id = submitted(con)
        answered(con, submission_id)
        vanish(home)
        (keys,) = directory.glob("spool/*/part-00001.arrow")
        keys.unlink()
        (directory / "requests" / f"{submission_id}-1.parquet").unlink()
        con.execute("CREATE TABLE later AS FROM staging UNION ALL SELECT '9', 'new'")
        with pytest.raises(
            duckdb.Error, match=f"Which requests part 1 of submission {submission_id} had is known neither"
        ):
            submitted(con, "later", REUSE)
        assert sent(emulator) == (3, 0)
        assert len(answered(con, submission_id)) == 3


def test_shared_requests_whose_list_is_lost(emulator: Emulator, home: Path, directory: Path) -> None:
    """Rows that share a request are not left out where the list of them is lost: that is an error."""
    with at(emulator, home, directory) as con:
        con.execute("CREATE TABLE staging AS SELECT range AS custom_id, 'the same' AS prompt FROM range(3)")
        submission_id = submitted(con, arguments=REUSE)
        assert len(answered(con, submission_id)) == 3
        vanish(home)
        assert len(answered(con, submission_id)) == 3
        vanish(home)
        (directory / "requests" / f"copies-{submission_id}.parquet").unlink()
        with pytest.raises(duckdb.Error, match=f"Which rows of submission {submission_id} share a request is neither"):
            rows(con, f"FROM mistral_batch_results('{submission_id}')")


def test_reused_rows_whose_file_is_lost(emulator: Emulator, home: Path, directory: Path) -> None:
    """Answers that were reused come back from the store, and are not reported missing where it has lost them."""
    with at(emulator, home, directory) as con:
        make_staging(con, 2)
        answered(con, submitted(con))
        con.execute("INSERT INTO staging VALUES ('2', 'new')")
        submission_id = submitted(con, arguments=REUSE)
        assert len(answered(con, submission_id)) == 3
        vanish(home)
        assert len(answered(con, submission_id)) == 3
        vanish(home)
        (directory / "results" / f"found-{submission_id}.parquet").unlink()
        with pytest.raises(
            duckdb.Error, match=r"The answers that submission .* reused are gone from .* and from the store"
        ):
            rows(con, f"FROM mistral_batch_results('{submission_id}', partial := true)")


def test_a_home_without_a_ledger(emulator: Emulator, home: Path, directory: Path) -> None:
    """An empty home with the same store takes over a submission with rows that only files tell of, and pays nothing."""
    with at(emulator, home, directory) as con:
        con.execute("CREATE TABLE staging AS SELECT range AS custom_id, 'p' || range % 2 AS prompt FROM range(4)")
        submission_id = submitted(con, arguments=REUSE)
        first = answered(con, submission_id)
    emulator.faults(NO_FILES)
    with at(emulator, home.with_name("empty"), directory) as con:
        con.execute("CREATE TABLE staging AS SELECT range AS custom_id, 'p' || range % 2 AS prompt FROM range(4)")
        assert submitted(con, arguments=REUSE) == submission_id
        assert answered(con, submission_id) == first
    assert sent(emulator) == (2, 0)


def test_kept_before_there_was_a_store(emulator: Emulator, home: Path, directory: Path) -> None:
    """Results that were kept without a store are read where they are once there is one."""
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        first = answered(con, submission_id)
    with at(emulator, home, directory) as con:
        con.execute(
            "CREATE TABLE later AS SELECT range::VARCHAR AS custom_id, 'prompt ' || range AS prompt FROM range(4)"
        )
        assert answered(con, submission_id) == first
        assert [row["reused"] for row in answered(con, submitted(con, "later", REUSE))] == [True] * 3 + [False]
    assert sent(emulator) == (4, 0)
