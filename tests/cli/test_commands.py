"""The command line as a person runs it: streams, exit status, sentences."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import duckdb
import pytest
from click.testing import CliRunner

from duckdb_mistral.cli import commands
from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from cli.terminal import Terminal


def test_whole_way(terminal: Terminal) -> None:
    """Submit, status, wait and results do their work, with data alone on standard output."""
    terminal.forked = False
    submitted = terminal.run("submit", "prompts.sql", "--format", "csv")
    assert submitted.returncode == 0, submitted.stderr
    assert submitted.stderr == ""
    (row,) = csv.DictReader(io.StringIO(submitted.stdout))
    assert (row["total_requests"], row["reused"]) == ("3", "false")
    submission_id = row["submission_id"]

    waited = terminal.run("wait", submission_id, "--format", "jsonl")
    assert json.loads(waited.stdout)["status"] == "SUCCESS"
    assert "3 of 3 requests are done" in waited.stderr

    status = terminal.run("status")
    assert status.returncode == 0
    assert submission_id in status.stdout
    assert "SUCCESS" in status.stdout

    for name, read in (("out.parquet", "read_parquet"), ("out.csv", "read_csv"), ("out.jsonl", "read_json")):
        written = terminal.run("results", submission_id, "-o", name)
        assert written.returncode == 0, written.stderr
        assert written.stdout == ""
        assert f"3 results written to {name}" in written.stderr
        path = terminal.directory / name
        contents = duckdb.connect().execute(f"SELECT content FROM {read}('{path}') ORDER BY 1")
        assert contents.fetchall() == [("echo: ticket 0",), ("echo: ticket 1",), ("echo: ticket 2",)]

    shown = terminal.run("results", submission_id)
    assert "echo: ticket 2" in shown.stdout
    again = terminal.run("submit", "prompts.sql", "--format", "csv")
    assert "true" in again.stdout
    assert terminal.emulator.witness()["creates_received"] == 1


FAILURES = {
    "an unknown id": (("status", "3f2a9c1e-0000-4000-8000-000000000000"), "There is no submission or job"),
    "no id": (("wait", "nonsense"), "'nonsense' is not an id"),
    "a file without a SELECT": (("submit", "empty.sql"), "holds no statement"),
    "a file with a broken statement": (("submit", "broken.sql"), "syntax error"),
    "a file whose last statement is no SELECT": (("submit", "drop.sql"), "SELECT"),
    "an id that the ledger does not know": (("clean", "--results", "nonsense"), "Nothing was removed."),
    "results too early": (("results", "3f2a9c1e-0000-4000-8000-000000000000"), "There is no submission or job"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_is_not_done(name: str, terminal: Terminal) -> None:
    """What was not done ends with 1 and a sentence on standard error, and no traceback."""
    (terminal.directory / "empty.sql").write_text("-- nothing", encoding="utf-8")
    (terminal.directory / "broken.sql").write_text("SELECT FROM WHERE", encoding="utf-8")
    (terminal.directory / "drop.sql").write_text("CREATE TABLE t AS SELECT 1", encoding="utf-8")
    arguments, words = FAILURES[name]
    done = terminal.run(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("submit",),
        ("submit", "absent.sql"),
        ("submit", "prompts.sql", "--database", "absent.duckdb"),
        ("wait",),
        ("status", "--format", "xml"),
        ("demo", "--rows", "0"),
        ("clean", "--older-than", "-1"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], terminal: Terminal) -> None:
    """Wrong usage ends with 2 and says what is right."""
    done = terminal.run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage:" in done.stderr
    assert [path.name for path in terminal.directory.iterdir() if path.suffix == ".duckdb"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("demo", "--seconds", "-5"), "-5.0 is not in the range x>=0"),
        (("demo", "--seconds", "nan"), "nan is not a finite number"),
        (("emulator", "--job-seconds", "-1"), "-1.0 is not in the range x>=0"),
        (("emulator", "--job-seconds", "inf"), "inf is not a finite number"),
        (("wait", "some-id", "--timeout", "nan"), "nan is not a finite number"),
        (
            ("results", "some-id", "-o", "out.csv", "--format", "jsonl"),
            "out.csv names a different format than --format jsonl",
        ),
        (
            ("results", "some-id", "-o", "out.csv", "--format", "table"),
            "out.csv names a different format than --format table",
        ),
    ],
)
def test_value_that_cannot_be(arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds that never end, and a format that the file's name contradicts, are wrong usage, before anything runs."""
    monkeypatch.setattr(Emulator, "_open", lambda _: pytest.fail("it runs"))
    done = CliRunner().invoke(commands.cli, arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize(
    ("command", "target", "status", "words"),
    [
        ("status --format csv", ">/dev/full", 1, "Standard output cannot be written: No space left on device."),
        ("doctor", ">/dev/full", 1, "Standard output cannot be written: No space left on device."),
        ("status", ">&-", 1, "Standard output is closed, so nothing can be printed"),
        ("status --format csv", "| head -c 0; exit ${PIPESTATUS[0]}", 1, ""),
    ],
)
@pytest.mark.newest
def test_output_that_cannot_be_written(terminal: Terminal, command: str, target: str, status: int, words: str) -> None:
    """Where nothing can be printed, one sentence says so; a reader that has read enough is no failure to tell."""
    done = subprocess.run(
        ["/bin/bash", "-c", f"'{sys.executable}' -m duckdb_mistral {command} {target}"],
        env=terminal.environment,
        cwd=terminal.directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status
    told = [line for line in done.stderr.splitlines() if line != "Nothing has been submitted from here yet."]
    assert len(told) == bool(words)
    assert words in done.stderr


def test_help_of_every_command(terminal: Terminal) -> None:
    """Every command says in its help what it does."""
    listed = terminal.run("--help").stdout
    commands = [line.split()[0] for line in listed.partition("Commands:")[2].splitlines() if line.strip()]
    assert {
        "demo",
        "emulator",
        "submit",
        "status",
        "wait",
        "results",
        "cancel",
        "retry",
        "doctor",
        "clean",
        "move",
        "shell",
        "extension",
    } <= set(commands)
    from click.testing import CliRunner

    from duckdb_mistral.cli.commands import cli

    for command in commands:
        shown = CliRunner().invoke(cli, [command, "--help"])
        assert shown.exit_code == 0
        assert shown.output.count("\n") > 5
