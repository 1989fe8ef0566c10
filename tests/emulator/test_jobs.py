"""Batch jobs: create, read, list, cancel, and what is refused of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from emulator.calling import Caller, chats

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

JOBS = "/v1/batch/jobs"
CHAT = "/v1/chat/completions"
REQUEST = {"custom_id": "a", "body": {"messages": [{"role": "user", "content": "x"}]}}
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def test_whole_job(caller: Caller) -> None:
    """A job ends with one output line per good request and one error line per refused one."""
    job = caller.ended(caller.create(chats("one", "[[error 429]]", "three"), metadata={"team": "search"}))
    assert (job["status"], job["total_requests"], job["completed_requests"]) == ("SUCCESS", 3, 3)
    assert (job["succeeded_requests"], job["failed_requests"], job["errors"]) == (2, 1, [])
    assert job["metadata"] == {"team": "search"}
    assert job["created_at"] <= job["started_at"] <= job["completed_at"]
    output, errors = caller.lines(job["output_file"]), caller.lines(job["error_file"])
    assert [line["custom_id"] for line in output] == ["000", "002"]
    assert [line["response"]["status_code"] for line in output] == [200, 200]
    assert [(line["custom_id"], line["response"]["status_code"]) for line in errors] == [("001", 429)]
    assert len({line["id"] for line in output + errors}) == 3
    assert {line["error"] for line in output + errors} == {None}


def test_inline_requests(caller: Caller) -> None:
    """A job of inline requests works like one of a file, and its answers can be asked for inline."""
    document = {"requests": [REQUEST], "endpoint": CHAT, "model": "a-model"}
    job = caller.ended(caller.post(JOBS, document).json())
    assert job["outputs"] is None
    (line,) = caller.get(f"{JOBS}/{job['id']}", inline="true").json()["outputs"]
    assert (line["custom_id"], line["response"]["body"]["model"]) == ("a", "a-model")
    caller.ask("DELETE", f"/v1/files/{job['output_file']}")
    assert caller.get(f"{JOBS}/{job['id']}", inline="true").json()["outputs"] is None


def test_request_without_custom_id(caller: Caller) -> None:
    """A request without a custom_id is answered, with a null custom_id."""
    job = caller.post(JOBS, {"requests": [{"body": REQUEST["body"]}], "endpoint": CHAT, "model": "m"}).json()
    (line,) = caller.lines(caller.ended(job)["output_file"])
    assert line["custom_id"] is None
    assert line["id"]


def test_several_files(caller: Caller) -> None:
    """A job may have several input files."""
    files = [caller.upload(chats("a", "b")), caller.upload(chats("c"))]
    job = caller.ended(caller.post(JOBS, {"input_files": files, "endpoint": CHAT, "model": "m"}).json())
    assert (job["total_requests"], job["succeeded_requests"], job["input_files"]) == (3, 3, files)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"endpoint": "/v1/poems"}, "endpoint"),
        ({"endpoint": None}, "endpoint"),
        ({"model": 5}, "model"),
        ({"model": None}, "model"),
        ({"agent_id": []}, "agent_id"),
        ({"timeout_hours": "long"}, "timeout_hours"),
        ({"timeout_hours": True}, "timeout_hours"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"k" * 33: "v"}}, "metadata"),
        ({"metadata": {"": "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": ""}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": {"emulate": "a miracle"}}, "metadata"),
        ({"requests": None}, "input_files"),
        ({"input_files": [UNKNOWN]}, "input_files"),
        ({"requests": None, "input_files": []}, "input_files"),
        ({"requests": None, "input_files": ["x"]}, "input_files"),
        ({"requests": None, "input_files": "x"}, "input_files"),
        ({"requests": []}, "requests"),
        ({"requests": [REQUEST] * 10_001}, "requests"),
        ({"requests": [{"custom_id": "a"}]}, "requests"),
        ({"requests": [{"custom_id": 1, "body": {}}]}, "requests"),
    ],
)
def test_bad_job(caller: Caller, change: dict[str, Any], field: str) -> None:
    """A field that the API does not take is refused by name, and no job is made."""
    document = {"requests": [REQUEST], "endpoint": CHAT, "model": "m"} | change
    answer = caller.post(JOBS, document)
    assert answer.status == 422
    (problem,) = answer.json()["detail"]
    assert problem["loc"] == ["body", field]
    assert problem["msg"]
    assert problem["type"]
    assert caller.get(JOBS).json()["total"] == 0


@pytest.mark.parametrize("body", ["", "{", "[]", '"x"', "[" * 100_000, '{"model": "\\ud800"}', '{"a": NaN}', b"\xff"])
def test_no_document(caller: Caller, body: str | bytes) -> None:
    """A body that is no JSON object, or holds NaN or half a character, is refused."""
    answer = caller.ask("POST", JOBS, body=body, headers={"Content-Type": "application/json"})
    assert answer.status == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "body"]


def test_unusable_files(caller: Caller) -> None:
    """A job of an unknown file is not found, and one of a file for another purpose is refused."""
    document = {"endpoint": CHAT, "model": "m"}
    assert caller.post(JOBS, document | {"input_files": [UNKNOWN]}).status == 404
    other = caller.upload(b"x", purpose="fine-tune")
    answer = caller.post(JOBS, document | {"input_files": [other]})
    assert (answer.status, other in answer.json()["message"]) == (400, True)


@pytest.mark.parametrize("content", [b"no json\n", b'{"custom_id": "a"}\n', b'{"custom_id": "a", "body": "text"}\n'])
def test_line_that_is_no_request(caller: Caller, content: bytes, tmp_path: Path) -> None:
    """A job whose file has a line that is no request fails, says why, and does not say where files lie."""
    job = caller.ended(caller.create(chats("a") + content))
    assert (job["status"], job["output_file"], job["error_file"]) == ("FAILED", None, None)
    assert job["errors"][0]["message"]
    assert str(tmp_path) not in job["errors"][0]["message"]
    assert job["total_requests"] == 2


def test_file_deleted_before_it_is_read(tmp_path: Path) -> None:
    """A job runs to its end though its input file is deleted right after its creation."""
    with Emulator(tmp_path / "server") as emulator:
        caller = Caller(emulator)
        job = caller.create(chats("a"))
        assert caller.ask("DELETE", f"/v1/files/{job['input_files'][0]}").status == 200
        assert caller.ended(job)["status"] == "SUCCESS"
        assert emulator.witness()["rows_accepted"] == 1


def test_life_of_a_job(tmp_path: Path) -> None:
    """A job with a duration is queued, then running with growing counts, and has no files before its end."""
    with Emulator(tmp_path, job_seconds=0.5) as emulator:
        caller = Caller(emulator)
        job = caller.create(chats(*"abcdefghij"))
        told = [job]
        while told[-1]["status"] != "SUCCESS":
            told.append(caller.get(f"{JOBS}/{job['id']}").json())
    assert (told[0]["status"], told[0]["total_requests"], told[0]["started_at"]) == ("QUEUED", 0, None)
    statuses = [one["status"] for one in told]
    assert statuses == sorted(statuses, key=["QUEUED", "RUNNING", "SUCCESS"].index)
    running = [one for one in told if one["status"] == "RUNNING"]
    assert len({one["completed_requests"] for one in running}) > 1
    assert all(one["total_requests"] == 10 and one["output_file"] is None for one in running)


@pytest.mark.parametrize("status", ["CANCELLED", "TIMEOUT_EXCEEDED"])
def test_partial_ending(caller: Caller, status: str) -> None:
    """A job that asks to end early keeps the answers that there are by then."""
    job = caller.ended(caller.create(chats(*"abcde"), metadata={"emulate": f"{status} 2"}))
    assert (job["status"], job["total_requests"], job["completed_requests"]) == (status, 5, 2)
    assert [line["custom_id"] for line in caller.lines(job["output_file"])] == ["000", "001"]


def test_failed_ending(caller: Caller) -> None:
    """A job that asks to fail has an error and no files."""
    job = caller.ended(caller.create(chats("a"), metadata={"emulate": "FAILED"}))
    assert (job["status"], job["output_file"], job["completed_requests"]) == ("FAILED", None, 0)
    assert job["errors"] == [{"message": "The job asked to fail.", "count": 1}]


def test_cancel(caller: Caller) -> None:
    """A cancelled job goes through CANCELLATION_REQUESTED or straight to CANCELLED, and a second cancel is the same."""
    job = caller.create(chats(*"abc"), metadata={"emulate": "seconds 3600"})
    told = caller.post(f"{JOBS}/{job['id']}/cancel", None).json()
    assert told["status"] in ("CANCELLATION_REQUESTED", "CANCELLED")
    ended = caller.ended(job)
    assert (ended["status"], ended["completed_requests"]) == ("CANCELLED", 0)
    assert caller.post(f"{JOBS}/{job['id']}/cancel", None).json() == ended


def test_cancel_after_the_end(caller: Caller) -> None:
    """Cancelling a job that has ended changes nothing."""
    ended = caller.ended(caller.create(chats("a")))
    assert caller.post(f"{JOBS}/{ended['id']}/cancel", None).json() == ended


def test_list_pages_and_order(caller: Caller) -> None:
    """Jobs are listed newest first, or oldest first when asked, in pages counted from 0."""
    ids = [caller.create(chats("a"))["id"] for _ in range(3)]

    def listed(**query: Any) -> list[str]:
        return [job["id"] for job in caller.get(JOBS, **query).json()["data"]]

    assert listed() == ids[::-1]
    assert listed(order_by="created") == ids
    assert [listed(page=page, page_size=2) for page in range(3)] == [ids[:0:-1], ids[:1], []]
    assert caller.get(JOBS, page_size=1).json()["total"] == 3


def test_list_filters(caller: Caller) -> None:
    """Jobs are found by model, agent, status and time of creation."""
    plain = caller.ended(caller.create(chats("a")))
    failed = caller.ended(caller.create(chats("a"), model="other", metadata={"emulate": "FAILED"}))
    agent = caller.ended(caller.create(chats("a"), model=None, agent_id="an-agent"))

    def found(**query: Any) -> set[str]:
        return {job["id"] for job in caller.get(JOBS, **query).json()["data"]}

    assert found(model="other") == {failed["id"]}
    assert found(agent_id="an-agent") == {agent["id"]}
    assert found(status="FAILED") == {failed["id"]}
    assert found(status=["FAILED", "SUCCESS"]) == {plain["id"], failed["id"], agent["id"]}
    assert found(status="QUEUED") == set()
    assert len(found(created_after="2020-01-01T00:00:00Z", created_by_me="true")) == 3
    assert len(found(created_after="2020-01-01T00:00:00")) == 3
    assert found(created_after="2999-01-01T00:00:00+02:00") == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("order_by", "size"),
        ("status", "LOST"),
        ("created_after", "yesterday"),
        ("created_after", ""),
        ("created_by_me", "x"),
        ("page", "1.5"),
    ],
)
def test_bad_query(caller: Caller, name: str, value: str) -> None:
    """A bad parameter of the list is refused by name."""
    answer = caller.get(JOBS, **{name: value})
    assert answer.status == 422
    assert answer.json()["detail"][0]["loc"] == ["query", name]


def test_unknown_job(caller: Caller) -> None:
    """An unknown job is not found, and an id that is no UUID is refused."""
    assert caller.get(f"{JOBS}/{UNKNOWN}").status == 404
    assert caller.post(f"{JOBS}/{UNKNOWN}/cancel", None).status == 404
    assert caller.get(f"{JOBS}/x").status == 422
    assert caller.get(f"{JOBS}/{UNKNOWN}", inline="x").status == 404


def test_pending_limit(tmp_path: Path) -> None:
    """A job that would exceed the workspace's pending requests is refused with 429, until there is room."""
    with Emulator(tmp_path, max_pending_requests=5) as emulator:
        caller = Caller(emulator)
        slow = caller.create(chats(*"abc"), metadata={"emulate": "seconds 3600"})
        document = {"input_files": [caller.upload(chats(*"abc"))], "endpoint": CHAT, "model": "m"}
        refused = caller.post(JOBS, document)
        assert (refused.status, "3 of 5 requests pending" in refused.json()["message"]) == (429, True)
        caller.post(f"{JOBS}/{slow['id']}/cancel", None)
        caller.ended(slow)
        assert caller.post(JOBS, document).status == 200


