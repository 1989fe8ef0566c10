"""An id that is NULL, as a variable that is not set is, is not the same as none given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest
from support import answered, asked_for_money, make_staging, submitted

if TYPE_CHECKING:
    from duckdb_mistral.emulator import Emulator

NULLS = [
    "NULL",
    "NULL::VARCHAR",
    "id := NULL",
    "getvariable('unset')",
    "nullif('a', 'a')",
    "id := getvariable('unset')",
]


@pytest.fixture
def submission_id(con: duckdb.DuckDBPyConnection) -> str:
    """Return the id of a submission that was answered."""
    make_staging(con)
    made = submitted(con)
    answered(con, made)
    return made


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("name", ["results", "wait", "cancel", "retry", "cost"])
@pytest.mark.usefixtures("submission_id")
def test_null_is_refused(name: str, null: str, con: duckdb.DuckDBPyConnection) -> None:
    """Whatever is NULL in the place of the id is refused in a sentence."""
    given = null if name == "results" else null.removeprefix("id := ")
    with pytest.raises(duckdb.Error, match="The id is NULL; give the submission_id or the job_id"):
        con.execute(f"FROM mistral_batch_{name}({given})").fetchall()


@pytest.mark.usefixtures("submission_id")
def test_null_parameter(con: duckdb.DuckDBPyConnection) -> None:
    """A prepared parameter without a value is refused too, also with partial := true."""
    for query in ("FROM mistral_batch_results($1)", "FROM mistral_batch_results(id := $1, partial := true)"):
        with pytest.raises(duckdb.Error, match="The id is NULL"):
            con.execute(query, [None])
    con.execute("PREPARE kept AS SELECT count(*) FROM mistral_batch_results($1)")
    with pytest.raises(duckdb.Error, match="The id is NULL"):
        con.execute("EXECUTE kept(NULL)")


def test_none_given_is_everything(con: duckdb.DuckDBPyConnection, submission_id: str) -> None:
    """Without an id there are the results of every ended submission, with and without partial."""
    answered(con, submitted(con, "SELECT 1 AS custom_id, 'other' AS prompt"))
    for call, count in (("", 4), ("partial := true", 4), (f"'{submission_id}'", 3), (f"id := '{submission_id}'", 3)):
        assert con.execute(f"SELECT count(*) FROM mistral_batch_results({call})").fetchall() == [(count,)]


@pytest.mark.usefixtures("submission_id")
def test_null_within_a_source(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A submit whose source reads the results of NULL sends nothing."""
    before = asked_for_money(emulator)
    source = "SELECT custom_id, content AS prompt FROM mistral_batch_results(getvariable(''unset''))"
    for name in ("submit", "estimate", "preview"):
        with pytest.raises(duckdb.Error, match="The id is NULL"):
            con.execute(f"FROM mistral_batch_{name}('{source}')").fetchall()
    assert asked_for_money(emulator) == before


@pytest.mark.usefixtures("submission_id")
def test_status_of_null(con: duckdb.DuckDBPyConnection) -> None:
    """The status of NULL is that of every submission, as the default of its id says."""
    assert con.execute("SELECT count(*) FROM mistral_batch_status(NULL)").fetchall() == [(1,)]


@pytest.mark.parametrize("arguments", ["partial = true", "id = 'x'"])
def test_results_of_a_comparison(arguments: str, con: duckdb.DuckDBPyConnection) -> None:
    """An argument of results that is named with = is told from an id."""
    with pytest.raises(duckdb.Error, match="Was it named with =, which compares"):
        con.execute(f"FROM mistral_batch_results({arguments})")
