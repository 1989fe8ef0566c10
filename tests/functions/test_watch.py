"""`duckdb-mistral status --watch`, as a process of its own: with a terminal for its bars, and without."""

from __future__ import annotations

import csv
import io
import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import duckdb
import pytest
from support import clean_environment, connect, environment_of, make_staging, submitted

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUESTS = 2000


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Emulator]:
    """Yield a local server that tells the first polls of its jobs that they go on."""
    poll = {"method": "GET", "path": "/v1/batch/jobs/[^/]+", "times": 8}
    with Emulator(tmp_path / "server") as server:
        server.faults(
            poll | {"change": {"status": "RUNNING", "completed_requests": 4}},
            poll | {"change": {"status": "RUNNING", "completed_requests": 8}},
        )
        yield server


def start(emulator: Emulator, home: Path, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start `duckdb-mistral status --watch`."""
    return subprocess.Popen(
        [sys.executable, "-m", "duckdb_mistral", "status", "--watch", "--format", "csv", *arguments],
        env=clean_environment() | environment_of(emulator, home) | {"TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def table(text: str) -> list[tuple[str, str]]:
    """Return the ids and statuses of what stood on standard output, which is CSV and nothing else."""
    rows = csv.DictReader(io.StringIO(text), strict=True)
    return [(row["submission_id"], row["status"]) for row in rows]


def test_lines(going: Emulator, home: Path) -> None:
    """Without a terminal, lines tell how far all open jobs are, and the table comes once they have ended."""
    with connect(going, home) as con:
        for name in ("first", "second"):
            make_staging(con, REQUESTS if name == "first" else 10, name)
        ids = {submitted(con, name) for name in ("first", "second")}
        with start(going, home) as watched:
            out, told = watched.communicate(timeout=120)
    assert watched.returncode == 0, told
    assert {(identifier, status) for identifier, status in table(out)} == {(one, "SUCCESS") for one in ids}
    lines = told.splitlines()
    assert lines[0].startswith("Of 2 jobs, ")
    assert lines[-1] == "Of 2 jobs, 2 SUCCESS: 2,010 of 2,010 requests are done."
    assert len(lines) == len(set(lines))


@pytest.mark.newest
def test_bars(going: Emulator, home: Path) -> None:
    """On a terminal, the job of the id has a line with its counts, its rate and the time left."""
    with connect(going, home) as con:
        make_staging(con, REQUESTS)
        identifier = submitted(con)
        make_staging(con, 10, "other")
        other = submitted(con, "other")
    terminal, side = pty.openpty()
    with os.fdopen(terminal, "rb", buffering=0), start(going, home, identifier, stderr=side) as watched:
        os.close(side)
        text = b""
        while piece := read(terminal):
            text += piece
        out, _ = watched.communicate(timeout=120)
    assert watched.returncode == 0
    assert table(out) == [(identifier, "SUCCESS")]
    drawn = text.decode()
    assert "RUNNING" in drawn
    assert f"{REQUESTS}/{REQUESTS}" in drawn
    assert "/s" in drawn
    assert "0:00:0" in drawn
    assert other not in out


def read(terminal: int) -> bytes:
    """Return what a terminal shows next; nothing once the other side has ended."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_interrupted(tmp_path: Path, home: Path) -> None:
    """Ctrl-C ends the watching with the table as it is then, and not the job."""
    with Emulator(tmp_path / "slow", job_seconds=3600) as slow, connect(slow, home) as con:
        make_staging(con)
        identifier = submitted(con)
        with start(slow, home) as watched:
            assert watched.stderr is not None
            first = watched.stderr.readline()
            assert "0 of 3 requests are done" in first
            watched.send_signal(signal.SIGINT)
            out, told = watched.communicate(timeout=120)
        assert watched.returncode == 1
        assert "Those that were sent run on" in told
        assert "Traceback" not in told
        ((shown, status),) = table(out)
        assert shown == identifier
        assert status in ("QUEUED", "RUNNING")


def test_nothing_to_watch(emulator: Emulator, home: Path) -> None:
    """Where every job has ended, or there is none, the table comes at once; an unknown id is told."""
    with start(emulator, home) as watched:
        out, told = watched.communicate(timeout=120)
    assert (watched.returncode, table(out), told) == (0, [], "Nothing has been submitted from here yet.\n")
    with start(emulator, home, "3f2a9c1e-0000-4000-8000-000000000000") as watched:
        out, told = watched.communicate(timeout=120)
    assert (watched.returncode, out) == (1, "")
    assert "There is no submission or job" in told


def test_forgotten_job(tmp_path: Path, home: Path) -> None:
    """A job that the workspace does not know any more is not watched for ever; by its id, that is told."""
    with Emulator(tmp_path / "first", job_seconds=3600) as first, connect(first, home) as con:
        make_staging(con)
        identifier = submitted(con)
        port = int(first.url.rpartition(":")[2])
    with Emulator(tmp_path / "second", port=port) as second:
        with start(second, home) as watched:
            out, told = watched.communicate(timeout=120)
        assert (watched.returncode, told) == (0, "")
        assert table(out) in ([(identifier, "QUEUED")], [(identifier, "RUNNING")])
        with start(second, home, identifier) as watched:
            out, told = watched.communicate(timeout=120)
    assert (watched.returncode, out) == (1, "")
    assert "does not know job" in told


def test_part_that_was_not_sent(emulator: Emulator, home: Path) -> None:
    """A part that only a submit would send is not watched for ever, but told; with its id, or without."""
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "status": 422})
    with connect(emulator, home) as con:
        make_staging(con)
        with pytest.raises(duckdb.Error, match="HTTP 422"):
            submitted(con)
        identifier = con.execute("SELECT submission_id FROM mistral_batch_status()").fetchall()[0][0]
    with start(emulator, home) as watched:
        out, told = watched.communicate(timeout=120)
    assert (watched.returncode, table(out)) == (1, [(identifier, "HELD")])
    first, last = told.splitlines()
    assert first.startswith(f"Part 1 of submission {identifier} was not sent. Could not create the batch job")
    assert last.startswith("Not all jobs have ended.")
    with start(emulator, home, identifier) as watched:
        out, told = watched.communicate(timeout=120)
    assert (watched.returncode, out) == (1, "")
    assert "was not sent" in told
    assert "Run the submit statement again" in told


def test_job_of_another_server(tmp_path: Path, emulator: Emulator, home: Path) -> None:
    """A job that goes on at another server is told by its id, and is no error where none was asked for."""
    with Emulator(tmp_path / "other", job_seconds=3600) as other, connect(other, home) as con:
        make_staging(con)
        identifier = submitted(con)
    with start(emulator, home, identifier) as watched:
        out, told = watched.communicate(timeout=120)
    assert (watched.returncode, out) == (1, "")
    assert f"belongs to {other.url}" in told
    with start(emulator, home) as watched:
        out, told = watched.communicate(timeout=120)
    assert (watched.returncode, told) == (0, "")
