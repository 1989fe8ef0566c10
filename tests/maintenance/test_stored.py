"""What lies under `home` and in the store: copies are freed here, and nothing is removed there."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from support import answered, connect, make_staging, rows, settings_of, submitted

from duckdb_mistral.batches.context import Context
from duckdb_mistral.errors import StoreError
from duckdb_mistral.maintenance.clean import Asked, clean
from duckdb_mistral.maintenance.stored import Stored
from duckdb_mistral.results import convert
from duckdb_mistral.settings import Settings
from duckdb_mistral.state.inventory import Kind
from duckdb_mistral.state.names import results_lock

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return the directory of a store."""
    path = tmp_path / "store"
    path.mkdir()
    return path


def settings(emulator: Emulator, home: Path, directory: Path) -> dict[str, Any]:
    """Return the settings of a home with a store."""
    return settings_of(emulator, home, store=f"file://{directory}")


def cleaned(given: dict[str, Any], *identifiers: str, free: bool = True) -> dict[Kind, int]:
    """Clean, and return the number of files of each kind that there is."""
    with closing(Context(Settings.resolve(given))) as context:
        found = clean(context, Asked(identifiers=identifiers), free=free)
    return {heap.kind: heap.files for heap in found}


def files(directory: Path) -> dict[str, bytes]:
    """Return what lies in a store."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def unnamed(given: dict[str, Any]) -> list[int]:
    """Return the bytes of the files in the store that the ledger does not name."""
    with closing(Context(Settings.resolve(given))) as context:
        assert context.home.store is not None
        return Stored(context, context.home.store).unnamed()


def test_copies_are_freed(emulator: Emulator, home: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store has too goes from home, lines and hashes and shared rows too; all of it can be read after that."""
    monkeypatch.setattr(convert, "LARGE_BYTES", 1)
    given = settings(emulator, home, directory)
    with connect(emulator, home, store=given["store"]) as con:
        con.execute("CREATE TABLE staging AS SELECT range AS custom_id, 'p' || range % 2 AS prompt FROM range(4)")
        submission_id = submitted(con, arguments="reuse := 'requests'")
        first = answered(con, submission_id)
        kept = files(directory)
        assert cleaned(given, free=False)[Kind.COPY] == 4  # results with their lines, hashes, shared rows
        assert cleaned(given).get(Kind.COPY) == 4
        assert Kind.RESULTS not in cleaned(given, submission_id)
        assert not [path for path in (*home.glob("results/*"), *home.glob("requests/*")) if path.is_file()]
        assert files(directory) == kept
        assert rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id") == first
    assert emulator.witness()["rows_accepted"] == 2


def test_what_the_store_does_not_have_stays(emulator: Emulator, home: Path, directory: Path) -> None:
    """Results that the store lacks, or has otherwise, stay; so do requests that are still needed."""
    given = settings(emulator, home, directory)
    with connect(emulator, home, store=given["store"]) as con:
        con.execute("CREATE TABLE staging AS SELECT range AS custom_id, '[[error 500]]' AS prompt FROM range(2)")
        answered(con, submitted(con))
        (result,) = (directory / "results").glob("*.parquet")
        content = result.read_bytes()
        result.write_bytes(content + b"x")
        assert cleaned(given)[Kind.RESULTS] == 1
        result.unlink()
        found = cleaned(given)
        assert found[Kind.RESULTS] == 1
        assert found[Kind.NEEDED] >= 2
        assert Kind.COPY not in found
        result.write_bytes(content)
        assert cleaned(given)[Kind.COPY] == 1
    assert list(home.glob("spool/*/part-00001.jsonl"))


def test_copies_that_are_being_written_stay(emulator: Emulator, home: Path, directory: Path) -> None:
    """While somebody is at a job's results, its copy stays."""
    given = settings(emulator, home, directory)
    with connect(emulator, home, store=given["store"]) as con:
        make_staging(con)
        answered(con, submitted(con))
    with closing(Context(Settings.resolve(given))) as context:
        (job,) = context.ledger.jobs()
        with context.locks.waiting(results_lock(job)):
            cleaned(given)
            assert context.home.results_of(job).exists()
        cleaned(given)
        assert not context.home.results_of(job).exists()


def test_what_no_ledger_here_names_stays(emulator: Emulator, home: Path, directory: Path) -> None:
    """Files of another ledger in the same store are counted as such, and stay."""
    given = settings(emulator, home, directory)
    other = home.with_name("other")
    with connect(emulator, home, store=given["store"]) as con:
        make_staging(con)
        answered(con, submitted(con))
        assert unnamed(given) == []
    with connect(emulator, other, store=given["store"]) as con:
        make_staging(con, 4)
        con.execute("FROM mistral_batch_submit('staging', reuse := 'requests')")
        (theirs,) = {row["submission_id"] for row in rows(con, "FROM mistral_batch_status()")}
        answered(con, theirs)
    before = files(directory)
    cleaned(given)
    assert files(directory) == before
    assert len(unnamed(given)) == 3  # keys, hashes, results
    assert len(unnamed(settings(emulator, other, directory))) == 3


def test_a_store_that_is_away(emulator: Emulator, home: Path, directory: Path) -> None:
    """Nothing is removed where the store cannot be listed."""
    given = settings(emulator, home, directory)
    with connect(emulator, home, store=given["store"]) as con:
        make_staging(con)
        answered(con, submitted(con))
    before = files(home)
    directory.rename(directory.with_name("away"))
    with pytest.raises(StoreError, match=r"The store file:///.* could not be listed \(there is no directory"):
        cleaned(given)
    assert files(home).keys() >= before.keys()
