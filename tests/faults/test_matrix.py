"""The server's faults, one line each: what happens, what the user reads, and that all ends well all the same."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from faults.harness import CREATE, DOWNLOAD, LIST, NOTHING, OCTETS, POLL, RUNNING, UPLOAD, Story, check_invariants
from support import connect

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

ALWAYS = 1_000


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault; at the first step that names words, the user reads them, and the steps after it are not tried."""

    fault: str
    what: str
    rules: list[dict[str, Any]]
    submit: str = ""
    wait: str = ""
    results: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    #: What goes on while the user goes on.
    lasting: list[dict[str, Any]] = field(default_factory=list)
    #: So many jobs of another program, on another model, are in the workspace before.
    beside: int = 0


CLOSED = {"close": True}
STORED = {"after": True}
NO_JOBS: dict[str, Any] = {"change": {"data": []}}
HTML = {"status": 200, "headers": {"content-type": "text/html"}, "body": "<html>busy</html>"}
SHORT = {"status": 200, "headers": OCTETS, "body": ""}
BARE = {"raw": "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n\r\n{}\n"}
UNKNOWN = "is not known"
ELSEWHERE = {"location": "http://127.0.0.1:9/elsewhere"}
ONE_ROW = '{"custom_id": "0", "response": {"body": {"choices": [{"message": {"content": "hi"}}]}}}\n'
DEEP = "[" * 100_000 + "]" * 100_000
OTHER_ID = "3f2a9c1e-0000-4000-8000-00000000000a"
DAY = 24 * 3600
LOST = CREATE | CLOSED | STORED
CAPPED = {"query": {"page_size": "1"}, "change": {"total": None}}
#: Of the oldest jobs no more than a page.
OLDEST = {"query": {"page": "0", "order_by": "created"}}
#: A list that shows a job only after a while.
LAGS = {"lag": 1.5, "times": ALWAYS}
#: Refusals of what was stored, and what the user reads where the statement itself does not go on.
AFTER = {307: "HTTP 307", 400: "HTTP 400", 404: "", 409: "HTTP 409", 422: "HTTP 422", 429: "", 499: "HTTP 499"}
#: What the metadata of our jobs may have become.
SHOUTED = {f"DUCKDB_MISTRAL_{name}": "SHOUTED" for name in ("SUBMISSION", "PART", "IDENTITY")}
CUT = {f"duckdb_mistral_{name}": "c" for name in ("submission", "part", "identity")}
#: A machine that stands still for a while must not make a lost answer of what is to be read.
PATIENT: dict[str, Any] = {"deadline_seconds": 20}
#: What a proxy may say of a create that the API has taken.
BETWEEN = [*range(300, 309), 400, 402, 405, 406, 409, 411, 413, 415, 418, 422, 423, 425, 428, 431, 451, 499]

