"""The commands that look after the state directory."""

from __future__ import annotations

import csv
import io
import json
import shutil
from typing import TYPE_CHECKING

import pytest
from postgres import is_there, shared_server
from support import KEY

from duckdb_mistral.cli import move

if TYPE_CHECKING:
    from pathlib import Path

    from cli.terminal import Terminal
from duckdb_mistral.emulator import Emulator


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


@pytest.mark.skipif(not is_there(), reason="no PostgreSQL is installed here")
def test_doctor_with_a_shared_ledger(terminal: Terminal) -> None:
    """The check-up tells the server and what the ledger holds, a repair restores it, and neither tells a password."""
    address = shared_server().new_url().replace("postgres@", "postgres:canary-password@")
    done = terminal.run("doctor", DUCKDB_MISTRAL_LEDGER=address)
    assert done.returncode == 0, done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.split()[1] == "ledger")
    assert "PostgreSQL" in line
    assert f"127.0.0.1:{shared_server().port}/postgres" in line
    assert "0 submissions, 0 jobs" in line
    assert "synchronous_commit is off" in line
    repaired = terminal.run("doctor", "--repair", DUCKDB_MISTRAL_LEDGER=address)
    assert "Restored from the workspace: 0 submissions with 0 jobs." in repaired.stdout
    for said in (done, repaired):
        assert "canary" not in said.stdout + said.stderr


@pytest.mark.skipif(not is_there(), reason="no PostgreSQL is installed here")
def test_doctor_without_the_shared_ledger(terminal: Terminal) -> None:
    """Where the ledger's server does not answer, the check-up says so by its host, and checks the rest."""
    address = "postgresql://me:canary-password@127.0.0.1:9/team"
    done = terminal.run("doctor", DUCKDB_MISTRAL_LEDGER=address)
    assert done.returncode == 1
    assert "not ok  ledger     The ledger at 127.0.0.1:9/team cannot be reached" in done.stdout
    assert [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("ok      state")] == ["writable"]
    assert "canary" not in done.stdout + done.stderr


def test_doctor_with_a_store(terminal: Terminal, tmp_path: Path) -> None:
    """The check-up says in one line whether the store can be written, read and listed, and leaves nothing in it."""
    store = tmp_path / "store"
    url = f"file://{store}"
    done = terminal.run("doctor", DUCKDB_MISTRAL_STORE=url)
    assert done.returncode == 1
    assert f"could not be written to the store {url} (there is no directory {store}: make it" in done.stdout
    store.mkdir()
    done = terminal.run("doctor", DUCKDB_MISTRAL_STORE=url)
    assert done.returncode == 0, done.stdout
    assert f"ok      store      {url} can be written, read and listed\n" in done.stdout
    assert list(store.iterdir()) == []


def test_clean_with_a_store(terminal: Terminal, tmp_path: Path) -> None:
    """Clean says that the store keeps what it has, and how much there is of nothing that the ledger knows."""
    store = tmp_path / "store"
    (store / "results").mkdir(parents=True)
    (store / "results" / "strange.parquet").write_bytes(bytes(1234))
    assert terminal.run("submit", "prompts.sql", DUCKDB_MISTRAL_STORE=f"file://{store}").returncode == 0
    done = terminal.run("clean", DUCKDB_MISTRAL_STORE=f"file://{store}")
    assert done.returncode == 0, done.stderr
    assert f"What the store file://{store} has stays there" in done.stderr
    assert (
        "1 file there is of nothing that this ledger knows (1,234 bytes): another ledger may know them." in done.stderr
    )


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


