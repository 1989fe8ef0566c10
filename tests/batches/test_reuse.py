"""Paid once per request: repeats within a submission, and requests that were answered before."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import answered, asked_for_money, connect, lose_files, make_staging, rows, submitted, wait_at_the_server

from duckdb_mistral.batches import answers
from duckdb_mistral.batches.retention import drop_requests
from duckdb_mistral.duck.engine import SharedEngine
from duckdb_mistral.results import convert

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.emulator import Emulator
    from duckdb_mistral.jobs.job import Job

CREATE = {"method": "POST", "path": "/v1/batch/jobs"}
REUSE = "reuse := 'requests'"


def sent(emulator: Emulator) -> int:
    """Return how many requests the server was given in all jobs."""
    accepted: int = emulator.witness()["rows_accepted"]
    return accepted


def test_repeats_are_sent_once(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Of 10,000 rows of which 9,000 are repeats, 1,000 are sent and 10,000 answered; 10 more rows send 10."""
    con.execute(
        "CREATE TABLE staging AS SELECT range AS custom_id, 'prompt ' || (range % 1000) AS prompt FROM range(10000)"
    )
    first = submitted(con, arguments=REUSE)
    found = answered(con, first)
    assert sent(emulator) == 1000
    assert len(found) == 10000
    assert {(row["custom_id"], row["content"]) for row in found} == {
        (str(number), f"echo: prompt {number % 1000}") for number in range(10000)
    }
    assert {row["outcome"] for row in found} == {"ok"}
    assert sum(row["reused"] for row in found) == 9000
    assert {row["submission_id"] for row in found} == {first}

    con.execute("INSERT INTO staging SELECT range, 'prompt ' || range FROM range(10000, 10010)")
    second = submitted(con, arguments=REUSE)
    more = answered(con, second)
    assert sent(emulator) == 1010
    assert len(more) == 10010
    assert sum(not row["reused"] for row in more) == 10
    assert {(row["custom_id"], row["content"]) for row in more} == {
        (str(number), f"echo: prompt {number if number >= 10000 else number % 1000}") for number in range(10010)
    }
    assert {row["submission_id"] for row in more} == {second}


