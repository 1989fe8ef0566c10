"""`duckdb-mistral shell`: the official duckdb shell with the functions, piped and in a terminal."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest
from support import KEY, asked_for_money, clean_environment, environment_of, run_python

from duckdb_mistral.emulator import Emulator, Rule

from .terminal import COLUMNS, run_shell, terminal

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("shell")

PREPARE = """
CREATE TABLE staging AS SELECT range AS custom_id, 'It''s note ' || range AS prompt FROM range(3);
"""
FOUR_STATEMENTS = """
SELECT total_requests, reused FROM mistral_batch_submit('staging', system := 'Be brief.', params := {max_tokens: 20});
SET VARIABLE id = (SELECT submission_id FROM mistral_batch_status());
SELECT status, succeeded_requests FROM mistral_batch_wait(getvariable('id'));
SELECT s.custom_id, r.outcome, r.content
FROM staging s JOIN mistral_batch_results(getvariable('id')) r ON r.custom_id = s.custom_id::VARCHAR
ORDER BY s.custom_id;
"""


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own ~/.duckdbrc out of the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to be true"
        time.sleep(0.05)


def spools_much(home: Path) -> bool:
    """Tell whether a submission of far more than a few rows is being written."""
    with contextlib.suppress(FileNotFoundError):  # another's, removed meanwhile
        return any(path.stat().st_size > 1_000_000 for path in home.rglob("*.jsonl*"))
    return False


def gone(process: int) -> bool:
    """Tell whether a process has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_four_statements(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """The four statements, piped into the real shell, end with the answers joined to the rows."""
    database = str(tmp_path / "my.duckdb")
    ran = run_shell(environment_of(emulator, home), database, "-csv", typed=PREPARE + FOUR_STATEMENTS)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "total_requests,reused",
        "3,false",
        "status,succeeded_requests",
        "SUCCESS,3",
        "custom_id,outcome,content",
        *(f'{number},ok,"echo: It\'s note {number}"' for number in range(3)),
    ]
    assert asked_for_money(emulator) == (1, 1)


def test_without_a_key(home: Path, tmp_path: Path) -> None:
    """The shell opens without a key and without a network, and prints what it is asked for and nothing else."""
    environment = {"DUCKDB_MISTRAL_HOME": str(home), "MISTRAL_SERVER_URL": "http://127.0.0.1:9"}
    ran = run_shell(environment, str(tmp_path / "my.duckdb"), "-list", "-noheader", "-c", "SELECT 42")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "42\n", "")
    ran = run_shell(environment, "-c", "FROM mistral_batch_submit('SELECT 1 AS custom_id, 2 AS prompt')")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "MISTRAL_API_KEY" in ran.stderr