@pytest.mark.skipif(not is_there(), reason="no PostgreSQL is installed here")
def test_move(terminal: Terminal, tmp_path: Path) -> None:
    """The command says how much went where and what the settings have to be; doctor says it too, and no password."""
    (tmp_path / "store").mkdir()
    team = {
        "DUCKDB_MISTRAL_LEDGER": shared_server().new_url().replace("postgres@", "postgres:canary-password@"),
        "DUCKDB_MISTRAL_STORE": f"file://{tmp_path / 'store'}",
    }
    place, home = f"at 127.0.0.1:{shared_server().port}/postgres", tmp_path / "home"
    assert terminal.run("submit", "prompts.sql").returncode == 0
    checked = terminal.run("doctor", **team)
    assert f"`duckdb-mistral move --to team` has brought there what the ledger under {home} knows" in checked.stdout
    there = terminal.run("move", "--to", "team", **team)
    assert there.returncode == 0, there.stderr
    lines = there.stdout.splitlines()
    assert lines[0] == f"To the ledger {place}: 1 submission with 1 job."
    assert lines[1].startswith(f"To the store {team['DUCKDB_MISTRAL_STORE']}: ")
    assert lines[2].startswith(f"The ledger under {home} sends nothing from here on: leave DUCKDB_MISTRAL_LEDGER set.")
    again = terminal.run("move", "--to", "team", **team)
    assert (
        "0 submissions with 0 jobs.\n1 submission it knew already; 0 jobs of them brought up to date." in again.stdout
    )
    assert ": 0 files, 0 bytes; " in again.stdout

    checked = terminal.run("doctor", **team)
    assert checked.returncode == 0
    assert f"ok      ledger     The ledger under {home} was moved to the ledger {place}." in checked.stdout
    without = terminal.run("doctor")
    assert without.returncode == 1
    assert f"not ok  state      The ledger under {home} was moved to the ledger {place}, so" in without.stdout
    for arguments in (["submit", "prompts.sql"], ["clean", "--yes"], ["status"], ["doctor", "--repair"]):
        refused = terminal.run(*arguments)
        assert refused.returncode == 1
        assert (
            "Set DUCKDB_MISTRAL_LEDGER to its address again, or run `duckdb-mistral move --to home`" in refused.stderr
        )

    back = terminal.run("move", "--to", "home", **team)
    assert back.returncode == 0, back.stderr
    assert f"To the ledger under {home}: 0 submissions with 0 jobs." in back.stdout
    assert f"The ledger {place} stays as it is, for others who use it. Unset DUCKDB_MISTRAL_LEDGER" in back.stdout
    assert terminal.run("doctor").returncode == 0
    for said in (there, again, checked, without, back):
        assert "canary" not in said.stdout + said.stderr
    assert terminal.emulator.witness()["creates_received"] == 1


def test_move_that_takes_long(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A move tells on standard error how many files and bytes have been carried, but not all the time."""
    submitted = terminal.run("submit", "prompts.sql", "--format", "jsonl")
    submission_id = json.loads(submitted.stdout.splitlines()[0])["submission_id"]
    assert terminal.run("wait", submission_id).returncode == 0
    assert terminal.run("results", submission_id).returncode == 0
    (tmp_path / "store").mkdir()
    for name, value in terminal.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DUCKDB_MISTRAL_STORE", f"file://{tmp_path / 'store'}")
    monkeypatch.setattr("duckdb_mistral.cli.move.TOLD_SECONDS", 0)
    move.run("team")
    told = capsys.readouterr()
    counts = [line.split(" ", 1)[0] for line in told.err.splitlines()]
    assert counts == [str(number) for number in range(1, len(counts) + 1)]
    assert told.err.startswith("1 file, ")
    assert told.err.splitlines()[0].endswith(" bytes so far …")
    assert f": {counts[-1]} file" in told.out
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "store").mkdir()
    monkeypatch.setattr("duckdb_mistral.cli.move.TOLD_SECONDS", 60)
    move.run("team")
    assert capsys.readouterr().err == ""


def test_move_without_a_team(terminal: Terminal) -> None:
    """Without the settings of a team, or with a server that is down, the command says so in one sentence."""
    alone = terminal.run("move", "--to", "team")
    assert alone.returncode == 1
    assert alone.stderr.startswith("Neither DUCKDB_MISTRAL_LEDGER nor DUCKDB_MISTRAL_STORE is set")
    down = terminal.run("move", "--to", "home", DUCKDB_MISTRAL_LEDGER="postgresql://me:canary@127.0.0.1:9/team")
    assert down.returncode == 1
    assert down.stderr.startswith("The ledger at 127.0.0.1:9/team cannot be reached")
    assert "canary" not in down.stdout + down.stderr
    assert terminal.run("move").returncode == 2
