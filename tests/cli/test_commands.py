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
from support import KEY, clean_environment, connect, environment_of, make_staging, run_forked, submitted

if TYPE_CHECKING:
    from pathlib import Path

from duckdb_mistral.cli import commands, jobs, sending
from duckdb_mistral.emulator import Emulator

PROMPTS = """
CREATE TABLE tickets AS SELECT range AS id, 'ticket ' || range AS body FROM range(3);
SELECT id AS custom_id, body AS prompt FROM tickets;
"""


class Terminal:
    """A shell in a directory of its own, whose environment leads to a local server."""

    def __init__(self, emulator: Emulator, directory: Path) -> None:
        """Open the shell; nothing is run yet."""
        self.forked = True
        self.emulator = emulator
        self.directory = directory
        self.environment = clean_environment() | environment_of(emulator, directory / "home")

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `duckdb-mistral` with these arguments, in a new process or a forked one."""
        if self.forked:
            code = "from duckdb_mistral.cli.commands import main\nmain()"
            return run_forked(code, self.environment | environment, *arguments, directory=self.directory)
        return subprocess.run(
            [sys.executable, "-m", "duckdb_mistral", *arguments],
            env=self.environment | environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def terminal(emulator: Emulator, tmp_path: Path) -> Terminal:
    """Return a shell with a file of prompts."""
    (tmp_path / "prompts.sql").write_text(PROMPTS, encoding="utf-8")
    return Terminal(emulator, tmp_path)


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
    assert "It is asked again." in waited.stderr


def test_wait_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that waits has one thread, the one that waits: DuckDB 1.5 may keep others busy meanwhile."""
    found = []

    def look(connection: duckdb.DuckDBPyConnection, *_: object) -> None:
        found.extend(connection.execute("SELECT current_setting('threads')").fetchall())

    monkeypatch.setattr(jobs, "show", look)
    CliRunner().invoke(commands.cli, ["wait", "some-id"], catch_exceptions=False)
    assert found == [(1,)]


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
    assert (early.returncode, "0.5 seconds have passed" in early.stderr) == (3, True)
    assert terminal.run("wait", submission_id, "--timeout", "0.5").returncode == 1
    terminal.emulator.faults()
    assert terminal.run("wait", "nonsense", "--exit-status").returncode == 1
    assert terminal.run("wait", submission_id, "--exit-status").returncode == 0


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


def test_format_that_the_name_says_too() -> None:
    """A format that is the file's own is no contradiction."""
    done = CliRunner().invoke(commands.cli, ["results", "some-id", "-o", "out.CSV", "--format", "csv"])
    assert done.exit_code == 1
    assert "'some-id' is not an id" in done.stderr


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


def test_results_file_of_another_kind(terminal: Terminal) -> None:
    """A file name whose ending is no known format is wrong usage, and nothing is fetched."""
    done = terminal.run("results", "3f2a9c1e-0000-4000-8000-000000000000", "-o", "out.xlsx")
    assert done.returncode == 2
    assert "out.xlsx does not end in one of .parquet, .csv, .jsonl" in done.stderr
    assert terminal.emulator.witness()["requests"] == {}


def test_doctor_when_all_is_well(terminal: Terminal) -> None:
    """The check-up says ok to versions, state, key and server."""
    done = terminal.run("doctor")
    assert done.returncode == 0, done.stdout
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ok", "versions"],
        ["ok", "state"],
        ["ok", "key"],
        ["ok", "server"],
    ]
    assert KEY not in done.stdout + done.stderr


def test_doctor_without_a_key(terminal: Terminal) -> None:
    """Without a key the check-up says how to set one, and that the server was not asked."""
    done = terminal.run("doctor", MISTRAL_API_KEY="")
    assert done.returncode == 1
    assert "not ok  key        No API key is set: set MISTRAL_API_KEY in the environment" in done.stdout
    assert "was not checked, because that needs a key" in done.stdout
    assert terminal.emulator.witness()["requests"] == {}


def test_doctor_with_a_wrong_key(terminal: Terminal, tmp_path: Path) -> None:
    """With a wrong key the check-up says that the server refused it."""
    with Emulator(tmp_path / "strict", api_keys=("right",)) as strict:
        done = terminal.run("doctor", MISTRAL_SERVER_URL=strict.url)
    assert done.returncode == 1
    assert "refused the API key (HTTP 401" in done.stdout
    assert "Check MISTRAL_API_KEY and the workspace that it belongs to." in done.stdout
    assert KEY not in done.stdout + done.stderr


