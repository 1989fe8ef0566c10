"""The cost before it is paid: estimates, the price table, max_cost, and what a job has cost."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from bodies import BODIES
from support import answered, asked_for_money, connect, make_staging, rows, submitted

import duckdb_mistral
from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.errors import SettingError
from duckdb_mistral.pricing import tokens
from duckdb_mistral.pricing.estimate import cost
from duckdb_mistral.pricing.prices import load_prices

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

PRICES: dict[str, Any] = {
    "date": "2026-01-02",
    "batch_discount": 0.5,
    "models": {"a-model": {"input": 1.0, "output": 10.0}, "b-model": {"input": 2.0, "output": 0.0}},
}


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """Return a price table of round numbers."""
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(PRICES), encoding="utf-8")
    return path


@pytest.fixture
def priced(emulator: Emulator, home: Path, prices: Path) -> Any:
    """Yield a connection that uses those prices."""
    with connect(emulator, home, prices=prices, model="a-model") as con:
        yield con


def test_estimate_row(priced: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """An estimate tells requests, bytes, tokens and the most that they can cost at batch price, and sends nothing."""
    priced.execute(
        "CREATE TABLE staging AS SELECT range::VARCHAR AS custom_id, 'prompt ' || range AS prompt, 100 AS max_tokens "
        "FROM range(50)"
    )
    (row,) = rows(priced, "FROM mistral_batch_estimate('staging')")
    assert emulator.witness()["requests"] == {}
    assert (row["requests"], row["jobs"], row["max_output_tokens"]) == (50, 1, 5000)
    assert (row["tokens_from"], row["prices_date"], row["note"]) == ("mistral-common", date(2026, 1, 2), None)
    assert row["input_cost"] == pytest.approx(row["input_tokens"] * 1.0 / 1e6 / 2)
    assert row["max_output_cost"] == pytest.approx(5000 * 10.0 / 1e6 / 2)
    assert row["cost"] == pytest.approx(row["input_cost"] + row["max_output_cost"])
    (job,) = rows(priced, "FROM mistral_batch_submit('staging')")
    assert (job["total_requests"], job["input_bytes"]) == (row["requests"], row["input_bytes"])


@pytest.mark.parametrize(
    ("columns", "uncounted"),
    [
        ("[{'role': 'user', 'content': [{'type': 'text', 'text': 'hi'}]}] AS messages", False),
        ("""'[{"role": "user", "content": [{"type": "image_url", "image_url": "data:,"}]}]' AS messages""", True),
        ("""'the word "type"' AS prompt""", False),
    ],
    ids=["text", "an image", "the word"],
)
def test_parts_other_than_text(columns: str, uncounted: bool, priced: duckdb.DuckDBPyConnection) -> None:
    """What images cost is not known beforehand: the note says so, and max_cost lets them not pass."""
    source = f"SELECT range AS custom_id, {columns}, 5 AS max_tokens FROM range(2)"
    (row,) = rows(priced, "FROM mistral_batch_estimate($source)", {"source": source})
    assert (row["cost"] is None) == uncounted
    note = "2 requests hold parts other than text, such as images or documents, whose tokens are not known in advance"
    assert (row["note"] == note) == uncounted
    submit = "FROM mistral_batch_submit($source, max_cost := 1000)"
    if uncounted:
        with pytest.raises(duckdb.Error, match="is not known: 2 requests hold parts other than text"):
            priced.execute(submit, {"source": source})
    else:
        assert len(rows(priced, submit, {"source": source})) == 1


def tokens_of(con: duckdb.DuckDBPyConnection, body: dict[str, Any], endpoint: str = "chat/completions") -> int:
    """Return how many tokens an estimate counts in the request with this body."""
    source = f"SELECT 1 AS custom_id, {literal(json.dumps(body))}::JSON AS body"
    (row,) = rows(
        con, "FROM mistral_batch_estimate($source, endpoint := $endpoint)", {"source": source, "endpoint": endpoint}
    )
    assert row["cost"] is not None
    return int(row["input_tokens"])


WORDS = " ".join(f"word{number}" for number in range(100))
ASK: dict[str, Any] = {"role": "user", "content": "hi"}
CALL = {"id": "call12345", "type": "function", "function": {"name": "find", "arguments": json.dumps({"a": WORDS})}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "an_answer", "schema": {"description": WORDS}}}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [ASK, {"role": "assistant", "tool_calls": [CALL]}]},
        {"messages": [ASK, {"role": "assistant", "content": "", "tool_calls": [CALL]}]},
        {"messages": [ASK, {"role": "assistant", "content": [{"type": "text", "text": "hi"}], "tool_calls": [CALL]}]},
        {"messages": [ASK, {"role": "tool", "content": "1", "name": WORDS, "tool_call_id": "call12345"}]},
        {"messages": [ASK, {"role": "assistant", "content": WORDS, "prefix": True}]},
        {
            "messages": [
                ASK,
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": [{"type": "text", "text": WORDS}]}],
                },
            ]
        },
        {"messages": [ASK], "prediction": {"type": "content", "content": WORDS}},
        {"messages": [ASK], "response_format": SCHEMA},
        {"messages": [ASK], "tools": [{"type": "function", "function": {"name": "find", "description": WORDS}}]},
        {"messages": [ASK], "tool_choice": {"type": "function", "function": {"name": WORDS}}},
        {"messages": [ASK, {"role": "system", "content": WORDS}]},
    ],
    ids=[
        "calls alone",
        "calls",
        "calls beside parts",
        "a name",
        "a prefix",
        "thinking",
        "a prediction",
        "a schema",
        "tools",
        "a choice",
        "a system message",
    ],
)
def test_every_text_counts(body: dict[str, Any], priced: duckdb.DuckDBPyConnection) -> None:
    """Whatever text of a request is billed counts for its estimate, wherever it stands."""
    words = tokens_of(priced, {"messages": [ASK | {"content": WORDS}]}) - tokens_of(priced, {"messages": [ASK]})
    assert words >= 100
    assert tokens_of(priced, {"max_tokens": 5} | body) >= tokens_of(priced, {"messages": [ASK]}) + words - 3


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [{"type": "function.result", "tool_call_id": "1", "result": WORDS}]},
        {"inputs": [{"type": "message.input", "role": "user", "content": WORDS}]},
        {"inputs": "hi", "instructions": WORDS},
        {"inputs": "hi", "completion_args": {"response_format": SCHEMA}},
        {"inputs": "hi", "completion_args": {"prediction": {"type": "content", "content": WORDS}}},
    ],
    ids=["a result", "a message", "instructions", "a schema", "a prediction"],
)
def test_every_text_of_a_conversation_counts(body: dict[str, Any], priced: duckdb.DuckDBPyConnection) -> None:
    """So it does in a conversation."""
    endpoint = "conversations"
    assert tokens_of(priced, body, endpoint) >= tokens_of(priced, {"inputs": "hi"}, endpoint) + 100


def test_what_counts_as_before(priced: duckdb.DuckDBPyConnection) -> None:
    """A request of plain messages counts its text, and nothing of the JSON around it."""
    plain = tokens_of(priced, {"messages": [ASK]})
    assert tokens_of(priced, {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}) == plain
    assert tokens_of(priced, {"messages": [ASK], "temperature": 0.5, "metadata": {"a": WORDS}}) == plain
    assert plain < 10


def test_safe_prompt(priced: duckdb.DuckDBPyConnection) -> None:
    """The prompt that safe_prompt adds is allowed for."""
    plain = tokens_of(priced, {"messages": [ASK]})
    assert tokens_of(priced, {"messages": [ASK], "safe_prompt": False}) == plain
    assert tokens_of(priced, {"messages": [ASK], "safe_prompt": True}) == plain + 64


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("conversations", {"inputs": "hi", "tools": [{"type": "web_search"}]}),
        ("conversations", {"inputs": "hi", "agent_id": "ag_1"}),
        ("chat/completions", {"messages": [ASK], "prompt_mode": "reasoning"}),
        ("chat/completions", {"messages": [ASK], "service_tier": "priority"}),
    ],
)
def test_what_the_api_adds(endpoint: str, body: dict[str, Any], priced: duckdb.DuckDBPyConnection) -> None:
    """What the API adds to a request at a cost of its own is not known: the note says so, and max_cost refuses it."""
    source = f"SELECT 1 AS custom_id, {literal(json.dumps(body))}::JSON AS body"
    given = {"source": source, "endpoint": endpoint}
    (row,) = rows(priced, "FROM mistral_batch_estimate($source, endpoint := $endpoint)", given)
    assert row["cost"] is None
    assert "1 request asks for something that the API charges extra for" in row["note"]
    with pytest.raises(duckdb.Error, match="is not known: 1 request asks for something that the API charges extra for"):
        priced.execute("FROM mistral_batch_submit($source, endpoint := $endpoint, max_cost := 1000)", given)


@pytest.mark.parametrize(
    ("endpoint", "source"),
    [
        ("ocr", "SELECT 1 AS custom_id, 'https://example.com/a.pdf' AS document"),
        ("audio/transcriptions", "SELECT 1 AS custom_id, 'https://example.com/a.mp3' AS file_url"),
    ],
)
def test_files_of_models_sold_by_the_token(endpoint: str, source: str, priced: duckdb.DuckDBPyConnection) -> None:
    """What a file costs is not known beforehand, also of a model that is sold by the token besides."""
    given = {"source": source, "endpoint": endpoint}
    (row,) = rows(priced, "FROM mistral_batch_estimate($source, endpoint := $endpoint, model := 'a-model')", given)
    assert row["cost"] is None
    assert "a-model is paid by the page or the minute" in row["note"]


def test_max_cost_of_what_was_not_sent_before(priced: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A submission that was refused, and is now to be sent with a max_cost below its estimate, is not sent."""
    source = "SELECT range AS custom_id, 'hi' AS prompt, 5 AS max_tokens FROM range(3)"
    submit = "FROM mistral_batch_submit($source{})"
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "status": 400, "body": '{"message": "not so"}'})
    with pytest.raises(duckdb.Error, match="not so"):
        priced.execute(submit.format(""), {"source": source})
    emulator.faults()
    with pytest.raises(duckdb.Error, match="which is more than max_cost"):
        priced.execute(submit.format(", max_cost := 0.0000001"), {"source": source})
    assert emulator.witness()["jobs_stored"] == 0
    assert len(rows(priced, submit.format(", max_cost := 1"), {"source": source})) == 1
    assert len(rows(priced, submit.format(", max_cost := 0.0000001"), {"source": source})) == 1  # it was sent already


