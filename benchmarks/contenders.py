"""What is measured: `python -m benchmarks.contenders NAME ARGUMENTS` runs one contender and prints its figures.

Imports are made before the clock starts; they have a case of their own.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from benchmarks import data, loop
from benchmarks.memory import PeakMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from duckdb_mistral.jobs import Job
    from duckdb_mistral.spool import Spool, SpooledPart

KEY = "a-key-of-the-benchmarks"
MAX_BYTES = 512_000_000


class Clock:
    """The seconds of each step of a contender, and the memory of them all."""

    def __init__(self) -> None:
        """Begin to count the memory."""
        self.seconds: dict[str, float] = {}
        #: Of all threads; what else runs on the machine changes it less.
        self.processor_seconds = 0.0
        self.figures: dict[str, Any] = {}
        self._memory = PeakMemory()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time of a block."""
        started, processor = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        self.processor_seconds += time.process_time() - processor

    def leave_out(self, name: str, seconds: float) -> None:
        """Take waiting out of a step."""
        self.seconds[name] -= seconds

    @property
    def added_bytes(self) -> int:
        """The most memory that was added until now."""
        return self._memory.added_bytes

    def forget_peak(self) -> None:
        """Count the peak anew, from what was held when the clock was made."""
        self._memory.forget()

    def told(self) -> str:
        """Return the figures as JSON."""
        return json.dumps(
            {
                "seconds": self.seconds,
                "processor_seconds": self.processor_seconds,
                "peak_bytes": self._memory.peak_bytes,
                "added_bytes": self._memory.added_bytes,
                "figures": self.figures,
            }
        )


class Told(Clock):
    """A clock that was read before the last checks were made."""

    def __init__(self, told: str) -> None:
        """Keep what was read."""
        self._told = told

    def told(self) -> str:
        """Return what was read."""
        return self._told


# Building: from the staging table to files that can be uploaded


def build_copy(work: Path, given: dict[str, Any]) -> Clock:
    """DuckDB's own COPY of the same lines."""
    import duckdb

    source = _source(given)
    with duckdb.connect(given.get("database", ":memory:")) as connection:
        if "database" not in given:
            data.make_phrases(connection, given["length"])
        clock = Clock()
        with clock.step("build"):
            connection.execute(
                "COPY (SELECT custom_id, {'messages': [{'role': 'user', 'content': prompt}]} AS body "
                f"FROM {source}) TO '{work}/requests.jsonl' (FORMAT json)"
            )
    clock.figures["bytes"] = (work / "requests.jsonl").stat().st_size
    return clock


def build_spool(work: Path, given: dict[str, Any]) -> Clock:
    """Run the statement of mistral_batch_submit, up to where the first upload would begin."""
    import duckdb_mistral
    from duckdb_mistral import arguments, collecting, requests, statements  # noqa: F401  as a second call has them
    from duckdb_mistral.submitting import Submitter

    pa.array([1])  # Arrow's first list imports pandas, where that is installed
    spooled: list[SpooledPart] = []

    def only_finished(_: Submitter, __: object, spool: Spool, *___: object) -> list[tuple[Job, bool]]:
        spooled.extend(spool.finish())
        return []

    Submitter.submit = only_finished  # type: ignore[method-assign, assignment]
    with duckdb_mistral.connect(given.get("database", ":memory:"), settings=_settings(work, given)) as connection:
        if "database" not in given:
            data.make_phrases(connection, given["length"])
        clock = Clock()
        with clock.step("build"):
            connection.execute("FROM mistral_batch_submit($source)", {"source": _source(given)}).fetchall()
    clock.figures["bytes"] = sum(part.input_bytes for part in spooled)
    clock.figures["parts"] = len(spooled)
    return clock


# Reading: from a downloaded result file to a table


