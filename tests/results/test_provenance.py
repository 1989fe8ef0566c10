"""Kept files that are another job's: what they say of themselves is held against the ledger."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import answered, asked_for_money, connect, rows, submitted

from duckdb_mistral.results.provenance import is_of, option, said_by
from duckdb_mistral.results.responses import lines_of

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator


def two(con: duckdb.DuckDBPyConnection) -> tuple[list[str], list[list[dict[str, Any]]]]:
    """Submit the same ids twice with other prompts of one length; return the submissions and their results."""
    ids = []
    for word in ("red", "sky"):
        con.execute(f"CREATE TABLE {word} AS SELECT range AS custom_id, 'say {word} ' || range AS prompt FROM range(3)")
        ids.append(submitted(con, word))
    return ids, [answered(con, each) for each in ids]


def kept_of(home: Path, con: duckdb.DuckDBPyConnection, submission_id: str) -> Path:
    """Return the Parquet file of a submission's only job."""
    ((job_id,),) = con.execute("SELECT job_id FROM mistral_batch_status($1)", [submission_id]).fetchall()
    (path,) = (path for path in (home / "results").glob("*.parquet") if (said_by(path) or ({}, 0))[0]["job"] == job_id)
    return path


def forget_sizes(home: Path) -> None:
    """Let the ledger know no size of kept results, as of an older version."""
    with closing(sqlite3.connect(home / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE jobs SET results_bytes = NULL")


def swap(first: Path, second: Path) -> None:
    """Let two files change their names."""
    aside = first.with_suffix(".aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


@pytest.mark.fault("F53")
@pytest.mark.parametrize("how", ["swapped", "copied", "lines swapped"])
@pytest.mark.parametrize("call", ["results", "cost", "retry"])
def test_results_of_another_job(
    how: str, call: str, emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results of another job in the place of a job's are fetched anew, whatever reads them, and nothing is paid."""
    monkeypatch.setattr("duckdb_mistral.results.convert.LARGE_BYTES", 0 if how == "lines swapped" else 1 << 60)
    with connect(emulator, home) as con:
        ids, before = two(con)
        first, second = (kept_of(home, con, each) for each in ids)
        forget_sizes(home)
        paid = asked_for_money(emulator)
        if how == "swapped":
            swap(first, second)
        elif how == "copied":
            first.write_bytes(second.read_bytes())
        else:
            swap(*(lines_of(path)[0] for path in (first, second)))
        rows(con, f"FROM mistral_batch_{call}('{ids[0]}')")
        for each, expected in zip(ids, before, strict=True):
            assert rows(con, f"FROM mistral_batch_results('{each}') ORDER BY custom_id") == expected
        assert asked_for_money(emulator) == paid


@pytest.mark.fault("F53")
def test_results_that_lack_rows(emulator: Emulator, home: Path) -> None:
    """Results of the job's own name with other rows than it has are fetched anew."""
    with connect(emulator, home) as con:
        ids, before = two(con)
        path = kept_of(home, con, ids[0])
        forget_sizes(home)
        said = (said_by(path) or ({}, 0))[0]
        with duckdb.connect() as engine:
            engine.execute(
                f"COPY (FROM read_parquet('{path}') WHERE custom_id <> '1') TO '{path}' "
                f"(FORMAT parquet, {option(said)})"
            )
        assert rows(con, f"FROM mistral_batch_results('{ids[0]}') ORDER BY custom_id") == before[0]


@pytest.mark.fault("F53")
def test_hashes_of_another_job(emulator: Emulator, home: Path) -> None:
    """Hashes of another submission's requests lead to no answer of theirs, and nothing is sent without ours."""
    with connect(emulator, home) as con:
        ids, before = two(con)
        first, second = (home / "requests" / f"{each}-1.parquet" for each in ids)
        paid = asked_for_money(emulator)
        swap(first, second)
        source = "SELECT custom_id + 10 AS custom_id, prompt FROM red"
        with pytest.raises(duckdb.Error, match=r"are not those of submission .* nothing was sent"):
            submitted(con, source, "reuse := 'requests'")
        swap(first, second)
        again = answered(con, submitted(con, source, "reuse := 'requests'"))
        assert [row["content"] for row in again] == [row["content"] for row in before[0]]
        assert asked_for_money(emulator) == paid


@pytest.mark.fault("F53")
def test_copies_of_another_submission(emulator: Emulator, home: Path) -> None:
    """A list of rows that share a request is read with its own submission alone."""
    with connect(emulator, home) as con:
        sources = [f"SELECT range AS custom_id, '{word}' AS prompt FROM range(3)" for word in ("red", "sky")]
        ids = [submitted(con, source, "reuse := 'requests'") for source in sources]
        before = [answered(con, each) for each in ids]
        swap(*(home / "requests" / f"copies-{each}.parquet" for each in ids))
        with pytest.raises(duckdb.Error, match=f"is not that of submission {ids[0]}"):
            rows(con, f"FROM mistral_batch_results('{ids[0]}')")
        swap(*(home / "requests" / f"copies-{each}.parquet" for each in ids))
        assert [rows(con, f"FROM mistral_batch_results('{each}') ORDER BY custom_id") for each in ids] == before


def test_what_a_file_says(tmp_path: Path) -> None:
    """A file says what it was written with; one of an older version says nothing, and what is no Parquet is none."""
    path = tmp_path / "a.parquet"
    with duckdb.connect() as engine:
        engine.execute(
            f"COPY (SELECT 1 AS a) TO '{path}' (FORMAT parquet, {option({'job': chr(39) + 'é', 'part': 1})})"
        )
        assert said_by(path) == ({"job": "'é", "part": 1}, 1)
        assert is_of(path, job="'é")
        assert not is_of(path, job="another")
        engine.execute(f"COPY (SELECT 1 AS a UNION ALL SELECT 2) TO '{path}' (FORMAT parquet)")
    assert said_by(path) == ({}, 2)
    assert is_of(path, job="another")
    path.write_bytes(b"PAR1 and no more PAR1")
    assert said_by(path) is None
    assert not is_of(path)
