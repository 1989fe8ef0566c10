"""The README's SQL, run as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from support import rows

from duckdb_mistral.settings import ENVIRONMENT

if TYPE_CHECKING:
    import duckdb

    from duckdb_mistral.emulator import Emulator

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
TICKETS = """CREATE TABLE tickets AS FROM (VALUES
  (1, 'The app closes when I open a second window.'),
  (2, 'Please add dark mode.'),
  (3, 'I was charged twice in May.')) tickets(id, body)"""


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_sql(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Every SQL block runs, in order, and the results are what the README prints."""
    con.execute(TICKETS)
    printed = []
    for block in blocks("sql"):
        for statement in con.extract_statements(block):
            printed.append(con.execute(statement).fetchall())
            con.execute(
                "SELECT w.* FROM (SELECT job_id AS id FROM mistral_batch_status()) s, "
                "LATERAL (FROM mistral_batch_wait(s.id)) w"
            )
    assert sorted(printed[3]) == [
        (1, "ok", "echo: Summarise: The app closes when I open a second window."),
        (2, "ok", "echo: Summarise: Please add dark mode."),
        (3, "ok", "echo: Summarise: I was charged twice in May."),
    ]
    for number, outcome, content in printed[3]:
        assert f"│     {number} │ {outcome}      │ {content}" in README
    assert emulator.witness()["jobs_stored"] == 2


def test_every_setting_is_told() -> None:
    """Every setting stands in the README's table with its environment variable."""
    for setting, variable in ENVIRONMENT.items():
        assert f"| `{setting}` | `{variable}` |" in README


def test_every_function_is_told(con: duckdb.DuckDBPyConnection) -> None:
    """Every function stands in the README's table, and the statement that lists them finds them all."""
    query = re.search(r"`(SELECT function_name, comment [^`]*)`", README.replace("\n", " "))
    assert query is not None
    found = rows(con, query.group(1))
    assert found
    for row in found:
        assert f"| `{row['function_name']}(" in README
        assert row["comment"]