@pytest.mark.parametrize("limit", ["9223372036854775807", "1e30"])
def test_limits_beyond_numbers(limit: str, priced: duckdb.DuckDBPyConnection) -> None:
    """A max_tokens that no model has is a very high cost, and no overflow."""
    source = f"SELECT range AS custom_id, 'hi' AS prompt, {limit} AS max_tokens, 2 AS n FROM range(3)"
    (row,) = rows(priced, "FROM mistral_batch_estimate($source)", {"source": source})
    assert (row["max_output_tokens"], row["note"]) == (6_000_000_000, None)


def test_estimate_beside_what_the_job_used(priced: duckdb.DuckDBPyConnection) -> None:
    """What the server then counts is within the estimate, and the job's cost is the price of those counts."""
    priced.execute(
        "CREATE TABLE staging AS SELECT range AS custom_id, 'count these words please' AS prompt, 9 AS max_tokens "
        "FROM range(20)"
    )
    (row,) = rows(priced, "FROM mistral_batch_estimate('staging')")
    submission_id = submitted(priced)
    found = answered(priced, submission_id)
    (used,) = rows(priced, "FROM mistral_batch_cost($id)", {"id": submission_id})
    assert used["answers"] == 20
    for kind in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert used[kind] == sum(answer[kind] for answer in found) > 0
    assert used["prompt_tokens"] <= row["input_tokens"]
    assert used["completion_tokens"] <= row["max_output_tokens"]
    assert used["cost"] == pytest.approx((used["prompt_tokens"] * 1.0 + used["completion_tokens"] * 10.0) / 1e6 / 2)
    assert used["cost"] <= row["cost"]


