"""Answers from a server of models: all of them, each asked for once, whatever that server does."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from emulator.calling import Caller, chats, requests_of
from emulator.child import Child, caller_of
from support import answered, connect, make_staging, submitted

from duckdb_mistral.emulator import Emulator, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: HTTP, files and threads, which are the same whatever the version of DuckDB.
pytestmark = pytest.mark.newest

JOBS = "/v1/batch/jobs"
SECRET = "canary-of-the-upstream"


class Models(ThreadingHTTPServer):
    """A server with OpenAI's addresses; `answer` makes status, headers and content of path, body and count."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        """Listen on a free port; every answer is the last message's text in capitals."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.seen: list[tuple[str, dict[str, Any], str | None]] = []
        self.now = self.most = 0
        self.seconds = 0.0
        self.answer: Callable[[str, dict[str, Any], int], tuple[int, dict[str, str], bytes] | None] = shout

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class Handler(BaseHTTPRequestHandler):
    """One connection to `Models`."""

    protocol_version = "HTTP/1.1"
    server: Models

    def do_POST(self) -> None:
        """Answer one request, after the time that answers take."""
        models = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = text_of(body)
        with models.lock:
            models.now += 1
            models.most = max(models.most, models.now)
            models.asked[text] += 1
            models.seen.append((self.path, body, self.headers["Authorization"]))
        time.sleep(models.seconds)
        with models.lock:
            models.now -= 1
        made = models.answer(self.path, body, models.asked[text])
        if made is None:
            self.close_connection = True
            return
        status, headers, content = made
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


def text_of(body: dict[str, Any]) -> str:
    """Return what a request asks."""
    return str(body["messages"][-1]["content"] if "messages" in body else body.get("input"))


