"""The commands that follow jobs: what they show, and how they end."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cli.terminal import PROMPTS, Terminal
from click.testing import CliRunner
from support import connect, environment_of, make_staging, submitted

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb
from duckdb_mistral.cli import commands, jobs
from duckdb_mistral.emulator import Emulator


@pytest.mark.newest
@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_rows_after_what_is_there(terminal: Terminal, form: str) -> None:
    """Rows that go to a file stand after what is in it, and before what comes after them."""
    terminal.run("submit", "prompts.sql")
    path = terminal.directory / "report.txt"
    with path.open("ab") as report:
        for _ in range(2):
            report.write(b"# status\n")
            report.flush()
            subprocess.run(
                [sys.executable, "-m", "duckdb_mistral", "status", "--format", form],
                env=terminal.environment,
                cwd=terminal.directory,
                stdout=report,
                timeout=120,
                check=True,
            )
    first, second = path.read_text(encoding="utf-8").split("# status\n")[1:]
    assert "mistral-small-latest" in first
    assert "mistral-small-latest" in second


@pytest.mark.newest
def test_status_that_is_not_new(tmp_path: Path) -> None:
    """Where the API does not answer, status shows what it told last, and says so; wait says so too."""
    with Emulator(tmp_path / "server", job_seconds=600) as emulator:
        terminal = Terminal(emulator, tmp_path)
        (tmp_path / "prompts.sql").write_text(PROMPTS, encoding="utf-8")
        terminal.run("submit", "prompts.sql")
        assert terminal.run("status").stderr == ""
    quick = {"DUCKDB_MISTRAL_DEADLINE_SECONDS": "1"}
    shown = terminal.run("status", **quick)
    assert shown.returncode == 0
    assert "0/3" in shown.stdout
    assert "gave no answer" in shown.stderr
    assert "The table shows the last known state." in shown.stderr
    submission_id = shown.stdout.split("\n")[1].split()[0]
    waited = terminal.run("wait", submission_id, "--timeout", "1", **quick)
    assert waited.returncode == 1
    assert "gave no answer" in waited.stderr
    assert "Asking again." in waited.stderr


def test_wait_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that waits has one thread, the one that waits: DuckDB 1.5 may keep others busy meanwhile."""
    found = []

    def look(connection: duckdb.DuckDBPyConnection, *_: object) -> None:
        found.extend(connection.execute("SELECT current_setting('threads')").fetchall())

    monkeypatch.setattr(jobs, "show", look)
    CliRunner().invoke(commands.cli, ["wait", "some-id"], catch_exceptions=False)
    assert found == [(1,)]


@pytest.mark.newest
def test_cancel(terminal: Terminal) -> None:
    """Cancel tells what became of the job."""
    (row,) = csv.DictReader(io.StringIO(terminal.run("submit", "prompts.sql", "--format", "csv").stdout))
    cancelled = terminal.run("cancel", row["job_id"])
    assert cancelled.returncode == 0, cancelled.stderr
    assert row["job_id"] in cancelled.stdout


def test_failures(terminal: Terminal) -> None:
    """A wait tells what failed and what to do; its exit status is 0 unless --exit-status asks for that of failures."""
    file = terminal.directory / "failing.sql"
    file.write_text(
        """SELECT range AS custom_id,
        if(range < 2, '{"prompt": "x"}', '{"messages": [{"role": "user", "content": "hi"}]}')::JSON AS body
        FROM range(3)""",
        encoding="utf-8",
    )
    (row,) = csv.DictReader(io.StringIO(terminal.run("submit", "failing.sql", "--format", "csv").stdout))
    submission_id = row["submission_id"]
    waited = terminal.run("wait", submission_id)
    assert waited.returncode == 0
    assert "3 of 3 requests are done, and 2 failed." in waited.stderr
    assert waited.stdout.split()[:7] == ["submission_id", "job_id", "part", "status", "model", "requests", "failed"]
    assert waited.stdout.split()[-2:] == ["3/3", "2"]
    assert waited.stderr.splitlines()[-3:] == [
        "Of 3 requests, 2 failed.",
        f"Which and why: duckdb-mistral results {submission_id}",
        f"Send them again: duckdb-mistral retry {submission_id}",
    ]
    again = terminal.run("wait", submission_id, "--exit-status", "--format", "jsonl")
    assert again.returncode == 4
    assert json.loads(again.stdout)["failed_requests"] == 2
    assert "Of 3 requests, 2 failed." in terminal.run("status", submission_id).stderr
    assert terminal.run("status").stderr == ""


def test_exit_status_of_a_wait(terminal: Terminal) -> None:
    """With --exit-status a wait that is not over ends with 3, one that fails otherwise with 1, a good one with 0."""
    (row,) = csv.DictReader(io.StringIO(terminal.run("submit", "prompts.sql", "--format", "csv").stdout))
    submission_id = row["submission_id"]
    terminal.emulator.faults({"method": "GET", "path": "/v1/batch/jobs.*", "times": 1000, "status": 500})
    early = terminal.run("wait", submission_id, "--timeout", "0.5", "--exit-status")
    assert (early.returncode, "gave up after 0.5 seconds" in early.stderr) == (3, True)
    assert terminal.run("wait", submission_id, "--timeout", "0.5").returncode == 1
    terminal.emulator.faults()
    assert terminal.run("wait", "nonsense", "--exit-status").returncode == 1
    assert terminal.run("wait", submission_id, "--exit-status").returncode == 0


def test_cost(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cost shows what the jobs of an id have used."""
    for name, value in environment_of(emulator, home).items():
        monkeypatch.setenv(name, value)
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    told = CliRunner().invoke(commands.cli, ["cost", submission_id, "--format", "jsonl"])
    row = json.loads(told.stdout)
    assert (told.exit_code, row["submission_id"], row["answers"]) == (0, submission_id, 3)
    assert row["cost"] > 0


def test_retry(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry sends again what a job left, and says so where it left nothing."""
    for name, value in environment_of(emulator, home).items():
        monkeypatch.setenv(name, value)
    with connect(emulator, home) as con:
        make_staging(con)
        failed, whole = submitted(con, arguments="metadata := {emulate: 'FAILED 0'}"), submitted(con)
        for submission_id in (failed, whole):
            con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    sent = CliRunner().invoke(commands.cli, ["retry", failed, "--format", "jsonl"])
    assert (sent.exit_code, json.loads(sent.stdout)["total_requests"]) == (0, 3)
    nothing = CliRunner().invoke(commands.cli, ["retry", whole, "--format", "jsonl"])
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "Nothing was sent: every request has its answer." in nothing.stderr


def test_format_that_the_name_says_too() -> None:
    """A format that is the file's own is no contradiction."""
    done = CliRunner().invoke(commands.cli, ["results", "some-id", "-o", "out.CSV", "--format", "csv"])
    assert done.exit_code == 1
    assert "'some-id' is not an id" in done.stderr


def test_results_file_of_another_kind(terminal: Terminal) -> None:
    """A file name whose ending is no known format is wrong usage, and nothing is fetched."""
    done = terminal.run("results", "3f2a9c1e-0000-4000-8000-000000000000", "-o", "out.xlsx")
    assert done.returncode == 2
    assert "out.xlsx does not end in one of .parquet, .csv, .jsonl" in done.stderr
    assert terminal.emulator.witness()["requests"] == {}
