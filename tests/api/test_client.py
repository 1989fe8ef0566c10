"""The client over the real SDK: on a function in the network's place, and on a server that misbehaves."""

from __future__ import annotations

import errno
import gc
import importlib
import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from mistralai.client import Mistral
from mistralai.client.errors import ResponseValidationError
from support import KEY

from duckdb_mistral.api.client import BatchClient
from duckdb_mistral.api.secrets import account_of
from duckdb_mistral.errors import (
    ApiError,
    ArgumentError,
    AuthenticationError,
    BillingError,
    ForbiddenError,
    LimitError,
    MissingKeyError,
    NotFoundError,
    UnreachableError,
)
from duckdb_mistral.runtime import interrupts
from duckdb_mistral.runtime.retry_policy import Retry
from duckdb_mistral.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from duckdb_mistral.emulator import Emulator

#: mistralai 3 brings httpx2, mistralai 2 httpx.
http = importlib.import_module("mistralai.client.httpclient").httpx
VIOLATIONS = [
    {"type": "missing", "loc": ["body", "model"], "msg": "Field required"},
    {"type": "uuid_parsing", "loc": ["body", "input_files", 0], "msg": "Input should be a valid UUID", "input": "x"},
]
JOB_ID = "3f2a9c1e-0000-4000-8000-00000000000a"
JOB = {
    "id": JOB_ID,
    "object": "batch",
    "input_files": [JOB_ID],
    "endpoint": "/v1/chat/completions",
    "model": "mistral-small-latest",
    "status": "QUEUED",
    "created_at": 1_700_000_000,
    "total_requests": 3,
    "completed_requests": 0,
    "succeeded_requests": 0,
    "failed_requests": 0,
    "errors": [],
}
CREATE: dict[str, Any] = {
    "file_id": JOB_ID,
    "endpoint": "/v1/chat/completions",
    "model": "mistral-small-latest",
    "metadata": {"team": "search"},
    "timeout_hours": 24,
}


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class Network:
    """A function in the network's place, which counts what it is asked."""

    def __init__(self, answer: Callable[[Any], Any], key: str = KEY) -> None:
        """Answer each request by `answer`, which may raise."""
        self.requests: list[Any] = []
        self.clock = Clock()
        self.client = BatchClient(
            Settings(api_key=key, server_url="https://example.com", home=Path()),
            retry=Retry(budget_seconds=30, clock=self.clock.time, sleep=self.clock.sleep),
            transport=http.MockTransport(self._answer),
        )
        self._given = answer

    def _answer(self, request: Any) -> Any:
        request.read()
        self.requests.append(request)
        return self._given(request)


def saying(status: int, body: Any = None, **headers: str) -> Callable[[Any], Any]:
    """Return a function that answers every request alike; a text or bytes body is sent as it is."""
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    given = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: http.Response(status, content=content, headers=given)


def raising(error: Any, message: str = "") -> Callable[[Any], Any]:
    """Return a function that ends every request with an error of the network."""

    def answer(request: Any) -> Any:
        raise error(message, request=request)

    return answer