def test_limit_of_a_job(tmp_path: Path) -> None:
    """A job with more requests than one may have is refused."""
    with Emulator(tmp_path, max_requests_per_job=2) as emulator:
        caller = Caller(emulator)
        document = {"input_files": [caller.upload(chats(*"abc"))], "endpoint": CHAT, "model": "m"}
        assert caller.post(JOBS, document).status == 400
        assert caller.create(chats(*"ab"))["id"]


def test_keys_and_workspaces(tmp_path: Path) -> None:
    """Only the keys given are taken, and separate workspaces do not see each other's files and jobs."""
    with Emulator(tmp_path, api_keys=("one", "two"), separate_workspaces=True) as emulator:
        one, two = Caller(emulator, "one"), Caller(emulator, "two")
        job = one.ended(one.create(chats("a")))
        assert two.get(JOBS).json()["total"] == 0
        assert two.get(f"{JOBS}/{job['id']}").status == 404
        assert two.get(f"/v1/files/{job['output_file']}/content").status == 404
        document = {"input_files": job["input_files"], "endpoint": CHAT, "model": "m"}
        assert two.post(JOBS, document).status == 404
        assert Caller(emulator, "three").get(JOBS).status == 401


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic a-key"])
def test_no_key(emulator: Emulator, header: str | None) -> None:
    """Every address of the API asks for a key, before it looks at anything else."""
    stranger = Caller(emulator, key=None)
    headers = {} if header is None else {"Authorization": header}
    addresses = [("GET", "/v1/models"), ("GET", "/v1/files"), ("POST", "/v1/files"), ("GET", JOBS), ("POST", JOBS)]
    one = [("GET", f"/v1/files/{UNKNOWN}"), ("DELETE", f"/v1/files/{UNKNOWN}"), ("GET", f"{JOBS}/{UNKNOWN}")]
    for method, path in (*addresses, *one, ("POST", f"{JOBS}/{UNKNOWN}/cancel")):
        answer = stranger.ask(method, path, headers=headers)
        assert (answer.status, answer.json()) == (401, {"detail": "Unauthorized"}), (method, path)


def test_models(caller: Caller) -> None:
    """The models can be listed, all or by name."""
    names = [card["id"] for card in caller.get("/v1/models").json()["data"]]
    assert "mistral-small-latest" in names
    (card,) = caller.get("/v1/models", model="mistral-embed").json()["data"]
    assert (card["id"], card["object"], card["type"]) == ("mistral-embed", "model", "base")
    assert caller.get("/v1/models", model="unknown").json()["data"] == []


def test_unknown_address(caller: Caller) -> None:
    """An address or a method that the API does not have is answered in JSON."""
    assert caller.get("/v1/poems").json() == {"detail": "Not Found"}
    answer = caller.ask("PUT", JOBS)
    assert (answer.status, json.loads(answer.content)) == (405, {"detail": "Method Not Allowed"})
