"""Batches on llama.cpp's own server: a real tokenizer, real counts of tokens and real grammars, with random weights."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from emulator.tiny_model import write_model
from object_server import free_port
from support import answered, connect, rows, submitted

from duckdb_mistral.emulator import Emulator, Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("xllamacpp", "gguf")),
    reason="xllamacpp is not in this environment: make test-upstream",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model with random weights."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_model(path)
    return path


@contextmanager
def llama_server(model: Path, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a server of llama.cpp; yield its address and its process, once it serves."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("llama_server.py")), str(model), str(port), *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(1200):
                assert process.poll() is None, "the server did not start"
                try:
                    with urllib.request.urlopen(f"{url}/health"):  # noqa: S310  our own child
                        break
                except OSError:
                    time.sleep(0.05)
            yield url, process
        finally:
            process.kill()  # some versions do not hear a polite end


@contextmanager
def batches_on(tmp_path: Path, *urls: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect to a batch server with these upstreams."""
    upstream = Upstream(urls=urls, concurrency=2, first_wait_seconds=0.05)
    with Emulator(tmp_path / "server", upstream=upstream) as emulator, connect(emulator, tmp_path / "home") as con:
        yield con


def test_answers_and_tokens(model: Path, tmp_path: Path) -> None:
    """Answers end by themselves or at their max_tokens, and the tokens are those that the model took and gave."""
    with llama_server(model) as (url, _), batches_on(tmp_path, url) as con:
        con.execute(
            "CREATE TABLE asked AS SELECT range AS custom_id, 'café ' || range AS prompt, 1 + range AS max_tokens "
            "FROM range(60)"
        )
        found = answered(con, submitted(con, "asked", "model := 'any name'"))
    assert {(row["outcome"], row["finish_reason"]) for row in found} == {("ok", "stop"), ("truncated", "length")}
    for row in found:
        number = int(row["custom_id"])
        template = f"[user] café {number}\n[assistant]"
        assert row["prompt_tokens"] in (len(template.encode()), len(template.encode()) + 1), "a token for each byte"
        assert row["completion_tokens"] <= number + 1
        assert row["completion_tokens"] == number + 1 or row["finish_reason"] == "stop"
        assert row["content"].isascii()


def test_declared_output(model: Path, tmp_path: Path) -> None:
    """A declared output becomes a grammar, to which even a model with random weights keeps."""
    with llama_server(model) as (url, _), batches_on(tmp_path, url) as con:
        con.execute("CREATE TABLE asked AS SELECT range AS custom_id, 'anything' AS prompt FROM range(10)")
        submission = submitted(con, "asked", "model := 'tiny', output := 'STRUCT(is_good BOOLEAN, is_new BOOLEAN)'")
        found = answered(con, submission)
    assert [row["outcome"] for row in found] == ["ok"] * 10
    assert all(set(row["output"]) == {"is_good", "is_new"} for row in found)
    assert {value for row in found for value in row["output"].values()} <= {True, False, None}


def test_embeddings(model: Path, tmp_path: Path) -> None:
    """A server for embeddings gives vectors of the model's width; one without gives errors of the rows."""
    with llama_server(model, "embeddings") as (url, _), batches_on(tmp_path / "with", url) as con:
        con.execute("CREATE TABLE asked AS SELECT range AS custom_id, 'text ' || range AS input FROM range(5)")
        found = answered(con, submitted(con, "asked", "model := 'tiny', endpoint := '/v1/embeddings'"))
        assert [(row["outcome"], len(row["embedding"])) for row in found] == [("ok", 32)] * 5
    with llama_server(model) as (url, _), batches_on(tmp_path / "without", url) as con:
        con.execute("CREATE TABLE asked AS SELECT 'a' AS custom_id, 'text' AS input")
        (row,) = answered(con, submitted(con, "asked", "model := 'tiny', endpoint := '/v1/embeddings'"))
        assert (row["outcome"], row["status_code"], "embeddings" in row["error"]) == ("error", 501, True)


def test_server_killed_in_the_middle(model: Path, tmp_path: Path) -> None:
    """When one of two servers is killed in the middle of a job, the other answers what is left, each row once."""
    with (
        llama_server(model) as (first, process),
        llama_server(model) as (second, _),
        batches_on(tmp_path, first, second) as con,
    ):
        con.execute(
            "CREATE TABLE asked AS SELECT range AS custom_id, 'prompt' AS prompt, 50 AS max_tokens FROM range(300)"
        )
        submission = submitted(con, "asked", "model := 'tiny'")
        while not any(path.stat().st_size for path in tmp_path.glob("server/jobs/*.output")):
            time.sleep(0.01)
        process.kill()
        found = answered(con, submission)
        counted = rows(con, "SELECT sum(succeeded_requests) AS n FROM mistral_batch_jobs()")
    assert sorted(int(row["custom_id"]) for row in found) == list(range(300))
    assert {row["outcome"] for row in found} <= {"ok", "truncated"}
    assert counted == [{"n": 300}]