def test_answers_of_any_submission(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Answers of an ordinary submission are found again, under other custom_ids too."""
    make_staging(con, 4)
    answered(con, submitted(con))
    con.execute("CREATE TABLE later AS SELECT 'new ' || custom_id AS custom_id, prompt FROM staging")
    con.execute("INSERT INTO later VALUES ('fresh', 'another prompt')")
    found = answered(con, submitted(con, "later", REUSE))
    assert sent(emulator) == 5
    assert [(row["custom_id"], row["content"], row["reused"]) for row in found] == [
        ("fresh", "echo: another prompt", False),
        *((f"new {number}", f"echo: prompt {number}", True) for number in range(4)),
    ]


def test_answers_that_nobody_has_read(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Answers are found though nobody has read them, nor asked whether their job has ended."""
    make_staging(con, 3)
    submitted(con)
    wait_at_the_server(con)
    con.execute("INSERT INTO staging VALUES ('new', 'another prompt')")
    found = answered(con, submitted(con, arguments=REUSE))
    assert [(row["custom_id"], row["reused"]) for row in found] == [
        ("0", True),
        ("1", True),
        ("2", True),
        ("new", False),
    ]
    assert sent(emulator) == 4


def test_only_what_may_answer_is_fetched(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Results of jobs that share no request with the rows, and estimates of any rows, ask the server for nothing."""
    make_staging(con, 3)
    submitted(con)
    wait_at_the_server(con)
    before = emulator.witness()["requests"]
    assert rows(con, f"SELECT requests FROM mistral_batch_estimate('staging', {REUSE})") == [{"requests": 3}]
    assert emulator.witness()["requests"] == before
    submitted(con, "SELECT 1 AS custom_id, 'another prompt' AS prompt", REUSE)
    assert "download" not in emulator.witness()["requests"]


def test_requests_that_are_pending(tmp_path: Path, home: Path) -> None:
    """Requests of a job that runs are not sent again: the user reads which, and later only the new row is sent."""
    from duckdb_mistral.emulator import Emulator as LocalServer

    with LocalServer(tmp_path / "slow", job_seconds=1.5) as emulator, connect(emulator, home) as con:
        make_staging(con, 10)
        first = submitted(con)
        con.execute("INSERT INTO staging VALUES ('new', 'another prompt')")
        sentence = f"10 of these requests wait for an answer in submission {first}, of which job .* is (QUEUED|RUNNING)"
        with pytest.raises(duckdb.Error, match=rf"{sentence}\. Nothing was sent, .*mistral_batch_wait\('{first}'\)"):
            submitted(con, arguments=REUSE)
        assert sent(emulator) == 10
        # What is not pending is sent, and what is forced.
        assert submitted(con, "SELECT 1 AS custom_id, 'a third prompt' AS prompt", REUSE) != first
        assert sent(emulator) == 11
        con.execute("FROM mistral_batch_wait($id)", {"id": first})
        found = answered(con, submitted(con, arguments=REUSE))
        assert [row["custom_id"] for row in found if not row["reused"]] == ["new"]
        assert (len(found), sent(emulator)) == (11, 12)
        make_staging(con, 2, "forced")
        con.execute("UPDATE forced SET prompt = 'forced'")
        submitted(con, "forced")
        con.execute("INSERT INTO forced VALUES ('new', 'another one')")
        assert submitted(con, "forced", f"{REUSE}, force := true")
        assert sent(emulator) == 16


def test_requests_that_wait_for_room(tmp_path: Path, home: Path) -> None:
    """Requests of a part that waits for room are pending; those of a part that was refused are not."""
    from duckdb_mistral.emulator import Emulator as LocalServer

    limits = {"max_requests_per_job": 2, "max_pending_requests": 2}
    with LocalServer(tmp_path / "slow", job_seconds=60) as emulator, connect(emulator, home, **limits) as con:
        make_staging(con, 4)
        submitted(con)
        with pytest.raises(duckdb.Error, match=r"1 of these requests waits .* job \(not created yet\) is HELD"):
            submitted(con, "SELECT 'x' AS custom_id, prompt FROM staging WHERE custom_id = '3'", REUSE)
    with LocalServer(tmp_path / "other") as emulator, connect(emulator, home) as con:
        make_staging(con, 1)
        emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "status": 422})
        with pytest.raises(duckdb.Error, match="HTTP 422"):
            submitted(con)
        con.execute("INSERT INTO staging VALUES ('new', 'another prompt')")
        assert len(answered(con, submitted(con, arguments=REUSE))) == 2


def test_recorded_and_answered_since(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """What was recorded and refused is not sent later where another statement has its answers by then."""
    make_staging(con, 4)
    make_staging(con, 6, "more")
    emulator.faults(CREATE | {"status": 402})
    with pytest.raises(duckdb.Error, match="HTTP 402"):
        submitted(con, arguments=REUSE)
    answered(con, submitted(con, "more", REUSE))
    assert [row["reused"] for row in answered(con, submitted(con, arguments=REUSE))] == [True] * 4
    assert sent(emulator) == 6


def test_recorded_and_pending_since(slow: Emulator, home: Path) -> None:
    """What was recorded and refused is not sent while another statement waits for its answers."""
    with connect(slow, home) as con:
        make_staging(con, 4)
        make_staging(con, 6, "more")
        slow.faults(CREATE | {"status": 402})
        with pytest.raises(duckdb.Error, match="HTTP 402"):
            submitted(con, arguments=REUSE)
        other = submitted(con, "more", REUSE)
        with pytest.raises(duckdb.Error, match=f"4 of these requests wait for an answer in submission {other}"):
            submitted(con, arguments=REUSE)
        assert sent(slow) == 6


def test_part_that_was_answered_since(emulator: Emulator, home: Path) -> None:
    """Of a submission that was sent in part, the rest is not sent where another statement has its answers by then."""
    with connect(emulator, home, max_requests_per_job=2) as con:
        make_staging(con, 4)
        emulator.faults(CREATE | {"status": 402, "skip": 1})
        with pytest.raises(duckdb.Error, match="HTTP 402"):
            submitted(con, arguments=REUSE)
        wait_at_the_server(con)
        con.execute("CREATE TABLE again AS SELECT 'again ' || custom_id AS custom_id, prompt FROM staging")
        answered(con, submitted(con, "again", REUSE))
        found = answered(con, submitted(con, arguments=REUSE))
        assert [(row["outcome"], row["reused"]) for row in found] == [("ok", True)] * 4
        assert sent(emulator) == 4


def test_recorded_and_still_to_be_sent(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """What was recorded and refused is sent as that submission where nobody else has sent it since."""
    make_staging(con, 4)
    answered(con, submitted(con, "SELECT 'x' AS custom_id, 'prompt 0' AS prompt"))
    emulator.faults(CREATE | {"status": 402})
    with pytest.raises(duckdb.Error, match="HTTP 402"):
        submitted(con, arguments=REUSE)
    (recorded,) = rows(con, "SELECT DISTINCT submission_id FROM mistral_batch_status() WHERE status = 'HELD'")
    found = answered(con, submitted(con, arguments=REUSE))
    assert {row["submission_id"] for row in found} == {recorded["submission_id"]}
    assert [row["reused"] for row in found] == [True, False, False, False]
    assert sent(emulator) == 4


def test_requests_of_a_job_that_was_taken_over(tmp_path: Path, home: Path) -> None:
    """The requests of a running job that this home found in the workspace are known by the server's file."""
    from duckdb_mistral.emulator import Emulator as LocalServer

    with LocalServer(tmp_path / "slow", job_seconds=60) as emulator:
        with connect(emulator, home.with_name("other")) as con:
            make_staging(con, 3)
            first = submitted(con)
        with connect(emulator, home) as con:
            make_staging(con, 3)
            assert submitted(con) == first
            con.execute("INSERT INTO staging VALUES ('new', 'another prompt')")
            with pytest.raises(duckdb.Error, match=f"3 of these requests wait for an answer in submission {first}"):
                submitted(con, arguments=REUSE)
            emulator.faults({"method": "GET", "path": "/v1/files/[^/]+/content", "status": 404, "times": 99})
            with pytest.raises(duckdb.Error, match=r"is there, but was not delivered .* Nothing was sent"):
                submitted(con, arguments=REUSE)
        assert sent(emulator) == 3


@pytest.mark.parametrize("stored", [False, True])
def test_answers_of_a_job_that_was_taken_over(stored: bool, emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """The answers of a submission that was found in the workspace are known once they have been read here."""
    shared = tmp_path / "store"
    shared.mkdir()
    settings = {"max_requests_per_job": 2} | ({"store": f"file://{shared}"} if stored else {})
    with connect(emulator, home.with_name("first"), max_requests_per_job=2) as con:
        make_staging(con, 3)
        first = submitted(con)
        con.execute("FROM mistral_batch_wait($id)", {"id": first})
    with connect(emulator, home, **settings) as con:
        make_staging(con, 3)
        assert submitted(con) == first
        assert len(answered(con, first)) == 3
    for name in ("ledger.sqlite", "ledger.sqlite-wal") if stored else ():  # another machine, with this ledger and store
        path, other = home / name, home.with_name("other") / name
        other.parent.mkdir(mode=0o700, exist_ok=True)
        if path.exists():
            shutil.copy(path, other)
    with connect(emulator, home.with_name("other") if stored else home, **settings) as con:
        con.execute(
            "CREATE TABLE later AS SELECT 'new ' || range AS custom_id, 'prompt ' || range AS prompt FROM range(4)"
        )
        found = answered(con, submitted(con, "later", REUSE))
        assert [(row["custom_id"], row["content"], row["reused"]) for row in found] == [
            *((f"new {number}", f"echo: prompt {number}", True) for number in range(3)),
            ("new 3", "echo: prompt 3", False),
        ]
    assert sent(emulator) == 4


def test_answers_that_cannot_be_had(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Where the server has lost the answers that nobody has read, the requests are sent again."""
    make_staging(con, 3)
    submitted(con)
    wait_at_the_server(con)
    (job,) = rows(con, "FROM mistral_batch_jobs()")
    lose_files(emulator, job["job_id"], "output_file")
    found = rows(con, f"FROM mistral_batch_submit('staging', {REUSE}, metadata := {{again: 'yes'}})")
    assert [(row["total_requests"], row["reused"]) for row in found] == [(3, False)]
    assert sent(emulator) == 6


PASSING = {
    "downloads that fail": {"path": "/v1/files/[^/]+/content", "status": 500},
    "polls that fail": {"path": "/v1/batch/jobs/.+", "status": 502},
    "downloads that are not found": {"path": "/v1/files/[^/]+/content", "status": 404},
    "downloads that are cut": {"path": "/v1/files/[^/]+/content", "raw": ""},
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_answers_that_cannot_be_had_just_now(fault: dict[str, Any], emulator: Emulator, home: Path) -> None:
    """Where answers that nobody has read cannot be had just now, nothing is sent: they would be paid for twice."""
    with connect(emulator, home, deadline_seconds=1) as con:
        make_staging(con, 3)
        submitted(con)
        wait_at_the_server(con)
        con.execute("INSERT INTO staging VALUES ('new', 'another prompt')")
        emulator.faults({"method": "GET", "times": 10_000} | fault)
        with pytest.raises(
            duckdb.Error, match=r"Nothing was sent, because requests that were answered might be paid for twice"
        ):
            submitted(con, arguments=REUSE)
        assert sent(emulator) == 3
        emulator.faults()
        assert len(answered(con, submitted(con, arguments=REUSE))) == 4
        assert sent(emulator) == 4


def test_answers_of_another_workspace(home: Path, tmp_path: Path) -> None:
    """A job of another key, whose results this key cannot see, holds nothing up."""
    from duckdb_mistral.emulator import Emulator as LocalServer

    with LocalServer(tmp_path / "apart", separate_workspaces=True) as emulator:
        with connect(emulator, home) as con:
            make_staging(con, 3)
            submitted(con)
            wait_at_the_server(con)
        with connect(emulator, home, api_key="another-key") as con:
            con.execute(
                "CREATE TABLE later AS SELECT 'x' || range AS custom_id, 'prompt ' || range AS prompt FROM range(3)"
            )
            assert [row["reused"] for row in answered(con, submitted(con, "later", REUSE))] == [False] * 3


def test_line_breaks_of_other_alphabets(con: duckdb.DuckDBPyConnection, home: Path) -> None:
    """What is left to be sent is one line a request also for readers that break lines at U+2028."""
    con.execute("CREATE TABLE staging AS SELECT range AS custom_id, chr(8232) || range AS prompt FROM range(3)")
    (path,) = (home / "spool" / submitted(con, arguments=REUSE)).glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert sorted(line["body"]["messages"][0]["content"] for line in lines) == [f"\u2028{n}" for n in range(3)]


def test_everything_was_answered(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A submission whose rows were all answered has one row without a job, is ended, and has all results."""
    make_staging(con, 3)
    answered(con, submitted(con))
    before = asked_for_money(emulator)
    con.execute("CREATE TABLE later AS SELECT 'x' || custom_id AS custom_id, prompt FROM staging")
    (row,) = rows(con, f"FROM mistral_batch_submit('later', {REUSE})")
    assert (row["job_id"], row["status"], row["total_requests"], row["reused"]) == (None, "SUCCESS", 3, True)
    assert row["created_at"] is not None
    (status,) = rows(con, "FROM mistral_batch_wait($id, timeout_seconds := 5)", {"id": row["submission_id"]})
    assert (status["job_id"], status["status"], status["progress"]) == (None, "SUCCESS", 1.0)
    assert (status["total_requests"], status["completed_requests"], status["failed_requests"]) == (3, 3, 0)
    found = answered(con, row["submission_id"])
    assert [(row["custom_id"], row["content"], row["reused"]) for row in found] == [
        (f"x{number}", f"echo: prompt {number}", True) for number in range(3)
    ]
    assert asked_for_money(emulator) == before
    assert rows(con, f"SELECT submission_id FROM mistral_batch_submit('later', {REUSE})") == [
        {"submission_id": row["submission_id"]}
    ]
    assert rows(con, "FROM mistral_batch_retry($id)", {"id": row["submission_id"]}) == []
    assert rows(con, "FROM mistral_batch_cost($id)", {"id": row["submission_id"]}) == []
    assert len(rows(con, "FROM mistral_batch_results()")) == 6


def test_requests_that_go_meanwhile(
    con: duckdb.DuckDBPyConnection, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are found also where another process drops the requests of their job between the look and the read."""
    make_staging(con, 3)
    with monkeypatch.context() as patch:
        patch.setattr("duckdb_mistral.batches.fetch.drop_requests", lambda *_: False)
        answered(con, submitted(con))
    con.execute("CREATE TABLE later AS SELECT 'x' || custom_id AS custom_id, prompt FROM staging")
    look = answers.hashed_requests

    def then_drop(context: Context, job: Job) -> str | None:
        requests = look(context, job)
        drop_requests(context, SharedEngine(), job)
        return requests

    monkeypatch.setattr(answers, "hashed_requests", then_drop)
    assert [row["reused"] for row in answered(con, submitted(con, "later", REUSE))] == [True] * 3
    assert sent(emulator) == 3


def test_other_requests_are_other(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Another model, another parameter or another endpoint is another request."""
    make_staging(con, 2)
    answered(con, submitted(con, arguments=REUSE))
    others = (
        "model := 'ministral-8b-latest'",
        "params := {temperature: 0}",
        "system := 'be kind'",
        "output := 'STRUCT(a INTEGER)'",
        "endpoint := 'fim/completions', model := 'mistral-small-latest'",
    )
    for count, arguments in enumerate(others, 2):
        found = answered(con, submitted(con, arguments=f"{REUSE}, {arguments}"))
        assert [row["reused"] for row in found] == [False, False]
        assert sent(emulator) == 2 * count


def test_only_good_answers_are_found_again(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A request that failed, was cut short or did not fit its declared output is sent again."""
    con.execute(
        "CREATE TABLE staging AS FROM (VALUES (1, 'fine'), (2, '[[error 500]]'), (3, '[[length]]'), "
        "(4, '[[invalid json]]')) t(custom_id, prompt)"
    )
    output = "output := 'STRUCT(a INTEGER)'"
    outcomes = [row["outcome"] for row in answered(con, submitted(con, arguments=output))]
    assert outcomes == ["ok", "error", "truncated", "invalid_output"]
    con.execute("CREATE TABLE later AS SELECT 10 + custom_id AS custom_id, prompt FROM staging")
    found = answered(con, submitted(con, "later", f"{REUSE}, {output}"))
    assert [row["reused"] for row in found] == [True, False, False, False]
    assert [row["outcome"] for row in found] == outcomes
    assert sent(emulator) == 7


def test_copies_of_failures_and_their_retry(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Rows that share a failed request fail with it, and a retry sends it once."""
    con.execute(
        "CREATE TABLE staging AS SELECT range AS custom_id, "
        "CASE WHEN range < 3 THEN '[[error 500]]' ELSE 'fine' END AS prompt FROM range(6)"
    )
    submission_id = submitted(con, arguments=REUSE)
    found = answered(con, submission_id)
    assert [row["outcome"] for row in found] == ["error"] * 3 + ["ok"] * 3
    assert sent(emulator) == 2
    (again,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert again["total_requests"] == 1
    found = answered(con, submission_id)
    assert [row["custom_id"] for row in found] == [str(number) for number in range(6)]
    assert [row["outcome"] for row in found] == ["error"] * 3 + ["ok"] * 3
    assert sent(emulator) == 3


def test_another_process_and_server(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """Answers are found by another connection under the same home, and not for another server."""
    from duckdb_mistral.emulator import Emulator as LocalServer

    with connect(emulator, home) as con:
        make_staging(con, 2)
        answered(con, submitted(con, arguments=REUSE))
    with connect(emulator, home) as con:
        con.execute(
            "CREATE TABLE later AS SELECT 'x' || range AS custom_id, 'prompt ' || range AS prompt FROM range(3)"
        )
        assert [row["reused"] for row in answered(con, submitted(con, "later", REUSE))] == [True, True, False]
    assert sent(emulator) == 3
    with LocalServer(tmp_path / "other") as other, connect(other, home) as con:
        make_staging(con, 2)
        assert [row["reused"] for row in answered(con, submitted(con, arguments=REUSE))] == [False, False]
        assert sent(other) == 2


def test_declared_output_is_reused(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A reused answer has its declared type as well."""
    con.execute("CREATE TABLE staging AS SELECT range AS custom_id, 'the same' AS prompt FROM range(3)")
    found = answered(con, submitted(con, arguments=f"{REUSE}, output := 'STRUCT(a INTEGER)'"))
    assert [row["output"] for row in found] == [{"a": 1}] * 3
    con.execute("CREATE TABLE later AS SELECT range AS custom_id, 'the same' AS prompt FROM range(9, 11)")
    found = answered(con, submitted(con, "later", f"{REUSE}, output := 'STRUCT(a INTEGER)'"))
    assert [(row["output"], row["reused"]) for row in found] == [({"a": 1}, True)] * 2
    assert sent(emulator) == 1


def test_several_models_are_refused(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Several models are refused, because each has answered other requests."""
    make_staging(con, 1)
    with pytest.raises(duckdb.Error, match="takes one model"):
        submitted(con, arguments=f"{REUSE}, model := ['a', 'b']")
    assert asked_for_money(emulator) == (0, 0)


def test_lost_answers_are_told(con: duckdb.DuckDBPyConnection, home: Path) -> None:
    """Where the file of what was found again is gone, reading it is an error that says what to do."""
    make_staging(con, 2)
    answered(con, submitted(con))
    con.execute("CREATE TABLE later AS SELECT 'x' || custom_id AS custom_id, prompt FROM staging")
    submission_id = submitted(con, "later", REUSE)
    for path in (home / "results").glob("found-*.parquet"):
        path.unlink()
    with pytest.raises(duckdb.Error, match=r"are gone from .* with force := true"):
        answered(con, submission_id)
    assert [row["reused"] for row in answered(con, submitted(con, "later", f"{REUSE}, force := true"))] == [True, True]


def test_estimates_leave_out_what_is_reused(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """An estimate and max_cost are of what would be sent, and not of repeats or of what was answered before."""
    con.execute(
        "CREATE TABLE staging AS SELECT range AS custom_id, 'prompt ' || (range % 10) AS prompt FROM range(100)"
    )
    (whole,) = rows(con, "FROM mistral_batch_estimate('staging')")
    (once,) = rows(con, f"FROM mistral_batch_estimate('staging', {REUSE})")
    assert (whole["requests"], once["requests"]) == (100, 10)
    assert once["cost"] == pytest.approx(whole["cost"] / 10)
    with pytest.raises(duckdb.Error, match="more than max_cost"):
        submitted(con, arguments=f"{REUSE}, max_cost := {once['cost'] * 0.9}")
    assert asked_for_money(emulator) == (0, 0)
    answered(con, submitted(con, arguments=f"{REUSE}, max_cost := {once['cost'] * 1.1}"))
    con.execute("INSERT INTO staging SELECT range, 'prompt ' || range FROM range(100, 102)")
    (rest,) = rows(con, f"FROM mistral_batch_estimate('staging', {REUSE})")
    assert (rest["requests"], rest["jobs"]) == (2, 1)
    assert rest["cost"] == pytest.approx(once["cost"] / 5, rel=0.1)
    answered(con, submitted(con, arguments=f"{REUSE}, max_cost := {rest['cost'] * 1.001}"))
    assert sent(emulator) == 12
    (nothing,) = rows(con, f"FROM mistral_batch_estimate('staging', {REUSE})")
    assert (nothing["requests"], nothing["jobs"], nothing["cost"]) == (0, 0, 0.0)


def test_parts_and_repeats_across_them(emulator: Emulator, home: Path) -> None:
    """Repeats that lie in different parts are sent once, and what is found again needs no part."""
    with connect(emulator, home, max_requests_per_job=4) as con:
        prompts = "SELECT range AS custom_id, 'prompt ' || (range % 7) AS prompt FROM range(30)"
        con.execute(f"CREATE TABLE staging AS {prompts}")
        found = rows(con, f"FROM mistral_batch_submit('staging', {REUSE})")
        assert [(row["part"], row["total_requests"]) for row in found] == [(1, 4), (2, 3)]
        results = answered(con, found[0]["submission_id"])
        assert {(row["custom_id"], row["content"]) for row in results} == {
            (str(number), f"echo: prompt {number % 7}") for number in range(30)
        }
        one_job = rows(con, f"FROM mistral_batch_results('{found[0]['job_id']}')")
        assert len(one_job) == sum(row["content"] in {each["content"] for each in one_job} for row in results)
        con.execute("INSERT INTO staging VALUES (30, 'new'), (31, 'prompt 3')")
        again = rows(con, f"FROM mistral_batch_submit('staging', {REUSE})")
        assert [(row["part"], row["total_requests"], row["job_id"] is None) for row in again] == [
            (1, 1, False),
            (0, 31, True),
        ]
        assert len(answered(con, again[0]["submission_id"])) == 32
    assert sent(emulator) == 8


def test_reads_ask_only_for_what_they_need(con: duckdb.DuckDBPyConnection) -> None:
    """Filters and projections work on results that share requests as on any."""
    con.execute("CREATE TABLE staging AS SELECT range AS custom_id, 'prompt ' || (range % 5) AS prompt FROM range(50)")
    submission_id = submitted(con, arguments=REUSE)
    answered(con, submission_id)
    (row,) = rows(
        con,
        f"SELECT content, reused FROM mistral_batch_results('{submission_id}') WHERE custom_id = '43'",
    )
    assert row == {"content": "echo: prompt 3", "reused": True}
    (counted,) = rows(con, f"SELECT count(*) AS rows FROM mistral_batch_results('{submission_id}') WHERE NOT reused")
    assert counted == {"rows": 5}


@pytest.mark.fault("F34")
@pytest.mark.parametrize("kept", [True, False], ids=["results kept", "results gone"])
def test_hashes_that_were_damaged(kept: bool, con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """Where hashes of requests that were answered are damaged, a sentence names their file, and nothing is sent."""
    make_staging(con)
    answered(con, submitted(con))
    (hashes,) = (home / "requests").glob("*.parquet")
    hashes.write_bytes(hashes.read_bytes()[:-5])
    if not kept:
        for path in (home / "results").glob("*.parquet"):
            path.unlink()
    con.execute("CREATE TABLE later AS SELECT 'new ' || custom_id AS custom_id, prompt FROM staging")
    with pytest.raises(
        duckdb.Error, match=rf"Earlier answers could not be read .*{hashes}.* so nothing was sent\."
    ) as told:
        submitted(con, "later", REUSE)
    assert "UDF" not in str(told.value)
    assert sent(emulator) == 3


@pytest.mark.fault("F34")
@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_lines_of_kept_answers_that_were_damaged(
    damage: str, con: duckdb.DuckDBPyConnection, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers whose lines are gone, cut or changed are fetched again, and reused."""
    monkeypatch.setattr(convert, "LARGE_BYTES", 0)
    make_staging(con)
    answered(con, submitted(con))
    (path,) = (home / "results").glob("*.lines-0.jsonl")
    data = path.read_bytes()
    path.write_bytes(data[:-5] if damage == "cut" else data.replace(b'"custom_id":"0"', b'"custom_id":"9"'))
    if damage == "gone":
        path.unlink()
    con.execute("CREATE TABLE later AS SELECT 'new ' || custom_id AS custom_id, prompt FROM staging")
    found = answered(con, submitted(con, "later", "reuse := 'requests'"))
    assert [row["reused"] for row in found] == [True] * 3


def test_collation_of_the_connection(con: duckdb.DuckDBPyConnection) -> None:
    """A row gets the answer of the request that it shares, also where the connection takes 'p' and 'P' for the same."""
    con.execute("SET default_collation = 'NOCASE'")
    con.execute(
        "CREATE TABLE cased AS FROM (VALUES ('p', 'same'), ('q', 'same'), ('P', 'other'), ('r', 'other')) "
        "row(custom_id, prompt)"
    )
    found = answered(con, submitted(con, "cased", REUSE))
    assert sorted((row["custom_id"], row["content"]) for row in found) == [
        ("P", "echo: other"),
        ("p", "echo: same"),
        ("q", "echo: same"),
        ("r", "echo: other"),
    ]


def test_the_same_at_once(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement whose like was submitted while its requests were built returns those jobs, though they still run."""
    from duckdb_mistral.batches.submit import Submitter
    from duckdb_mistral.emulator import Emulator as LocalServer

    record_rest, first = Submitter._record_rest, []

    with (
        LocalServer(tmp_path / "slow", job_seconds=60) as slow,
        connect(slow, home) as con,
        connect(slow, home) as other,
    ):

        def be_late(self: Submitter, *arguments: Any) -> Any:
            monkeypatch.setattr(Submitter, "_record_rest", record_rest)
            first.append(submitted(other, arguments=REUSE))
            return record_rest(self, *arguments)

        make_staging(con)
        make_staging(other)
        monkeypatch.setattr(Submitter, "_record_rest", be_late)
        found = rows(con, f"SELECT submission_id, reused FROM mistral_batch_submit('staging', {REUSE})")
        assert found == [{"submission_id": first[0], "reused": True}]
        assert slow.witness()["creates_received"] == 1


def test_the_same_at_once_refused_and_answered(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement whose like was refused while its requests were built sends nothing that was answered since."""
    from duckdb_mistral.batches.submit import Submitter

    record_rest = Submitter._record_rest

    with connect(emulator, home) as con, connect(emulator, home) as other:
        for one in (con, other):
            make_staging(one, 4)
            make_staging(one, 6, "more")

        def be_late(self: Submitter, *arguments: Any) -> Any:
            monkeypatch.setattr(Submitter, "_record_rest", record_rest)
            emulator.faults(CREATE | {"status": 402})
            with pytest.raises(duckdb.Error, match="HTTP 402"):
                submitted(other, arguments=REUSE)
            answered(other, submitted(other, "more", REUSE))
            return record_rest(self, *arguments)

        monkeypatch.setattr(Submitter, "_record_rest", be_late)
        found = answered(con, submitted(con, arguments=REUSE))
    assert [(row["outcome"], row["reused"]) for row in found] == [("ok", True)] * 4
    assert sent(emulator) == 6
