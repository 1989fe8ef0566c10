"""`duckdb-mistral shell` and `serve`: the official duckdb shell as a process of its own, and in a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import duckdb
import pytest
from support import KEY, asked_for_money, clean_environment, environment_of, run_python

import duckdb_mistral
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.quack import macros_of_client, macros_of_server

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = (sys.executable, "-m", "duckdb_mistral")
INSTALLED = find_spec("duckdb_cli") is not None
with_shell = pytest.mark.skipif(not INSTALLED, reason="the official shell is not in this environment: make test-shell")

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


def run_shell(
    environment: dict[str, str], *arguments: str, typed: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `duckdb-mistral shell` with `arguments`; `typed` goes to its standard input."""
    return subprocess.run(
        [*COMMAND, "shell", *arguments],
        env=clean_environment() | environment,
        input=typed if typed is not None else "",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


COLUMNS = 160


class Terminal:
    """`duckdb-mistral shell` in a terminal, in which a person types."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        """Start the shell; it reads and writes a pseudo-terminal, which is its controlling one."""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, "shell", *arguments],
            env=clean_environment() | environment | {"TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._unread = ""

    def type(self, line: str) -> None:
        """Type a line and the return key."""
        os.write(self._master, line.encode() + b"\r")

    def read_until(self, pattern: str, seconds: float = 60) -> str:
        """Return what was shown up to where `pattern` is found, without colours and movements."""
        end = time.monotonic() + seconds
        shown = self._unread
        while not (found := re.search(pattern, shown)):
            assert time.monotonic() < end, f"{pattern!r} was not shown within {seconds} s: {shown!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    piece = os.read(self._master, 65536)
                except OSError:  # the other side has ended
                    piece = b""
                if b"\x1b[c" in piece:  # "what are you?": the shell waits for the answer
                    os.write(self._master, b"\x1b[?1;2c")
                assert piece, f"{pattern!r} was not shown before the shell ended: {shown!r}"
                shown += re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)", "", piece.decode(errors="replace"))
        self._unread = shown[found.end() :]
        return shown[: found.end()]

    def interrupt(self) -> None:
        """Press Ctrl-C while a statement runs: the signal goes to every process of the terminal's foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def server(self) -> int:
        """Return the process that holds the database open."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="utf-8")
        for child in children.split():
            if b"duckdb_mistral.serve" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        raise AssertionError(f"there is no server among the children {children}")

    def close(self) -> None:
        """End what is still running."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._master)


@contextlib.contextmanager
def terminal(environment: dict[str, str], *arguments: str) -> Iterator[Terminal]:
    """Yield the shell in a terminal, at its first prompt."""
    shell = Terminal(environment, *arguments)
    try:
        shell.read_until("usage hints")
        yield shell
    finally:
        shell.close()


@with_shell
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


@with_shell
def test_shell_without_a_key(home: Path, tmp_path: Path) -> None:
    """The shell opens without a key and without a network, and prints what it is asked for and nothing else."""
    environment = {"DUCKDB_MISTRAL_HOME": str(home), "MISTRAL_SERVER_URL": "http://127.0.0.1:9"}
    ran = run_shell(environment, str(tmp_path / "my.duckdb"), "-list", "-noheader", "-c", "SELECT 42")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "42\n", "")