# Creating: one POST, whatever happens


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (saying(500, {"message": "no"}), ApiError),
        (saying(502, "<html>bad gateway</html>", content_type="text/html"), ApiError),
        (saying(503, "", retry_after="1"), ApiError),
        (saying(429, {"message": "limit"}, retry_after="1"), LimitError),
        (saying(408, {}), ApiError),
        (saying(302, "", location="https://elsewhere.example"), ApiError),
        (saying(307, "", location="https://elsewhere.example"), ApiError),
        (saying(200, "{"), ApiError),
        (saying(200, "[]"), ApiError),
        (saying(200, {}), ApiError),
        (saying(200, {"id": None}), ApiError),
        (saying(200, "<html/>", content_type="text/html"), ApiError),
        (raising(http.ReadTimeout, "timed out"), UnreachableError),
        (raising(http.RemoteProtocolError, "Server disconnected"), UnreachableError),
        (raising(http.ConnectError, "refused"), UnreachableError),
        (raising(http.PoolTimeout), UnreachableError),
    ],
)
def test_create_is_one_post(answer: Callable[[Any], Any], kind: type[ApiError]) -> None:
    """A create is sent once, whatever the answer, and is not sent elsewhere."""
    network = Network(answer)
    with pytest.raises(kind) as caught:
        network.client.create(**CREATE)
    assert [(request.method, request.url.host) for request in network.requests] == [("POST", "example.com")]
    assert network.clock.now == 0
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (saying(200, JOB), "QUEUED"),
        (saying(201, JOB), "QUEUED"),
        (saying(200, JOB, content_type="text/plain"), "QUEUED"),
        (saying(200, {"id": JOB_ID, "input_files": [JOB_ID]}), "UNKNOWN"),
        (saying(200, JOB | {"status": "SHINY"}), "SHINY"),
        (saying(200, JOB | {"status": None}), "UNKNOWN"),
        (saying(200, JOB | {"errors": None, "created_at": "2026-01-01"}), "QUEUED"),
        (saying(200, JOB | {"total_requests": 3.0, "object": "job", "new": {}}), "QUEUED"),
        (saying(200, JOB, x_model_deprecation_timestamp="2026-01-01T00:00:00Z"), "QUEUED"),
        (
            saying(200, {k: v for k, v in JOB.items() if k != "model"}, x_model_deprecation_timestamp="2026-01-01"),
            "QUEUED",
        ),
    ],
    ids=[
        "as described",
        "201",
        "text/plain",
        "only an id and the file",
        "a new status",
        "no status",
        "odd times",
        "odd numbers",
        "deprecated",
        "deprecated and without a model",
    ],
)
def test_create_reads_any_answer_with_an_id(answer: Callable[[Any], Any], status: str) -> None:
    """A job that was created is known by its id, whatever the SDK's models make of the rest."""
    network = Network(answer)
    report = network.client.create(**CREATE)
    assert (report.job_id, report.status) == (JOB_ID, status)


def test_texts_that_utf_8_cannot_hold() -> None:
    """Half a surrogate pair in any text of a job, its metadata's keys too, does not reach what writes it down."""
    half = "cut \ud83d"
    body = JOB | {"errors": [{"message": half}], "metadata": {half: half}, "model": half, "status": half}
    report = Network(saying(200, body)).client.get(JOB_ID)
    assert (report.errors, report.metadata, report.model, report.status) == (
        (("cut ?", 1),),
        (("cut ?", "cut ?"),),
        "cut ?",
        "cut ?",
    )


def test_create_body() -> None:
    """The create names file, endpoint, model, metadata and timeout, and carries the key in its header alone."""
    network = Network(saying(200, JOB))
    network.client.create(**CREATE)
    (request,) = network.requests
    sent = json.loads(request.content)
    assert sent["input_files"] == [JOB_ID]
    assert {name: sent[name] for name in ("endpoint", "model", "metadata", "timeout_hours")} == {
        name: CREATE[name] for name in ("endpoint", "model", "metadata", "timeout_hours")
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(request.url)
    assert KEY.encode() not in request.content


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (http.ConnectError, False),
        (http.ConnectTimeout, False),
        (http.PoolTimeout, False),
        (http.ReadTimeout, True),
        (http.WriteTimeout, True),
        (http.ReadError, True),
        (http.RemoteProtocolError, True),
    ],
)
def test_whether_a_create_left(error: Any, sent: bool) -> None:
    """Only errors that prove that nothing left say so."""
    network = Network(raising(error, f"with {KEY} in it"))
    with pytest.raises(UnreachableError) as caught:
        network.client.create(**CREATE)
    assert caught.value.sent is sent
    assert KEY not in str(caught.value)
    assert "[API key]" in str(caught.value)


# Reading: repeated, within a budget


