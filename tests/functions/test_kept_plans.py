"""Plans that DuckDB keeps: PREPARE, a relation and a view answer with what is there when they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import answered, asked_for_money, connect, make_staging, rows, submitted, wait_at_the_server

from duckdb_mistral.duck.sql_files import macro_files, macro_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

OUTPUT = "output := 'STRUCT(a VARCHAR)'"
UNENDED = {"method": "GET", "path": "/v1/batch/jobs.*", "change": {"status": "RUNNING"}, "times": 1000}


def prepared(con: duckdb.DuckDBPyConnection, query: str) -> Callable[[], list[Any]]:
    """Keep a plan by PREPARE."""
    con.execute(f"PREPARE kept AS {query}")
    return lambda: con.execute("EXECUTE kept").fetchall()


def prepared_in_a_view(con: duckdb.DuckDBPyConnection, query: str) -> Callable[[], list[Any]]:
    """Keep a plan of a view by PREPARE."""
    con.execute(f"CREATE OR REPLACE TEMP VIEW looked_at AS {query}")
    return prepared(con, "FROM looked_at")


def prepared_with_a_parameter(con: duckdb.DuckDBPyConnection, query: str) -> Callable[[], list[Any]]:
    """Keep a plan that has a parameter."""
    con.execute(f"PREPARE kept AS SELECT * FROM ({query}) LIMIT $1")
    return lambda: con.execute("EXECUTE kept(1000)").fetchall()


def relation(con: duckdb.DuckDBPyConnection, query: str) -> Callable[[], list[Any]]:
    """Keep a relation."""
    return con.sql(query).fetchall


def view(con: duckdb.DuckDBPyConnection, query: str) -> Callable[[], list[Any]]:
    """Keep a view."""
    con.execute(f"CREATE OR REPLACE TEMP VIEW looked_at AS {query}")
    return lambda: con.execute("FROM looked_at").fetchall()


KEEPING = [prepared, prepared_in_a_view, prepared_with_a_parameter, relation, view]


parametrized = pytest.mark.parametrize("keep", KEEPING, ids=[keep.__name__ for keep in KEEPING])


@parametrized
@pytest.mark.parametrize("partial", ["", ", partial := true"])
def test_results_that_had_not_ended(
    keep: Callable[..., Any], partial: str, con: duckdb.DuckDBPyConnection, emulator: Emulator
) -> None:
    """What was kept before a batch ended tells that it has not, and gives the rows once it has, typed as declared."""
    make_staging(con)
    submission_id = submitted(con, arguments=OUTPUT)
    wait_at_the_server(con)
    emulator.faults(UNENDED)
    run = keep(con, f"SELECT custom_id, output FROM mistral_batch_results('{submission_id}'{partial})")
    for _ in range(2):
        with pytest.raises(duckdb.Error, match="Results can be read once everything has ended"):
            run()
    emulator.faults()
    assert sorted(run()) == [(str(number), {"a": "echo"}) for number in range(3)]


@parametrized
def test_results_of_everything(keep: Callable[..., Any], con: duckdb.DuckDBPyConnection) -> None:
    """What was kept before there was anything to read gives what each later submission adds."""
    run = keep(con, "SELECT custom_id, outcome FROM mistral_batch_results()")
    assert run() == []
    for number in (1, 2):
        answered(con, submitted(con, f"SELECT {number} AS custom_id, 'x{number}' AS prompt"))
        assert sorted(run()) == [(str(one + 1), "ok") for one in range(number)]


@parametrized
def test_results_after_a_retry(keep: Callable[..., Any], con: duckdb.DuckDBPyConnection) -> None:
    """What was kept before a retry gives the rows of the retry."""
    make_staging(con, 1)
    con.execute("INSERT INTO staging VALUES ('failing', '[[error 500]]')")
    submission_id = submitted(con)
    answered(con, submission_id)
    run = keep(con, f"SELECT custom_id, job_id FROM mistral_batch_results('{submission_id}')")
    before = dict(run())
    (retry,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    answered(con, submission_id)
    assert dict(run()) == before | {"failing": retry["job_id"]}


@parametrized
def test_requests_of_a_source_that_changed(keep: Callable[..., Any], con: duckdb.DuckDBPyConnection) -> None:
    """A kept preview or estimate is of the rows, columns and variables that there are when it runs."""
    make_staging(con, 1)
    con.execute("SET VARIABLE system = 'one'")
    preview = (
        "SELECT body->>'$.messages[0].content' FROM mistral_batch_preview('staging', system := getvariable('system'))"
    )
    for query, first, second in (
        (preview, [("one",)], [("two",), ("two",)]),
        ("SELECT requests FROM mistral_batch_estimate('staging')", [(1,)], [(2,)]),
    ):
        con.execute("DELETE FROM staging WHERE custom_id = 'more'")
        con.execute("SET VARIABLE system = 'one'")
        run = keep(con, query)
        assert run() == first
        con.execute("INSERT INTO staging VALUES ('more', 'words')")
        con.execute("SET VARIABLE system = 'two'")
        assert run() == second


@parametrized
def test_refusal_that_no_longer_holds(keep: Callable[..., Any], con: duckdb.DuckDBPyConnection) -> None:
    """What was refused when it was kept is not refused for ever."""
    make_staging(con, 1)
    con.execute("SET VARIABLE hours = 0")
    query = "SELECT total_requests FROM mistral_batch_submit('staging', timeout_hours := getvariable('hours'))"
    run = keep(con, query)
    with pytest.raises(duckdb.Error, match="timeout_hours must be a whole number from 1"):
        run()
    con.execute("SET VARIABLE hours = 24")
    assert run() == [(1,)]


@pytest.mark.parametrize("name", ["status", "wait", "cost", "cancel", "retry"])
def test_id_of_a_variable(name: str, con: duckdb.DuckDBPyConnection) -> None:
    """A kept call acts on the id that a variable has when it runs, not on the one that it had."""
    make_staging(con, 1)
    ids = [submitted(con), submitted(con, "SELECT 1 AS custom_id, 'other' AS prompt")]
    for one in ids:
        answered(con, one)
    con.execute(f"SET VARIABLE id = '{ids[0]}'")
    run = prepared(con, f"SELECT submission_id FROM mistral_batch_{name}(getvariable('id'))")
    con.execute(f"SET VARIABLE id = '{ids[1]}'")
    assert run() == ([] if name == "retry" else [(ids[1],)])


def test_kept_submit_spends_only_when_it_runs(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """To keep a submit sends nothing, and to run it again returns the jobs that exist."""
    make_staging(con)
    run = prepared(con, "SELECT reused FROM mistral_batch_submit('staging')")
    assert asked_for_money(emulator) == (0, 0)
    assert [run(), run()] == [[(False,)], [(True,)]]
    assert asked_for_money(emulator) == (1, 1)
    with connect(emulator, home) as other:
        assert other.execute("SELECT count(*) FROM mistral_batch_status()").fetchall() == [(1,)]


def test_every_macro_is_bound_anew() -> None:
    """Every macro has what lets DuckDB bind a kept plan anew."""
    text = "\n".join(macro_text(path) for path in macro_files())
    assert text.count("AS TABLE\n") == text.count("WHERE system.main.now() IS NOT NULL;\n") > 0