def test_file_and_one_liner(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """A file of statements runs with -f; a later `-c`, also read-only, finds its tables and its submission."""
    database, script = str(tmp_path / "my.duckdb"), tmp_path / "script.sql"
    script.write_text(PREPARE + FOUR_STATEMENTS, encoding="utf-8")
    environment = environment_of(emulator, home)
    assert run_shell(environment, database, "-f", str(script)).returncode == 0
    status = run_shell(environment, database, "-csv", "-c", "SELECT status, progress FROM mistral_batch_status()")
    assert (status.returncode, status.stdout.split(), status.stderr) == (0, ["status,progress", "SUCCESS,1.0"], "")
    again = run_shell(
        environment, "-readonly", database, "-csv", "-noheader", "-c", FOUR_STATEMENTS.strip().split("\n")[0]
    )
    assert (again.stdout.split(), again.stderr) == (["3,true"], "")
    assert asked_for_money(emulator) == (1, 1)


def test_nothing_is_written_to_the_database(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """The user's file holds the user's tables and no function."""
    database = tmp_path / "my.duckdb"
    keep = (
        "CREATE TABLE answers AS FROM staging s JOIN mistral_batch_results() r ON r.custom_id = s.custom_id::VARCHAR;"
    )
    ran = run_shell(environment_of(emulator, home), str(database), typed=PREPARE + FOUR_STATEMENTS + keep)
    assert ran.returncode == 0, ran.stderr
    with duckdb.connect(str(database)) as connection:
        assert connection.sql("SELECT name FROM (SHOW TABLES)").fetchall() == [("answers",), ("staging",)]
        assert connection.sql("FROM duckdb_functions() WHERE database_name = 'my'").fetchall() == []
        assert connection.sql("SELECT count(content) FROM answers").fetchall() == [(3,)]


def test_own_beginning(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """The person's ~/.duckdbrc is read, and may call the functions; its settings show nothing of ours."""
    beginning = ".timer on\n.echo on\nSELECT 'rc: ' || count(*) FROM mistral_batch_status();\n"
    (tmp_path / ".duckdbrc").write_text(beginning, encoding="utf-8")
    environment = environment_of(emulator, home)
    ran = run_shell(environment, "-list", "-noheader", "-c", "SELECT 42")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "rc: 0" in ran.stdout
    assert ran.stdout.count("Run Time") == 2
    assert "MACRO" not in ran.stdout
    ran = run_shell(environment, "-no-init", "-list", "-noheader", "-c", "SELECT 42")
    assert (ran.stdout, ran.stderr) == ("42\n", "")
    other = tmp_path / "other.sql"
    other.write_text("SELECT 'other';", encoding="utf-8")
    ran = run_shell(environment, "-init", str(other), "-list", "-noheader", "-c", "FROM mistral_batch_status()")
    assert (ran.returncode, ran.stdout.split()[:1]) == (0, ["other"]) or "other" in ran.stdout
    assert "rc:" not in ran.stdout


def test_database_that_cannot_be_opened(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """A file that is no database is told in a sentence, and the shell ends."""
    (tmp_path / "text.duckdb").write_text("This is no database. " * 10, encoding="utf-8")
    ran = run_shell(environment_of(emulator, home), str(tmp_path / "text.duckdb"), "-c", "SELECT 1")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "not a valid DuckDB database file" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_key_stays_with_the_helper(emulator: Emulator, home: Path) -> None:
    """The shell gets no key and no secret address of a ledger, and neither stands in a command line."""
    secret = {"DUCKDB_MISTRAL_LEDGER": "postgresql://me:secret@nowhere/db", "EMULATOR_UPSTREAM_KEY": "another-secret"}
    environment = environment_of(emulator, home) | secret
    read = ", ".join(f"getenv('{name}')" for name in ("MISTRAL_API_KEY", *secret))
    look = f"SELECT concat('[', {read}, ']', getenv('HOME'));"
    ran = run_shell(environment, "-list", "-noheader", "-c", look)
    assert ran.stdout.strip() == f"[]{os.environ['HOME']}"
    with terminal(environment) as shell:
        for name, process in shell.children().items():
            told = Path(f"/proc/{process}/environ").read_bytes()
            assert (KEY.encode() in told) == (name == "helper")
            assert KEY.encode() not in Path(f"/proc/{process}/cmdline").read_bytes()
        shell.type(".system env")
        assert "DUCKDB_MISTRAL_SOCKET" not in shell.read_until("DUCKDB_MISTRAL_HOME")
        shell.type(".quit")
        assert shell.process.wait(30) == 0


def test_terminal(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """In a terminal, one line tells of the functions, answers keep to its width, and nothing outlives the shell."""
    with terminal(environment_of(emulator, home), str(tmp_path / "my.duckdb")) as shell:
        assert shell.shown.count("mistral") == shell.shown.splitlines()[0].count("mistral") > 0
        children = shell.children()
        assert sorted(children) == ["helper", "shell"]
        shell.type(PREPARE.strip())
        shell.type("SELECT 'sent ' || total_requests AS t FROM mistral_batch_submit('staging');")
        shell.read_until("sent 3")
        shell.type("SELECT repeat('x', 150) AS wide, repeat('y', 150) AS wider;")
        assert max(map(len, shell.read_until("└.*┘").splitlines()[-6:])) <= COLUMNS
        shell.type("SELEC nothing;")
        shell.read_until("Parser Error")
        shell.type(".quit")
        assert shell.process.wait(30) == 0
        assert all(map(gone, children.values()))


def test_interrupted_wait(tmp_path: Path, home: Path) -> None:
    """A wait shows progress; Ctrl-C ends it and not the shell; the job goes on."""
    with Emulator(tmp_path / "slow", job_seconds=3600) as slow, terminal(environment_of(slow, home)) as shell:
        shell.type(PREPARE.strip())
        shell.type("SET VARIABLE id = (SELECT submission_id FROM mistral_batch_submit('staging'));")
        for _ in range(2):
            shell.type("FROM mistral_batch_wait(getvariable('id'));")
            shell.read_until("0/3|0 of 3")
            shell.interrupt()
            shell.read_until("memory D ")  # of an interrupted statement, the shell says nothing more
        shell.type("SELECT 'still ' || 'here' AS t, status FROM mistral_batch_status();")
        shell.read_until("still here")
        shell.read_until("RUNNING|QUEUED")
        shell.type(".quit")
        assert shell.process.wait(30) == 0


def test_interrupted_submit(emulator: Emulator, home: Path) -> None:
    """Ctrl-C while the rows of a submit are read ends the statement, sends nothing and leaves no spool."""
    with terminal(environment_of(emulator, home)) as shell:
        shell.type(
            "SELECT 'sent' FROM mistral_batch_submit('SELECT range AS custom_id, md5(a::VARCHAR) AS prompt "
            "FROM range(1000000000), range(2) t(a)');"
        )
        wait_until(lambda: spools_much(home))
        shell.interrupt()
        shell.read_until("memory D ")
        shell.type("SELECT 'still ' || 'here';")
        shell.read_until("still here")
        shell.type(".quit")
        assert shell.process.wait(30) == 0
    assert asked_for_money(emulator) == (0, 0)
    assert list(home.rglob("*.jsonl*")) == []


def test_interrupted_results(emulator: Emulator, home: Path) -> None:
    """Ctrl-C while results are downloaded ends the statement, even where the server says nothing; later they come."""
    environment = environment_of(emulator, home)
    with terminal(environment) as shell:
        shell.type(PREPARE.strip())
        shell.type("SET VARIABLE id = (SELECT submission_id FROM mistral_batch_submit('staging'));")
        shell.type("SELECT 'ended ' || status AS t FROM mistral_batch_wait(getvariable('id'));")
        shell.read_until("ended SUCCESS")
        emulator.faults(Rule(method="GET", path=".*/content", after=True, delay=3600))
        shell.type("SELECT 'read ' || count(*) AS t FROM mistral_batch_results(getvariable('id'));")
        wait_until(lambda: emulator.witness()["requests"].get("download", 0) > 0)
        shell.interrupt()
        shell.read_until(r"\);\s+memory D ")
        shell.type("SELECT 'still ' || 'here' AS t;")
        shell.read_until("still here")
        shell.type(".quit")
        assert shell.process.wait(30) == 0
    ran = run_shell(environment, "-list", "-noheader", "-c", "SELECT count(content) FROM mistral_batch_results()")
    assert ran.stdout == "3\n"


def test_killed_helper(emulator: Emulator, home: Path) -> None:
    """Where the helper was killed, the next statement finds another one; in the middle of one, it costs a sentence."""
    with terminal(environment_of(emulator, home)) as shell:
        shell.type(PREPARE.strip())
        shell.type("SELECT 'sent ' || total_requests AS t FROM mistral_batch_submit('staging');")
        shell.read_until("sent 3")
        killed = shell.children()["helper"]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: shell.children()["helper"] != killed)
        shell.type("SELECT 'known ' || reused AS t FROM mistral_batch_submit('staging');")
        shell.read_until("known true")
        shell.type(
            "SELECT 'sent' FROM mistral_batch_submit('SELECT range AS custom_id, md5(a::VARCHAR) AS prompt "
            "FROM range(1000000000), range(2) t(a)');"
        )
        wait_until(lambda: spools_much(home))
        os.kill(shell.children()["helper"], signal.SIGKILL)
        shell.read_until("The helper process of the mistral functions has ended")
        shell.type("SELECT 'still ' || status AS t FROM mistral_batch_status();")
        shell.read_until("still SUCCESS")
        shell.type(".quit")
        assert shell.process.wait(30) == 0


def test_killed_shell(emulator: Emulator, home: Path) -> None:
    """Where the shell was killed in the middle of a submit, the helper ends and leaves no spool."""
    with terminal(environment_of(emulator, home)) as shell:
        children = shell.children()
        shell.type(
            "SELECT 'sent' FROM mistral_batch_submit('SELECT range AS custom_id, md5(a::VARCHAR) AS prompt "
            "FROM range(1000000000), range(2) t(a)');"
        )
        wait_until(lambda: spools_much(home))
        os.kill(children["shell"], signal.SIGKILL)
        assert shell.process.wait(30) == 1
        assert gone(children["helper"])
    assert list(home.rglob("*.jsonl*")) == []
    assert asked_for_money(emulator) == (0, 0)


def test_killed_launcher(emulator: Emulator, home: Path) -> None:
    """Where `duckdb-mistral shell` itself was terminated, the shell and the helper end with it."""
    with terminal(environment_of(emulator, home)) as shell:
        children = shell.children()
        shell.process.terminate()
        assert shell.process.wait(30) == 1
        assert all(map(gone, children.values()))


def test_another_database(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """After .open the statements of `duckdb-mistral extension --sql` bring the functions to the other database too."""
    script = f"""
    {PREPARE}
    SELECT total_requests FROM mistral_batch_submit('staging');
    .open {tmp_path / "other.duckdb"}
    .read {tmp_path / "mistral.sql"}
    {PREPARE}
    SELECT total_requests, reused FROM mistral_batch_submit('staging');
    """
    from duckdb_mistral.shell.extension import extension_file, platform
    from duckdb_mistral.shell.statements import statements

    (tmp_path / "mistral.sql").write_text("".join(statements(extension_file(platform()))), encoding="utf-8")
    typed = "\n".join(line.strip() for line in script.splitlines())
    ran = run_shell(environment_of(emulator, home), "-list", "-noheader", typed=typed)
    assert (ran.returncode, ran.stdout.split(), ran.stderr) == (0, ["3", "3|true"], "")


def test_no_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no duckdb of a version that will do, a sentence says what there is and what to install."""
    old = tmp_path / "duckdb"
    old.write_text("#!/bin/sh\necho 'v1.4.4|linux_amd64'\n", encoding="utf-8")
    old.chmod(0o755)
    code = (
        "import sys, importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name, *more: None if name == 'duckdb_cli' else find(name, *more); "
        "from duckdb_mistral.cli.commands import main; sys.argv = ['duckdb-mistral', 'shell']; main()"
    )
    ran = run_python(code, clean_environment() | {"PATH": str(tmp_path)})
    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.search(r"no duckdb shell of version 1\.5\.1 or later here \(.*/duckdb is 1\.4\.4\)", ran.stderr)
    assert "pip install 'duckdb-mistral[shell]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_shell_of_another_environment(tmp_path: Path) -> None:
    """The script of a duckdb-cli that is installed elsewhere stands for its binary, by a link too."""
    package = tmp_path / "env/lib/python3.12/site-packages/duckdb_cli"
    for directory in (package, tmp_path / "env/bin", tmp_path / "bin"):
        directory.mkdir(parents=True)
    (package / "duckdb").write_text("#!/bin/sh\necho 'v9.8.7|linux_amd64'\n", encoding="utf-8")
    (tmp_path / "env/bin/duckdb").write_text("#!/usr/bin/python3\n", encoding="utf-8")
    for program in (package / "duckdb", tmp_path / "env/bin/duckdb"):
        program.chmod(0o755)
    (tmp_path / "bin/duckdb").symlink_to(tmp_path / "env/bin/duckdb")
    code = "from duckdb_mistral.shell.binary import find_binary; print(find_binary().version)"
    for folder in ("env/bin", "bin"):
        ran = run_python(code, clean_environment() | {"PATH": str(tmp_path / folder)})
        assert (ran.stdout, ran.stderr) == ("9.8.7\n", "")


def test_safe_mode() -> None:
    """The shell's -safe, which allows no extension, is refused in a sentence."""
    ran = run_shell({}, "-safe", "-c", "SELECT 1")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "With -safe the shell loads no extension" in ran.stderr


def test_no_extension(tmp_path: Path) -> None:
    """For a platform without an extension, a sentence says what works there."""
    other = tmp_path / "duckdb"
    other.write_text("#!/bin/sh\necho 'v1.5.6|windows_amd64'\n", encoding="utf-8")
    other.chmod(0o755)
    code = "import sys; from duckdb_mistral.cli.commands import main; sys.argv = ['duckdb-mistral', 'shell']; main()"
    ran = run_python(code, clean_environment() | {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "no DuckDB extension for the platform windows_amd64" in ran.stderr
    assert "harlequin -a mistral" in ran.stderr