def read_floor(_: Path, given: dict[str, Any]) -> Clock:
    """DuckDB's read_json straight into a table, the response's body as JSON."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        clock = Clock()
        with clock.step("read"):
            connection.execute(
                f"CREATE TABLE answers AS FROM read_json('{given['results']}', format = 'newline_delimited', columns = "
                "{id: 'VARCHAR', custom_id: 'VARCHAR', response: 'STRUCT(status_code INTEGER, body JSON)', "
                "error: 'JSON'})"
            )
    return clock


def read_detected(_: Path, given: dict[str, Any]) -> Clock:
    """DuckDB's read_json straight into a table, its columns found by itself."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        clock = Clock()
        with clock.step("read"):
            connection.execute(f"CREATE TABLE answers AS FROM read_json('{given['results']}')")
    return clock


def read_verified(work: Path, given: dict[str, Any]) -> Clock:
    """Turn the result file into verified Parquet, and that into a table of custom_id, outcome and content."""
    return _read_verified(work, given, "CREATE TABLE answers AS SELECT custom_id, outcome, content FROM ({query})")


def read_everything(work: Path, given: dict[str, Any]) -> Clock:
    """Turn the result file into verified Parquet, and that into a table of all columns, responses included."""
    return _read_verified(work, given, "CREATE TABLE answers AS FROM ({query})")


def _read_verified(work: Path, given: dict[str, Any], statement: str) -> Clock:
    import duckdb

    from duckdb_mistral.collecting import Family
    from duckdb_mistral.engines import own_engine
    from duckdb_mistral.responses import line_path, register_lines
    from duckdb_mistral.results import ResultFiles, write_results
    from duckdb_mistral.statements import results_statement

    pa.array([1])  # Arrow's first list imports pandas, where that is installed
    target = work / "results.parquet"
    answers = work / "answers.jsonl"
    answers.hardlink_to(given["results"])
    files = ResultFiles(answers=(answers,), submitted=Path(given["requests"]))
    with duckdb.connect(":memory:") as connection:
        register_lines(connection)
        clock = Clock()
        with clock.step("verify"):
            with own_engine(work / "spill") as engine:
                written = write_results(engine, _ended_job(given["rows"]), files, target, partial=False)
            for number, path in enumerate(written.lines):
                path.replace(line_path(target, number))
        with clock.step("read"):
            query = results_statement([Family(model="mistral-small-latest", generations=((target,),))])
            connection.execute(statement.format(query=query)).fetchall()
    assert written.tally.clean
    assert written.tally.held == given["rows"]
    clock.figures["bytes"] = target.stat().st_size
    return clock


# The whole of the client's side


def whole_loop(work: Path, given: dict[str, Any]) -> Clock:
    """Run the loop by hand, from the staging table to a table of answers."""
    import duckdb

    _import_the_rest()
    connection = duckdb.connect(given["database"])
    with closing(connection), _sdk(given["url"]) as sdk:
        clock = Clock()
        with clock.step("submit"):
            file_ids = loop.submit(sdk, loop.staged(connection), MAX_BYTES)
        jobs = [loop.create(sdk, file_id) for file_id in file_ids]
        outputs = [loop.wait(sdk, job_id) for job_id in jobs]
        with clock.step("results"):
            results = [result for file_id in outputs for result in loop.read(sdk, file_id, work / "output.jsonl")]
        with clock.step("table"):
            loop.make_table(connection, results)
        assert connection.execute("SELECT count(*) FROM answers").fetchone() == (given["rows"],)
    return clock


def whole_client(work: Path, given: dict[str, Any]) -> Clock:
    """mistral_batch_submit and mistral_batch_results, from the staging table to a table of answers."""
    import duckdb_mistral
    from duckdb_mistral import arguments, collecting, requests, statements  # noqa: F401  as a second call has them
    from duckdb_mistral.client import BatchClient

    _import_the_rest()
    waited = _timed(BatchClient, "create")
    settings = _settings(work, given) | {"server_url": given["url"], "poll_seconds": loop.POLL_SECONDS}
    with duckdb_mistral.connect(given["database"], settings=settings) as connection:
        clock = Clock()
        with clock.step("submit"):
            (submission_id, *_), *jobs = connection.execute("FROM mistral_batch_submit('staging')").fetchall()
        clock.leave_out("submit", sum(waited))
        connection.execute("FROM mistral_batch_wait($id)", {"id": submission_id}).fetchall()
        with clock.step("results"):
            connection.execute(
                "CREATE TEMP TABLE answers AS "
                f"SELECT custom_id, outcome, content FROM mistral_batch_results('{submission_id}')"
            )
        rows = connection.execute("SELECT count(*) FROM answers WHERE outcome = 'ok'").fetchone()
        assert rows == (given["rows"],)
    clock.figures["parts"] = 1 + len(jobs)
    return clock