def test_cost_per_model(priced: duckdb.DuckDBPyConnection) -> None:
    """Each job of a submission has a row of its own, at its own model's price, or with why it has none."""
    make_staging(priced, 3)
    submission_id = submitted(priced, arguments="model := ['a-model', 'b-model', 'c-model']")
    answered(priced, submission_id)
    found = {row["model"]: row for row in rows(priced, "FROM mistral_batch_cost($id)", {"id": submission_id})}
    assert sorted(found) == ["a-model", "b-model", "c-model"]
    assert found["a-model"]["cost"] > found["b-model"]["cost"] > 0
    assert found["c-model"]["cost"] is None
    assert found["c-model"]["note"] == "the price table of 2026-01-02 does not know c-model"


def test_models_add_up(priced: duckdb.DuckDBPyConnection) -> None:
    """Several models are several jobs, whose costs add up; one unknown model leaves the cost unknown, with a note."""
    make_staging(priced, 4)
    single = rows(priced, "FROM mistral_batch_estimate('staging', model := 'a-model')")[0]
    other = rows(priced, "FROM mistral_batch_estimate('staging', model := 'b-model')")[0]
    both = rows(priced, "FROM mistral_batch_estimate('staging', model := ['a-model', 'b-model'])")[0]
    assert (both["requests"], both["jobs"], both["input_bytes"]) == (8, 2, single["input_bytes"])
    assert both["cost"] == pytest.approx(single["cost"] + other["cost"])
    unknown = rows(priced, "FROM mistral_batch_estimate('staging', model := ['a-model', 'nobodys-model'])")[0]
    assert (unknown["input_cost"], unknown["max_output_cost"], unknown["cost"]) == (None, None, None)
    assert "the price table of 2026-01-02 does not know nobodys-model" in unknown["note"]