def shout(_path: str, body: dict[str, Any], _times: int) -> tuple[int, dict[str, str], bytes]:
    """Answer as OpenAI's servers do."""
    message = {"role": "assistant", "content": text_of(body).upper()}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    document = {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
    return 200, {"Content-Type": "application/json"}, json.dumps(document | {"usage": usage}).encode()


@contextmanager
def listening() -> Iterator[Models]:
    """Run a server of models."""
    with Models() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def models() -> Iterator[Models]:
    """Yield a server of models."""
    with listening() as server:
        yield server


@pytest.fixture
def second() -> Iterator[Models]:
    """Yield another server of the same models."""
    with listening() as server:
        yield server


@contextmanager
def serving(models: Models, directory: Path, **options: Any) -> Iterator[Caller]:
    """Run a batch server whose answers come from `models`."""
    quick = {"first_wait_seconds": 0.01, "attempts": 3, "concurrency": 4}
    with Emulator(directory, upstream=Upstream(**({"urls": (models.url,)} | quick | options))) as emulator:
        yield Caller(emulator)


def contents_of(caller: Caller, job: dict[str, Any]) -> dict[str, str]:
    """Return the answers of a job by custom_id."""
    lines = caller.lines(job["output_file"])
    return {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in lines}


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is bound to happen."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_whole_job(models: Models, tmp_path: Path) -> None:
    """Every request is asked once at the endpoint's address, and its answer comes back by custom_id."""
    with serving(models, tmp_path, key=SECRET) as caller:
        job = caller.ended(caller.create(chats(*(f"text {number}" for number in range(50)))))
        assert (job["status"], job["succeeded_requests"], job["failed_requests"]) == ("SUCCESS", 50, 0)
        assert contents_of(caller, job) == {f"{number:03}": f"TEXT {number}" for number in range(50)}
        lines = caller.lines(job["output_file"])
    assert set(models.asked.values()) == {1}
    assert {(path, key) for path, _, key in models.seen} == {("/v1/chat/completions", f"Bearer {SECRET}")}
    assert [set(line) for line in lines] == [{"id", "custom_id", "response", "error"}] * 50
    assert len({line["id"] for line in lines}) == 50
    assert {(line["response"]["status_code"], line["error"]) for line in lines} == {(200, None)}
    assert not list(tmp_path.glob("jobs/*.output"))


def test_models_and_addresses(models: Models, tmp_path: Path) -> None:
    """A body without a model gets the job's, a stream is not asked for, and the address may end in /v1."""
    bodies: list[dict[str, Any]] = [
        {"input": "a", "stream": True},
        {"input": "b", "model": "own"},
        {"input": "c", "model": None},
    ]
    with serving(models, tmp_path, urls=(f"{models.url}/prefix/v1/",)) as caller:
        caller.ended(caller.create(requests_of(*bodies), endpoint="/v1/embeddings", model="the-job's"))
    assert {path for path, *_ in models.seen} == {"/prefix/v1/embeddings"}
    assert {text_of(body): body["model"] for _, body, _ in models.seen} == {
        "a": "the-job's",
        "b": "own",
        "c": "the-job's",
    }
    assert all("stream" not in body for _, body, _ in models.seen)
    assert {key for *_, key in models.seen} == {None}


def test_concurrency(models: Models, tmp_path: Path) -> None:
    """As many requests as allowed are under way at once, and never more."""
    models.seconds = 0.05
    with serving(models, tmp_path, concurrency=3) as caller:
        caller.ended(caller.create(chats(*map(str, range(20)))))
    assert models.most == 3


def test_refused_requests(models: Models, tmp_path: Path) -> None:
    """A request that the upstream refuses is asked once and stands in the error file with what was said."""

    def answer(path: str, body: dict[str, Any], times: int) -> tuple[int, dict[str, str], bytes]:
        if text_of(body) == "bad":
            return 400, {}, b'{"error": {"message": "too long"}}'
        return (404, {}, b"<h1>nothing here</h1>") if text_of(body) == "html" else shout(path, body, times)

    models.answer = answer
    with serving(models, tmp_path) as caller:
        job = caller.ended(caller.create(chats("good", "bad", "html")))
        assert (job["status"], job["succeeded_requests"], job["failed_requests"]) == ("SUCCESS", 1, 2)
        bad, html = (line["response"] for line in caller.lines(job["error_file"]))
    assert bad == {"status_code": 400, "body": {"error": {"message": "too long"}}}
    assert (html["status_code"], "nothing here" in html["body"]["message"]) == (404, True)
    assert models.asked == {"good": 1, "bad": 1, "html": 1}


@pytest.mark.parametrize("trouble", [429, 500, 503, "closed", "no json"])
def test_retries(models: Models, tmp_path: Path, trouble: int | str) -> None:
    """A request that fails for a passing reason is asked again, and its answer counts once."""

    def answer(path: str, body: dict[str, Any], times: int) -> tuple[int, dict[str, str], bytes] | None:
        if times > 2:
            return shout(path, body, times)
        if isinstance(trouble, int):
            return trouble, {"Retry-After": "0"}, b"{}"
        return None if trouble == "closed" else (200, {}, b"<h1>gateway</h1>")

    models.answer = answer
    with serving(models, tmp_path) as caller:
        job = caller.ended(caller.create(chats("a", "b")))
        assert contents_of(caller, job) == {"000": "A", "001": "B"}
    assert models.asked == {"a": 3, "b": 3}


def test_retry_after(models: Models, tmp_path: Path) -> None:
    """The wait that the upstream asks for is kept, up to the longest."""

    def answer(path: str, body: dict[str, Any], times: int) -> tuple[int, dict[str, str], bytes]:
        return shout(path, body, times) if times > 1 else (429, {"Retry-After": "3600"}, b"{}")

    models.answer = answer
    started = time.monotonic()
    with serving(models, tmp_path, longest_wait_seconds=0.4) as caller:
        assert caller.ended(caller.create(chats("a")))["succeeded_requests"] == 1
    assert time.monotonic() - started >= 0.4


def test_trouble_without_end(models: Models, tmp_path: Path) -> None:
    """A request that fails at every attempt is an error line, and the job still ends."""
    models.answer = lambda *_: (503, {}, b'{"detail": "loading"}')
    with serving(models, tmp_path) as caller:
        job = caller.ended(caller.create(chats("a")))
        (line,) = caller.lines(job["error_file"])
    assert line["response"] == {"status_code": 503, "body": {"detail": "loading"}}
    assert models.asked == {"a": 3}


def test_nobody_there(models: Models, tmp_path: Path) -> None:
    """Where no server listens, every request is an error line that says so."""
    with serving(models, tmp_path, urls=("http://127.0.0.1:9",)) as caller:
        job = caller.ended(caller.create(chats("a")))
        (line,) = caller.lines(job["error_file"])
    assert line["response"]["status_code"] == 502
    assert "did not answer" in line["response"]["body"]["message"]


def test_progress_and_cancel(models: Models, tmp_path: Path) -> None:
    """Completed requests are counted while the job runs; a cancel stops it soon and keeps what is answered."""
    open_from_now = threading.Event()

    def answer(path: str, body: dict[str, Any], times: int) -> tuple[int, dict[str, str], bytes]:
        if int(text_of(body)) >= 10:
            open_from_now.wait(60)
        return shout(path, body, times)

    models.answer = answer
    with serving(models, tmp_path) as caller:
        job = caller.create(chats(*map(str, range(100))))
        waiting = caller.create(chats("999"))
        until(lambda: caller.get(f"{JOBS}/{job['id']}").json()["completed_requests"] == 10)
        told = caller.get(f"{JOBS}/{job['id']}").json()
        assert (told["status"], told["total_requests"], told["output_file"]) == ("RUNNING", 100, None)
        assert caller.get(f"{JOBS}/{waiting['id']}").json()["status"] == "QUEUED"
        assert caller.post(f"{JOBS}/{waiting['id']}/cancel", None).json()["status"] == "CANCELLED"
        caller.post(f"{JOBS}/{job['id']}/cancel", None)
        ended = caller.ended(job)
        assert (ended["status"], ended["completed_requests"], ended["total_requests"]) == ("CANCELLED", 10, 100)
        assert len(contents_of(caller, ended)) == 10
        assert sum(models.asked.values()) <= 10 + 4
        open_from_now.set()
        assert caller.ended(caller.create(chats("1")))["status"] == "SUCCESS"


def test_timeout(models: Models, tmp_path: Path) -> None:
    """A job whose hours are over ends TIMEOUT_EXCEEDED with what is answered by then."""
    never = threading.Event()

    def answer(path: str, body: dict[str, Any], times: int) -> tuple[int, dict[str, str], bytes]:
        if text_of(body) == "slow":
            never.wait(60)
        return shout(path, body, times)

    models.answer = answer
    with serving(models, tmp_path) as caller:
        job = caller.ended(caller.create(chats("slow", "slow"), timeout_hours=0))
        assert (job["status"], job["total_requests"], job["completed_requests"]) == ("TIMEOUT_EXCEEDED", 2, 0)
    never.set()


def test_line_that_is_no_request(models: Models, tmp_path: Path) -> None:
    """A job whose file has a line that is no request fails before anything is asked."""
    with serving(models, tmp_path) as caller:
        job = caller.ended(caller.create(chats("a") + b"no json\n"))
    assert (job["status"], bool(job["errors"][0]["message"])) == ("FAILED", True)
    assert models.asked == {}


def test_closed_and_opened_again(models: Models, tmp_path: Path) -> None:
    """A server that is stopped in the middle of a job goes on when it is opened again, and asks nothing twice."""
    models.seconds = 0.02
    with serving(models, tmp_path, concurrency=2) as caller:
        job = caller.create(chats(*map(str, range(60))))
        until(lambda: len(models.seen) > 20)
    first = sum(models.asked.values())
    assert first < 60
    models.seconds = 0.0
    with serving(models, tmp_path) as caller:
        ended = caller.ended(job)
        assert contents_of(caller, ended) == {f"{number:03}": str(number) for number in range(60)}
    assert sum(models.asked.values()) <= 60 + 2, "only what was under way is asked again"


def test_killed(models: Models, tmp_path: Path) -> None:
    """A killed server asks only for what has no whole line yet when it is started again."""
    models.seconds = 0.02
    child = Child("--dir", str(tmp_path), "--upstream", models.url, "--concurrency", "2")
    job = caller_of(child).create(chats(*map(str, range(60))))
    until(lambda: len(models.seen) > 20)
    assert child.end(signal.SIGKILL)[0] == -signal.SIGKILL
    (partial,) = tmp_path.glob("jobs/*.output")
    with partial.open("ab") as file:
        file.write(b'{"id": "batch-00000000-59-half a li')
    models.seconds = 0.0
    with serving(models, tmp_path) as caller:
        ended = caller.ended(job)
        assert contents_of(caller, ended) == {f"{number:03}": str(number) for number in range(60)}
        assert (ended["succeeded_requests"], ended["failed_requests"]) == (60, 0)
    assert sum(models.asked.values()) <= 60 + 2


def test_several_servers(models: Models, second: Models, tmp_path: Path) -> None:
    """Several servers share the requests, each with as many at once as allowed, and each request is asked once."""
    models.seconds = second.seconds = 0.01
    with serving(models, tmp_path, urls=(models.url, second.url), concurrency=3) as caller:
        job = caller.ended(caller.create(chats(*(f"text {number}" for number in range(60)))))
        assert contents_of(caller, job) == {f"{number:03}": f"TEXT {number}" for number in range(60)}
    assert (models.most, second.most) == (3, 3)
    assert set((models.asked + second.asked).values()) == {1}
    assert min(models.asked.total(), second.asked.total()) > 10


def test_slow_server_gets_less(models: Models, second: Models, tmp_path: Path) -> None:
    """A server that takes longer gets fewer of the requests."""
    models.seconds, second.seconds = 0.2, 0.01
    with serving(models, tmp_path, urls=(models.url, second.url), concurrency=2) as caller:
        assert caller.ended(caller.create(chats(*map(str, range(60)))))["succeeded_requests"] == 60
    assert models.asked.total() < second.asked.total()


@pytest.mark.parametrize("trouble", ["closed", 502, 503, 504])
def test_server_that_dies(models: Models, second: Models, tmp_path: Path, trouble: int | str) -> None:
    """What a server does not answer from the middle on, another answers, each row once and no more at once."""

    def answer(path: str, body: dict[str, Any], times: int) -> tuple[int, dict[str, str], bytes] | None:
        if len(models.seen) <= 10:
            return shout(path, body, times)
        return (trouble, {}, b"{}") if isinstance(trouble, int) else None

    models.answer = answer
    models.seconds = second.seconds = 0.01
    quick = {"concurrency": 4, "attempts": 2, "first_wait_seconds": 60.0, "longest_wait_seconds": 60.0}
    with serving(models, tmp_path, **quick | {"urls": (models.url, second.url)}) as caller:
        job = caller.create(chats(*map(str, range(200))))
        until(lambda: second.asked.total() >= 150)
        dead = models.asked.total()
        assert dead <= 10 + 4, "once it is known to be away, nothing is sent to it"
        caller.post(f"{JOBS}/{job['id']}/cancel", None)
        ended = caller.ended(job)
        contents = contents_of(caller, ended)
    assert len(contents) >= 150
    assert all(contents[f"{int(text):03}"] == text for text in contents.values())
    assert (second.most, set(second.asked.values())) == (4, {1})


def test_whole_job_with_a_dead_server(models: Models, second: Models, tmp_path: Path) -> None:
    """Where one server hangs up in the middle of its answers, every row is still answered, and answered once."""

    def answer(path: str, body: dict[str, Any], times: int) -> tuple[int, dict[str, str], bytes] | None:
        return shout(path, body, times) if len(models.seen) <= 10 else None

    models.answer = answer
    nowhere = "http://127.0.0.1:9"
    with serving(models, tmp_path, urls=(nowhere, models.url, second.url), attempts=3) as caller:
        job = caller.ended(caller.create(chats(*map(str, range(200)))))
        assert (job["succeeded_requests"], job["failed_requests"]) == (200, 0)
        assert len(caller.lines(job["output_file"])) == 200
        assert contents_of(caller, job) == {f"{number:03}": str(number) for number in range(200)}
    assert set(second.asked.values()) == {1}


def test_server_that_comes_back(models: Models, second: Models, tmp_path: Path) -> None:
    """A server that was away is tried with one request at a time, and shares the work again once it answers."""
    is_loading = threading.Event()
    is_loading.set()

    def answer(path: str, body: dict[str, Any], times: int) -> tuple[int, dict[str, str], bytes]:
        return (503, {}, b"{}") if is_loading.is_set() else shout(path, body, times)

    models.answer = answer
    second.seconds = 0.01
    options = {"concurrency": 2, "longest_wait_seconds": 0.02, "attempts": 20}
    with serving(models, tmp_path, **options | {"urls": (models.url, second.url)}) as caller:
        job = caller.create(chats(*map(str, range(300))))
        until(lambda: second.asked.total() >= 50)
        with models.lock:
            models.most = 0
        until(lambda: second.asked.total() >= 100)
        assert models.most <= 1
        is_loading.clear()
        before = models.asked.total()
        assert caller.ended(job)["succeeded_requests"] == 300
    assert models.asked.total() > before + 20
    assert models.most == 2


def test_failed_request_goes_to_another(models: Models, second: Models, tmp_path: Path) -> None:
    """A request that one server fails to answer is tried at another next, even if the first is idle."""
    models.answer = lambda *_: (500, {}, b"{}")
    with serving(models, tmp_path, urls=(models.url, second.url), attempts=2) as caller:
        assert caller.ended(caller.create(chats(*map(str, range(50)))))["succeeded_requests"] == 50
    assert set(second.asked.values()) == {1}


def test_server_that_takes_no_connection(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does not even refuse a connection is waited for as long as connecting may take, no longer."""
    monkeypatch.setattr("duckdb_mistral.emulator.upstream.CONNECT_SECONDS", 0.2)
    with socket.socket() as deaf, ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):  # the system accepts some by itself
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        with serving(models, tmp_path, urls=(f"http://127.0.0.1:{deaf.getsockname()[1]}", models.url)) as caller:
            assert caller.ended(caller.create(chats(*map(str, range(20)))))["succeeded_requests"] == 20
    assert set(models.asked.values()) == {1}


def test_all_servers_away(models: Models, second: Models, tmp_path: Path) -> None:
    """Where no server answers, requests are tried as often as with one, and then are error lines."""
    models.answer = second.answer = lambda *_: (503, {}, b'{"detail": "loading"}')
    with serving(models, tmp_path, urls=(models.url, second.url)) as caller:
        job = caller.ended(caller.create(chats("a", "b")))
        assert (job["status"], job["failed_requests"]) == ("SUCCESS", 2)
    assert models.asked + second.asked == {"a": 3, "b": 3}


def test_key_is_nowhere(models: Models, tmp_path: Path) -> None:
    """The key of the upstream reaches the upstream and nothing else."""
    models.answer = lambda *_: (401, {}, b'{"detail": "wrong key"}')
    environment = {"EMULATOR_UPSTREAM_KEY": SECRET}
    child = Child("--dir", str(tmp_path), "--upstream", models.url, environment=environment)
    caller = caller_of(child)
    caller.ended(caller.create(chats("a")))
    assert SECRET not in child.end(signal.SIGTERM)[1]
    assert {key for *_, key in models.seen} == {f"Bearer {SECRET}"}
    assert all(SECRET.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET not in repr(Upstream(urls=(models.url,), key=SECRET))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"urls": ("127.0.0.1:8000",)}, "not an address"),
        ({"urls": ("ftp://host",)}, "not an address"),
        ({"urls": ("http://",)}, "not an address"),
        ({"urls": ("http://host", "host")}, "'host' is not an address"),
        ({"urls": ()}, "at least one address"),
        ({"urls": ("http://host",), "concurrency": 0}, "must be at least 1"),
        ({"urls": ("http://host",), "key": f"{SECRET}\n"}, "newline"),
    ],
)
def test_options_that_cannot_be_right(options: dict[str, Any], message: str) -> None:
    """A wrong address, number or key is refused with a sentence that does not tell the key."""
    with pytest.raises(ValueError, match=message) as caught:
        Upstream(**options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("command", ["duckdb_mistral.emulator", "duckdb_mistral emulator"])
def test_wrong_usage(command: str) -> None:
    """Both commands refuse an upstream that is not an address, as wrong usage."""
    child = Child("--upstream", "nonsense", command=command)
    assert child.process.wait(60) == 2
    assert "is not an address" in child.process.communicate()[1]


def test_command_line(models: Models, second: Models, tmp_path: Path) -> None:
    """`duckdb-mistral emulator --upstream` serves the upstreams' answers, so many at once of each, with their key."""
    upstreams = ("--upstream", models.url, "--upstream", second.url)
    arguments = ("--port", "0", "--dir", str(tmp_path), *upstreams, "--concurrency", "2")
    child = Child(*arguments, command="duckdb_mistral emulator", environment={"EMULATOR_UPSTREAM_KEY": SECRET})
    models.seconds = second.seconds = 0.02
    caller = caller_of(child)
    job = caller.ended(caller.create(chats(*"abcdefghijkl")))
    assert contents_of(caller, job)["000"] == "A"
    assert child.end(signal.SIGTERM)[0] == 0
    assert (models.most, second.most) == (2, 2)
    assert {key for *_, key in models.seen + second.seen} == {f"Bearer {SECRET}"}


def test_from_sql(models: Models, tmp_path: Path) -> None:
    """A table of prompts gets the upstream's answers through SQL and the SDK."""
    with (
        Emulator(tmp_path / "server", upstream=Upstream(urls=(models.url,))) as emulator,
        connect(emulator, tmp_path / "home") as con,
    ):
        make_staging(con, 3)
        found = answered(con, submitted(con))
    assert [(row["outcome"], row["content"]) for row in found] == [("ok", f"PROMPT {number}") for number in range(3)]
