"""Several empty homes that submit the same at the same moment: one of them pays."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from support import connect, make_staging, rows

from duckdb_mistral.api.client import BatchClient
from duckdb_mistral.batches import turns
from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import duckdb

ROWS = 20
#: Four parts.
LIMITS = {"max_requests_per_job": 5}


def at_once(emulator: Emulator, home: Path, count: int, pause: Callable[[int], float] = lambda _: 0.0) -> list[Any]:
    """Submit the same from so many homes, each after its pause; return the ids that each was told."""
    found: list[Any] = [None] * count
    start = threading.Barrier(count)

    def submit(number: int) -> None:
        with connect(emulator, home.with_name(f"home-{number}"), **LIMITS) as con:
            make_staging(con, ROWS)
            start.wait(60)
            time.sleep(pause(number))
            found[number] = rows(con, "FROM mistral_batch_submit('staging')")

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def check_paid_once(emulator: Emulator, found: list[Any]) -> None:
    """Check that all homes were told the same four jobs, and that the server has no others."""
    assert len({frozenset(row["job_id"] for row in told) for told in found}) == 1
    witness = emulator.witness()
    assert (witness["jobs_stored"], witness["rows_accepted"]) == (4, ROWS)
    assert witness["rows_accepted_more_than_once"] == 0


def die_after_uploading(con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submit, and end before anything is created."""

    def died(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(turns.Turns, "wait", died)
        with pytest.raises(BaseException, match=r"(?i)interrupt"):
            rows(con, "FROM mistral_batch_submit('staging')")


@pytest.mark.parametrize("count", [2, 6])
def test_empty_homes_at_once(count: int, emulator: Emulator, home: Path) -> None:
    """Homes that begin at the same moment have the jobs of one of them, and pay once."""
    check_paid_once(emulator, at_once(emulator, home, count))


def test_empty_homes_one_after_another(tmp_path: Path, home: Path) -> None:
    """Homes that begin a little after one another, while the jobs of the first run, have its jobs, and pay once."""
    with Emulator(tmp_path / "slow", job_seconds=60) as emulator:
        check_paid_once(emulator, at_once(emulator, home, 4, lambda number: 0.4 * number))


def test_home_that_uploads_while_another_one_creates(
    emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where both have uploaded before either has created, the second waits for the first one's jobs, however slow."""
    create, upload = BatchClient.create, BatchClient.upload
    uploaded = threading.Event()

    def slow_create(client: BatchClient, **options: Any) -> Any:
        assert uploaded.wait(30)
        time.sleep(1)
        return create(client, **options)

    def told_upload(client: BatchClient, path: Path, name: str) -> str:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(1.1)  # another second by the server's clock
        file_id = upload(client, path, name)
        if threading.current_thread() is not threading.main_thread():
            uploaded.set()
        return file_id

    monkeypatch.setattr(BatchClient, "create", slow_create)
    monkeypatch.setattr(BatchClient, "upload", told_upload)
    with connect(emulator, home) as con, connect(emulator, home.with_name("other")) as other:
        make_staging(con)
        make_staging(other)
        second: list[Any] = []
        thread = threading.Thread(target=lambda: second.extend(rows(other, "FROM mistral_batch_submit('staging')")))
        thread.start()
        (first,) = rows(con, "FROM mistral_batch_submit('staging')")
        thread.join()
    assert [row["job_id"] for row in second] == [first["job_id"]]
    assert emulator.witness()["jobs_stored"] == 1


def test_home_that_uploaded_and_died(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that has uploaded and creates nothing is waited for only for a while."""
    with connect(emulator, home) as con:
        make_staging(con)
        die_after_uploading(con, monkeypatch)
    assert emulator.witness()["uploads_stored"] == 1
    monkeypatch.setattr(turns, "CLAIM_SECONDS", 2.0)
    with connect(emulator, home.with_name("other")) as con:
        make_staging(con)
        (found,) = rows(con, "FROM mistral_batch_submit('staging')")
    assert not found["reused"]
    assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F01")
def test_home_that_died_before_its_creates(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that was killed after its uploads takes over what another home has paid for since."""
    with connect(emulator, home, **LIMITS) as con:
        make_staging(con, ROWS)
        die_after_uploading(con, monkeypatch)
        monkeypatch.setattr(turns, "CLAIM_SECONDS", 0.0)
        with connect(emulator, home.with_name("other"), **LIMITS) as other:
            make_staging(other, ROWS)
            theirs = rows(other, "FROM mistral_batch_submit('staging')")
        found = rows(con, "FROM mistral_batch_submit('staging')")
        assert {row["submission_id"] for row in rows(con, "FROM mistral_batch_status()")} == {
            theirs[0]["submission_id"]
        }
    assert [path.name for path in (home / "spool").iterdir()] == []
    assert all(row["reused"] for row in found)
    check_paid_once(emulator, [found, theirs])


def test_home_that_died_and_goes_on(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that was killed after its uploads, and that nobody was quicker than, goes on with them."""
    with connect(emulator, home, **LIMITS) as con:
        make_staging(con, ROWS)
        die_after_uploading(con, monkeypatch)
        found = rows(con, "FROM mistral_batch_submit('staging')")
    assert not any(row["reused"] for row in found)
    check_paid_once(emulator, [found])
    assert emulator.witness()["uploads_stored"] == 4
