"""Running: start, stop, restart, ports, and the server as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from emulator.calling import Caller, chats
from emulator.child import Child, caller_of

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

#: HTTP, files and threads, which are the same whatever the version of DuckDB.
pytestmark = pytest.mark.newest


def test_restart(tmp_path: Path) -> None:
    """A server that is started again in its directory has its files and jobs."""
    with Emulator(tmp_path) as emulator:
        caller = Caller(emulator)
        job = caller.ended(caller.create(chats("a", "[[error 400]]")))
        lines = caller.lines(job["output_file"])
        files = caller.get("/v1/files").json()
    with Emulator(tmp_path) as emulator:
        caller = Caller(emulator)
        assert caller.get("/v1/batch/jobs").json()["data"] == [job]
        assert caller.get("/v1/files").json() == files
        assert caller.lines(job["output_file"]) == lines


def test_start_and_stop_again(tmp_path: Path) -> None:
    """One emulator can be stopped and started again, on the port that it had."""
    emulator = Emulator(tmp_path)
    with emulator:
        url = emulator.url
        job = Caller(emulator).create(chats("a"))
    emulator.stop()
    with emulator:
        assert emulator.url == url
        assert Caller(emulator).ended(job)["status"] == "SUCCESS"


@pytest.mark.parametrize(("seconds", "status"), [(0.3, 200), (5, 500)])
def test_stopped_in_the_middle_of_an_answer(tmp_path: Path, seconds: float, status: int) -> None:
    """A request that is being answered when the server is stopped is answered, unless that takes over a second."""
    with Emulator(tmp_path) as emulator, ThreadPoolExecutor() as others:
        caller = Caller(emulator)
        emulator.faults({"method": "GET", "path": "/v1/files", "after": True, "delay": seconds})
        answer = others.submit(caller.get, "/v1/files")
        while not emulator.witness()["requests"]:
            time.sleep(0.01)
        emulator.stop()
        assert answer.result().status == status


def test_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a directory the state is temporary, and gone when the server stops."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Emulator() as emulator:
        Caller(emulator).upload(b"x")
        assert len(list(tmp_path.rglob("*.bytes"))) == 1
    assert list(tmp_path.iterdir()) == []


def test_port_in_use(tmp_path: Path) -> None:
    """A port that another server has is an OSError, and nothing is left of the attempt."""
    with Emulator(tmp_path / "one") as emulator:
        port = int(emulator.url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="in use"):
            Emulator(tmp_path / "two", port=port).start()
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_own_process(tmp_path: Path, kind: signal.Signals) -> None:
    """The server as a process prints its address, answers, and ends on a signal without a word or a trace."""
    child = Child(environment={"TMPDIR": str(tmp_path)})
    caller = caller_of(child)
    assert caller.ended(caller.create(chats("a")))["status"] == "SUCCESS"
    assert list(tmp_path.iterdir())
    assert child.end(kind) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_killed(tmp_path: Path) -> None:
    """Files and jobs of a server that was killed are there when it is started again, and its jobs go on."""
    child = Child("--dir", str(tmp_path), "--job-seconds", "1")
    job = caller_of(child).create(chats("a", "b"))
    assert child.end(signal.SIGKILL)[0] == -signal.SIGKILL
    with Emulator(tmp_path) as emulator:
        caller = Caller(emulator)
        ended = caller.ended(job)
        assert (ended["status"], ended["succeeded_requests"]) == ("SUCCESS", 2)
        assert len(caller.lines(ended["output_file"])) == 2


def test_options(tmp_path: Path) -> None:
    """The options of the command reach the server."""
    child = Child("--max-pending-requests", "1", "--dir", str(tmp_path / "state"))
    try:
        caller = caller_of(child)
        document = {"input_files": [caller.upload(chats("a", "b"))], "endpoint": "/v1/chat/completions", "model": "m"}
        assert caller.post("/v1/batch/jobs", document).status == 429
        assert (tmp_path / "state" / "files").is_dir()
    finally:
        child.end(signal.SIGTERM)


def test_extra_is_missing() -> None:
    """Without the extra, importing the server says what to install."""
    code = "import sys; sys.modules['starlette'] = None; import duckdb_mistral.emulator"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, env=dict(os.environ)
    )
    assert "pip install 'duckdb-mistral[emulator]'" in run.stderr