def whole_transfer(work: Path, given: dict[str, Any]) -> Clock:
    """Send the same bytes up and down with the SDK's HTTP client, and nothing else."""
    import importlib

    http = importlib.import_module("mistralai.client.httpclient").httpx
    with http.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=300, trust_env=False) as client:
        clock = Clock()
        with clock.step("upload"):
            list(_sent(client, given["url"], Path(given["requests"])))
        for file_id in list(_sent(client, given["url"], Path(given["results"]))):
            with (
                clock.step("download"),
                client.stream("GET", f"{given['url']}/v1/files/{file_id}/content") as stream,
                (work / "output.jsonl").open("wb") as file,
            ):
                for chunk in stream.iter_bytes(1 << 20):
                    file.write(chunk)
    return clock


def _sent(client: Any, url: str, path: Path) -> Iterator[str]:
    """Send a file in pieces that the server takes; yield their ids."""
    with path.open("rb") as content:
        while piece := content.read(MAX_BYTES):
            answer = client.post(f"{url}/v1/files", data={"purpose": "batch"}, files={"file": (path.name, piece)})
            yield answer.raise_for_status().json()["id"]


# Status


def status(_: Path, given: dict[str, Any]) -> Clock:
    """mistral_batch_status of a ledger full of jobs that run."""
    import mistralai.client  # noqa: F401

    import duckdb_mistral

    settings = {"api_key": KEY, "home": given["home"], "server_url": given["url"]}
    with duckdb_mistral.connect(settings=settings) as connection:
        clock = Clock()
        with clock.step("status"):
            rows = connection.execute("SELECT status FROM mistral_batch_status()").fetchall()
    assert len(rows) == given["jobs"]
    clock.figures["rows"] = len(rows)
    return clock


# Memory


def memory(_: Path, given: dict[str, Any]) -> Clock:
    """Submit prompts that are made while they are read, and look at every answer: the peak of each of the two.

    The settings are those that everybody has, so many prompts are many parts.
    """
    import duckdb_mistral

    _import_the_rest()
    settings = {"api_key": KEY, "home": Path(given["home"]), "server_url": given["url"], "poll_seconds": 0.5}
    with duckdb_mistral.connect(settings=settings) as connection:
        data.make_phrases(connection, given["length"])
        clock = Clock()
        with clock.step("submit"):
            jobs = connection.execute("FROM mistral_batch_submit($source)", {"source": _source(given)}).fetchall()
        clock.figures |= {"parts": len(jobs), "submit": clock.added_bytes}
        with clock.step("wait"):
            connection.execute("FROM mistral_batch_wait($id)", {"id": jobs[0][0]}).fetchall()
        clock.forget_peak()
        with clock.step("results"):
            found = connection.execute(
                f"SELECT count(*), sum(length(content)) FROM mistral_batch_results('{jobs[0][0]}') WHERE outcome = 'ok'"
            ).fetchone()
        clock.figures["results"] = clock.added_bytes
    assert found is not None
    assert found[0] == given["rows"]
    clock.figures["bytes"] = found[1]
    return clock


# Scale


