"""Waits that DuckDB ends: connection.interrupt(), and calls that nobody asks after any more."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import duckdb
import pytest
from support import connect, make_staging, rows, submitted

from duckdb_mistral.emulator import Emulator
from duckdb_mistral.functions import waiting
from duckdb_mistral.functions.waiting import Waiting
from duckdb_mistral.runtime import interrupts
from duckdb_mistral.runtime.retry_policy import Retry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def has_ended(call: Waiting[str]) -> bool:
    """Ask after a call until it has ended, or for half a minute."""
    end = time.monotonic() + 30
    while not call.has_ended():
        assert time.monotonic() < end
    return True


@contextlib.contextmanager
def interrupted(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Interrupt what runs on a connection, over and over: one may come before the statement has begun."""
    ended = threading.Event()

    def interrupt() -> None:
        while not ended.wait(0.5):
            con.interrupt()

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    try:
        yield
    finally:
        ended.set()
        interrupting.join()


def test_interrupted_connection(tmp_path: Path, home: Path) -> None:
    """connection.interrupt() from another thread ends a wait; the connection stays usable, and the job goes on."""
    with Emulator(tmp_path / "slow", job_seconds=3600) as slow, connect(slow, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        with interrupted(con), pytest.raises(duckdb.InterruptException):
            con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
        (row,) = rows(con, "SELECT status FROM mistral_batch_status($id)", {"id": submission_id})
        assert row["status"] in ("QUEUED", "RUNNING")
        with pytest.raises(duckdb.Error, match=r"gave up after 0\.3 seconds"):
            con.execute("FROM mistral_batch_wait($id, timeout_seconds := 0.3)", {"id": submission_id})


def test_many_ids(con: duckdb.DuckDBPyConnection) -> None:
    """The ids of a wait may be a column: each is waited for, and its rows stand beside it."""
    make_staging(con)
    first, second = submitted(con), submitted(con, arguments="metadata := {of: 'another'}")
    con.execute("CREATE TABLE sent AS SELECT unnest($ids) AS id", {"ids": [first, second]})
    ended = "SELECT s.id, w.submission_id, w.status FROM sent s, LATERAL (FROM mistral_batch_wait(s.id)) w ORDER BY ALL"
    assert con.execute(ended).fetchall() == sorted((one, one, "SUCCESS") for one in (first, second))


def test_more_ids_than_slices(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait for many ids asks after each of them soon enough, so that none counts as left."""
    monkeypatch.setattr(waiting, "LEFT_SECONDS", 2.0)
    ended = "SELECT count(*) FROM range(30), LATERAL (FROM mistral_batch_wait(concat($id, left(range::VARCHAR, 0)))) w"
    with Emulator(tmp_path / "slow", job_seconds=4) as slow, connect(slow, home) as con:
        make_staging(con)
        assert con.execute(ended, {"id": submitted(con)}).fetchall() == [(30,)]


def test_outcome() -> None:
    """What a call returns, and what it raises, comes out where it is asked for."""
    call = Waiting(lambda: "done")
    assert has_ended(call)
    assert call.outcome() == "done"

    def fail() -> str:
        raise ValueError("of its own")

    failing = Waiting(fail)
    assert has_ended(failing)
    with pytest.raises(ValueError, match="of its own"):
        failing.outcome()


def test_left_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that nobody asks after is interrupted; one that is asked after goes on."""
    monkeypatch.setattr(waiting, "LEFT_SECONDS", 1.0)

    def pause() -> str:
        Retry().pause(3600)
        return "paused"

    asked_after, left = Waiting(pause), Waiting(pause)
    end = time.monotonic() + 30
    while not left._future.done():
        assert time.monotonic() < end
        assert not asked_after.has_ended()
    with pytest.raises(KeyboardInterrupt):
        left.outcome()
    interrupts.interrupt()  # the other