@with_shell
def test_file_and_one_liner(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """A file of statements runs with -f; a later `-c` finds its tables and its submission."""
    database, script = str(tmp_path / "my.duckdb"), tmp_path / "script.sql"
    script.write_text(PREPARE + FOUR_STATEMENTS, encoding="utf-8")
    environment = environment_of(emulator, home)
    assert run_shell(environment, database, "-f", str(script)).returncode == 0
    status = run_shell(environment, database, "-csv", "-c", "SELECT status, progress FROM mistral_batch_status()")
    assert (status.returncode, status.stdout.split(), status.stderr) == (0, ["status,progress", "SUCCESS,1.0"], "")
    again = run_shell(environment, database, "-csv", "-noheader", "-c", FOUR_STATEMENTS.strip().split("\n")[0])
    assert again.stdout.split() == ["3,true"]
    assert asked_for_money(emulator) == (1, 1)


@with_shell
def test_quickstart(emulator: Emulator, home: Path) -> None:
    """examples/quickstart.sql runs in the shell and ends with twenty joined answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).resolve().parent.parent)
        ran = run_shell(environment_of(emulator, home), "-csv", "-f", "examples/quickstart.sql")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(",ok,") == 20
    assert "1790,George Washington,ok," in ran.stdout


@with_shell
def test_nothing_is_written_to_the_database(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """The user's file holds the user's tables and no function, and answers can be kept in it by the server."""
    database = tmp_path / "my.duckdb"
    keep = """
        CALL my.query($$ CREATE TABLE answers AS FROM staging s
                         JOIN mistral.mistral_batch_results() r ON r.custom_id = s.custom_id::VARCHAR $$);
    """
    ran = run_shell(environment_of(emulator, home), str(database), typed=PREPARE + FOUR_STATEMENTS + keep)
    assert ran.returncode == 0, ran.stderr
    with duckdb.connect(str(database)) as connection:
        assert connection.sql("SELECT name FROM (SHOW TABLES)").fetchall() == [("answers",), ("staging",)]
        assert connection.sql("FROM duckdb_functions() WHERE database_name = 'my'").fetchall() == []
        assert connection.sql("SELECT count(content) FROM answers").fetchall() == [(3,)]


@with_shell
@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("FROM mistral_batch_results('nothing')", "'nothing' is not an id"),
        ("FROM mistral_batch_submit('SELECT 1 AS custom_id')", "The source has no column prompt, messages or body"),
        ("FROM mistral_batch_submit('staging', reuse := 'never')", "reuse must be 'submission' or 'requests'"),
        ("CREATE TEMP TABLE mine AS FROM staging; FROM mistral_batch_submit('mine')", "mine does not exist"),
    ],
)
def test_sentences(statement: str, sentence: str, emulator: Emulator, home: Path) -> None:
    """Errors arrive in the shell as the same sentences, on standard error, with exit status 1, and nothing is sent."""
    ran = run_shell(environment_of(emulator, home), "-c", PREPARE + statement)
    assert ran.returncode == 1
    assert sentence in ran.stderr
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    assert asked_for_money(emulator) == (0, 0)


@with_shell
def test_arguments_of_every_kind(emulator: Emulator, home: Path) -> None:
    """Text with quotes, lists, structs, numbers and NULL reach the server as they are."""
    preview = """
        SELECT body->'stop', body->'messages'->0->>'content', body->'temperature'
        FROM mistral_batch_preview('SELECT 1 AS custom_id, ''x'' AS prompt', model := 'a-model',
          system := $q$It's "a" $$$q$,
          params := {stop: ['a''b', NULL, 'é 🦆'], temperature: 0.5}, output := NULL, timeout_hours := 5)
    """
    ran = run_shell(environment_of(emulator, home), "-list", "-noheader", "-c", preview)
    assert ran.stdout.strip() == """["a'b",null,"é 🦆"]|It's "a" $$|0.5""", ran.stderr
    jobs = "SELECT count(*) FROM mistral_batch_jobs(status := ['SUCCESS'], created_after := now() - INTERVAL 1 DAY)"
    assert run_shell(environment_of(emulator, home), "-list", "-noheader", "-c", jobs).stdout.strip() == "0"


@with_shell
def test_database_that_cannot_be_opened(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """A file that is no database is told in a sentence, before a shell opens."""
    (tmp_path / "text.duckdb").write_text("This is no database. " * 10, encoding="utf-8")
    ran = run_shell(environment_of(emulator, home), str(tmp_path / "text.duckdb"), "-c", "SELECT 1")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "not a valid DuckDB database file" in ran.stderr
    assert "Traceback" not in ran.stderr


@with_shell
def test_key_stays_with_the_server(emulator: Emulator, home: Path) -> None:
    """The shell itself does not get the API key, and the token stands in no command line."""
    look = "SELECT '[' || getenv('MISTRAL_API_KEY') || ']' || getenv('HOME');"
    ran = run_shell(environment_of(emulator, home), "-list", "-noheader", "-c", look)
    assert ran.stdout.strip() == f"[]{os.environ['HOME']}"
    assert KEY not in ran.stdout + ran.stderr
    with terminal(environment_of(emulator, home)) as shell:
        children = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
        assert "TOKEN" not in children
        assert "start.sql" in children
        shell.type(".quit")
        assert shell.process.wait(30) == 0


@with_shell
def test_terminal(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """In a terminal, the shell says what a TEMP table cannot do, answers within its width, and ends with its server."""
    shell = Terminal(environment_of(emulator, home), str(tmp_path / "my.duckdb"))
    with contextlib.closing(shell):
        greeting = shell.read_until("usage hints")
        assert "A TEMP table lives in this shell" in greeting
        assert "An argument cannot be a subquery" in greeting
        server = shell.server()
        shell.type(PREPARE.strip())
        shell.type("SELECT 'sent ' || total_requests AS t FROM mistral_batch_submit('staging');")
        shell.read_until("sent 3")
        shell.type("SELECT repeat('x', 150) AS wide, repeat('y', 150) AS wider;")
        assert max(map(len, shell.read_until("└.*┘").splitlines()[-6:])) <= COLUMNS
        shell.type(".quit")
        assert shell.process.wait(30) == 0
        assert not Path(f"/proc/{server}").exists()


@with_shell
def test_interrupted_wait(tmp_path: Path, home: Path) -> None:
    """Ctrl-C ends a wait and not the shell; the job goes on."""
    with Emulator(tmp_path / "slow", job_seconds=3600) as slow, terminal(environment_of(slow, home)) as shell:
        shell.type(PREPARE.strip())
        shell.type("SET VARIABLE id = (SELECT submission_id FROM mistral_batch_submit('staging'));")
        shell.type("FROM mistral_batch_wait(getvariable('id'));")
        shell.read_until("0/3|0 of 3")
        shell.interrupt()
        shell.read_until(r"db D ")
        shell.type("SELECT 'still ' || 'here' AS t, status FROM mistral_batch_status();")
        shell.read_until("still here")
        shell.read_until("RUNNING|QUEUED")
        shell.type(".quit")
        assert shell.process.wait(30) == 0


@with_shell
def test_dead_server(emulator: Emulator, home: Path) -> None:
    """When the process behind the shell dies, the shell ends with a sentence and exit status 1."""
    with terminal(environment_of(emulator, home)) as shell:
        os.kill(shell.server(), signal.SIGKILL)
        shell.read_until("The process that held the database open has ended")
        assert shell.process.wait(30) == 1


@contextlib.contextmanager
def serving(environment: dict[str, str], *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Yield `duckdb-mistral serve`, its address and its token."""
    process = subprocess.Popen(
        [*COMMAND, "serve", *arguments],
        env=clean_environment() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        uri, token = process.stdout.readline().split()
        yield process, uri, token
    finally:
        process.kill()
        process.communicate()


@with_shell
def test_serve(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """A client with the token runs the functions, one without is refused, and the server prints the statements."""
    from duckdb_mistral.quack import load_extensions

    with serving(environment_of(emulator, home), str(tmp_path / "team.duckdb"), "--port", "0") as (process, uri, token):
        assert urlsplit(uri.replace("quack:", "quack://")).hostname == "127.0.0.1"
        with duckdb.connect() as client:
            load_extensions(client)
            with pytest.raises(duckdb.Error, match="Authentication failed"):
                client.execute(f"FROM quack_query('{uri}', 'SELECT 1', token := 'a-wrong-token')")
            client.execute(f"CREATE SECRET (TYPE quack, TOKEN '{token}'); ATTACH '{uri}' AS db")
            client.execute("CREATE TABLE db.staging AS SELECT 1 AS custom_id, 'from a client' AS prompt")
            submitted = "FROM db.query($$ SELECT total_requests FROM mistral.mistral_batch_submit('staging') $$)"
            assert client.execute(submitted).fetchall() == [(1,)]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "> SELECT total_requests FROM mistral.mistral_batch_submit('staging')" in said
        assert token not in said
        assert KEY not in said


@with_shell
def test_serve_on_a_taken_port(emulator: Emulator, home: Path) -> None:
    """A port that is taken is told, with exit status 1."""
    port = str(urlsplit(emulator.url).port)
    ran = subprocess.run(
        [*COMMAND, "serve", "--port", port],
        env=clean_environment() | environment_of(emulator, home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert port in ran.stderr
    assert "Traceback" not in ran.stderr


def test_every_function_is_forwarded() -> None:
    """The server's functions and the shell's are those of register, with the same parameters and comments."""
    surface = (
        "SELECT function_name, parameters, comment FROM duckdb_functions() "
        "WHERE database_name = $catalog AND function_type = 'table_macro' AND starts_with(function_name, 'mistral_') "
        "ORDER BY function_name"
    )
    with duckdb_mistral.connect() as con:
        registered = con.execute(surface, {"catalog": "temp"}).fetchall()
        con.execute("ATTACH ':memory:' AS mistral")
        for statement in macros_of_server("mistral"):
            con.execute(statement)
        assert con.execute(surface, {"catalog": "mistral"}).fetchall() == registered
    shell = "\n".join(macros_of_client("quack:127.0.0.1:1", "mistral"))
    names = re.findall(r"MACRO (mistral_\w+)\([^)]*\) AS TABLE", shell)
    assert sorted(names) == [name for name, _, _ in registered]
    for name, parameters, comment in registered:
        forwarded = re.search(rf"'FROM mistral\.{name}\((.*)\);", shell)
        assert forwarded is not None
        assert re.findall(r"(\w+) := '", forwarded[1]) == parameters
        assert comment.replace("'", "''") in shell


@pytest.mark.skipif(INSTALLED, reason="the official shell is in this environment")
@pytest.mark.parametrize("command", ["shell", "serve"])
def test_without_the_packages(command: str) -> None:
    """Without the extra, both commands say what is missing, for which DuckDB, and what to install."""
    code = "import sys; from duckdb_mistral.cli import main; sys.argv = ['duckdb-mistral', sys.argv[1]]; main()"
    ran = run_python(code, {"PATH": ""}, command)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"is not installed for DuckDB {duckdb.__version__}" in ran.stderr
    assert "pip install 'duckdb-mistral[shell]'" in ran.stderr
    assert "Traceback" not in ran.stderr