def scale(_: Path, given: dict[str, Any]) -> Clock:
    """Submit prompts that are made while they are read, wait until all parts were created and ended, count the results.

    No custom_id is lost or doubled: their number, the sum and the exclusive or of their hashes are those of the source.
    """
    import mistralai.client  # noqa: F401

    import duckdb_mistral

    home = Path(given["home"])
    settings = {
        "api_key": KEY,
        "home": home,
        "server_url": given["url"],
        "max_requests_per_job": given["rows_per_part"],
        "max_pending_requests": given["limit"],
        "poll_seconds": 0.1,
    }
    made = f"SELECT range AS custom_id, 'say ' || range AS prompt FROM range({given['rows']})"
    summed = "count(*), sum(hash(custom_id::VARCHAR)), bit_xor(hash(custom_id::VARCHAR))"
    with duckdb_mistral.connect(settings=settings) as connection:
        clock = Clock()
        with clock.step("submit"):
            jobs = connection.execute("FROM mistral_batch_submit($source)", {"source": made}).fetchall()
        with clock.step("wait"):
            connection.execute("FROM mistral_batch_wait($id)", {"id": jobs[0][0]}).fetchall()
        with clock.step("results"):
            found = connection.execute(
                f"SELECT {summed} FROM mistral_batch_results('{jobs[0][0]}') WHERE outcome = 'ok'"
            ).fetchone()
        clock.figures["parts"] = len(jobs)
        clock.figures["ledger_bytes"] = sum(path.stat().st_size for path in home.glob("ledger.sqlite*"))
        told = clock.told()
        assert found == connection.execute(f"SELECT {summed} FROM ({made})").fetchone()
    return Told(told)


# What they share


def _source(given: dict[str, Any]) -> str:
    """Return the table staging, or rows that are made while they are read."""
    if "database" in given:
        return "staging"
    return f"({data.staging_sql(given['rows'])})"


def _settings(work: Path, given: dict[str, Any]) -> dict[str, Any]:
    return {
        "api_key": KEY,
        "home": work / "home",
        "max_requests_per_job": given["rows"],
        "max_pending_requests": 100_000_000,
        "max_bytes_per_file": MAX_BYTES,
    }


def _import_the_rest() -> None:
    """Import what the SDK and Arrow import where they are first used."""
    from mistralai.client import Mistral

    pa.array([1])  # pandas, where that is installed
    with Mistral(api_key=KEY) as sdk:
        assert sdk.files
        assert sdk.batch.jobs


def _ended_job(rows: int) -> Job:
    from duckdb_mistral.jobs import Job, JobReport, Step

    report = JobReport(
        job_id="11111111-0000-4000-8000-000000000000",
        status="SUCCESS",
        total_requests=rows,
        completed_requests=rows,
        succeeded_requests=rows,
    )
    return Job(
        key=1,
        submission_id="22222222-0000-4000-8000-000000000000",
        part=1,
        model="mistral-small-latest",
        endpoint="/v1/chat/completions",
        server_url="http://127.0.0.1:1",
        step=Step.CREATED,
        request_count=rows,
        input_bytes=0,
        created_here_at=0,
        report=report,
    )


@contextmanager
def _sdk(url: str) -> Iterator[Any]:
    from mistralai.client import Mistral

    with Mistral(api_key=KEY, server_url=url, timeout_ms=600_000) as sdk:
        yield sdk


def _timed(owner: type, name: str) -> list[float]:
    """Let a method keep the seconds of its calls in the list that is returned."""
    calls: list[float] = []
    method = getattr(owner, name)

    def timed(*positional: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*positional, **named)
        finally:
            calls.append(time.perf_counter() - started)

    setattr(owner, name, timed)
    return calls


CONTENDERS: dict[str, Callable[[Path, dict[str, Any]], Clock]] = {
    function.__name__: function
    for function in (
        build_copy,
        build_spool,
        read_floor,
        read_detected,
        read_verified,
        read_everything,
        whole_loop,
        whole_client,
        whole_transfer,
        status,
        memory,
        scale,
    )
}


def main() -> None:
    """Run the contender that the command line names."""
    name, given = sys.argv[1], json.loads(sys.argv[2])
    with TemporaryDirectory(dir=given["scratch"], prefix=f"{name}-") as work:
        print(CONTENDERS[name](Path(work), given).told())


if __name__ == "__main__":
    main()
