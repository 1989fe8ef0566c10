"""Results of several jobs: the next is downloaded while one is converted, one conversion at a time, failures told."""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import duckdb
import pytest
from support import (
    answered,
    at_server,
    connect,
    lose_files,
    make_staging,
    rows,
    settings_of,
    submitted,
    wait_at_the_server,
)

from duckdb_mistral.api.client import BatchClient
from duckdb_mistral.api.endpoints import all_endpoints
from duckdb_mistral.batches.collect import collect
from duckdb_mistral.batches.context import Context
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.maintenance.clean import Asked, clean
from duckdb_mistral.results.convert import write_results
from duckdb_mistral.runtime import interrupts
from duckdb_mistral.settings import Settings
from duckdb_mistral.state.names import keys_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

JOBS = 5
#: What is not there by then has failed the test.
SECONDS = 30


def ended(con: duckdb.DuckDBPyConnection) -> str:
    """Submit five parts of two requests, wait for them, and return the submission's id."""
    make_staging(con, 2 * JOBS)
    submission_id = submitted(con)
    con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    return submission_id


def test_one_job_that_the_workspace_does_not_know(emulator: Emulator, home: Path) -> None:
    """Where one job of several is gone, partial := true reads the others, and its rows are missing until it is back."""
    with connect(emulator, home, max_requests_per_job=2) as con:
        make_staging(con, 3)
        submission_id = submitted(con)
        first, second = rows(con, "FROM mistral_batch_jobs() ORDER BY total_requests DESC")
        path = f"/v1/batch/jobs/{second['job_id']}"
        emulator.faults({"method": "GET", "path": path, "status": 404, "times": 99})
        while rows(con, "SELECT status FROM mistral_batch_jobs() WHERE job_id = $1", [first["job_id"]]) != [
            {"status": "SUCCESS"}
        ]:
            time.sleep(0.02)
        with pytest.raises(duckdb.Error, match=rf"does not know job {second['job_id']}, .* partial := true"):
            rows(con, f"FROM mistral_batch_results('{submission_id}')")
        found = rows(con, f"FROM mistral_batch_results('{submission_id}', partial := true) ORDER BY custom_id")
        assert [(row["custom_id"], row["outcome"]) for row in found] == [("0", "ok"), ("1", "ok"), ("2", "missing")]
        assert found[2]["error"] == "no result: the workspace has no such job"
        emulator.faults()
        assert [row["outcome"] for row in answered(con, submission_id)] == ["ok"] * 3


def test_ids_of_requests_that_are_gone(emulator: Emulator, home: Path, con: duckdb.DuckDBPyConnection) -> None:
    """Where neither answers nor requests can be had any more, each row is missing by the ids that are kept of it."""
    make_staging(con)
    submission_id = submitted(con)
    answered(con, submission_id)
    clean(Context(Settings.resolve(settings_of(emulator, home))), Asked(identifiers=(submission_id,)), free=True)
    (job,) = rows(con, "FROM mistral_batch_jobs()")
    lose_files(emulator, job["job_id"], "input_files", "output_file")
    found = rows(con, f"FROM mistral_batch_results('{submission_id}', partial := true) ORDER BY custom_id")
    assert [(row["custom_id"], row["outcome"]) for row in found] == [(str(n), "missing") for n in range(3)]
    with pytest.raises(duckdb.Error, match=r"are gone, both here and at the server, .* Submit those rows"):
        rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})


