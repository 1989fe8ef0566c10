"""The SQL surface: the macros, their parameters and comments, and the columns that each returns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import make_staging, rows, submitted

if TYPE_CHECKING:
    import duckdb

    from duckdb_mistral.emulator import Emulator

GOLDEN = Path(__file__).parents[1] / "golden" / "surface.txt"
PUBLIC = (
    "FROM duckdb_functions() WHERE function_name LIKE 'mistral\\_%' ESCAPE '\\' "
    "AND function_name NOT LIKE 'mistral\\_internal\\_%' ESCAPE '\\'"
)

SUBMIT = """
    submission_id VARCHAR, job_id VARCHAR, part INTEGER, status VARCHAR, model VARCHAR, endpoint VARCHAR,
    total_requests BIGINT, input_bytes BIGINT, reused BOOLEAN, created_at TIMESTAMP WITH TIME ZONE
"""
STATUS = """
    submission_id VARCHAR, job_id VARCHAR, part INTEGER, status VARCHAR, model VARCHAR, endpoint VARCHAR,
    total_requests BIGINT, completed_requests BIGINT, succeeded_requests BIGINT, failed_requests BIGINT,
    progress DOUBLE, created_at TIMESTAMP WITH TIME ZONE, started_at TIMESTAMP WITH TIME ZONE,
    completed_at TIMESTAMP WITH TIME ZONE, checked_at TIMESTAMP WITH TIME ZONE,
    errors STRUCT(message VARCHAR; count BIGINT)[], metadata MAP(VARCHAR; VARCHAR),
    output_file VARCHAR, error_file VARCHAR
"""
RESULTS = """
    custom_id VARCHAR, outcome VARCHAR, content VARCHAR, output JSON, embedding FLOAT[], error VARCHAR,
    status_code INTEGER, reused BOOLEAN, finish_reason VARCHAR, prompt_tokens BIGINT, completion_tokens BIGINT,
    total_tokens BIGINT, model VARCHAR, response JSON, job_id VARCHAR, submission_id VARCHAR
"""

ESTIMATE = """
    requests BIGINT, input_bytes BIGINT, jobs BIGINT, input_tokens BIGINT, max_output_tokens BIGINT,
    input_cost DOUBLE, max_output_cost DOUBLE, cost DOUBLE, pilot_requests BIGINT, expected_cost DOUBLE,
    tokens_from VARCHAR, prices_date DATE, note VARCHAR
"""

#: Each function, called once in plain SQL, and what the contract says of its columns.
CALLS = {
    "mistral_batch_submit": ("FROM mistral_batch_submit('staging')", SUBMIT),
    "mistral_batch_status": ("FROM mistral_batch_status()", STATUS),
    "mistral_batch_wait": ("FROM mistral_batch_wait('{id}', timeout_seconds := 60)", STATUS),
    "mistral_batch_results": ("FROM mistral_batch_results('{id}')", RESULTS),
    "mistral_batch_cancel": ("FROM mistral_batch_cancel('{id}')", STATUS),
    "mistral_batch_retry": ("FROM mistral_batch_retry('{id}')", SUBMIT),
    "mistral_batch_preview": ("FROM mistral_batch_preview('staging')", "custom_id VARCHAR, body JSON"),
    "mistral_batch_estimate": ("FROM mistral_batch_estimate('staging')", ESTIMATE),
    "mistral_batch_cost": ("FROM mistral_batch_cost('{id}')", None),
    "mistral_batch_jobs": ("FROM mistral_batch_jobs()", None),
    "mistral_models": ("FROM mistral_models()", None),
}
#: What these must have at least; the contract leaves the rest open.
AT_LEAST = {
    "mistral_batch_jobs": ("job_id", "status", "model", "endpoint", "total_requests", "created_at", "metadata"),
    "mistral_batch_cost": ("submission_id", "job_id", "model", "prompt_tokens", "completion_tokens", "cost", "note"),
    "mistral_models": ("id",),
}
PARAMETERS = {
    "mistral_batch_submit": "source model endpoint system params output metadata timeout_hours reuse max_cost force",
    "mistral_batch_status": "id",
    "mistral_batch_wait": "id timeout_seconds",
    "mistral_batch_results": "id partial",
    "mistral_batch_cancel": "id",
    "mistral_batch_retry": "id",
    "mistral_batch_jobs": "status model metadata created_after",
    "mistral_models": "",
}


def surface(con: duckdb.DuckDBPyConnection) -> str:
    """Return the macros with their parameters and comments, one after the other."""
    found = con.execute(f"SELECT function_name, parameters, comment {PUBLIC} ORDER BY ALL").fetchall()
    return "\n".join(f"{name}({', '.join(parameters)})\n    {comment}\n" for name, parameters, comment in found)


def columns(con: duckdb.DuckDBPyConnection, query: str) -> list[tuple[str, str]]:
    """Return the names and types of a query's columns, as DESCRIBE says them."""
    found = con.execute(f"SELECT column_name, column_type FROM (DESCRIBE {query})").fetchall()
    return [(name, kind.replace('"', "")) for name, kind in found]  # whether count is quoted depends on the version