# fmt: off
CASES = [
    # The create's answer is lost.
    Case(fault="F04", what="stored, then the connection ends", rules=[CREATE | CLOSED | STORED]),
    Case(fault="F04", what="stored, then 502", rules=[CREATE | STORED | {"status": 502}]),
    Case(fault="F04", what="stored, then 504", rules=[CREATE | STORED | {"status": 504}]),
    Case(fault="F04", what="stored, answered too late", rules=[CREATE | STORED | {"delay": 3.5}]),
    Case(fault="F05", what="lost, and the list lags", rules=[CREATE | CLOSED | STORED, LIST | NO_JOBS | {"skip": 2, "times": ALWAYS}], submit=UNKNOWN, settings={"reconcile_seconds": 60}),  # noqa: E501
    Case(fault="F05", what="lost, and the list does not answer", rules=[CREATE | CLOSED | STORED, LIST | {"skip": 2, "times": ALWAYS, "status": 404}], submit=UNKNOWN, settings={"reconcile_seconds": 60}),  # noqa: E501
    Case(fault="F06", what="never read by the server", rules=[CREATE | CLOSED], submit=UNKNOWN),
    # The create's answer is odd.
    Case(fault="F08", what="201 without a body", rules=[CREATE | STORED | {"status": 201}]),
    Case(fault="F08", what="cut JSON", rules=[CREATE | STORED | {"status": 200, "body": '{"id": "3f'}]),
    Case(fault="F08", what="HTML", rules=[CREATE | STORED | HTML]),
    Case(fault="F08", what="fields missing", rules=[CREATE | {"change": {"status": None, "created_at": None, "errors": None, "total_requests": None}}]),  # noqa: E501
    Case(fault="F08", what="fields of other types", rules=[CREATE | {"change": {"created_at": "soon", "errors": "none", "total_requests": "10", "metadata": 7}}]),  # noqa: E501
    # The create is refused.
    Case(fault="F09", what="429, come back in a day", rules=[CREATE | {"status": 429, "headers": {"retry-after": "86400"}}]),  # noqa: E501
    Case(fault="F10", what="401 on upload", rules=[UPLOAD | {"status": 401}], submit="refused the API key", settings=PATIENT),  # noqa: E501
    Case(fault="F10", what="403 on create", rules=[CREATE | {"status": 403}], submit="does not allow it for this API key", settings=PATIENT),  # noqa: E501
    Case(fault="F10", what="402 on create", rules=[CREATE | {"status": 402}], submit="until billing is on", settings=PATIENT),  # noqa: E501
    Case(fault="F21", what="404 right after the upload", rules=[CREATE | {"status": 404}]),
    Case(fault="F36", what="307 to another address", rules=[CREATE | {"status": 307, "headers": ELSEWHERE}], submit="points elsewhere", settings=PATIENT),  # noqa: E501
    # The upload fails.
    Case(fault="F20", what="413", rules=[UPLOAD | {"status": 413}], submit="HTTP 413", settings=PATIENT),
    Case(fault="F20", what="the connection ends", rules=[UPLOAD | CLOSED], submit="gave no answer"),
    Case(fault="F20", what="stored, then the connection ends", rules=[UPLOAD | CLOSED | STORED], submit="gave no answer"),  # noqa: E501
    Case(fault="F20", what="500", rules=[UPLOAD | {"status": 500}], submit="HTTP 500", settings=PATIENT),
    Case(fault="F20", what="no id in the answer", rules=[UPLOAD | {"change": {"id": None}}], submit="names no file"),
    # A poll fails.
    Case(fault="F22", what="500", rules=[POLL | {"status": 500, "times": 2}]),
    Case(fault="F22", what="503, come back in a day", rules=[POLL | {"status": 503, "headers": {"retry-after": "86400"}}]),  # noqa: E501
    Case(fault="F22", what="429", rules=[POLL | {"status": 429}]),
    Case(fault="F22", what="the connection ends", rules=[POLL | CLOSED | {"times": 2}]),
    Case(fault="F22", what="HTML", rules=[POLL | HTML | {"times": 2}]),
    Case(fault="F22", what="no answer in time", rules=[POLL | {"delay": 3.5}]),
    Case(fault="F23", what="404 for good", rules=[POLL | {"status": 404, "times": ALWAYS}], wait="does not know job"),
    Case(fault="F23", what="401 for good", rules=[POLL | {"status": 401, "times": ALWAYS}], wait="refused the API key"),
    Case(fault="F24", what="an unknown status", rules=[POLL | {"change": {"status": "PAUSED"}, "times": 3}]),
    Case(fault="F24", what="no status", rules=[POLL | {"change": {"status": None}, "times": 3}]),
    Case(fault="F24", what="no counts", rules=[POLL | {"change": {"total_requests": 0, "completed_requests": None}, "times": ALWAYS}]),  # noqa: E501
    Case(fault="F24", what="new fields", rules=[POLL | {"change": {"novel": [1], "errors": [{"novel": 1}]}, "times": ALWAYS}]),  # noqa: E501
    # The create is stored all the same.
    Case(fault="F41", what="stored after the deadline", rules=[CREATE | {"delay": 4.5}], submit=UNKNOWN),
    Case(fault="F41", what="stored as late again", rules=[CREATE | {"delay": 2.8}], submit=UNKNOWN, settings={"deadline_seconds": 1.5, "reconcile_seconds": 1}),  # noqa: E501
    Case(fault="F41", what="stored after a gateway gave up", rules=[CREATE | {"delay": 2, "status": 504, "after": True}]),  # noqa: E501
    *(Case(fault="F47", what=f"stored, then {status}", rules=[CREATE | STORED | {"status": status}], submit=f"HTTP {status}", settings=PATIENT) for status in BETWEEN),  # noqa: E501
    Case(fault="F47", what="stored, then 401", rules=[CREATE | STORED | {"status": 401}], submit="refused the API key", settings=PATIENT),  # noqa: E501
    Case(fault="F47", what="stored, then 403", rules=[CREATE | STORED | {"status": 403}], submit="HTTP 403", settings=PATIENT),  # noqa: E501
    Case(fault="F47", what="stored, then 410", rules=[CREATE | STORED | {"status": 410}]),
    Case(fault="F47", what="stored, then 404", rules=[CREATE | STORED | {"status": 404}]),
    Case(fault="F47", what="stored, then 404 again and again", rules=[CREATE | STORED | {"status": 404, "times": 3}]),
    Case(fault="F47", what="stored, then 429", rules=[CREATE | STORED | {"status": 429}]),
    Case(fault="F47", what="stored, then 408", rules=[CREATE | STORED | {"status": 408}]),
    # Clocks and lists that cannot be trusted.
    Case(fault="F48", what="a Date three days ahead", rules=[LOST, {"path": ".*", "method": "GET", "ahead": 3 * DAY, "times": ALWAYS}]),  # noqa: E501
    Case(fault="F48", what="a Date three days behind", rules=[LOST, {"path": ".*", "method": "GET", "ahead": -3 * DAY, "times": ALWAYS}]),  # noqa: E501
    Case(fault="F48", what="machines an hour apart", rules=[CREATE | {"delay": 4.2}, LIST | {"ahead": 3600, "skip": 2, "times": ALWAYS}], submit=UNKNOWN),  # noqa: E501
    Case(fault="F48", what="a created_at three days behind", rules=[LOST, LIST | {"jobs": {"created_at": int(time.time()) - 3 * DAY}, "times": ALWAYS}]),  # noqa: E501
    Case(fault="F48", what="no created_at", rules=[LOST, LIST | {"jobs": {"created_at": None}, "times": ALWAYS}]),
    Case(fault="F49", what="a page cap without a total", rules=[LOST, LIST | CAPPED | {"times": ALWAYS}]),
    Case(fault="F49", what="the first page for ever", rules=[LOST, LIST | {"query": {"page": "0"}, "times": ALWAYS}]),
    Case(fault="F49", what="a page that repeats, without a total", rules=[LOST, LIST | {"query": {"page": "0"}, "change": {"total": None}, "times": ALWAYS}]),  # noqa: E501
    Case(fault="F49", what="no more than a hundred in all", beside=101, rules=[LOST, LIST | OLDEST | {"times": ALWAYS}]),  # noqa: E501
    Case(fault="F49", what="no more than a hundred, without a total", beside=101, rules=[LOST, LIST | OLDEST | {"change": {"total": None}, "times": ALWAYS}]),  # noqa: E501
    Case(fault="F49", what="a page that comes twice", beside=101, rules=[LOST, LIST | {"skip": 4, "query": {"page": "0"}}]),  # noqa: E501
    Case(fault="F49", what="a list that lags", rules=[LOST, LIST | LAGS | {"lag": 600}], lasting=[LIST | LAGS], submit=UNKNOWN, settings={"reconcile_seconds": 4}),  # noqa: E501
    Case(fault="F49", what="no more than a hundred, which are all, it says", beside=101, rules=[LOST, LIST | OLDEST | {"change": {"total": 100}, "times": ALWAYS}]),  # noqa: E501
    *(Case(fault="F49", what=f"a list that lags after {status}", rules=[CREATE | STORED | {"status": status}, LIST | LAGS], lasting=[LIST | LAGS], submit=words, settings=PATIENT | {"reconcile_seconds": 4}) for status, words in AFTER.items()),  # noqa: E501
    Case(fault="F50", what="no metadata", rules=[LOST, LIST | {"jobs": {"metadata": None}, "times": ALWAYS}]),
    Case(fault="F50", what="empty metadata", rules=[LOST, LIST | {"jobs": {"metadata": {}}, "times": ALWAYS}]),
    Case(fault="F50", what="metadata in capitals", rules=[LOST, LIST | {"jobs": {"metadata": SHOUTED}, "times": ALWAYS}]),  # noqa: E501
    Case(fault="F50", what="metadata that is cut", rules=[LOST, LIST | {"jobs": {"metadata": CUT}, "times": ALWAYS}]),
    Case(fault="F50", what="no metadata and no model", rules=[LOST, LIST | {"jobs": {"metadata": None, "model": None}, "times": ALWAYS}]),  # noqa: E501
    # The result files.
    Case(fault="F26", what="an empty error file id", rules=[POLL | {"change": {"error_file": ""}, "times": ALWAYS}]),
    Case(fault="F26", what="503 first", rules=[DOWNLOAD | {"status": 503}]),
    Case(fault="F27", what="cut, with a length", rules=[DOWNLOAD | {"cut": 100}]),
    Case(fault="F27", what="cut, without a length", rules=[DOWNLOAD | BARE]),
    Case(fault="F27", what="an empty file", rules=[DOWNLOAD | SHORT]),
    Case(fault="F27", what="short for good", rules=[DOWNLOAD | SHORT | {"times": ALWAYS}], results="hold 0 of the 10 rows"),  # noqa: E501
    Case(fault="F27", what="HTML", rules=[DOWNLOAD | HTML | {"times": ALWAYS}], results="Could not download"),
    Case(fault="F28", what="no answer in time", rules=[DOWNLOAD | {"delay": 3.5}], results="gave no answer"),
    Case(fault="F27", what="410 for good", rules=[DOWNLOAD | {"status": 410, "times": ALWAYS}], results="does not have result file"),  # noqa: E501
    Case(fault="F27", what="403 for good", rules=[DOWNLOAD | {"status": 403, "times": ALWAYS}], results="partial := true"),  # noqa: E501
    Case(fault="F27", what="500 for good", rules=[DOWNLOAD | {"status": 500, "times": ALWAYS}], results="partial := true"),  # noqa: E501
    # What comes after the end.
    Case(fault="F43", what="files after CANCELLED", rules=[POLL | {"change": NOTHING | {"status": "CANCELLED"}, "times": ALWAYS}]),  # noqa: E501
    Case(fault="F43", what="files after FAILED", rules=[POLL | {"change": NOTHING | {"status": "FAILED"}, "times": ALWAYS}]),  # noqa: E501
    Case(fault="F43", what="files after TIMEOUT_EXCEEDED", rules=[POLL | {"change": NOTHING | {"status": "TIMEOUT_EXCEEDED"}, "times": ALWAYS}]),  # noqa: E501
    Case(fault="F43", what="files after SUCCESS", rules=[POLL | {"change": NOTHING, "times": ALWAYS}], results="hold 0 of the 10 rows|names no result file"),  # noqa: E501
    Case(fault="F44", what="counts and file that grow", rules=[POLL | {"change": {"completed_requests": 1, "succeeded_requests": 1}, "times": ALWAYS}, DOWNLOAD | {"status": 200, "headers": OCTETS, "body": ONE_ROW, "times": ALWAYS}]),  # noqa: E501
    Case(fault="F45", what="RUNNING after CANCELLED", rules=[POLL | {"change": NOTHING | {"status": "CANCELLED"}}, POLL | {"change": NOTHING | RUNNING, "times": ALWAYS}]),  # noqa: E501
    Case(fault="F45", what="RUNNING after rows were kept as missing", rules=[POLL | {"change": NOTHING | {"status": "FAILED"}, "times": 2}, POLL | {"change": NOTHING | RUNNING, "times": 3}]),  # noqa: E501
    # Answers that are none.
    Case(fault="F54", what="an id that is none", rules=[CREATE | {"change": {"id": "../../models"}}]),
    Case(fault="F54", what="the id of another file's job", rules=[CREATE | {"change": {"id": OTHER_ID, "input_files": [OTHER_ID]}}]),  # noqa: E501
    Case(fault="F54", what="a poll that tells of another job", rules=[POLL | {"change": {"id": OTHER_ID}, "times": 3}]),
    Case(fault="F55", what="JSON of 100,000 levels on create", rules=[CREATE | STORED | {"status": 200, "body": DEEP}]),
    Case(fault="F55", what="JSON of 100,000 levels on poll", rules=[POLL | {"status": 200, "body": DEEP, "times": 2}]),
    Case(fault="F55", what="JSON of 100,000 levels on list", rules=[CREATE | CLOSED | STORED, LIST | {"skip": 2, "status": 200, "body": DEEP}], submit=UNKNOWN, settings={"reconcile_seconds": 60}),  # noqa: E501
    Case(fault="F32", what="the server has forgotten the file", rules=[DOWNLOAD | {"status": 404, "times": ALWAYS}], results="does not have result file"),  # noqa: E501
]
# fmt: on


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.fault(case.fault), id=f"{case.fault} {case.what}") for case in CASES]
)
def test_fault(case: Case, emulator: Emulator, home: Path) -> None:
    """The user reads a sentence or nothing, nothing is lost or paid twice, and the same statements end well."""
    story = Story(emulator, home, settings=case.settings)
    fill(emulator, home, case.beside)
    emulator.faults(*case.rules)
    for step in ("submit", "wait", "results"):
        words = getattr(case, step)
        if words:
            with pytest.raises(duckdb.Error, match=words):
                getattr(story, step)()
            break
        getattr(story, step)()
    emulator.faults(*case.lasting)
    found = story.go_on()
    assert {row["outcome"] for row in found} == {"ok"}
    emulator.faults()
    check_invariants(story, beside=case.beside)
    story.close()


