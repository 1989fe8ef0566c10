"""The commands that build requests from a file of SQL."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import duckdb
import pytest
from cli.terminal import PROMPTS, Terminal
from click.testing import CliRunner

if TYPE_CHECKING:
    from pathlib import Path
from duckdb_mistral.cli import commands, sending


@pytest.mark.newest
def test_options_of_submit(terminal: Terminal) -> None:
    """The options of submit reach the requests, and --force pays again."""
    options = ("--system", "be brief", "--params", '{"max_tokens": 5}', "--model", "ministral-8b-latest")
    first = terminal.run("submit", "prompts.sql", *options)
    assert first.returncode == 0, first.stderr
    assert "ministral-8b-latest" in first.stdout
    assert terminal.run("submit", "prompts.sql", *options, "--force").returncode == 0
    assert terminal.emulator.witness()["creates_received"] == 2
    dear = terminal.run("submit", "prompts.sql", "--reuse", "requests", "--max-cost", "0.000001")
    assert dear.returncode == 1
    assert "which is more than max_cost, 1e-06" in dear.stderr
    more = ("--reuse", "requests", "--max-cost", "1", "--metadata", '{"who": "me"}', "--output", "STRUCT(word VARCHAR)")
    sent = terminal.run("submit", "prompts.sql", *more)
    assert sent.returncode == 0, sent.stderr
    jobs = map(json.loads, terminal.run("status", "--format", "jsonl").stdout.splitlines())
    assert [job["metadata"].get("who") for job in jobs].count("me") == 1


def test_before_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimate and preview show what a file would send, for each model, without a key or a server."""
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    file = tmp_path / "prompts.sql"
    file.write_text(PROMPTS, encoding="utf-8")
    models = ("--model", "mistral-small-latest", "--model", "ministral-8b-latest")
    told = CliRunner().invoke(commands.cli, ["estimate", str(file), *models, "--format", "jsonl"])
    assert (told.exit_code, json.loads(told.stdout)["jobs"]) == (0, 2)
    shown = CliRunner().invoke(commands.cli, ["estimate", str(file), "--params", '{"max_tokens": 1000}'])
    assert (shown.exit_code, shown.stdout.split("\n")[1].split()) == (0, ["3", "1", "18", "3000", "0.000901"])
    lines = CliRunner().invoke(commands.cli, ["preview", str(file), "--system", "be brief", "--format", "jsonl"])
    bodies = {line["custom_id"]: line["body"] for line in map(json.loads, lines.stdout.splitlines())}
    assert bodies.keys() == {"0", "1", "2"}
    assert bodies["2"]["messages"][0] == {"role": "system", "content": "be brief"}


@pytest.mark.parametrize("content", ["SELECT 'café'".encode("latin-1"), "SELECT 1".encode("utf-16"), b"\x00\xff"])
def test_file_that_is_no_text(content: bytes, tmp_path: Path) -> None:
    """A file of statements that is not UTF-8 is told by its name."""
    path = tmp_path / "prompts.sql"
    path.write_bytes(content)
    done = CliRunner().invoke(commands.cli, ["submit", str(path)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"{path} is not UTF-8 text. Save it as UTF-8; nothing was sent.\n"


def test_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of statements that the system does not give is told with the reason."""

    def failing(*_: object, **__: object) -> str:
        raise OSError(5, "Input/output error")

    path = tmp_path / "prompts.sql"
    path.touch()
    monkeypatch.setattr("pathlib.Path.read_text", failing)
    done = CliRunner().invoke(commands.cli, ["submit", str(path)])
    assert done.exit_code == 1
    assert done.stderr == f"{path} cannot be read: Input/output error. Nothing was sent.\n"


@pytest.mark.parametrize("name", ["./no:db.duckdb", "C:\\x.duckdb"])
def test_database_with_a_colon(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path with a colon in it that leads nowhere is no database, and none is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.sql").write_text(PROMPTS, encoding="utf-8")
    done = CliRunner().invoke(commands.cli, ["submit", "prompts.sql", "-d", name])
    assert done.exit_code == 2
    assert f"There is no database {name}." in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.sql"]


@pytest.mark.parametrize("name", [":memory:", ":memory:named", "md:mine", "postgres:dbname=mine", "https://here/x.db"])
def test_database_that_lies_elsewhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What begins with a scheme is left to DuckDB to find."""
    (tmp_path / "empty.sql").touch()
    opened = []

    def connected(database: str) -> duckdb.DuckDBPyConnection:
        opened.append(database)
        return duckdb.connect()

    monkeypatch.setattr(sending, "connect", connected)
    CliRunner().invoke(commands.cli, ["submit", str(tmp_path / "empty.sql"), "-d", name])
    assert opened == [name]


def test_table_that_does_not_exist(terminal: Terminal) -> None:
    """A file that reads a table that is not there ends with DuckDB's words, and no statement that nobody wrote."""
    (terminal.directory / "missing.sql").write_text(
        "SELECT id AS custom_id, body AS prompt FROM gone", encoding="utf-8"
    )
    done = terminal.run("submit", "missing.sql")
    assert done.returncode == 1
    assert "Table with name gone does not exist!" in done.stderr
    assert "LINE" not in done.stderr
