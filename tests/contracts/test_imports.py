"""What is imported when, and what a process that used the functions leaves on its standard error."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest
from support import run_python

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = (
    "mistralai",
    "sqlalchemy",
    "pandas",
    "polars",
    "starlette",
    "uvicorn",
    "rich",
    "click",
    "hypothesis",
    "psycopg",
)


def python(code: str) -> str:
    """Run a script that must end well and say nothing on standard error; return what it prints."""
    child = run_python(textwrap.dedent(code), {})
    assert (child.returncode, child.stderr) == (0, "")
    return child.stdout


@pytest.mark.parametrize("does", ["pass", "duckdb_mistral.register()", "con = duckdb_mistral.connect()"])
def test_no_heavy_imports(does: str) -> None:
    """Importing and registering import nothing that only a call needs."""
    printed = python(
        f"""
        import sys, duckdb_mistral
        {does}
        print([name for name in {HEAVY} if name in sys.modules])
        """
    )
    assert printed == "[]\n"


def test_preview_imports_no_client() -> None:
    """Preview does not import the SDK."""
    printed = python(
        """
        import sys, duckdb_mistral
        con = duckdb_mistral.connect()
        con.execute("FROM mistral_batch_preview('SELECT 1 AS custom_id, 2 AS prompt')").fetchall()
        print([name for name in ("mistralai", "starlette", "rich") if name in sys.modules])
        """
    )
    assert printed == "[]\n"


def test_ledger_in_a_file_imports_no_other_engine(home: Path) -> None:
    """Without the setting ledger, nothing of PostgreSQL is imported, and no lock between machines."""
    printed = python(
        f"""
        import sys, duckdb_mistral
        con = duckdb_mistral.connect(settings={{"home": {str(home)!r}, "api_key": "key"}})
        con.execute("FROM mistral_batch_status()").fetchall()
        wanted = ("psycopg", "sqlalchemy.dialects.postgresql")
        wanted += ("duckdb_mistral.state.postgres", "duckdb_mistral.state.leases", "duckdb_mistral.state.address")
        print([name for name in wanted if name in sys.modules])
        """
    )
    assert printed == "[]\n"


@pytest.mark.parametrize(
    "code",
    [
        "duckdb_mistral.register()",
        "duckdb_mistral.register(); duckdb_mistral.register()",
        "con = duckdb_mistral.connect()",
        "con = duckdb_mistral.connect(); cursor = con.cursor(); duckdb_mistral.register(cursor)",
        "con = duckdb_mistral.connect(); con.close()",
        "con = duckdb.connect(); duckdb_mistral.register(con); del con",
        "kept = duckdb_mistral.connect().sql(\"FROM mistral_batch_preview('SELECT 1 AS custom_id, 2 AS prompt')\")",
    ],
)
def test_quiet_end(code: str) -> None:
    """A process that leaves its connections open ends without a word."""
    assert python(f"import duckdb, duckdb_mistral\n{code}") == ""


def test_quiet_end_after_an_error(home: Path) -> None:
    """A process that ends with an error of a statement shows that error, and no complaint of DuckDB's after it."""
    code = "import duckdb_mistral\nduckdb_mistral.connect().sql(\"FROM mistral_batch_status('x')\").show()"
    child = run_python(code, {"DUCKDB_MISTRAL_HOME": str(home)})
    assert child.returncode == 1
    assert "'x' is not an id" in child.stderr.splitlines()[-1]
    assert "leak" not in child.stderr.lower()