@pytest.mark.newest
def test_doctor_without_a_server(terminal: Terminal) -> None:
    """Where no server answers, the check-up says so soon."""
    done = terminal.run("doctor", MISTRAL_SERVER_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "http://127.0.0.1:9 gave no answer" in done.stdout


def test_doctor_with_a_setting_that_cannot_be(terminal: Terminal) -> None:
    """A setting that cannot be used is named."""
    done = terminal.run("doctor", MISTRAL_SERVER_URL="http://example.org")
    assert done.returncode == 1
    assert "MISTRAL_SERVER_URL" in done.stdout
    assert "plain http would show the API key" in done.stdout


@pytest.mark.newest
def test_clean(terminal: Terminal) -> None:
    """Clean shows what lies there, and only with --yes frees it; what was paid for goes only by name."""
    empty = terminal.run("clean")
    assert (empty.returncode, empty.stdout) == (0, "")
    assert f"There is nothing under {terminal.directory / 'home'} yet." in empty.stderr
    assert not (terminal.directory / "home").exists()
    (row,) = csv.DictReader(io.StringIO(terminal.run("submit", "prompts.sql", "--format", "csv").stdout))
    submission_id = row["submission_id"]
    assert terminal.run("wait", submission_id).returncode == 0
    answers = terminal.run("results", submission_id).stdout
    left = terminal.directory / "home" / "spool" / "killed" / "part-00001.jsonl"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"12345")

    shown = terminal.run("clean")
    assert shown.returncode == 0, shown.stderr
    lines = {line[:40].strip(): line[40:].split() for line in shown.stdout.splitlines()}
    assert lines["what"] == ["files", "bytes", "freed", "by", "--yes"]
    assert lines["leftovers of processes that were killed"] == ["1", "5", "yes"]
    assert lines["kept results"][::2] == ["1", "no"]
    assert "The same command with --yes frees 5 bytes in 1 file." in shown.stderr
    assert left.exists()

    freed = terminal.run("clean", "--yes", "--format", "jsonl")
    found = {row["what"]: row for row in map(json.loads, freed.stdout.splitlines())}
    assert [what for what, row in found.items() if row["freed"]] == ["leftovers of processes that were killed"]
    assert "Freed 5 bytes in 1 file under" in freed.stderr
    assert not left.exists()
    assert "There was nothing to free" in terminal.run("clean", "--yes").stderr

    asked = terminal.run("clean", "--results", submission_id)
    assert "They were paid for, and can be downloaded again only as long as the server keeps them." in asked.stderr
    assert list((terminal.directory / "home" / "results").glob("*.parquet"))
    assert terminal.run("clean", "--results", submission_id, "--older-than", "3", "--yes").returncode == 0
    assert not list((terminal.directory / "home" / "results").glob("*.parquet"))
    none = terminal.run("clean", "--older-than", "0")
    assert "No results that --results or --older-than name are kept here." in none.stderr
    assert terminal.run("results", submission_id).stdout == answers
    assert terminal.emulator.witness()["creates_received"] == 1


def test_demo(terminal: Terminal) -> None:
    """The demo shows its statements and ends with real text joined to answers, without a key."""
    done = terminal.run("demo", "--seconds", "1", MISTRAL_API_KEY="")
    assert done.returncode == 0, done.stderr
    assert "FROM mistral_batch_submit('staging'" in done.stderr
    assert "233 of 233 requests are done" in done.stderr
    assert "George Washington" in done.stdout
    assert "echo: Fellow-Citizens" in done.stdout
    assert terminal.emulator.witness()["requests"] == {}


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
        "shell",
        "extension",
    } <= set(commands)
    from click.testing import CliRunner

    from duckdb_mistral.cli.commands import cli

    for command in commands:
        shown = CliRunner().invoke(cli, [command, "--help"])
        assert shown.exit_code == 0
        assert shown.output.count("\n") > 5


def test_directory_of_the_emulator_that_cannot_be(tmp_path: Path) -> None:
    """A state directory that cannot be made is named, and not the port."""
    (tmp_path / "file").touch()
    directory = tmp_path / "file" / "state"
    done = CliRunner().invoke(commands.cli, ["emulator", "--port", "0", "--dir", str(directory)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"cannot keep its state in {directory}: Not a directory" in done.stderr
    assert "port" not in done.stderr


def test_port_of_the_emulator_that_is_taken(emulator: Emulator) -> None:
    """A port that another server has is named."""
    port = emulator.url.rpartition(":")[2]
    done = CliRunner().invoke(commands.cli, ["emulator", "--port", port])
    assert done.exit_code == 1
    assert f"cannot listen on port {port} (Address already in use). Choose another with --port." in done.stderr


def test_emulator_command(tmp_path: Path) -> None:
    """The emulator prints its address on standard output and serves until it is told to stop."""
    import signal
    import urllib.request

    child = subprocess.Popen(
        [sys.executable, "-m", "duckdb_mistral", "emulator", "--port", "0", "--dir", str(tmp_path / "state")],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    address = child.stdout.readline().strip()
    with urllib.request.urlopen(f"{address}/_emulator/witness") as answer:  # noqa: S310  our own server
        assert json.load(answer)["jobs_stored"] == 0
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert f"export MISTRAL_SERVER_URL={address} " in said
    assert "Traceback" not in said
