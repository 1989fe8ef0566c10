"""The examples run as they stand, on a local server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import asked_for_money, clean_environment, connect, environment_of

if TYPE_CHECKING:
    import duckdb

    from duckdb_mistral.emulator import Emulator

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def run(emulator: Emulator, home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command from the root of the repository, as an example's first lines say."""
    quiet = {"PLOOMBER_STATS_ENABLED": "false", "IPYTHONDIR": str(home / "ipython"), "XDG_CONFIG_HOME": str(home)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=clean_environment() | environment_of(emulator, home) | quiet,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_quickstart_script(emulator: Emulator, home: Path) -> None:
    """quickstart.py prints the answers beside their presidents; run again, it costs nothing."""
    for _ in range(2):
        ran = run(emulator, home, str(EXAMPLES / "quickstart.py"))
        assert ran.returncode == 0, ran.stderr
        assert "George Washington" in ran.stdout
        assert "echo: Fellow-Citizens of the Senate" in ran.stdout
        assert "20 rows" in ran.stdout
    assert asked_for_money(emulator) == (1, 1)


def test_quickstart_sql(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """quickstart.sql runs statement by statement, and its last one holds every row with its own answer."""
    monkeypatch.chdir(ROOT)
    with connect(emulator, home) as con:
        results: list[duckdb.DuckDBPyConnection] = []
        for statement in con.extract_statements((EXAMPLES / "quickstart.sql").read_text(encoding="utf-8")):
            results = [con.execute(statement)]
        answers = results[-1].fetchall()
        openings = dict(con.execute("SELECT year, opening FROM addresses").fetchall())
    assert len(answers) == len(openings) == 20
    for year, _, outcome, content in answers:
        assert (outcome, openings[year] in content) == ("ok", True)
    assert asked_for_money(emulator) == (1, 1)


def test_marimo_notebook(emulator: Emulator, home: Path) -> None:
    """The marimo notebook runs headless, and its last cell holds a Polars frame of the answers."""
    code = """
import runpy, sys
app = runpy.run_path(sys.argv[1])["app"]
outputs, definitions = app.run()
answers = definitions["answers"]
print(type(answers).__module__.split(".")[0], answers.shape, set(answers["outcome"]), answers["content"][0][:20])
"""
    ran = run(emulator, home, "-c", code, str(EXAMPLES / "marimo_notebook.py"))
    assert ran.returncode == 0, ran.stderr
    # DuckDB itself may have drawn a progress bar above it.
    assert ran.stdout.splitlines()[-1] == "polars (20, 4) {'ok'} echo: Fellow-Citizen"
    assert asked_for_money(emulator) == (1, 1)


@pytest.mark.newest
def test_jupysql(emulator: Emulator, home: Path) -> None:
    """The %sql cells run in IPython and end with a pandas frame of the answers."""
    command = ("-m", "IPython", "--no-banner", "--colors=NoColor", str(EXAMPLES / "jupysql.ipy"))
    ran = run(emulator, home, *command)
    assert "Error" not in ran.stdout, ran.stdout
    lines = [line.split() for line in ran.stdout.splitlines()]
    (header,) = [number for number, line in enumerate(lines) if line == ["year", "outcome", "content"]]
    answers = lines[header + 1 : header + 21]
    assert [line[2:4] for line in answers] == [["ok", "echo:"]] * 20
    assert asked_for_money(emulator) == (1, 1)