def test_requests_without_max_tokens(priced: duckdb.DuckDBPyConnection) -> None:
    """What a request without max_tokens can answer with is assumed, and the note says so."""
    priced.execute(
        "CREATE TABLE staging AS FROM (VALUES (1, 'a', 10, 1), (2, 'b', NULL, 3)) t(custom_id, prompt, max_tokens, n)"
    )
    (row,) = rows(priced, "FROM mistral_batch_estimate('staging')")
    assert row["max_output_tokens"] == 10 + 3 * 4096
    assert row["note"].startswith("1 request has no max_tokens and is assumed to answer with at most 4,096 tokens")


def test_rows_that_name_their_model(priced: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A row that names a model costs what that model costs, in an estimate and for max_cost; others the job's."""
    own, jobs = "'b-model'", "'a-model'"
    priced.execute(
        "CREATE TABLE staging AS SELECT range AS custom_id, 'some words ' || range AS prompt, 100 AS max_tokens, "
        "if(range % 2 = 0, 'b-model', NULL) AS model FROM range(5000)"
    )

    def cost_of(source: str, model: str) -> float:
        (row,) = rows(priced, f"FROM mistral_batch_estimate($source, model := {model})", {"source": source})
        return float(row["cost"])

    halves = [f"SELECT * EXCLUDE (model) FROM staging WHERE model IS {kind}" for kind in ("NOT NULL", "NULL")]
    expected = cost_of(halves[0], own) + cost_of(halves[1], jobs)
    assert cost_of("staging", jobs) == pytest.approx(expected)
    with pytest.raises(duckdb.Error, match=f"may cost up to {expected:.6g} US dollars"):
        submitted(priced, arguments=f"max_cost := {expected * 0.999}")
    assert asked_for_money(emulator) == (0, 0)
    bodies = (
        "SELECT custom_id, {messages: [{role: 'user', content: prompt}], max_tokens: max_tokens, model: model} AS body "
        "FROM staging"
    )
    assert cost_of(bodies, jobs) == pytest.approx(expected)
    submitted(priced, arguments=f"max_cost := {expected * 1.001}")


def test_rows_that_name_a_model_without_a_price(priced: duckdb.DuckDBPyConnection) -> None:
    """A row's model that the price table does not know leaves the cost unknown; the job's need not be known then."""
    source = "SELECT 1 AS custom_id, 'x' AS prompt, 'nobodys-model' AS model"
    (row,) = rows(priced, "FROM mistral_batch_estimate($source)", {"source": source})
    assert (row["cost"], row["note"].count("the price table of 2026-01-02 does not know nobodys-model")) == (None, 1)
    with pytest.raises(duckdb.Error, match=r"is not known: .*nobodys-model.*Nothing was sent"):
        submitted(priced, source, "max_cost := 1")
    source = "SELECT 1 AS custom_id, 'x' AS prompt, 'b-model' AS model"
    (row,) = rows(priced, "FROM mistral_batch_estimate($source, model := 'nobodys-model')", {"source": source})
    assert row["cost"] > 0


def test_negative_limits_save_nothing(priced: duckdb.DuckDBPyConnection) -> None:
    """A max_tokens or n below 0 counts as 0, and takes nothing from what other rows may cost."""
    priced.execute(
        "CREATE TABLE staging AS FROM (VALUES (1, 'a', 10, 1), (2, 'b', -5000, 1), (3, 'c', 10, -3)) "
        "t(custom_id, prompt, max_tokens, n)"
    )
    (row,) = rows(priced, "FROM mistral_batch_estimate('staging')")
    assert row["max_output_tokens"] == 10
    with pytest.raises(duckdb.Error, match="at most 10 out for"):
        submitted(priced, arguments="max_cost := 0")


def test_parts_count_as_jobs(emulator: Emulator, home: Path) -> None:
    """A submission that is cut into parts is estimated as that many jobs."""
    arguments = "'staging', model := ['mistral-small-latest', 'ministral-8b-latest']"
    with connect(emulator, home, max_requests_per_job=3) as con:
        make_staging(con, 7)
        (row,) = rows(con, f"FROM mistral_batch_estimate({arguments})")
        assert row["jobs"] == len(rows(con, f"FROM mistral_batch_submit({arguments})")) == 6


def test_max_cost(priced: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A submission that may cost more than max_cost is refused before anything is sent; a cheaper one is not."""
    make_staging(priced, 10)
    (row,) = rows(priced, "FROM mistral_batch_estimate('staging')")
    below, above = row["cost"] * 0.99, row["cost"] * 1.01
    for function in ("submit", "estimate"):
        with pytest.raises(duckdb.Error, match=r"may cost up to .* US dollars, which is more than max_cost"):
            priced.execute(f"FROM mistral_batch_{function}('staging', max_cost := {below})").fetchall()
    with pytest.raises(duckdb.Error, match=r"is not known: .*nobodys-model.*Nothing was sent"):
        priced.execute("FROM mistral_batch_submit('staging', model := 'nobodys-model', max_cost := 1)").fetchall()
    assert asked_for_money(emulator) == (0, 0)
    assert rows(priced, "FROM mistral_batch_status()") == []
    submitted(priced, arguments=f"max_cost := {above}")
    assert asked_for_money(emulator) == (1, 1)
    with pytest.raises(duckdb.Error, match="which is more than max_cost"):
        priced.execute(f"FROM mistral_batch_submit('staging', max_cost := {below}, force := true)").fetchall()
    # It is still there, and costs nothing more.
    assert rows(priced, f"FROM mistral_batch_submit('staging', max_cost := {below})")[0]["reused"] is True


@pytest.mark.parametrize("value", ["-1", "'much'", "true", "'nan'::DOUBLE"])
def test_refused_max_cost(priced: duckdb.DuckDBPyConnection, value: str) -> None:
    """A max_cost that is no amount is refused."""
    make_staging(priced, 1)
    with pytest.raises(duckdb.Error, match=r"max_cost must be US dollars|JSON|is true, false or NULL"):
        priced.execute(f"FROM mistral_batch_submit('staging', max_cost := {value})").fetchall()


def test_bad_rows_are_refused_as_by_submit(priced: duckdb.DuckDBPyConnection) -> None:
    """An estimate refuses the sources that a submit refuses."""
    for source, words in (
        ("SELECT 1 AS custom_id, NULL::VARCHAR AS prompt", "1 row has no prompt"),
        ("SELECT 1 AS custom_id, 'x' AS prompt FROM range(2)", r"repeats 1 of its 2 custom_ids: 1 \(2 times\)\."),
        ("SELECT 1 AS custom_id, 'x' AS prompt WHERE false", "has no rows"),
        ("SELECT 1 AS custom_id", "no column prompt, messages or body"),
    ):
        with pytest.raises(duckdb.Error, match=words):
            priced.execute("FROM mistral_batch_estimate($source)", {"source": source}).fetchall()


def test_repeats_are_named_as_by_submit(priced: duckdb.DuckDBPyConnection) -> None:
    """An estimate names repeated custom_ids in the words of a submit, at most five of them, and none that differ."""
    source = "SELECT unnest(string_split('b B b a a a d d e e f f g g', ' ')) AS custom_id, 'x' AS prompt"
    said = []
    priced.execute("SET default_collation = 'NOCASE'")
    for name in ("submit", "estimate"):
        with pytest.raises(
            duckdb.Error, match=r": a \(3 times\), b \(2 times\), d \(2 times\), .*Nothing was"
        ) as caught:
            priced.execute(f"FROM mistral_batch_{name}($source)", {"source": source}).fetchall()
        said.append(str(caught.value).partition("\n")[0])
    assert said[0] == said[1]


@pytest.mark.parametrize("optimizer", ["filter_pushdown", "filter_pullup", "cte_inlining", "unused_columns"])
def test_without_an_optimizer(optimizer: str, priced: duckdb.DuckDBPyConnection) -> None:
    """With one of DuckDB's optimizers turned off, an estimate and a preview are what they are with it."""
    make_staging(priced, 3)
    calls = ("mistral_batch_estimate('staging')", "mistral_batch_preview('staging')")
    before = [rows(priced, f"FROM {call}") for call in calls]
    priced.execute(f"SET disabled_optimizers = '{optimizer}'")
    assert [rows(priced, f"FROM {call}") for call in calls] == before


@pytest.mark.parametrize(("endpoint", "source", "body"), BODIES)
def test_every_endpoint(endpoint: str, source: str, body: dict[str, Any]) -> None:
    """Each endpoint's requests are measured: their text where they have one, and answers where they are paid."""
    with duckdb_mistral.connect() as con:
        (row,) = rows(con, f"FROM mistral_batch_estimate($source, endpoint := '{endpoint}')", {"source": source})
    told = row["note"] or ""
    assert row["requests"] == 1
    if endpoint in ("ocr", "audio/transcriptions"):
        assert (row["cost"], row["input_tokens"]) == (None, 0)
        assert "paid by the page or the minute" in told
    else:
        assert row["input_tokens"] > 0
        writes = endpoint in ("chat/completions", "fim/completions", "conversations")
        assert row["max_output_tokens"] == ((body.get("max_tokens") or 4096) if writes else 0)


def test_texts_are_counted_wherever_they_are() -> None:
    """The same words cost the same tokens as a prompt, as text chunks and beside an image, which counts none."""
    words = "the quick brown fox jumps over the lazy dog"
    text, image = {"type": "text", "text": words}, {"type": "image_url", "image_url": "x" * 999}
    contents: tuple[Any, ...] = (words, [text], [text, image])
    counts = set()
    with duckdb_mistral.connect() as con:
        for content in contents:
            body = json.dumps({"messages": [{"role": "user", "content": content}]})
            source = {"source": f"SELECT 1 AS custom_id, $${body}$$ AS body"}
            counts.add(rows(con, "FROM mistral_batch_estimate($source)", source)[0]["input_tokens"])
        source = {"source": f"SELECT 1 AS custom_id, '{words}' AS input"}
        (embedded,) = rows(con, "FROM mistral_batch_estimate($source, endpoint := 'embeddings')", source)
    assert counts == {embedded["input_tokens"] + 3}


def test_joined_texts_count_as_single_ones() -> None:
    """The sum for a vector is the sum of its texts' own tokens, by the tokenizer's own encoding."""
    texts = [
        "hello world",
        "L'été, c'est fini!",
        "",
        "tab\tand 12345 numbers.",
        "日本語のテキスト",
        None,
        "end.",
        "0",
        " x",
        "a\n\nb",
    ]
    encoding = tokens._encoding()
    expected = sum(len(encoding.encode_ordinary(text)) for text in texts if text)
    counted = tokens.count_tokens(pa.array(texts), pa.nulls(len(texts), pa.string()))
    assert len(counted) == len(texts)
    assert sum(counted.to_pylist()) == expected
    many = ["some words, again and again. " * 2000 + "end"] * 40  # more than one call's worth
    counted = tokens.count_tokens(pa.array(many), pa.nulls(len(many), pa.string()))
    assert sum(counted.to_pylist()) == 40 * len(encoding.encode_ordinary(many[0]))
    assert tokens.count_tokens(pa.array([], pa.string()), pa.array([], pa.string())).to_pylist() == []


def test_tokens_of_each_model() -> None:
    """The numbers of a vector add up to the tokens of each model's texts, in whatever order these come."""
    texts, models = ["one two three", "four", None, "five six", "seven"], ["a", None, "a", None, "a"]
    counted = tokens.count_tokens(pa.array(texts), pa.array(models)).to_pylist()
    encoding = tokens._encoding()
    for model in ("a", None):
        rows_of = [number for number, name in enumerate(models) if name == model]
        expected = sum(len(encoding.encode_ordinary(texts[number])) for number in rows_of if texts[number])
        assert sum(counted[number] for number in rows_of) == expected


def test_tokens_of_a_whole_chat() -> None:
    """A chat's tokens, the marks around its messages included, are what Mistral's tokenizer makes of it."""
    from mistral_common.protocol.instruct.messages import UserMessage
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    prompt = "What is the best French cheese?"
    request: Any = ChatCompletionRequest(messages=[UserMessage(content=prompt)])
    expected = len(MistralTokenizer.v3(is_tekken=True).encode_chat_completion(request).tokens)
    with duckdb_mistral.connect() as con:
        (row,) = rows(con, f"FROM mistral_batch_estimate($$SELECT 1 AS custom_id, '{prompt}' AS prompt$$)")
    assert row["input_tokens"] == expected


def test_without_the_tokenizer(priced: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, tokens are estimated from bytes, and the row says so."""
    make_staging(priced, 5)
    (exact,) = rows(priced, "FROM mistral_batch_estimate('staging')")
    monkeypatch.setattr(tokens, "find_spec", lambda _: None)
    (row,) = rows(priced, "FROM mistral_batch_estimate('staging')")
    assert row["tokens_from"] == "bytes"
    assert "one per 3 bytes" in row["note"]
    assert 0.5 * exact["input_tokens"] < row["input_tokens"] < 2 * exact["input_tokens"]


def test_own_prices(prices: Path) -> None:
    """A file of prices goes over the package's own, whose date and models are sound."""
    own, both = load_prices(), load_prices(prices)
    assert own.of("mistral-small-latest") is not None
    assert own.batch_discount == 0.5
    assert (both.date, both.of("a-model")) == (date(2026, 1, 2), load_prices(prices).models["a-model"])
    assert both.of("mistral-small-latest") == own.of("mistral-small-latest")


PRICED = '{"date": "2026-01-02", "models": '


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"date": "soon", "models": {}}',
        PRICED + '{"a": {"input": -1}}}',
        PRICED + '{"a": {"inptu": 1}}}',
        PRICED + '{"a": 3}}',
        PRICED + '{}, "batch_discount": 2}',
    ],
)
def test_refused_price_tables(text: str, tmp_path: Path, home: Path) -> None:
    """A price table that cannot be used is refused with its path and its form."""
    path = tmp_path / "prices.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingError, match=r"prices\.json \(the setting prices\) cannot be used"):
        load_prices(path)
    with duckdb_mistral.connect(settings={"prices": path}) as con, pytest.raises(duckdb.Error, match="cannot be used"):
        con.execute("FROM mistral_batch_estimate($$SELECT 1 AS custom_id, 'x' AS prompt$$)").fetchall()


