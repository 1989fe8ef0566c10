"""The state directory: whose it is, who may write into it, and what can be read where nothing can be written."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import duckdb
import pytest
from support import connect, make_staging, rows, submitted

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.owner import open_home

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator


def test_made_for_its_owner_alone(tmp_path: Path) -> None:
    """A home and the directories above it that are missing are open to nobody else, whatever the umask."""
    before = os.umask(0)
    try:
        assert open_home(tmp_path / "one" / "two" / "home")
    finally:
        os.umask(before)
    for path in ("one", "one/two", "one/two/home"):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o700


def test_open_to_everybody(tmp_path: Path) -> None:
    """A home that everybody may write into is refused, with what to run; one that they may read is not."""
    tmp_path.chmod(0o777)
    with pytest.raises(LedgerError, match="chmod go-w"):
        Ledger(Home(tmp_path))
    assert not list(tmp_path.iterdir())
    tmp_path.chmod(0o775)
    assert open_home(tmp_path)


def test_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that belongs to another user is refused, unless that is root."""
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        assert open_home(tmp_path)
        os.chown(tmp_path, 12345, -1)
    with pytest.raises(LedgerError, match="belongs to the user"):
        Ledger(Home(tmp_path))


def test_no_directory(tmp_path: Path) -> None:
    """A file in the place of the home is told."""
    (tmp_path / "home").write_text("")
    with pytest.raises(LedgerError, match="it is not a directory"):
        open_home(tmp_path / "home")
    with pytest.raises(LedgerError, match="cannot be written"):
        open_home(tmp_path / "home" / "deeper")


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be written under the home, which not even root may where its file system is read-only."""
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that may not even be read is told in a sentence."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(LedgerError, match="may not even read it"):
        Ledger(Home(tmp_path))


def test_kept_results_of_a_read_only_home(
    con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path, request: pytest.FixtureRequest
) -> None:
    """Kept results, their status and their cost are read from a home that cannot be written."""
    make_staging(con)
    submission_id = submitted(con)
    con.execute(f"FROM mistral_batch_wait('{submission_id}')").fetchall()
    kept = rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id")
    con.close()
    request.getfixturevalue("read_only")
    again = connect(emulator, home)
    assert rows(again, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id") == kept
    assert rows(again, f"FROM mistral_batch_cost('{submission_id}')")
    for call in (f"status('{submission_id}')", "status()", f"wait('{submission_id}')"):
        ((status,),) = again.execute(f"SELECT status FROM mistral_batch_{call}").fetchall()
        assert status == "SUCCESS"


def test_nothing_is_sent_from_a_read_only_home(
    con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path, request: pytest.FixtureRequest
) -> None:
    """What would have to be written down is refused in a sentence before anything is sent, and leaves nothing."""
    make_staging(con)
    submission_id = submitted(con, arguments="metadata := {'emulate': 'seconds 100'}")
    con.close()
    before = sorted(home.rglob("*"))
    request.getfixturevalue("read_only")
    again = connect(emulator, home)
    make_staging(again, 5)
    for call in (
        "submit('staging')",
        "submit('staging', reuse := 'requests')",
        f"cancel('{submission_id}')",
        f"wait('{submission_id}')",
        f"retry('{submission_id}')",
    ):
        with pytest.raises(duckdb.Error, match=r"read-only for this user|has not ended|is QUEUED|is RUNNING"):
            again.execute(f"FROM mistral_batch_{call}").fetchall()
    with pytest.raises(duckdb.Error, match=r"is (QUEUED|RUNNING)"):
        again.execute(f"FROM mistral_batch_results('{submission_id}')").fetchall()
    ((status,),) = again.execute(f"SELECT status FROM mistral_batch_status('{submission_id}')").fetchall()
    assert status in {"QUEUED", "RUNNING"}
    assert (emulator.witness()["creates_received"], emulator.witness()["uploads_stored"]) == (1, 1)
    assert sorted(home.rglob("*")) == before