def test_next_is_downloaded_meanwhile(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the files of one job are converted, those of the next are downloaded, and no more of them."""
    begun = 0
    second = threading.Event()
    lock = threading.Lock()
    converting = most_converting = most_ahead = converted = 0
    download = BatchClient.download

    def counted(client: BatchClient, file_id: str, target: Path, requests: int | None) -> None:
        nonlocal begun, most_ahead
        with lock:
            begun += 1
            most_ahead = max(most_ahead, begun - converted)
            if begun > 1:
                second.set()
        download(client, file_id, target, requests)

    def held_up(*given: Any, **options: Any) -> Any:
        nonlocal converting, most_converting, converted
        with lock:
            converting += 1
            most_converting = max(most_converting, converting)
        assert second.wait(SECONDS)
        found = write_results(*given, **options)
        with lock:
            converting -= 1
            converted += 1
        return found

    with connect(emulator, home, max_requests_per_job=2) as con:
        submission_id = ended(con)
        monkeypatch.setattr(BatchClient, "download", counted)
        monkeypatch.setattr("duckdb_mistral.batches.download.write_results", held_up)
        found = rows(con, f"FROM mistral_batch_results('{submission_id}')")
    assert sorted(row["custom_id"] for row in found) == [str(number) for number in range(2 * JOBS)]
    assert (begun, converted) == (JOBS, JOBS)
    assert most_converting == 1
    assert most_ahead == 2
    assert not list((home / "spool").glob("*/*"))


def test_one_of_several_cannot_be_had(emulator: Emulator, home: Path) -> None:
    """Where one job's file is gone, that is told, and what was fetched beside it is not fetched again."""
    with connect(emulator, home, max_requests_per_job=2) as con:
        submission_id = ended(con)
        emulator.faults({"method": "GET", "path": "/v1/files/[^/]+/content", "status": 404, "skip": 1})
        with pytest.raises(duckdb.Error, match="does not have result file"):
            con.execute(f"FROM mistral_batch_results('{submission_id}')")
        emulator.faults()
        assert list((home / "results").glob("*.parquet"))
        found = rows(con, f"FROM mistral_batch_results('{submission_id}')")
        assert {row["outcome"] for row in found} == {"ok"}
        assert emulator.witness()["requests"]["download"] == JOBS
    assert not list((home / "results").glob("scratch-*"))


def test_partial_of_several(emulator: Emulator, home: Path) -> None:
    """With partial := true the rows of gone files are missing until all are there, and then nothing partial is kept."""
    with connect(emulator, home, max_requests_per_job=2) as con:
        submission_id = ended(con)
        emulator.faults({"method": "GET", "path": "/v1/files/[^/]+/content", "status": 404, "skip": 1, "times": 2})
        found = rows(con, f"FROM mistral_batch_results('{submission_id}', partial := true)")
        emulator.faults()
        assert sorted(row["outcome"] for row in found) == ["missing"] * 4 + ["ok"] * (2 * JOBS - 4)
        assert len(list((home / "results").glob("partial-*"))) == 2
        found = rows(con, f"FROM mistral_batch_results('{submission_id}')")
        assert {row["outcome"] for row in found} == {"ok"}
        assert not list((home / "results").glob("partial-*"))


def test_interrupt_while_one_is_converted(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the statement at once, as an interrupt, and leaves the conversion under way its engine."""
    converting, go_on, done = threading.Event(), threading.Event(), threading.Event()
    said: list[Any] = []

    def interrupt() -> None:
        converting.wait(SECONDS)
        interrupts.interrupt()

    def held_up(engine: duckdb.DuckDBPyConnection, *given: Any, **options: Any) -> Any:
        converting.set()
        assert go_on.wait(SECONDS)
        try:
            return write_results(engine, *given, **options)
        except BaseException as error:
            said.append(error)
            raise
        finally:
            done.set()

    with connect(emulator, home, max_requests_per_job=2) as con:
        submission_id = ended(con)
        monkeypatch.setattr("duckdb_mistral.batches.download.write_results", held_up)
        threading.Thread(target=interrupt).start()
        interrupts.begin()
        with closing(Context(Settings.resolve(settings_of(emulator, home), {}))) as context:
            with pytest.raises(KeyboardInterrupt):
                collect(context, submission_id)
            go_on.set()
            assert done.wait(SECONDS)
        assert said == []


def test_another_key(tmp_path: Path, home: Path) -> None:
    """A file that another workspace's key cannot see is not told as gone, also with partial := true."""
    with Emulator(tmp_path / "server", separate_workspaces=True) as server, connect(server, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
        with connect(server, home, api_key="key-of-another-workspace") as other:
            for call in (f"'{submission_id}'", f"'{submission_id}', partial := true", ""):
                with pytest.raises(duckdb.Error, match="was made with another API key"):
                    other.execute(f"FROM mistral_batch_results({call})").fetchall()
        assert "download" not in server.witness()["requests"]
        assert len(rows(con, "FROM mistral_batch_results()")) == 3


def test_another_server(con: duckdb.DuckDBPyConnection, emulator: Emulator, tmp_path: Path, home: Path) -> None:
    """Without id, the results that only another server has are left out, and those that are kept are not."""
    make_staging(con)
    kept, unkept = submitted(con), submitted(con, "SELECT 'x' AS custom_id, 'hello' AS prompt")
    con.execute("FROM mistral_batch_wait($id)", {"id": unkept})
    assert len(rows(con, f"FROM mistral_batch_results('{kept}')")) == 3
    with Emulator(tmp_path / "second") as second, connect(second, home) as other:
        make_staging(other, 2)
        here = submitted(other)
        other.execute("FROM mistral_batch_wait($id)", {"id": here})
        found = rows(other, "SELECT submission_id, count(*) AS n FROM mistral_batch_results() GROUP BY ALL")
        assert {row["submission_id"]: row["n"] for row in found} == {kept: 3, here: 2}
        with pytest.raises(duckdb.Error, match=f"belongs to {emulator.url}, but this connection talks to {second.url}"):
            other.execute(f"FROM mistral_batch_results('{unkept}')").fetchall()


@pytest.mark.fault("F26")
def test_file_that_is_named_later(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A job that was told as ended before it named its file is asked for anew, and its results are whole."""
    make_staging(con)
    submission_id = submitted(con)
    emulator.faults({"method": "GET", "path": "/v1/batch/jobs/.+", "times": 999, "change": {"output_file": None}})
    (row,) = rows(con, "FROM mistral_batch_wait($id)", {"id": submission_id})
    emulator.faults()
    assert (row["status"], row["output_file"]) == ("SUCCESS", None)
    assert [row["outcome"] for row in rows(con, f"FROM mistral_batch_results('{submission_id}')")] == ["ok"] * 3


def asked(emulator: Emulator) -> int:
    """Return how often the server was asked for one job."""
    count: int = emulator.witness()["requests"].get("job", 0)
    return count


def ended_early(con: duckdb.DuckDBPyConnection, emulator: Emulator, call: str, status: str) -> str:
    """Submit three requests, and be told by a wait or a cancel that they ended before their answers are; return the id.

    At the server the job is whole by then, and goes on to be told as such.
    """
    make_staging(con)
    submission_id = submitted(con)
    wait_at_the_server(con)
    (job,) = rows(con, "FROM mistral_batch_jobs()")
    method, path = ("POST", "/v1/batch/jobs/.+/cancel") if call == "cancel" else ("GET", "/v1/batch/jobs/.+")
    told = {"id": job["job_id"], "status": status, "total_requests": 3, "output_file": None}
    emulator.faults({"method": method, "path": path, "status": 200, "body": json.dumps(told)})
    (row,) = rows(con, f"FROM mistral_batch_{call}($id)", {"id": submission_id})
    assert (row["status"], row["completed_requests"], row["output_file"]) == (status, 0, None)
    emulator.faults()
    return submission_id


@pytest.mark.fault("F26")
@pytest.mark.parametrize(("call", "status"), [("cancel", "CANCELLED"), ("wait", "TIMEOUT_EXCEEDED")])
def test_end_that_is_told_early(call: str, status: str, con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Where an end was told before its answers, the job is asked for anew, and nothing is missing or sent again."""
    submission_id = ended_early(con, emulator, call, status)
    assert rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id}) == []
    assert [row["outcome"] for row in rows(con, f"FROM mistral_batch_results('{submission_id}')")] == ["ok"] * 3


@pytest.mark.fault("F25")
def test_end_without_answers(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A job that ended without answers is asked for anew before its rows are kept as missing, and at later reads."""
    submission_id = ended_early(con, emulator, "wait", "FAILED")
    nothing = {"status": "FAILED", "completed_requests": 0, "succeeded_requests": 0, "output_file": None}
    emulator.faults({"method": "GET", "path": "/v1/batch/jobs/.+", "times": 99, "change": nothing})
    for _ in range(2):
        before = asked(emulator)
        found = rows(con, f"FROM mistral_batch_results('{submission_id}')")
        assert [row["outcome"] for row in found] == ["missing"] * 3
        assert asked(emulator) > before


@pytest.mark.fault("F25")
def test_end_that_cannot_be_asked_for(emulator: Emulator, home: Path) -> None:
    """Where a job cannot be asked for anew, its rows are missing with partial := true alone, and not for good."""
    with connect(emulator, home, deadline_seconds=1) as con:
        submission_id = ended_early(con, emulator, "wait", "FAILED")
        emulator.faults({"method": "GET", "path": "/v1/batch/jobs/.+", "status": 503, "times": 99})
        with pytest.raises(duckdb.Error, match="Could not read job"):
            rows(con, f"FROM mistral_batch_results('{submission_id}')")
        found = rows(con, f"FROM mistral_batch_results('{submission_id}', partial := true)")
        assert [row["outcome"] for row in found] == ["missing"] * 3
        emulator.faults()
        assert [row["outcome"] for row in rows(con, f"FROM mistral_batch_results('{submission_id}')")] == ["ok"] * 3


@pytest.mark.fault("F25")
def test_end_of_a_job_that_is_forgotten(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Of a job that ended and is not known any more nothing more is told, so its rows are kept as missing."""
    submission_id = ended_early(con, emulator, "wait", "FAILED")
    emulator.faults({"method": "GET", "path": "/v1/batch/jobs/.+", "status": 404, "times": 99})
    for _ in range(2):
        found = rows(con, f"FROM mistral_batch_results('{submission_id}')")
        assert [row["error"] for row in found] == ["no result: the job ended FAILED"] * 3


def sent_by_another_program(emulator: Emulator, directory: Path, *files: Sequence[str | None]) -> tuple[str, list[str]]:
    """Send a job with input files of requests with these custom_ids; return its id and the files'.

    The server answers all of them.
    """
    with Context(Settings.resolve(settings_of(emulator, directory), {})).client as client:
        inputs = []
        for number, custom_ids in enumerate(files):
            path = directory / f"input-{number}.jsonl"
            body = {"messages": [{"role": "user", "content": "hello"}]}
            path.write_text("\n".join(json.dumps({"custom_id": name, "body": body}) for name in custom_ids))
            inputs.append(client.upload(path, path.name))
        fields = {"input_files": inputs, "endpoint": "/v1/chat/completions", "model": "mistral-small-latest"}
        job_id = at_server(emulator, "POST", "/v1/batch/jobs", fields)["id"]
        while client.get(job_id).status != "SUCCESS":
            time.sleep(0.02)
        return job_id, inputs


def out_of_time(emulator: Emulator, job_id: str, *left: str | None) -> None:
    """Let a job, and its result file, say that only the requests `left` were answered in time."""
    job = at_server(emulator, "GET", f"/v1/batch/jobs/{job_id}")
    body = {"choices": [{"finish_reason": "stop", "message": {"content": "hi"}}]}
    lines = [json.dumps({"custom_id": name, "response": {"status_code": 200, "body": body}}) for name in left]
    told = {"status": "TIMEOUT_EXCEEDED", "completed_requests": len(left), "succeeded_requests": len(left)}
    emulator.faults(
        {"method": "GET", "path": f"/v1/batch/jobs/{job_id}", "times": 99, "change": told},
        {
            "method": "GET",
            "path": f"/v1/files/{job['output_file']}/content",
            "times": 99,
            "status": 200,
            "headers": {"content-type": "application/octet-stream"},
            "body": "\n".join(lines),
        },
    )


def test_requests_without_custom_id(emulator: Emulator, tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    """Another program's requests without a custom_id keep their answers, also where a retry has sent others again."""
    job_id, _ = sent_by_another_program(emulator, tmp_path, ["a", None, None, "z"])
    out_of_time(emulator, job_id, "a", None, None)
    found = rows(con, f"FROM mistral_batch_results('{job_id}') ORDER BY custom_id NULLS LAST")
    assert [(row["custom_id"], row["outcome"]) for row in found] == [
        ("a", "ok"),
        ("z", "missing"),
        (None, "ok"),
        (None, "ok"),
    ]
    (retried,) = rows(con, "FROM mistral_batch_retry($id)", {"id": job_id})
    assert retried["total_requests"] == 1
    con.execute("FROM mistral_batch_wait($id)", {"id": retried["submission_id"]})
    found = rows(con, f"FROM mistral_batch_results('{job_id}') ORDER BY custom_id NULLS LAST")
    assert [(row["custom_id"], row["outcome"]) for row in found] == [
        ("a", "ok"),
        ("z", "ok"),
        (None, "ok"),
        (None, "ok"),
    ]


def test_several_input_files(emulator: Emulator, tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    """Of another program's job with several input files each row that has no answer is missing, and sent by a retry."""
    job_id, _ = sent_by_another_program(emulator, tmp_path, "ab", "cd")
    out_of_time(emulator, job_id, "a", "c")
    found = rows(con, f"FROM mistral_batch_results('{job_id}') ORDER BY custom_id")
    assert [(row["custom_id"], row["outcome"]) for row in found] == [
        ("a", "ok"),
        ("b", "missing"),
        ("c", "ok"),
        ("d", "missing"),
    ]
    assert [row["total_requests"] for row in rows(con, "FROM mistral_batch_retry($id)", {"id": job_id})] == [2]


@pytest.mark.fault("F27")
def test_rows_whose_ids_are_not_known(
    emulator: Emulator, tmp_path: Path, home: Path, con: duckdb.DuckDBPyConnection
) -> None:
    """Where requests are gone and some have no answer, that is an error; partial := true reads what there is."""
    job_id, (_, gone) = sent_by_another_program(emulator, tmp_path, "ab", "cd")
    at_server(emulator, "DELETE", f"/v1/files/{gone}")
    out_of_time(emulator, job_id, "a", "c")
    said = (
        rf"requests of job {job_id} are gone, both here .* hold 2 of its 4 rows: the custom_ids of the other 2 are not"
    )
    for _ in range(2):
        with pytest.raises(duckdb.Error, match=said):
            rows(con, f"FROM mistral_batch_results('{job_id}')")
        found = rows(con, f"FROM mistral_batch_results('{job_id}', partial := true) ORDER BY custom_id")
        assert [(row["custom_id"], row["outcome"]) for row in found] == [("a", "ok"), ("c", "ok")]
    with pytest.raises(duckdb.Error, match=rf"{said} .* Nothing was sent"):
        rows(con, "FROM mistral_batch_retry($id)", {"id": job_id})
    assert [path.name for path in (home / "results").glob("*.parquet")] == [f"partial-{job_id}.parquet"]


@pytest.mark.fault("F34")
@pytest.mark.parametrize("with_keys", [True, False], ids=["keys kept", "keys lost"])
def test_spooled_requests_that_were_cut(with_keys: bool, con: duckdb.DuckDBPyConnection, home: Path) -> None:
    """Where spooled requests were cut, the server's copy tells which rows there are, and a retry sends all of them."""
    con.execute("CREATE TABLE staging AS SELECT range AS custom_id, '[[error 500]]' AS prompt FROM range(4)")
    submission_id = submitted(con)
    con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    (requests,) = (home / "spool" / submission_id).glob("*.jsonl")
    requests.write_bytes(b"".join(requests.read_bytes().splitlines(keepends=True)[:2]))
    if not with_keys:
        keys_path(requests).unlink()
    assert [row["outcome"] for row in answered(con, submission_id)] == ["error"] * 4
    assert [row["total_requests"] for row in rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})] == [4]


@pytest.mark.fault("F34")
@pytest.mark.parametrize("damage", ["cut", "of fewer requests"])
def test_hashes_that_were_damaged(damage: str, con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """Damaged hashes of requests do not tell which rows there are: answers that are whole are read without them."""
    make_staging(con)
    submission_id = submitted(con)
    answered(con, submission_id)
    (hashes,) = (home / "requests").glob("*.parquet")
    if damage == "cut":
        hashes.write_bytes(hashes.read_bytes()[:-5])
    else:
        con.execute(f"COPY (SELECT '0' AS custom_id, 'x' AS request) TO '{hashes}' (FORMAT parquet)")
    (kept,) = (home / "results").glob("*.parquet")
    kept.unlink()
    (requests,) = at_server(emulator, "GET", f"/v1/batch/jobs/{kept.stem}")["input_files"]
    at_server(emulator, "DELETE", f"/v1/files/{requests}")
    assert [row["outcome"] for row in answered(con, submission_id)] == ["ok"] * 3


# Files that cannot be had

UNREADABLE: dict[str, dict[str, Any]] = {
    "404": {"status": 404},
    "410": {"status": 410, "body": '{"detail": "expired"}'},
    "403": {"status": 403},
    "400": {"status": 400},
    "402": {"status": 402},
    "500": {"status": 500},
    "503": {"status": 503},
    "no answer": {"close": True},
    "html": {"status": 200, "headers": {"content-type": "text/html"}, "body": "<html>"},
}


def one_of_each(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> tuple[str, dict[str, str]]:
    """Submit three rows of which one fails, wait, and return the id and the paths of both files' content."""
    con.execute(
        "CREATE TABLE staging AS SELECT range::VARCHAR AS custom_id, "
        "CASE WHEN range = 1 THEN '[[error 422]]' ELSE 'prompt' END AS prompt FROM range(3)"
    )
    submission_id = submitted(con)
    (row,) = rows(con, "FROM mistral_batch_wait($id)", {"id": submission_id})
    return submission_id, {name: f"/v1/files/{row[name]}/content" for name in ("output_file", "error_file")}


@pytest.mark.fault("F32")
@pytest.mark.parametrize("how", UNREADABLE)
@pytest.mark.parametrize("file", ["output_file", "error_file"])
def test_file_that_cannot_be_had(file: str, how: str, emulator: Emulator, home: Path) -> None:
    """Without partial := true it is told, with it the other rows come, and nothing is kept for good."""
    with connect(emulator, home) as con:
        submission_id, paths = one_of_each(con, emulator)
    emulator.faults({"method": "GET", "path": paths[file], "times": 1000} | UNREADABLE[how])
    with connect(emulator, home, deadline_seconds=1) as con:
        with pytest.raises(duckdb.Error, match=r"partial := true"):
            rows(con, f"FROM mistral_batch_results('{submission_id}')")
        found = rows(con, f"FROM mistral_batch_results('{submission_id}', partial := true) ORDER BY custom_id")
        lost = {"0", "2"} if file == "output_file" else {"1"}
        assert {row["custom_id"] for row in found if row["outcome"] == "missing"} == lost
        assert all("no result: Could not download file" in row["error"] for row in found if row["custom_id"] in lost)
        assert [path.name[:8] for path in (home / "results").glob("*.parquet")] == ["partial-"]
        if how not in ("404", "410"):
            with pytest.raises(duckdb.Error, match="Nothing was sent"):
                rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
        emulator.faults()
        found = rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id")
        assert [row["outcome"] for row in found] == ["ok", "error", "ok"]


@pytest.mark.fault("F32")
def test_lost_file_that_is_not_needed(emulator: Emulator, home: Path) -> None:
    """A file that cannot be had holds nothing back where the others have all rows."""
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
        emulator.faults(
            {"method": "GET", "path": "/v1/batch/jobs/[^/]+", "change": {"error_file": str(uuid4())}, "times": 1000}
        )
        assert len(answered(con, submission_id)) == 3


@pytest.mark.fault("F27")
def test_rows_of_a_file_that_is_cut(emulator: Emulator, home: Path) -> None:
    """With partial := true the rows come that are there before a download breaks."""
    with connect(emulator, home, deadline_seconds=1) as con:
        submission_id, paths = one_of_each(con, emulator)
        emulator.faults({"method": "GET", "path": paths["output_file"], "cut": 600, "times": 1000})
        with pytest.raises(duckdb.Error, match=r"partial := true"):
            rows(con, f"FROM mistral_batch_results('{submission_id}')")
        found = rows(con, f"FROM mistral_batch_results('{submission_id}', partial := true) ORDER BY custom_id")
        assert [row["outcome"] for row in found] == ["ok", "error", "missing"]


@pytest.mark.fault("F24")
@pytest.mark.parametrize("word", ["EXPIRED", "PARTIAL", "success", " Success ", None])
def test_end_by_another_word(word: str | None, con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A job that has ended by a word that is not known is read, waited for and retried as any other."""
    con.execute(
        "CREATE TABLE staging AS SELECT range::VARCHAR AS custom_id, "
        "CASE WHEN range = 1 THEN '[[error 422]]' ELSE 'prompt' END AS prompt FROM range(3)"
    )
    emulator.faults({"method": "GET", "path": "/v1/batch/jobs/[^/]+", "change": {"status": word}, "times": 1000})
    submission_id = submitted(con)
    (row,) = rows(con, "FROM mistral_batch_wait($id, timeout_seconds := 30)", {"id": submission_id})
    assert row["status"] == (word or "UNKNOWN")
    found = rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id")
    assert [row["outcome"] for row in found] == ["ok", "error", "ok"]
    (again,) = rows(con, "FROM mistral_batch_submit('staging')")
    assert again["reused"]
    (retried,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert retried["total_requests"] == 1


@pytest.mark.parametrize("path", all_endpoints())
def test_every_endpoint_in_parts(path: str, emulator: Emulator, home: Path) -> None:
    """The results of several jobs of any endpoint are read by one call, and by one after another."""
    content = all_endpoints()[path].content_columns[0]
    with connect(emulator, home, max_requests_per_job=2) as con:
        source = f"SELECT range AS custom_id, 'https://example.test/' || range AS {content} FROM range(5)"
        for _ in range(2):
            found = answered(con, submitted(con, source, f"endpoint := '{path}', force := true"))
            assert [row["outcome"] for row in found] == ["ok"] * 5
            assert len({row["job_id"] for row in found}) == 3
