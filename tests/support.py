"""What several test files use: a connection with rows to send, and a Python process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forking import fork

import duckdb_mistral

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from duckdb_mistral.emulator import Emulator
    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.results.convert import ResultFiles, Written

KEY = "a-key-of-the-tests"
#: Jobs that ended so long ago that nothing of them can be on its way any more.
LONG_AGO: dict[str, Any] = {
    "method": "GET",
    "path": "/v1/batch/jobs/[^/]+",
    "times": 10_000,
    "change": {"completed_at": 1_600_000_000},
}


def settings_of(emulator: Emulator, home: Path, **others: Any) -> dict[str, Any]:
    """Return the settings of a connection that talks to `emulator` and does not dawdle."""
    return {"api_key": KEY, "server_url": emulator.url, "home": home, "poll_seconds": 0.02} | others


def connect(emulator: Emulator, home: Path, **others: Any) -> duckdb.DuckDBPyConnection:
    """Return a new database in memory whose functions talk to `emulator`."""
    return duckdb_mistral.connect(settings=settings_of(emulator, home, **others))


def at_server(emulator: Emulator, method: str, path: str, fields: dict[str, Any] | None = None) -> Any:
    """Return the server's answer to a request of another program."""
    request = urllib.request.Request(  # noqa: S310  the address is this machine's
        f"{emulator.url}{path}",
        method=method,
        data=None if fields is None else json.dumps(fields).encode(),
        headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return json.loads(answer.read())


def lose_files(emulator: Emulator, job_id: str, *names: str) -> None:
    """Delete files of a job at the server, and let it say that the job ended long ago."""
    job = at_server(emulator, "GET", f"/v1/batch/jobs/{job_id}")
    for name in names:
        for file_id in job[name] if isinstance(job[name], list) else [job[name]]:
            at_server(emulator, "DELETE", f"/v1/files/{file_id}")
    emulator.faults(LONG_AGO | {"path": f"/v1/batch/jobs/{job_id}"})


def make_staging(con: duckdb.DuckDBPyConnection, rows: int = 3, name: str = "staging") -> None:
    """Create the table `name` with custom_ids '0', '1' … and prompts 'prompt 0' and so on."""
    con.execute(
        f"CREATE TABLE {name} AS SELECT range::VARCHAR AS custom_id, 'prompt ' || range AS prompt FROM range({rows})"
    )


def rows(con: duckdb.DuckDBPyConnection, query: str, parameters: Any = None) -> list[dict[str, Any]]:
    """Return the rows of a query as dictionaries."""
    result = con.execute(query, parameters)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def submitted(con: duckdb.DuckDBPyConnection, source: str = "staging", arguments: str = "") -> str:
    """Submit `source` and return the submission's id; `arguments` is SQL, such as `force := true`."""
    call = f"FROM mistral_batch_submit($source{', ' + arguments if arguments else ''})"
    submission_id: str = rows(con, call, {"source": source})[0]["submission_id"]
    return submission_id


def wait_at_the_server(con: duckdb.DuckDBPyConnection) -> None:
    """Wait until the workspace's jobs have ended, without a word to the ledger."""
    end = time.monotonic() + 60
    while {row["status"] for row in rows(con, "SELECT status FROM mistral_batch_jobs()")} != {"SUCCESS"}:
        assert time.monotonic() < end, "the jobs did not end"
        time.sleep(0.02)


def answered(con: duckdb.DuckDBPyConnection, submission_id: str) -> list[dict[str, Any]]:
    """Wait for a submission and return its results, ordered by custom_id."""
    con.execute("FROM mistral_batch_wait($id, timeout_seconds := 60)", {"id": submission_id})
    return rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id")


def ended_job(
    requests: int, *, completed: int | None = None, endpoint: str = "/v1/chat/completions", **report: Any
) -> Job:
    """Return an ended job of so many requests, all completed unless told otherwise; `report` is what the API said."""
    from duckdb_mistral.jobs.job import Job, Step
    from duckdb_mistral.jobs.report import JobReport

    told: dict[str, Any] = {
        "job_id": "job",
        "status": "SUCCESS",
        "total_requests": requests,
        "completed_requests": requests if completed is None else completed,
    }
    return Job(
        key=1,
        submission_id="submission",
        part=1,
        model="the-jobs-model",
        endpoint=endpoint,
        server_url="https://example.com",
        step=Step.CREATED,
        request_count=requests,
        input_bytes=1,
        created_here_at=0,
        report=JobReport(**told | report),
    )


def write_results(job: Job, files: ResultFiles, target: Path, *, partial: bool) -> Written:
    """Write the results of a job as a collector does, with an engine for it alone."""
    from duckdb_mistral.duck.engine import own_engine
    from duckdb_mistral.results import convert

    with own_engine(target.parent / "spill") as engine:
        return convert.write_results(engine, job, files, target, partial=partial)


def asked_for_money(emulator: Emulator) -> tuple[int, int]:
    """Return how many uploads and creates the server has received."""
    requests = emulator.witness()["requests"]
    return requests.get("upload", 0), requests.get("create", 0)


@contextlib.contextmanager
def no_room(left: int = 0) -> Iterator[None]:
    """Let no file of this process grow above `left` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def run_python(code: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new Python process."""
    return subprocess.run(
        # Without __file__ DuckDB takes it for a person at a prompt, and draws a progress bar on standard output.
        [sys.executable, "-c", f"__file__ = 'script.py'\n{code}", *arguments],
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_forked(
    code: str, environment: dict[str, str], *arguments: str, directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own that begins with most imports done."""
    return fork(code, {**clean_environment(), **environment}, *arguments, directory=directory)


def environment_of(emulator: Emulator, home: Path) -> dict[str, str]:
    """Return the environment variables by which a process talks to `emulator`."""
    return {
        "MISTRAL_API_KEY": KEY,
        "MISTRAL_SERVER_URL": emulator.url,
        "DUCKDB_MISTRAL_HOME": str(home),
        "DUCKDB_MISTRAL_POLL_SECONDS": "0.02",
    }


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what configures the package."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MISTRAL_", "DUCKDB_MISTRAL_"))}


def load_script(path: Path) -> Any:
    """Return a file that is no part of the package, such as a script, as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def children_of(parent: int) -> dict[int, bytes]:
    """Return the processes that a process has started, with their command lines; none that has just ended."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int((process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]) == parent:
                found[int(process.name)] = (process / "cmdline").read_bytes()
    return found
