"""What the answers of each endpoint become: the columns of the results, from real lines and from the API's examples."""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from openapi import SAMPLES, response_example, response_problems
from support import answered, ended_job, submitted, write_results

from duckdb_mistral.api.endpoints import all_endpoints
from duckdb_mistral.results.columns import COLUMNS
from duckdb_mistral.results.convert import ResultFiles

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
CONVERSATION = {
    "object": "conversation.response",
    "conversation_id": "conv-1",
    "outputs": [
        {"type": "tool.execution", "name": "web_search", "arguments": "{}"},
        {"type": "message.output", "content": "first", "role": "assistant", "model": "a-model-2512"},
        {
            "type": "message.output",
            "content": [
                {"type": "text", "text": "sec"},
                {"type": "tool_reference", "tool": "web_search", "title": "t"},
                {"type": "text", "text": "ond"},
            ],
            "role": "assistant",
            "model": "a-model-2512",
        },
    ],
    "usage": USAGE | {"connector_tokens": 0},
}


def read(job: Job, answers: Path, submitted: Path) -> list[dict[str, Any]]:
    """Return what the results of a job say, ordered by custom_id."""
    target = answers.with_suffix(".parquet")
    write_results(job, ResultFiles(answers=(answers,), submitted=submitted), target, partial=False)
    with duckdb.connect() as con:
        result = con.execute(f"FROM read_parquet('{target}') ORDER BY custom_id")
        names = [column[0] for column in result.description or ()]
        types = [str(column[1]) for column in result.description or ()]
        assert dict(zip(names, types, strict=True)) == COLUMNS
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def replay(endpoint: str, bodies: list[dict[str, Any]], directory: Path) -> list[dict[str, Any]]:
    """Return the results of a job that answered with `bodies`, numbered from '0' on."""
    answers, submitted = directory / "answers.jsonl", directory / "submitted.jsonl"
    lines = [
        {
            "id": f"batch-{number}",
            "custom_id": str(number),
            "response": {"status_code": 200, "body": body},
            "error": None,
        }
        for number, body in enumerate(bodies)
    ]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    submitted.write_text("".join(f'{{"custom_id": "{number}"}}\n' for number in range(len(bodies))), encoding="utf-8")
    return read(ended_job(len(bodies), endpoint=endpoint), answers, submitted)


