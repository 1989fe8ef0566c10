"""mistral_batch_retry: what a submission left is sent again, and its results then hold both."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import LONG_AGO, answered, asked_for_money, at_server, connect, lose_files, rows, settings_of, submitted

from duckdb_mistral.batches.context import Context
from duckdb_mistral.batches.send import Sender
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.settings import Settings
from duckdb_mistral.state.names import REUSE_LOCK

if TYPE_CHECKING:
    from pathlib import Path

NOT_FOUND = {"method": "GET", "path": "/v1/files/[^/]+/content", "status": 404}
MIXED = """
CREATE TABLE mixed AS SELECT 'id ' || range AS custom_id, CASE range % 4
  WHEN 1 THEN '[[error 500]] ' || range WHEN 2 THEN '[[error 422]] ' || range ELSE 'fine ' || range END AS prompt
FROM range(12)"""


def outcomes(con: duckdb.DuckDBPyConnection, identifier: str) -> dict[str, int]:
    """Return how many results of an id there are per outcome."""
    found = rows(con, f"SELECT outcome, count(*) AS n FROM mistral_batch_results('{identifier}') GROUP BY ALL")
    return {row["outcome"]: row["n"] for row in found}


def create_as_others_do(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> str:
    """Create a job of the table `mixed` without a word of ours in its metadata; return its id."""
    ours = rows(con, "FROM mistral_batch_submit('mixed')")[0]["job_id"]
    told = at_server(emulator, "GET", f"/v1/batch/jobs/{ours}")
    theirs = {name: told[name] for name in ("input_files", "model", "endpoint")}
    job_id: str = at_server(emulator, "POST", "/v1/batch/jobs", theirs)["id"]
    return job_id


def test_only_what_was_left_is_sent(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A retry sends the failed and the missing requests, and no other."""
    con.execute(MIXED)
    submission_id = submitted(con, "mixed")
    answered(con, submission_id)
    assert outcomes(con, submission_id) == {"ok": 6, "error": 6}
    (row,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert (row["total_requests"], row["reused"]) == (6, False)
    assert row["submission_id"] != submission_id
    assert emulator.witness()["rows_accepted"] == 18


def test_results_hold_every_custom_id_once(con: duckdb.DuckDBPyConnection) -> None:
    """The results of a submission are the union over its retries, each custom_id once."""
    con.execute(MIXED)
    submission_id = submitted(con, "mixed")
    answered(con, submission_id)
    for _ in range(2):
        con.execute("FROM mistral_batch_retry($id)", {"id": submission_id}).fetchall()
        found = answered(con, submission_id)
        assert len({row["custom_id"] for row in found}) == len(found) == 12
    everything = rows(con, "FROM mistral_batch_results() ORDER BY custom_id")
    assert everything == found


def test_results_carry_the_first_submissions_id(con: duckdb.DuckDBPyConnection) -> None:
    """WHERE submission_id finds what the id itself reads: every row once, each with the job that answered."""
    con.execute(MIXED)
    submission_id = submitted(con, "mixed")
    answered(con, submission_id)
    (retry,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    found = answered(con, submission_id)
    where = "FROM mistral_batch_results() WHERE submission_id = $id ORDER BY custom_id"
    assert rows(con, where, {"id": submission_id}) == found
    assert len(found) == 12
    assert len({row["job_id"] for row in found}) == 2
    assert rows(con, where, {"id": retry["submission_id"]}) == []
    of_retry = rows(con, f"FROM mistral_batch_results('{retry['submission_id']}')")
    assert {row["submission_id"] for row in of_retry} == {retry["submission_id"]}
    assert len(of_retry) == 6


def test_each_id_of_retried_results_that_share_requests(con: duckdb.DuckDBPyConnection) -> None:
    """Rows that share a request have the first submission's id too, whether or not their request was sent again."""
    con.execute("CREATE TABLE shared AS SELECT range AS custom_id, '[[error 500]]' AS prompt FROM range(3)")
    submission_id = submitted(con, "shared", "reuse := 'requests'")
    answered(con, submission_id)
    con.execute("FROM mistral_batch_retry($id)", {"id": submission_id}).fetchall()
    assert [row["submission_id"] for row in answered(con, submission_id)] == [submission_id] * 3


def test_job_of_another_program_has_no_submission(
    con: duckdb.DuckDBPyConnection, emulator: Emulator, tmp_path: Path
) -> None:
    """The results of another program's job are of no submission, also after a retry of it."""
    con.execute(MIXED)
    job_id = create_as_others_do(con, emulator)
    with connect(emulator, tmp_path / "elsewhere") as other:
        other.execute("FROM mistral_batch_wait($id)", {"id": job_id})
        other.execute("FROM mistral_batch_retry($id)", {"id": job_id}).fetchall()
        assert [row["submission_id"] for row in answered(other, job_id)] == [None] * 12


def test_nothing_left(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A retry of a submission without failures returns no row and sends nothing."""
    con.execute("CREATE TABLE fine AS SELECT range AS custom_id, 'hello' AS prompt FROM range(3)")
    submission_id = submitted(con, "fine")
    answered(con, submission_id)
    before = asked_for_money(emulator)
    assert rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id}) == []
    assert asked_for_money(emulator) == before


def test_line_breaks_of_other_alphabets(con: duckdb.DuckDBPyConnection, home: Path) -> None:
    """A request is one line of its file also for readers that break lines at U+2028, the first time and again."""
    source = (
        "SELECT 'a' || chr(133) || range AS custom_id, '[[error 500]]' || chr(8232) || range AS prompt FROM range(3)"
    )
    submission_id = submitted(con, source)
    first = [path.read_text(encoding="utf-8") for path in (home / "spool" / submission_id).glob("*.jsonl")]
    answered(con, submission_id)
    (row,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    again = [path.read_text(encoding="utf-8") for path in (home / "spool" / row["submission_id"]).glob("*.jsonl")]
    for (text,) in (first, again):
        lines = [json.loads(line) for line in text.splitlines()]
        assert {line["custom_id"]: line["body"]["messages"][0]["content"] for line in lines} == {
            f"a\x85{number}": f"[[error 500]]\u2028{number}" for number in range(3)
        }


@pytest.mark.fault("F25")
def test_partly_done_job(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """What a job that timed out had answered is kept, and only the rest is sent again."""
    con.execute("CREATE TABLE hundred AS SELECT range AS custom_id, 'prompt ' || range AS prompt FROM range(100)")
    submission_id = submitted(con, "hundred", "metadata := {emulate: 'TIMEOUT_EXCEEDED 40'}")
    answered(con, submission_id)
    assert outcomes(con, submission_id) == {"ok": 40, "missing": 60}
    (row,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert row["total_requests"] == 60


def test_running_submission(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A submission that has not ended is not retried, and the sentence says how far it is."""
    con.execute("CREATE TABLE fine AS SELECT range AS custom_id, 'hello' AS prompt FROM range(3)")
    submission_id = submitted(con, "fine", "metadata := {emulate: 'seconds 60'}")
    with pytest.raises(duckdb.Error, match=r"of 3 requests are done\. What is left can be sent again once"):
        con.execute("FROM mistral_batch_retry($id)", {"id": submission_id}).fetchall()
    assert asked_for_money(emulator) == (1, 1)


def test_submission_that_was_not_sent(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A submission that the API refused is not retried: the sentence says why, and that its submit goes on with it."""
    con.execute(MIXED)
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "status": 400, "body": '{"message": "not so"}'})
    with pytest.raises(duckdb.Error, match="not so"):
        con.execute("FROM mistral_batch_submit('mixed')")
    emulator.faults()
    ((submission_id,),) = con.execute("SELECT submission_id FROM mistral_batch_status()").fetchall()
    with pytest.raises(duckdb.Error, match=r"was not sent\..*not so\. Run the submit statement again"):
        con.execute("FROM mistral_batch_retry($id)", {"id": submission_id})
    assert asked_for_money(emulator) == (1, 0)


def test_running_retry_is_returned(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A retry that has not ended is returned again instead of a second one."""
    con.execute(MIXED)
    submission_id = submitted(con, "mixed", "metadata := {emulate: 'seconds 1'}")
    answered(con, submission_id)
    first = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    again = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert [row["job_id"] for row in again] == [row["job_id"] for row in first]
    assert again[0]["reused"]
    assert asked_for_money(emulator) == (2, 2)


def test_refused_retry_goes_on(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A retry that the API refused is sent by the next one, and by nothing else."""
    con.execute(MIXED)
    submission_id = submitted(con, "mixed")
    answered(con, submission_id)
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "status": 400, "body": '{"message": "not so"}'})
    with pytest.raises(duckdb.Error, match="not so"):
        con.execute("FROM mistral_batch_retry($id)", {"id": submission_id})
    emulator.faults()
    with pytest.raises(duckdb.Error, match=r"not so\. Run mistral_batch_retry again to send it"):
        con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    assert asked_for_money(emulator)[1] == 1
    (row,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert (row["total_requests"], row["reused"], row["job_id"] is None) == (6, False, False)
    assert len(answered(con, submission_id)) == 12
    assert emulator.witness()["rows_accepted"] == 18


def test_each_model_of_a_submission(con: duckdb.DuckDBPyConnection) -> None:
    """A submission on two models is retried per model, and every pair of custom_id and model comes back once."""
    con.execute(MIXED)
    submission_id = submitted(con, "mixed", "model := ['mistral-small-latest', 'ministral-8b-latest']")
    answered(con, submission_id)
    retried = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert sorted((row["model"], row["total_requests"]) for row in retried) == [
        ("ministral-8b-latest", 6),
        ("mistral-small-latest", 6),
    ]
    assert len(answered(con, submission_id)) == 24


def test_submitting_a_cancelled_submission_after_its_retry(con: duckdb.DuckDBPyConnection) -> None:
    """A submission that was cancelled is not sent anew where a retry of it has ended well."""
    con.execute("CREATE TABLE ten AS SELECT range AS custom_id, 'prompt ' || range AS prompt FROM range(10)")
    arguments = "metadata := {emulate: 'seconds 1'}"
    submission_id = submitted(con, "ten", arguments)
    con.execute("FROM mistral_batch_cancel($id)", {"id": submission_id}).fetchall()
    answered(con, submission_id)
    con.execute("FROM mistral_batch_retry($id)", {"id": submission_id}).fetchall()
    assert {row["outcome"] for row in answered(con, submission_id)} == {"ok"}
    assert submitted(con, "ten", arguments) == submission_id


def test_truncated_answers_are_kept(con: duckdb.DuckDBPyConnection) -> None:
    """A truncated answer was paid for and is an answer: a retry does not send it again."""
    con.execute("CREATE TABLE long AS SELECT 1 AS custom_id, '[[length]] tell me all' AS prompt")
    submission_id = submitted(con, "long")
    assert [row["outcome"] for row in answered(con, submission_id)] == ["truncated"]
    assert rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id}) == []


def test_job_of_another_program(con: duckdb.DuckDBPyConnection, emulator: Emulator, tmp_path: Path) -> None:
    """A job that another program created is retried by its id, from the requests that the server has."""
    con.execute(MIXED)
    job_id = create_as_others_do(con, emulator)
    with connect(emulator, tmp_path / "elsewhere") as other:
        other.execute("FROM mistral_batch_wait($id)", {"id": job_id})
        (row,) = rows(other, "FROM mistral_batch_retry($id)", {"id": job_id})
        assert row["total_requests"] == 6
        assert len(answered(other, job_id)) == 12


def test_collation_of_the_connection(con: duckdb.DuckDBPyConnection) -> None:
    """custom_ids that differ in case stay apart after a retry, also where the connection takes them for the same."""
    con.execute("SET default_collation = 'NOCASE'")
    con.execute("CREATE TABLE cased AS FROM (VALUES ('a', 'hi'), ('A', '[[error 500]]')) row(custom_id, prompt)")
    submission_id = submitted(con, "cased")
    answered(con, submission_id)
    con.execute("FROM mistral_batch_retry($id)", {"id": submission_id}).fetchall()
    found = answered(con, submission_id)
    assert {(row["custom_id"], row["outcome"]) for row in found} == {("a", "ok"), ("A", "error")}
    assert len(found) == 2


def test_results_while_a_retry_runs(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """While a retry runs, its submission's rows are read as they were, where that is asked for, and else refused."""
    con.execute(MIXED)
    submission_id = submitted(con, "mixed")
    found = answered(con, submission_id)
    emulator.faults({"method": ".*", "path": "/v1/batch/jobs.*", "times": 99, "change": {"status": "RUNNING"}})
    con.execute("FROM mistral_batch_retry($id)", {"id": submission_id}).fetchall()
    assert rows(con, "FROM mistral_batch_results() ORDER BY custom_id") == found
    call = f"FROM mistral_batch_results('{submission_id}', partial := true) ORDER BY custom_id"
    assert rows(con, call) == found
    with pytest.raises(duckdb.Error, match=r"waits for it\. Until then partial := true reads"):
        con.execute(f"FROM mistral_batch_results('{submission_id}')").fetchall()
    emulator.faults()
    assert len({row["job_id"] for row in answered(con, submission_id)}) == 2


def test_results_of_what_runs(con: duckdb.DuckDBPyConnection) -> None:
    """Before a submission itself has ended there are no results, also with partial := true."""
    con.execute("CREATE TABLE fine AS SELECT range AS custom_id, 'hello' AS prompt FROM range(3)")
    submission_id = submitted(con, "fine", "metadata := {emulate: 'seconds 60'}")
    assert rows(con, "FROM mistral_batch_results()") == []
    with pytest.raises(duckdb.Error, match=r"of 3 requests are done\. Results can be read once .* waits for it\.$"):
        con.execute(f"FROM mistral_batch_results('{submission_id}', partial := true)").fetchall()


def test_another_key(tmp_path: Path, home: Path) -> None:
    """A key that cannot see a submission's jobs pays for none of them again; another one of the workspace retries."""
    with Emulator(tmp_path / "server", separate_workspaces=True) as server, connect(server, home) as con:
        con.execute(MIXED)
        submission_id = submitted(con, "mixed")
        con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
        with (
            connect(server, home, api_key="key-of-another-workspace") as other,
            pytest.raises(duckdb.Error, match=r"was made with another API key, .* Nothing was read or sent\."),
        ):
            other.execute("FROM mistral_batch_retry($id)", {"id": submission_id}).fetchall()
        assert asked_for_money(server) == (1, 1)
    with Emulator(tmp_path / "server") as server, connect(server, home) as con:
        con.execute(MIXED)
        submission_id = submitted(con, "mixed", "force := true")
        con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
        with connect(server, home, api_key="key-of-the-same-workspace") as other:
            (row,) = rows(other, "FROM mistral_batch_retry($id)", {"id": submission_id})
        assert row["total_requests"] == 6


def test_another_server(con: duckdb.DuckDBPyConnection, emulator: Emulator, tmp_path: Path, home: Path) -> None:
    """A server that does not have a submission's jobs is asked for nothing, and paid for nothing."""
    con.execute(MIXED)
    submission_id = submitted(con, "mixed")
    con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    with Emulator(tmp_path / "second") as second, connect(second, home) as other:
        with pytest.raises(duckdb.Error, match=f"belongs to {emulator.url}, but this connection talks to {second.url}"):
            other.execute("FROM mistral_batch_retry($id)", {"id": submission_id}).fetchall()
        assert second.witness()["requests"] == {}


@pytest.mark.fault("F27")
def test_short_download_is_not_paid_again(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Rows that the job's counts promise are not sent again because each download was cut at the end of a line."""
    con.execute(MIXED)
    submission_id = submitted(con, "mixed")
    con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    head = "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\nconnection: close\r\n\r\n"
    emulator.faults({"method": "GET", "path": "/v1/files/[^/]+/content", "times": 99, "raw": head})
    with pytest.raises(duckdb.Error, match=r"hold 0 of the 12 rows .* Nothing was sent, because what was answered"):
        con.execute("FROM mistral_batch_retry($id)", {"id": submission_id}).fetchall()
    emulator.faults()
    (row,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert row["total_requests"] == 6


@pytest.mark.fault("F32")
def test_lost_file_is_sent_again(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Rows whose file the server no longer has are sent again, but not where the file is found after all."""
    con.execute("CREATE TABLE fine AS SELECT range AS custom_id, 'hello ' || range AS prompt FROM range(3)")
    submission_id = submitted(con, "fine")
    con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    emulator.faults(NOT_FOUND | {"times": 2})
    assert rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id}) == []
    again = submitted(con, "fine", "force := true")
    (job,) = rows(con, "FROM mistral_batch_wait($id)", {"id": again})
    lose_files(emulator, job["job_id"], "output_file")
    (row,) = rows(con, "FROM mistral_batch_retry($id)", {"id": again})
    assert row["total_requests"] == 3


@pytest.mark.fault("F32")
@pytest.mark.parametrize("counted", [True, False], ids=["counted", "not counted"])
def test_file_that_is_there_is_not_lost(counted: bool, con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A retry sends nothing where a file is not delivered that the server has, whatever the counts promise."""
    con.execute("CREATE TABLE fine AS SELECT range AS custom_id, 'hello ' || range AS prompt FROM range(3)")
    submission_id = submitted(con, "fine", "metadata := {emulate: 'TIMEOUT_EXCEEDED 2'}")
    con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    counts = {} if counted else {"completed_requests": 0, "succeeded_requests": 0}
    emulator.faults(NOT_FOUND | {"times": 99}, LONG_AGO | {"change": LONG_AGO["change"] | counts})
    with pytest.raises(duckdb.Error, match=r"is there, but was not delivered \(HTTP 404\).* Nothing was sent"):
        rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert emulator.witness()["rows_accepted"] == 3
    emulator.faults()
    (row,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert row["total_requests"] == 1


@pytest.mark.fault("F32")
def test_file_of_a_moment_ago_is_not_lost(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A retry sends nothing where the server has no file of a job that ended a moment ago: it may still come."""
    con.execute("CREATE TABLE fine AS SELECT range AS custom_id, 'hello ' || range AS prompt FROM range(3)")
    submission_id = submitted(con, "fine")
    (job,) = rows(con, "FROM mistral_batch_wait($id)", {"id": submission_id})
    at_server(emulator, "DELETE", f"/v1/files/{job['output_file']}")
    with pytest.raises(duckdb.Error, match=r"so young that the file may still come.* Nothing was sent"):
        rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert emulator.witness()["rows_accepted"] == 3


@pytest.mark.fault("F32")
def test_file_that_is_only_listed_is_not_lost(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A retry sends nothing where each question for a file is answered 404, and the list of files has it."""
    con.execute("CREATE TABLE fine AS SELECT range AS custom_id, 'hello ' || range AS prompt FROM range(3)")
    submission_id = submitted(con, "fine")
    con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    emulator.faults({"method": "GET", "path": "/v1/files/.+", "status": 404, "times": 99}, LONG_AGO)
    with pytest.raises(duckdb.Error, match=r"is there, but was not delivered .* Nothing was sent"):
        rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert emulator.witness()["rows_accepted"] == 3


@pytest.mark.parametrize("begun", [False, True], ids=["sent", "continued"])
def test_reuse_waits_for_a_retry(
    begun: bool, con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a retry sends, or goes on with what was refused, no statement with reuse divides its requests."""
    con.execute(MIXED)
    submission_id = submitted(con, "mixed")
    answered(con, submission_id)
    if begun:
        emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "status": 402})
        with pytest.raises(duckdb.Error, match="HTTP 402"):
            rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    locks = Context(Settings.resolve(settings_of(emulator, home))).locks
    free: list[bool] = []
    advance = Sender.advance

    def watched(*arguments: Any, **named: Any) -> None:
        with locks.trying(REUSE_LOCK) as held:
            free.append(held)
        advance(*arguments, **named)

    monkeypatch.setattr(Sender, "advance", watched)
    (row,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert row["total_requests"] == 6
    assert free == [False]


def test_retry_that_lost_its_requests(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """A retry that has sent nothing and lost its requests is built again by the same statement."""
    con.execute(MIXED)
    submission_id = submitted(con, "mixed")
    answered(con, submission_id)
    emulator.faults({"method": "POST", "path": "/v1/files", "status": 500})
    with pytest.raises(duckdb.Error, match="500"):
        con.execute("FROM mistral_batch_retry($id)", {"id": submission_id})
    emulator.faults()
    (lost,) = [path for path in (home / "spool").iterdir() if path.name != submission_id]
    shutil.rmtree(lost)
    (row,) = rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id})
    assert (row["total_requests"], row["reused"]) == (6, False)
    assert row["submission_id"] != lost.name
    assert len(answered(con, submission_id)) == 12
    assert emulator.witness()["rows_accepted"] == 18
