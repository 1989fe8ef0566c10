"""A pilot: a few requests through the ordinary endpoint, and what their usage makes of the whole job."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import KEY, make_staging, rows

import duckdb_mistral

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Live(ThreadingHTTPServer):
    """A server of ordinary endpoints that answers with the usage of a fixed size, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.refused = 0

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Live

    def do_POST(self) -> None:
        """Answer a request with its usage, or refuse the key, or refuse what asks for it."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, body))
        status = 200
        answer: dict[str, Any] = {"usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}}
        if self.headers["authorization"] != f"Bearer {KEY}":
            status, answer = 401, {"message": "no such key"}
        elif "silent" in json.dumps(body):
            answer = {"usage": None}
        elif "another" in json.dumps(body):
            answer["model"] = "b-model"
        elif "refuse" in json.dumps(body):
            status, answer = 422, {"message": "refused as asked"}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def live() -> Iterator[Live]:
    """Yield a server of ordinary endpoints."""
    with Live() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def con(live: Live, home: Path, tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection that talks to that server, at round prices."""
    prices = tmp_path / "prices.json"
    models = {"a-model": {"input": 1.0, "output": 10.0}, "b-model": {"input": 2.0, "output": 0.0}}
    prices.write_text(json.dumps({"date": "2026-01-02", "models": models}), encoding="utf-8")
    settings = {"api_key": KEY, "server_url": live.url, "home": home, "model": "a-model", "prices": prices}
    with duckdb_mistral.connect(settings=settings) as connection:
        yield connection


def test_pilot(con: duckdb.DuckDBPyConnection, live: Live) -> None:
    """A pilot asks that many different rows as they are, and prices the whole job in a batch by what they used."""
    make_staging(con, 1000)
    (row,) = rows(con, "FROM mistral_batch_estimate('staging', pilot := 20, params := {max_tokens: 50})")
    assert (row["requests"], row["pilot_requests"]) == (1000, 20)
    assert row["expected_cost"] == pytest.approx(1000 * (100 * 1.0 + 10 * 10.0) / 1e6 / 2)
    assert len(live.asked) == 20
    assert {path for path, _ in live.asked} == {"/v1/chat/completions"}
    assert len({body["messages"][0]["content"] for _, body in live.asked}) == 20
    assert all(set(body) == {"model", "messages", "max_tokens"} for _, body in live.asked)
    assert {body["model"] for _, body in live.asked} == {"a-model"}


def test_the_same_pilot_is_asked_once(con: duckdb.DuckDBPyConnection, live: Live) -> None:
    """A relation that is printed twice, EXPLAIN and DESCRIBE do not ask again; without a pilot nothing is asked."""
    make_staging(con, 10)
    call = "FROM mistral_batch_estimate('staging', pilot := 3)"
    con.execute(f"EXPLAIN {call}").fetchall()
    con.execute(f"DESCRIBE {call}").fetchall()
    assert live.asked == []
    relation = con.sql(call)
    assert "expected_cost" in str(relation)
    assert len(relation.fetchall()) == 1
    assert len(live.asked) == 3
    (row,) = rows(con, "FROM mistral_batch_estimate('staging')")
    assert (row["pilot_requests"], row["expected_cost"]) == (None, None)
    assert len(live.asked) == 3


def test_several_models(con: duckdb.DuckDBPyConnection, live: Live) -> None:
    """Each model has its own pilot, and their costs add up; an unknown price leaves the sum unknown."""
    make_staging(con, 10)
    (row,) = rows(con, "FROM mistral_batch_estimate('staging', pilot := 2, model := ['a-model', 'b-model'])")
    assert row["pilot_requests"] == 4
    assert row["expected_cost"] == pytest.approx(10 * (200 + 200) / 1e6 / 2)
    assert sorted(body["model"] for _, body in live.asked) == ["a-model", "a-model", "b-model", "b-model"]
    (row,) = rows(con, "FROM mistral_batch_estimate('staging', pilot := 1, model := 'c-model')")
    assert row["expected_cost"] is None
    assert "does not know c-model" in row["note"]


def test_what_answers_a_pilot(con: duckdb.DuckDBPyConnection) -> None:
    """A pilot's answer costs what the model that gave it costs, and one that does not say its usage has no cost."""
    (row,) = rows(con, "FROM mistral_batch_estimate($$SELECT 1 AS custom_id, 'another' AS prompt$$, pilot := 1)")
    assert row["expected_cost"] == pytest.approx(100 * 2.0 / 1e6 / 2)
    (row,) = rows(con, "FROM mistral_batch_estimate($$SELECT 1 AS custom_id, 'silent' AS prompt$$, pilot := 1)")
    assert row["expected_cost"] is None
    assert "1 answer does not report usage" in row["note"]


def test_failures_are_told(con: duckdb.DuckDBPyConnection) -> None:
    """A request that the API refuses is counted and told; a refused key and other refusals are errors."""
    con.execute("CREATE TABLE staging AS FROM (VALUES (1, 'fine'), (2, 'refuse me')) t(custom_id, prompt)")
    (row,) = rows(con, "FROM mistral_batch_estimate('staging', pilot := 2)")
    assert "1 of 2 pilot requests failed on a-model" in row["note"]
    assert "refused as asked" in row["note"]
    assert row["expected_cost"] == pytest.approx(2 * 200 / 1e6 / 2)
    for pilot in ("0", "-1", "1001", "'some'", "true"):
        with pytest.raises(duckdb.Error, match="pilot must be a number of requests"):
            con.execute(f"FROM mistral_batch_estimate('staging', pilot := {pilot})").fetchall()
    with pytest.raises(duckdb.Error, match="There is no pilot for /v1/audio/transcriptions"):
        con.execute(
            "FROM mistral_batch_estimate($$SELECT 1 AS custom_id, 'https://x' AS file_url$$, "
            "endpoint := 'audio/transcriptions', pilot := 1)"
        ).fetchall()
    duckdb_mistral.register(con, api_key="another-key")
    with pytest.raises(duckdb.Error, match="refused the API key"):
        con.execute("FROM mistral_batch_estimate('staging', pilot := 1)").fetchall()