def one(endpoint: str, body: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Return the one result of a job that answered with `body`, and check that the response is kept whole."""
    (row,) = replay(endpoint, [body], directory)
    assert json.loads(row["response"]) == body
    return row


@pytest.mark.parametrize("name", ["chat", "structured"])
def test_real_result_lines(name: str, tmp_path: Path) -> None:
    """The result lines of Mistral's own pages come back whole, each by the custom_id of its request."""
    real = SAMPLES / f"{name}.result.jsonl"
    answers = tmp_path / "answers.jsonl"
    answers.write_bytes(real.read_bytes())
    expected = {
        (line := json.loads(text))["custom_id"]: line["response"]["body"]
        for text in real.read_text(encoding="utf-8").split("\n")
        if text
    }
    found = read(ended_job(len(expected)), answers, SAMPLES / f"{name}.input.jsonl")
    assert [row["custom_id"] for row in found] == sorted(expected)
    for row in found:
        body = expected[row["custom_id"]]
        choice = body["choices"][0]
        assert row["content"] == choice["message"]["content"]
        assert row["finish_reason"] == choice["finish_reason"]
        assert row["outcome"] == ("truncated" if choice["finish_reason"] == "length" else "ok")
        assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == tuple(
            body["usage"][f"{kind}_tokens"] for kind in ("prompt", "completion", "total")
        )
        assert row["model"] == body["model"]
        assert json.loads(row["response"]) == body
        assert (json.loads(row["output"]) if row["output"] else None) == (
            json.loads(row["content"]) if name == "structured" else None
        )


def test_completion_in_the_middle(tmp_path: Path) -> None:
    """The code that a fim completion wrote is the content."""
    body = response_example("/v1/fim/completions")
    row = one("/v1/fim/completions", body, tmp_path)
    assert row["outcome"] == "ok"
    assert row["content"] == body["choices"][0]["message"]["content"]
    assert row["total_tokens"] == body["usage"]["total_tokens"]


CALLS = [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]
THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
ALONE = "the response holds only thinking, and no answer"
MESSAGES: dict[str, tuple[dict[str, Any], str, tuple[str, str | None, str | None]]] = {
    "a call and an empty text": ({"content": "", "tool_calls": CALLS}, "tool_calls", ("ok", None, None)),
    "a call and blanks": ({"content": " \n", "tool_calls": CALLS}, "tool_calls", ("ok", None, None)),
    "a call and null": ({"content": None, "tool_calls": CALLS}, "tool_calls", ("ok", None, None)),
    "a call and no chunks": ({"content": [], "tool_calls": CALLS}, "tool_calls", ("ok", None, None)),
    "a call and thinking": ({"content": [THINKING], "tool_calls": CALLS}, "tool_calls", ("ok", None, None)),
    "a call and words": ({"content": "so", "tool_calls": CALLS}, "tool_calls", ("ok", "so", None)),
    "an empty text": ({"content": "", "tool_calls": []}, "stop", ("ok", "", None)),
    "thinking alone": ({"content": [THINKING]}, "stop", ("error", None, ALONE)),
    "thinking and an empty text": ({"content": [THINKING, {"type": "text", "text": ""}]}, "stop", ("ok", "", None)),
    "thinking cut": (
        {"content": [THINKING]},
        "length",
        ("truncated", None, "the model ran out of tokens after 4 of them (finish_reason length)"),
    ),
    "no chunks": ({"content": []}, "stop", ("error", None, "the response holds no answer")),
    "other chunks": ({"content": [{"type": "reference"}]}, "stop", ("error", None, "the response holds no answer")),
    "chunks without a type": ({"content": [{"text": "a"}, {"type": "text", "text": "b"}]}, "stop", ("ok", "ab", None)),
}


@pytest.mark.fault("F31")
@pytest.mark.parametrize("large", [True, False], ids=["large", "small"])
@pytest.mark.parametrize(("message", "finish", "expected"), MESSAGES.values(), ids=MESSAGES)
def test_messages(
    message: dict[str, Any],
    finish: str,
    expected: tuple[str, str | None, str | None],
    large: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever a message is made of, it is read as text, as a call, or told as no answer, however large its file."""
    monkeypatch.setattr("duckdb_mistral.results.convert.LARGE_BYTES", 0 if large else 1 << 60)
    answers, submitted, target = (tmp_path / name for name in ("answers.jsonl", "submitted.jsonl", "results.parquet"))
    body = {"choices": [{"finish_reason": finish, "message": message}], "usage": USAGE}
    line = {"custom_id": "0", "response": {"status_code": 200, "body": body}}
    answers.write_text(json.dumps(line) + "\n", encoding="utf-8")
    submitted.write_text('{"custom_id": "0"}\n', encoding="utf-8")
    write_results(ended_job(1), ResultFiles(answers=(answers,), submitted=submitted), target, partial=False)
    with duckdb.connect() as con:
        found = con.execute(f"SELECT outcome, content, error FROM read_parquet('{target}')").fetchall()
    assert found == [expected]


def test_conversation_of_thinking_alone(tmp_path: Path) -> None:
    """A conversation that ended in thinking is no answer."""
    body = {"outputs": [{"type": "message.output", "content": [THINKING]}], "usage": USAGE}
    row = one("/v1/conversations", body, tmp_path)
    assert (row["outcome"], row["content"], row["error"]) == ("error", None, "the response holds no answer")


def test_chunks_and_tool_calls(tmp_path: Path) -> None:
    """Text chunks are joined, other chunks are not, and tool calls alone are an answer without content."""
    chunks = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    calls = [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]
    bodies: list[dict[str, Any]] = [
        {"choices": [{"finish_reason": "stop", "message": {"content": chunks}}], "usage": USAGE},
        {
            "choices": [{"finish_reason": "tool_calls", "message": {"tool_calls": calls}}],
            "usage": USAGE,
        },
        {"choices": [], "usage": USAGE},
    ]
    found = replay("/v1/chat/completions", bodies, tmp_path)
    assert [(row["outcome"], row["content"]) for row in found] == [("ok", "ab"), ("ok", None), ("error", None)]
    assert found[2]["error"] == "the response holds no answer"
    assert json.loads(found[1]["response"])["choices"][0]["message"]["tool_calls"] == calls


def test_embeddings(tmp_path: Path) -> None:
    """One input's embedding is a FLOAT[] that casts to an array for DuckDB's vector functions; several stay whole."""
    several = response_example("/v1/embeddings")
    single = several | {"data": several["data"][:1]}
    both = replay("/v1/embeddings", [single, several], tmp_path)
    assert [row["outcome"] for row in both] == ["ok", "ok"]
    assert both[0]["embedding"] == single["data"][0]["embedding"]
    assert both[1]["embedding"] is None
    assert len(json.loads(both[1]["response"])["data"]) == 2
    assert (both[0]["prompt_tokens"], both[0]["completion_tokens"]) == (15, 0)
    with duckdb.connect() as con:
        similar = con.execute(
            f"SELECT array_cosine_similarity(embedding::FLOAT[5], embedding::FLOAT[5]) "
            f"FROM read_parquet('{tmp_path}/answers.parquet') WHERE custom_id = '0'"
        ).fetchone()
    assert similar is not None
    assert similar[0] == pytest.approx(1)


def test_embeddings_of_another_kind(tmp_path: Path) -> None:
    """An embedding in base64 is read; bytes that are no embedding's stay in the response; none at all is an error."""
    numbers = [0.25, -0.5, 0.0, 1.0]
    packed = base64.b64encode(struct.pack("<4f", *numbers)).decode()
    eights = base64.b64encode(struct.pack("8b", *range(-4, 4))).decode()
    bodies: list[dict[str, Any]] = [
        {"data": [{"embedding": packed}]},
        {"data": [{"embedding": eights}]},
        {"data": [{"embedding": base64.b64encode(b"12345").decode()}]},
        {"data": [{"embedding": packed}, {"embedding": packed}]},
        {"data": [{"embedding": "no base64 at all"}]},
        {"data": [{"embedding": ""}]},
        {"data": [{"embedding": None}]},
        {"data": [{"index": 0}]},
        {"data": [{"embedding": numbers}]},
    ]
    found = replay("/v1/embeddings", bodies, tmp_path)
    assert [(row["outcome"], row["embedding"]) for row in found] == [
        ("ok", numbers),
        ("ok", None),
        ("ok", None),
        ("ok", None),
        ("error", None),
        ("error", None),
        ("error", None),
        ("error", None),
        ("ok", numbers),
    ]


def test_many_packed_embeddings(tmp_path: Path) -> None:
    """Each of many embeddings in base64, over several vectors of rows, comes with its own row."""
    vectors = [[float(number), number / 4, 1.0][: 1 + number % 3] for number in range(1, 1000)]
    bodies = [
        {"data": [{"embedding": base64.b64encode(struct.pack(f"<{len(each)}f", *each)).decode()}]} for each in vectors
    ]
    found = replay("/v1/embeddings", bodies * 3, tmp_path)
    assert {row["custom_id"]: row["embedding"] for row in found} == {
        str(number): vector for number, vector in enumerate(vectors * 3)
    }


def test_out_of_tokens_before_the_answer(tmp_path: Path) -> None:
    """A model that ran out of tokens before its first word was truncated: to ask again would cost the same again."""
    body = {"choices": [{"finish_reason": "length", "message": {"content": None}}], "usage": USAGE}
    row = one("/v1/chat/completions", body, tmp_path)
    assert (row["outcome"], row["content"]) == ("truncated", None)
    assert row["error"] == "the model ran out of tokens after 4 of them (finish_reason length)"


def test_errors_within_errors(tmp_path: Path) -> None:
    """The words of an error are told wherever they lie in it, and what says nothing is no error."""
    answers, submitted = tmp_path / "answers.jsonl", tmp_path / "submitted.jsonl"
    good = {"status_code": 200, "body": {"choices": [{"message": {"content": "hi"}}]}}
    lines = [
        {"custom_id": "0", "response": {"status_code": 400, "body": {"error": {"message": "nested"}}}},
        {"custom_id": "1", "error": {"error": {"message": "deeper"}}},
        *({"custom_id": str(number), "response": good, "error": error} for number, error in ((2, ""), (3, {}))),
    ]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    submitted.write_text("".join(f'{{"custom_id": "{number}"}}\n' for number in range(4)), encoding="utf-8")
    found = read(ended_job(4), answers, submitted)
    assert [(row["error"], row["content"]) for row in found] == [
        ("nested", None),
        ("deeper", None),
        (None, "hi"),
        (None, "hi"),
    ]


@pytest.mark.parametrize("endpoint", ["/v1/moderations", "/v1/chat/moderations"])
def test_moderations(endpoint: str, tmp_path: Path) -> None:
    """A moderation's categories are in the response; it has no content."""
    row = one(endpoint, response_example(endpoint), tmp_path)
    assert (row["outcome"], row["content"], row["model"]) == ("ok", None, "mistral-moderation-latest")
    assert json.loads(row["response"])["results"][0]["categories"]["law"] is False


@pytest.mark.parametrize("endpoint", ["/v1/classifications", "/v1/chat/classifications"])
def test_classifications(endpoint: str, tmp_path: Path) -> None:
    """A classification's scores are in the response; it counts no tokens."""
    body = {"id": "mod-1", "model": "ft:classifier", "results": [{"intent": {"scores": {"a": 0.25, "b": 0.75}}}]}
    row = one(endpoint, body, tmp_path)
    assert (row["outcome"], row["content"], row["model"], row["total_tokens"]) == ("ok", None, "ft:classifier", None)


def test_ocr(tmp_path: Path) -> None:
    """The pages' markdown, in the order of the pages, is joined by a blank line."""
    example = response_example("/v1/ocr")
    row = one("/v1/ocr", example | {"pages": example["pages"][::-1]}, tmp_path)
    in_order = sorted(example["pages"], key=lambda page: page["index"])
    assert len(in_order) > 1
    assert row["content"] == "\n\n".join(page["markdown"] for page in in_order)
    assert (row["outcome"], row["model"], row["total_tokens"]) == ("ok", example["model"], None)


def test_transcriptions(tmp_path: Path) -> None:
    """A transcription's text is the content."""
    body = response_example("/v1/audio/transcriptions")
    row = one("/v1/audio/transcriptions", body, tmp_path)
    assert (row["outcome"], row["content"], row["model"]) == ("ok", body["text"], body["model"])
    assert row["total_tokens"] == body["usage"]["total_tokens"]


def test_conversations(tmp_path: Path) -> None:
    """The messages of a conversation are joined by a blank line; tool runs and references are left to the response."""
    row = one("/v1/conversations", CONVERSATION, tmp_path)
    assert (row["outcome"], row["content"], row["model"]) == ("ok", "first\n\nsecond", "a-model-2512")
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (3, 4, 7)


@pytest.mark.parametrize("endpoint", [*all_endpoints(), "/v1/of/tomorrow"])
def test_refused_and_empty_answers(endpoint: str, tmp_path: Path) -> None:
    """On every endpoint a refused request and an answer without a body are errors in words."""
    answers, submitted = tmp_path / "answers.jsonl", tmp_path / "submitted.jsonl"
    answers.write_text(
        '{"custom_id": "0", "response": {"status_code": 422, "body": {"message": "no such thing"}}, "error": null}\n'
        '{"custom_id": "1", "response": {"status_code": 200, "body": null}, "error": null}\n'
        '{"custom_id": "2", "response": null, "error": {"message": "lost"}}\n',
        encoding="utf-8",
    )
    submitted.write_text("".join(f'{{"custom_id": "{number}"}}\n' for number in range(3)), encoding="utf-8")
    found = read(ended_job(3, endpoint=endpoint), answers, submitted)
    assert [row["outcome"] for row in found] == ["error"] * 3
    assert [row["error"] for row in found] == ["no such thing", "the result line holds no response", "lost"]
    assert [row["status_code"] for row in found] == [422, 200, None]
    assert [row["model"] for row in found] == ["the-jobs-model"] * 3


#: endpoint, the columns of a staging table, and what a result row has.
JOBS: list[tuple[str, str, set[str]]] = [
    ("chat/completions", "'say ' || range AS prompt, 40 AS max_tokens", {"content", "finish_reason", "total_tokens"}),
    ("fim/completions", "'def f' || range || '(' AS prompt, 'return' AS suffix", {"content", "total_tokens"}),
    ("embeddings", "'text ' || range AS input", {"embedding", "prompt_tokens"}),
    ("moderations", "'text ' || range AS input", set()),
    ("chat/moderations", "'say ' || range AS prompt", set()),
    ("classifications", "'text ' || range AS input", set()),
    ("chat/classifications", "'say ' || range AS prompt", set()),
    ("ocr", "'https://example.org/' || range || '.pdf' AS document", {"content"}),
    ("audio/transcriptions", "'https://example.org/' || range || '.mp3' AS file_url", {"content", "total_tokens"}),
    ("conversations", "'say ' || range AS prompt", {"content", "total_tokens"}),
]


@pytest.mark.parametrize(("endpoint", "columns", "filled"), JOBS, ids=[job[0] for job in JOBS])
def test_from_staging_table_to_results(
    con: duckdb.DuckDBPyConnection, endpoint: str, columns: str, filled: set[str]
) -> None:
    """On each endpoint a staging table goes out and typed answers come back, in the shape of the API's own text."""
    con.execute(f"CREATE TABLE staging AS SELECT range AS custom_id, {columns} FROM range(5)")
    submission_id = submitted(con, arguments=f"endpoint := '{endpoint}'")
    found = answered(con, submission_id)
    assert [row["custom_id"] for row in found] == [str(number) for number in range(5)]
    for row in found:
        assert (row["outcome"], row["error"], row["status_code"]) == ("ok", None, 200)
        for name in ("content", "embedding"):
            assert (row[name] is not None) == (name in filled)
        assert all(row[name] is not None for name in filled)
        assert row["model"]
        if endpoint != "conversations":
            assert response_problems(f"/v1/{endpoint}", json.loads(row["response"])) == []
    described = con.execute(f"DESCRIBE FROM mistral_batch_results('{submission_id}')").fetchall()
    assert {name: kind for name, kind, *_ in described} == COLUMNS