def fill(emulator: Emulator, home: Path, count: int) -> None:
    """Create so many jobs of one request each on another model, from another home."""
    if count:
        with connect(emulator, home.with_name("beside"), max_requests_per_job=1) as con:
            con.execute(f"CREATE TABLE beside AS SELECT range AS custom_id, 'b' || range AS prompt FROM range({count})")
            con.execute("FROM mistral_batch_submit('beside', model := 'ministral-3b-latest')").fetchall()


@dataclass(frozen=True, kw_only=True)
class Pending:
    """Ten requests that are pending in a job when the same ten and one more are submitted, with reuse."""

    what: str
    #: What happens while the ten are submitted, and what after that.
    first: list[dict[str, Any]] = field(default_factory=list)
    then: list[dict[str, Any]] = field(default_factory=list)
    #: What is told of the ten when the eleven are submitted.
    told: str = r"10 of these requests wait for an answer in submission .* Nothing was sent"
    settings: dict[str, Any] = field(default_factory=dict)


# fmt: off
PENDING = [
    Pending(what="it runs"),
    Pending(what="it waits for room", first=[CREATE | {"status": 429}], told=r"10 of these requests wait .* job \(not created yet\) is HELD"),  # noqa: E501
    Pending(what="its answer was lost", first=[LOST, LIST | NO_JOBS | {"skip": 2, "times": ALWAYS}], told=r"10 of these requests wait .* job \(not created yet\) is UNKNOWN", settings={"reconcile_seconds": 3}),  # noqa: E501
    Pending(what="it was refused, and stored all the same", first=[CREATE | STORED | {"status": 409}]),
    Pending(what="it was refused, and the list lags", first=[CREATE | STORED | {"status": 422}], then=[LIST | LAGS], settings={"reconcile_seconds": 3}),  # noqa: E501
    Pending(what="its polls fail", then=[POLL | {"status": 500, "times": ALWAYS}], told="might be paid for twice"),
    Pending(what="an end is told that is none", then=[POLL | {"change": NOTHING | {"status": "FAILED"}}], told="might be paid for twice"),  # noqa: E501
]
# fmt: on


