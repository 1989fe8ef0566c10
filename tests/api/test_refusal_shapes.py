"""What is refused while a statement is bound is refused in every shape of statement around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest
from support import connect, make_staging, submitted

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = (
    "FROM {refused}",
    "SELECT count(*) FROM {refused}",
    "SELECT custom_id FROM {refused} WHERE outcome <> 'ok'",
    "CREATE TABLE joined AS FROM staging s JOIN {refused} r ON r.custom_id = s.custom_id",
    "SELECT s.custom_id FROM staging s LEFT JOIN {refused} r USING (custom_id)",
    "SELECT custom_id FROM staging WHERE custom_id NOT IN (SELECT custom_id FROM {refused})",
    "SELECT custom_id FROM staging s WHERE EXISTS (FROM {refused} r WHERE r.custom_id = s.custom_id)",
    "SELECT custom_id FROM staging UNION ALL SELECT custom_id FROM {refused}",
    "SELECT outcome, count(*) FROM {refused} WHERE content IS NOT NULL GROUP BY outcome",
)


@pytest.mark.parametrize("shape", SHAPES)
def test_results_too_early(shape: str, tmp_path: Path, home: Path) -> None:
    """Results of a job that goes on are an error in every shape of query, and never an empty answer."""
    with Emulator(tmp_path / "slow", job_seconds=3600) as slow, connect(slow, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        with pytest.raises(duckdb.Error, match="0 of 3 requests are done"):
            con.execute(shape.format(refused=f"mistral_batch_results('{submission_id}')")).fetchall()


@pytest.mark.parametrize("shape", ["FROM {refused}", "SELECT job_id FROM {refused} WHERE status = 'FAILED'"])
def test_submit_refused(shape: str, con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A submit that is refused is an error behind a WHERE too."""
    make_staging(con)
    with pytest.raises(duckdb.Error, match="reuse must be"):
        con.execute(shape.format(refused="mistral_batch_submit('staging', reuse := 'never')")).fetchall()
    assert emulator.witness()["requests"] == {}