def expected(text: str) -> list[tuple[str, str]]:
    """Return the columns of a list as it stands above; a type's own commas are semicolons there."""
    pairs = (entry.strip().split(" ", 1) for entry in " ".join(text.split()).split(","))
    return [(name, kind.replace(";", ",")) for name, kind in pairs]


def test_golden_surface(con: duckdb.DuckDBPyConnection, request: pytest.FixtureRequest) -> None:
    """The macros, their parameters and their comments are those of the golden file."""
    found = surface(con)
    if request.config.getoption("--golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8"), "if that is meant: make golden, and read the diff"


def test_every_macro_has_a_comment(con: duckdb.DuckDBPyConnection) -> None:
    """Every macro is TEMP, says in a sentence what it does, and names no inner function."""
    found = con.execute(f"SELECT function_name, comment, database_name, function_type {PUBLIC}").fetchall()
    assert len(found) >= len(CALLS)
    for name, comment, database, kind in found:
        assert comment, name
        assert comment.endswith("."), name
        assert "internal" not in comment, name
        assert (database, kind) == ("temp", "table_macro"), name


def test_nothing_else_is_public(con: duckdb.DuckDBPyConnection) -> None:
    """Every function that is registered is one of the macros, or marked as internal by its name."""
    added = con.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE NOT internal OR function_name LIKE 'mistral%'"
    ).fetchall()
    public = {row[0] for row in con.execute(f"SELECT function_name {PUBLIC}").fetchall()}
    assert {name for (name,) in added if not name.startswith("mistral_internal_")} == public


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items(), ids=PARAMETERS)
def test_parameters_of_the_contract(con: duckdb.DuckDBPyConnection, name: str, parameters: str) -> None:
    """Each function takes the contract's parameters, in its order, before any others."""
    ((found,),) = con.execute(
        "SELECT parameters FROM duckdb_functions() WHERE function_name = $name", {"name": name}
    ).fetchall()
    assert found[: len(parameters.split())] == parameters.split()


def test_every_macro_is_called_here(con: duckdb.DuckDBPyConnection) -> None:
    """The list of calls below leaves no macro out."""
    assert {row[0] for row in con.execute(f"SELECT function_name {PUBLIC}").fetchall()} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_call_and_columns(con: duckdb.DuckDBPyConnection, emulator: Emulator, name: str) -> None:
    """Each macro runs in plain SQL, gives rows, and has the contract's columns and types, also in DESCRIBE."""
    make_staging(con)
    con.execute("INSERT INTO staging VALUES ('failing', '[[error 500]]')")
    submission_id = submitted(con)
    con.execute(f"FROM mistral_batch_wait('{submission_id}')")
    call, listed = CALLS[name]
    call = call.format(id=submission_id)
    described = columns(con, call)
    if listed is not None:
        assert described == expected(listed)
    else:
        assert set(AT_LEAST[name]) <= {column for column, _ in described}
    found = rows(con, call)
    assert found
    assert list(found[0]) == [column for column, _ in described]


def test_refusal_has_the_same_columns(con: duckdb.DuckDBPyConnection) -> None:
    """What will be refused has the columns too, so that a query over it ends with the refusal and not with a name."""
    refused = "FROM mistral_batch_submit('staging', timeout_hours := 0)"
    assert columns(con, refused) == expected(SUBMIT)
    assert columns(con, "FROM mistral_batch_results('nothing')") == expected(RESULTS)
    assert columns(con, "FROM mistral_batch_preview('')") == expected("custom_id VARCHAR, body JSON")