def test_prices_from_the_environment(prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variable names the price table too."""
    monkeypatch.setenv("DUCKDB_MISTRAL_PRICES", str(prices))
    with duckdb_mistral.connect() as con:
        (row,) = rows(con, "FROM mistral_batch_estimate($$SELECT 1 AS custom_id, 'x' AS prompt$$, model := 'b-model')")
    assert row["prices_date"] == date(2026, 1, 2)


def test_pages_and_minutes() -> None:
    """Documents cost by the page and audio by the minute, at the batch discount."""
    prices = load_prices()
    used = {"prompt_tokens": 0, "completion_tokens": 0, "pages": 0, "audio_seconds": 0}
    page, voice = prices.models["mistral-ocr-latest"].page, prices.models["voxtral-mini-latest"].audio_minute
    assert page is not None
    assert voice is not None
    assert cost("mistral-ocr-latest", used | {"pages": 1000}, prices)[0] == pytest.approx(500 * page)
    heard = used | {"audio_seconds": 90, "prompt_tokens": 40, "completion_tokens": 5}
    assert cost("voxtral-mini-latest", heard, prices)[0] == pytest.approx(0.75 * voice)
    assert cost("mistral-embed", used | {"pages": 1}, prices)[0] is None


def test_collation_of_the_connection(priced: duckdb.DuckDBPyConnection) -> None:
    """custom_ids that differ in case are no repeats, also where the connection takes them for the same."""
    priced.execute("SET default_collation = 'NOCASE'")
    priced.execute("CREATE TABLE cased AS FROM (VALUES ('a', 'hi'), ('A', 'hi')) row(custom_id, prompt)")
    (row,) = rows(priced, "FROM mistral_batch_estimate('cased')")
    assert row["requests"] == 2