@pytest.mark.fault("F51")
@pytest.mark.parametrize("case", PENDING, ids=lambda case: f"F51 {case.what}")
def test_requests_pending_in_another_job(case: Pending, tmp_path: Path, home: Path) -> None:
    """Requests that wait for an answer in another job are not sent again, and all eleven are answered in the end."""
    with Emulator(tmp_path / "slow", job_seconds=600) as emulator:
        first = Story(emulator, home, settings=case.settings)
        emulator.faults(*case.first)
        with suppress(duckdb.Error):
            first.submit()
        second = Story(emulator, home, row_count=11, settings=case.settings, arguments=", reuse := 'requests'")
        emulator.faults(*case.then)
        with pytest.raises(duckdb.Error, match=case.told):
            second.submit()
        assert emulator.witness()["rows_accepted"] <= 10
        emulator.faults()
        first.submit()
        emulator._worker._job_seconds = 0  # all jobs end now
        second.go_on()
        (submission_id,) = {row["submission_id"] for row in second.submit()}
        found = second.results(f"'{submission_id}'")
        assert (len(found), {row["outcome"] for row in found}) == (11, {"ok"})
        witness = emulator.witness()
        assert (witness["rows_accepted"], witness["rows_accepted_more_than_once"]) == (11, 0)
        first.close()
        second.close()


def test_cases_have_names_of_their_own() -> None:
    """No two cases of a fault are called the same."""
    names = [(case.fault, case.what) for case in CASES]
    assert len(set(names)) == len(names)