def in_turn(*answers: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that answers by one after the other, and by the last from then on."""
    left = list(answers)
    return lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)


@pytest.mark.parametrize(
    "passing",
    [
        saying(500, {}),
        saying(503, "<html/>", content_type="text/html"),
        saying(429, {}),
        raising(http.ReadTimeout, "timed out"),
        raising(http.RemoteProtocolError, "Server disconnected"),
        raising(http.ConnectError, "refused"),
    ],
)
def test_read_is_repeated(passing: Callable[[Any], Any]) -> None:
    """A read that fails for a passing reason is repeated until it is answered."""
    network = Network(in_turn(passing, passing, saying(200, JOB)))
    assert network.client.get(JOB_ID).job_id == JOB_ID
    assert len(network.requests) == 3
    assert 0 < network.clock.now <= 30


@pytest.mark.parametrize(
    ("lasting", "kind"),
    [
        (saying(401, {"detail": "Unauthorized"}), AuthenticationError),
        (saying(402, {"message": "no"}), BillingError),
        (saying(403, {"message": "no"}), ForbiddenError),
        (saying(404, {"detail": "no such job"}), NotFoundError),
        (saying(410, {"detail": "expired"}), NotFoundError),
        (saying(422, {"detail": [{"msg": "odd"}]}), ApiError),
        (saying(302, "", location="https://elsewhere.example"), ApiError),
        (saying(200, "[]"), ApiError),
    ],
)
def test_read_that_repeating_cannot_mend(lasting: Callable[[Any], Any], kind: type[ApiError]) -> None:
    """A read that was refused is not repeated."""
    network = Network(lasting)
    with pytest.raises(kind):
        network.client.get(JOB_ID)
    assert len(network.requests) == 1


def test_read_ends_within_its_budget() -> None:
    """A server that never answers well ends the read within the budget."""
    network = Network(saying(500, {"message": "still no"}))
    with pytest.raises(ApiError, match="answered HTTP 500: still no"):
        network.client.get(JOB_ID)
    assert network.clock.now <= 30


@pytest.mark.parametrize("seconds", ["86400", "inf", "1e300"])
def test_retry_after_is_capped(seconds: str) -> None:
    """A server that asks for a day is not obeyed: the pause has an upper bound."""
    network = Network(in_turn(saying(429, {}, retry_after=seconds), saying(200, JOB)))
    assert network.client.get(JOB_ID).job_id == JOB_ID
    assert network.clock.now == pytest.approx(20)


@pytest.mark.parametrize("value", ["", "soon", "0", "nan", "-5", "-inf", "1e-300", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_retry_after_that_asks_for_nothing(value: str) -> None:
    """A Retry-After that asks for no pause, or is no number of seconds, does not take the place of our own pause."""
    network = Network(in_turn(*3 * [saying(429, {}, retry_after=value)], saying(200, JOB)))
    assert network.client.get(JOB_ID).job_id == JOB_ID
    assert network.clock.now > 0.75 * (0.5 + 1 + 2)


def test_billing_that_is_not_on() -> None:
    """A create that is refused until billing is on says so, and what to do."""
    network = Network(saying(402, {"message": "Payment Required"}))
    with pytest.raises(BillingError, match=r"until billing is on \(HTTP 402: Payment Required\)\. Turn on billing"):
        network.client.create(**CREATE)
    assert len(network.requests) == 1


def test_one_thing_that_is_forbidden() -> None:
    """A refusal of one thing is not told as a refused key."""
    network = Network(saying(403, {"message": "no access to this model"}))
    with pytest.raises(ForbiddenError, match=r"does not allow it for this API key \(HTTP 403: no access") as caught:
        network.client.create(**CREATE)
    assert "refused the API key" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"message": "too many"}, "too many"),
        ({"detail": [{"msg": "odd"}]}, '[{"msg": "odd"}]'),
        ({"detail": VIOLATIONS}, "body.model: Field required; body.input_files.0: Input should be a valid UUID"),
        ({"detail": []}, '{"detail": []}'),
        ({"detail": [{"loc": None, "msg": "odd"}]}, '[{"loc": null, "msg": "odd"}]'),
        ({"message": "cut \ud83d"}, "cut ?"),
        ({"other": 1}, '{"other": 1}'),
        ("text", "text"),
        ({"message": "x" * 5000}, "x" * 500),
        ({"message": f"the key {KEY} is bad"}, "the key [API key] is bad"),
        ({"message": "x" * 495 + KEY}, "x" * 495 + "[API "),
    ],
)
def test_what_the_server_said(body: Any, said: str) -> None:
    """The server's own words stand in the error, cut short and without the key."""
    network = Network(saying(400, json.dumps(body)))
    with pytest.raises(ApiError) as caught:
        network.client.get(JOB_ID)
    assert f"answered HTTP 400: {said}." in str(caught.value)
    assert caught.value.status_code == 400
    assert KEY not in repr(caught.value)


@pytest.mark.parametrize("key", ['quoted"key', "back\\slash", "plain-key"])
def test_key_that_the_server_says_back(key: str) -> None:
    """A key that stands in a job's errors or in a refusal, however JSON writes it, is neither kept nor shown."""
    errors = [{"message": f"no such key {key}!", "count": 1}]
    told = {"id": JOB_ID, "status": "FAILED", "errors": errors, "metadata": {key: key}}
    report = Network(saying(200, json.dumps(told)), key=key).client.get(JOB_ID)
    assert report.errors == (("no such key [API key]!", 1),)
    assert report.metadata == (("[API key]", "[API key]"),)
    for body in ({"message": f"bad {key}"}, {"detail": [{"odd": key}]}):
        with pytest.raises(ApiError) as caught:
            Network(saying(400, json.dumps(body)), key=key).client.get(JOB_ID)
        assert "[API key]" in str(caught.value)
        assert key not in str(caught.value)
        assert json.dumps(key)[1:-1] not in str(caught.value)


# Listing


def page(*names: str) -> dict[str, Any]:
    """Return one page of the list."""
    return {"object": "list", "total": 0, "data": [JOB | {"id": name} for name in names]}


def test_jobs_of_all_pages() -> None:
    """All pages are read, and a job that moved to the next page meanwhile comes once."""
    first, second = [str(uuid4()) for _ in range(100)], [str(uuid4()) for _ in range(5)]
    pages = [page(*first), page(first[-1], *second), page()]
    network = Network(in_turn(*(saying(200, one) for one in pages)))
    assert [report.job_id for report in network.client.jobs()] == [*first, *second]
    assert [request.url.params["page"] for request in network.requests] == ["0", "1", "2"]


@pytest.mark.parametrize("total", [None, 0, 2, 5, 1000, "5", -1])
def test_pages_smaller_than_asked_for(total: object) -> None:
    """All jobs are listed where a server gives few at a time, whatever it says of their number."""
    names = [str(uuid4()) for _ in range(5)]
    pages = [page(*names[start : start + 2]) | {"total": total} for start in (0, 2, 4, 6)]
    network = Network(in_turn(*(saying(200, one) for one in pages)))
    assert [report.job_id for report in network.client.jobs()] == names
    assert len(network.requests) == 4


@pytest.mark.fault("F49")
def test_pages_that_repeat() -> None:
    """A page that comes again does not end the list; a server that gives nothing else does."""
    names = [str(uuid4()) for _ in range(4)]
    first, second = page(*names[:2]), page(*names[2:])
    network = Network(in_turn(*(saying(200, one) for one in (first, first, second, page()))))
    assert [report.job_id for report in network.client.jobs()] == names
    network = Network(saying(200, first | {"total": 1000}))
    assert [report.job_id for report in network.client.jobs()] == names[:2]
    assert len(network.requests) == 3


@pytest.mark.fault("F49")
def test_interrupt_between_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is heard between the pages of a list."""
    network = Network(lambda _: saying(200, page(str(uuid4())))(None))
    monkeypatch.setattr(interrupts, "_heard", 0)
    interrupts.begin()
    listed = network.client.jobs()
    next(listed)
    interrupts.interrupt()
    with pytest.raises(KeyboardInterrupt):
        next(listed)
    assert len(network.requests) == 1


def test_jobs_filters() -> None:
    """Filters are sent as the API wants them: statuses as a list, times with their zone."""
    network = Network(saying(200, page()))
    assert (
        list(network.client.jobs(statuses=["QUEUED", "RUNNING"], model="m", created_after=1_700_000_000_000_000)) == []
    )
    params = network.requests[0].url.params
    assert params.get_list("status") == ["QUEUED", "RUNNING"]
    assert params["model"] == "m"
    assert params["created_after"].startswith("2023-11-14T22:13:20")
    assert params["created_after"].endswith(("Z", "+00:00"))


def test_a_malformed_job_does_not_hide_the_others() -> None:
    """One job of another shape in a page does not cost the rest of it."""
    odd = {"object": "list", "data": [{"id": JOB_ID, "status": 7, "errors": "many", "metadata": []}, JOB | {"id": "x"}]}
    network = Network(saying(200, odd))
    assert [(report.job_id, report.status) for report in network.client.jobs()] == [
        (JOB_ID, "UNKNOWN"),
        ("x", "QUEUED"),
    ]


@pytest.mark.parametrize(
    "body", [{"data": {}}, {"data": None, "total": 0}, {}, {"message": "upstream timed out"}, {"object": "list"}]
)
def test_list_that_is_none(body: dict[str, Any]) -> None:
    """An answer without a list is told as one, and is no empty workspace."""
    with pytest.raises(ApiError, match="contains no list"):
        list(Network(saying(200, body)).client.jobs())


@pytest.mark.parametrize("total", [0, 37])
def test_empty_page_without_its_list(total: int) -> None:
    """A page that tells a total may leave out a list that is empty, as the API's schema allows."""
    client = Network(saying(200, {"object": "list", "total": total})).client
    assert list(client.pages()) == [([], total)]


def test_models() -> None:
    """Models are read as they are; what is no object is passed over."""
    network = Network(saying(200, {"object": "list", "data": [{"id": "a", "capabilities": None}, 7]}))
    assert network.client.models() == [{"id": "a", "capabilities": None}]


# Files


def test_upload_is_one_post(tmp_path: Path) -> None:
    """An upload is sent once, with its purpose, its name and all its bytes."""
    path = tmp_path / "part.jsonl"
    path.write_bytes(b'{"a": 1}\n' * 1000)
    network = Network(saying(200, {"id": JOB_ID, "created_at": 1_700_000_000}))
    assert network.client.upload(path, "name.jsonl") == JOB_ID
    (request,) = network.requests
    assert b'{"a": 1}\n' * 1000 in request.content
    assert b"batch" in request.content
    assert b'filename="name.jsonl"' in request.content


@pytest.mark.parametrize(
    "answer", [saying(413, {}), saying(500, {}), saying(200, {"id": ""}), raising(http.ReadTimeout)]
)
def test_upload_that_fails(answer: Callable[[Any], Any], tmp_path: Path) -> None:
    """An upload that fails is not repeated by itself."""
    path = tmp_path / "part.jsonl"
    path.write_bytes(b"{}\n")
    network = Network(answer)
    with pytest.raises(ApiError):
        network.client.upload(path, "name.jsonl")
    assert len(network.requests) == 1


def test_upload_that_a_limit_refuses(tmp_path: Path) -> None:
    """An upload that is refused for now is sent again, whole, until the deadline."""
    path = tmp_path / "part.jsonl"
    path.write_bytes(b'{"a": 1}\n' * 100)
    network = Network(in_turn(saying(429, {}), saying(429, {}, retry_after="3"), saying(200, {"id": JOB_ID})))
    assert network.client.upload(path, "name.jsonl") == JOB_ID
    assert [request.content.count(b'{"a": 1}') for request in network.requests] == [100] * 3
    assert network.clock.now > 3
    network = Network(saying(429, {}))
    with pytest.raises(LimitError):
        network.client.upload(path, "name.jsonl")
    assert 1 < len(network.requests) < 20
    assert network.clock.now <= 30


def test_download(tmp_path: Path) -> None:
    """A download asks for the bytes as they are, and writes them as they are."""
    content = "é\u2028\x00\n".encode() * 1000 + b"\xff"
    network = Network(saying(200, content, content_type="application/octet-stream"))
    network.client.download(JOB_ID, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content
    assert network.requests[0].headers["accept-encoding"] == "identity"


def test_download_is_repeated(tmp_path: Path) -> None:
    """A download that failed for a passing reason starts anew, and nothing of the first try is left."""
    network = Network(
        in_turn(saying(503, b"a page of html" * 100), saying(200, b"whole", content_type="application/octet-stream"))
    )
    network.client.download(JOB_ID, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_download_to_a_full_disk() -> None:
    """A file that cannot be written is the file's error, and no server is blamed."""
    network = Network(saying(200, b"x" * 100_000, content_type="application/octet-stream"))
    with pytest.raises(OSError, match="No space left") as caught:
        network.client.download(JOB_ID, Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("name", ["get", "cancel", "download"])
@pytest.mark.parametrize("identifier", ["../../models", "", "a/b", "..%2f", f"{JOB_ID}/cancel"])
def test_ids_that_are_none(name: str, identifier: str, tmp_path: Path) -> None:
    """What is no UUID never becomes a part of a path."""
    network = Network(saying(200, JOB))
    arguments = [identifier, tmp_path / "file"] if name == "download" else [identifier]
    with pytest.raises(ArgumentError, match="is not an id"):
        getattr(network.client, name)(*arguments)
    assert network.requests == []


# The key


def test_client_without_a_key() -> None:
    """There is no client without a key."""
    with pytest.raises(MissingKeyError):
        BatchClient(Settings(home=Path()), Retry())


def test_key_is_in_no_repr() -> None:
    """Neither the client nor its settings show the key, and the account's name does not hold it."""
    client = Network(saying(200, JOB)).client
    assert KEY not in repr(client)
    assert KEY not in repr(Settings(api_key=KEY, home=Path()))
    assert KEY not in account_of(KEY)
    assert account_of(KEY) != account_of(KEY + "x")


# On the server


@pytest.fixture
def client(emulator: Emulator) -> Iterator[BatchClient]:
    """Yield a client of the local server."""
    settings = Settings(api_key=KEY, server_url=emulator.url, home=Path())
    with BatchClient(settings, retry=Retry(budget_seconds=5, first_pause_seconds=0.01)) as found:
        yield found


def uploaded(client: BatchClient, directory: Path) -> str:
    """Upload one request."""
    path = directory / "requests.jsonl"
    path.write_text('{"custom_id":"1","body":{"messages":[{"role":"user","content":"hi"}]}}\n', encoding="utf-8")
    return client.upload(path, "requests.jsonl")


def test_client_that_nobody_closes(emulator: Emulator) -> None:
    """A client that is let go of closes its connections."""
    forgotten = BatchClient(Settings(api_key=KEY, server_url=emulator.url, home=Path()), Retry())
    forgotten.models()
    connections = forgotten._transport.client
    assert not connections.is_closed
    del forgotten
    gc.collect()
    assert connections.is_closed


def test_round_trip(client: BatchClient, tmp_path: Path) -> None:
    """Upload, create, read, list, cancel and download work on a server."""
    file_id = uploaded(client, tmp_path)
    assert client.file_exists(file_id)
    assert not client.file_exists(JOB_ID)
    report = client.create(**CREATE | {"file_id": file_id})
    assert dict(report.metadata) == {"team": "search"}
    assert [job.job_id for job in client.jobs()] == [report.job_id]
    while not (report := client.get(report.job_id)).ended:
        pass
    assert report.output_file
    client.download(report.output_file, tmp_path / "answers")
    assert b"echo: hi" in (tmp_path / "answers").read_bytes()


@pytest.mark.parametrize(
    "fault",
    [{"close": True}, {"status": 502}, {"status": 201, "body": "{}"}, {"raw": "HTTP/1.1 200 OK\r\n\r\n"}],
    ids=["closed", "502", "201", "cut"],
)
def test_create_whose_answer_is_lost(
    client: BatchClient, emulator: Emulator, tmp_path: Path, fault: dict[str, Any]
) -> None:
    """A job whose answer is lost exists once, and is found by its metadata."""
    file_id = uploaded(client, tmp_path)
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "after": True} | fault)
    with pytest.raises(ApiError) as caught:
        client.create(**CREATE | {"file_id": file_id})
    assert not isinstance(caught.value, UnreachableError) or caught.value.sent
    assert emulator.witness()["creates_received"] == 1
    (found,) = client.jobs()
    assert dict(found.metadata) == {"team": "search"}


@pytest.mark.parametrize("cut", [0, 1, 50])
def test_download_that_breaks(client: BatchClient, emulator: Emulator, tmp_path: Path, cut: int) -> None:
    """A download that breaks off is repeated, and its file is whole in the end."""
    file_id = uploaded(client, tmp_path)
    emulator.faults({"method": "GET", "path": ".*/content", "times": 2, "cut": cut})
    client.download(file_id, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "requests.jsonl").read_bytes()
    assert emulator.witness()["requests"]["download"] == 3


def test_reads_as_the_sdk(tmp_path: Path) -> None:
    """What is read without the SDK is asked for as the SDK asks for it."""
    asked: list[Any] = []

    def answer(request: Any) -> Any:
        asked.append((request.method, request.url.path, sorted(request.url.params.multi_items()), *_headers(request)))
        return http.Response(200, json={"data": [], "id": JOB_ID})

    settings = Settings(api_key=KEY, home=tmp_path, server_url="https://example.test")
    with BatchClient(settings, Retry(), transport=http.MockTransport(answer)) as client:
        list(client.jobs())
        list(client.jobs(statuses=["QUEUED", "RUNNING"], model="a model", created_after=1_700_000_000_000_001))
        list(client.pages(oldest_first=True))
        list(client.files("a name & more"))
        client.find_file("a name & more", 5)
        client.file_exists(JOB_ID)
        client.get(JOB_ID)
        client.models()
    ours, asked = asked, []
    sdk_client = http.Client(transport=http.MockTransport(answer))
    with sdk_client, Mistral(api_key=KEY, server_url="https://example.test", client=sdk_client) as sdk:
        page = {"page": 0, "page_size": 100}
        after = datetime.fromtimestamp(1_700_000_000.000001, UTC)
        calls: list[Callable[[], object]] = [
            lambda: sdk.batch.jobs.list(**page),
            lambda: sdk.batch.jobs.list(**page, status=["QUEUED", "RUNNING"], model="a model", created_after=after),
            lambda: sdk.batch.jobs.list(**page, order_by="created"),
            lambda: sdk.files.list(**page, search="a name & more", purpose="batch"),
            lambda: sdk.files.list(search="a name & more", purpose="batch"),
            lambda: sdk.files.retrieve(file_id=JOB_ID),
            lambda: sdk.batch.jobs.get(job_id=JOB_ID),
            lambda: sdk.models.list(),
        ]
        for call in calls:
            with suppress(ResponseValidationError):
                call()
    assert len(ours) == len(asked) == len(calls)
    for our, their in zip(ours, asked, strict=True):
        assert our[:2] == their[:2]
        assert our[3:] == their[3:]
        # What the SDK says besides are the API's defaults.
        defaults = [("created_by_me", "false"), ("include_total", "true"), ("page", "0"), ("page_size", "100")]
        assert [item for item in their[2] if item not in our[2]] == [
            item for item in defaults if item in their[2] and item not in our[2]
        ]
        assert set(our[2]) <= set(their[2])


def _headers(request: Any) -> tuple[str, str]:
    return request.headers["authorization"], request.headers["accept"]
