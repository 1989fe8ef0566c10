"""The content of a request as people write it: JSON that was extracted, lists of STRUCTs, numbers of another type."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckdb_mistral.api.endpoints import endpoint_of
from duckdb_mistral.duck.qualifying import qualified
from duckdb_mistral.requests.columns import RequestColumns

#: A column j, from which `j->'…'` extracts JSON.
FROM_JSON = (
    """FROM (SELECT '{"p":"hi","s":"Be brief","n":null,"u":"https://x/y.pdf","i":"https://x/y.png"}'::JSON AS j)"""
)


def request_of(select: str, endpoint: str = "chat/completions", **parameters: Any) -> tuple[str | None, Any]:
    """Return the problem and the parsed body of the one row of a SELECT."""
    problem, body = written(select, endpoint, **parameters)
    return problem, None if problem else json.loads(body)


def written(select: str, endpoint: str = "chat/completions", **parameters: Any) -> tuple[str | None, str]:
    """Return the problem and the body of the one row of a SELECT, as DuckDB writes them."""
    columns = RequestColumns(endpoint_of(endpoint), system=None, params={})
    with duckdb.connect() as engine:
        ((problem, body),) = engine.execute(
            f"WITH source AS (SELECT {columns.known_columns} WHERE false UNION ALL BY NAME ({select})) "
            f"SELECT {qualified(columns.problem)}, {qualified(columns.body)} FROM {qualified(columns.taken('source'))}",
            parameters or None,
        ).fetchall()
    return problem, body


@pytest.mark.parametrize(
    ("columns", "endpoint", "problem"),
    [
        ("1 AS custom_id, j->'n' AS prompt", "chat/completions", "no prompt"),
        ("1 AS custom_id, j->'n' AS prompt", "fim/completions", "no prompt"),
        ("1 AS custom_id, j->'n' AS input", "embeddings", "no input"),
        ("1 AS custom_id, j->'n' AS file_url", "audio/transcriptions", "no file_url"),
        ("1 AS custom_id, j->'n' AS document", "ocr", "no document"),
        ("j->'n' AS custom_id, 'x' AS prompt", "chat/completions", "no custom_id"),
    ],
)
def test_json_null_is_missing(columns: str, endpoint: str, problem: str) -> None:
    """A JSON null where a text is needed counts as NULL: the row is refused, not sent with the text null."""
    assert request_of(f"SELECT {columns} {FROM_JSON}", endpoint)[0] == problem


@pytest.mark.parametrize(
    ("columns", "endpoint", "body"),
    [
        ("'x' AS prompt, j->'n' AS system", "chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("j->'p' AS prompt, j->'n' AS messages", "chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        (
            "j->'p' AS prompt, j->'s' AS system",
            "chat/completions",
            {"messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "hi"}]},
        ),
        ("j->'p' AS prompt", "conversations", {"inputs": "hi"}),
        ("'x' AS prompt, j->'s' AS system", "conversations", {"inputs": "x", "instructions": "Be brief"}),
        ("j->'p' AS input", "embeddings", {"input": "hi"}),
        (
            "j->'u' AS document",
            "ocr",
            {"document": {"type": "document_url", "document_url": "https://x/y.pdf"}},
        ),
        ("j->'i' AS document", "ocr", {"document": {"type": "image_url", "image_url": "https://x/y.png"}}),
    ],
)
def test_json_string_is_its_text(columns: str, endpoint: str, body: Any) -> None:
    """What -> extracts from JSON is sent as its text, without quotes around it; a null in it is left out."""
    assert request_of(f"SELECT 1 AS custom_id, {columns} {FROM_JSON}", endpoint) == (None, body)


def test_parts_of_a_message() -> None:
    """Parts that DuckDB gives each other's fields are sent with their own, as messages and as a prompt."""
    parts = "[{type: 'text', text: 'what'}, {type: 'image_url', image_url: 'https://x/y.png'}]"
    sent = [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": "https://x/y.png"}]
    expected = (None, {"messages": [{"role": "user", "content": sent}]})
    assert request_of(f"SELECT 1 AS custom_id, [{{role: 'user', content: {parts}}}] AS messages") == expected
    assert request_of(f"SELECT 1 AS custom_id, {parts} AS prompt") == expected
    document = "{type: 'image_url', document_url: NULL::VARCHAR, image_url: 'u'}"
    body = {"document": {"type": "image_url", "image_url": "u"}}
    assert request_of(f"SELECT 1 AS custom_id, {document} AS document", "ocr") == (None, body)


def test_what_the_caller_has_written() -> None:
    """JSON of the caller's own keeps its nulls, and so does a body."""
    tools = '[{"type":"function","function":{"name":"f","parameters":{"default":null}}}]'
    _, body = request_of("SELECT 1 AS custom_id, 'x' AS prompt, $tools::JSON AS tools", tools=tools)
    assert body["tools"] == json.loads(tools)
    _, body = request_of("SELECT 1 AS custom_id, {messages: [{role: 'user', content: 'x', name: NULL}]} AS body")
    assert body == {"messages": [{"role": "user", "content": "x", "name": None}]}


@settings(deadline=None, max_examples=40)
@given(texts=st.lists(st.text(alphabet='":,null}{[]\\a é\n', max_size=12), min_size=2, max_size=4))
def test_any_text_beside_nulls(texts: list[str]) -> None:
    """Whatever stands in the texts of messages, only the fields that are NULL are left out of them."""
    messages = ", ".join(
        f"{{role: 'user', content: ${name}::VARCHAR, {'prefix' if number else 'name'}: ${name}::VARCHAR}}"
        for number, name in enumerate(f"text_{number}" for number in range(len(texts)))
    )
    problem, body = request_of(
        f"SELECT 1 AS custom_id, [{messages}] AS messages",
        **{f"text_{number}": text for number, text in enumerate(texts)},
    )
    assert problem is None
    assert body["messages"] == [
        {"role": "user", "content": text, ("prefix" if number else "name"): text} for number, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("5", "5"),
        ("5::DOUBLE", "5"),
        ("-1200::FLOAT", "-1200"),
        ("3.5::DOUBLE", "3.5"),
        ("'5'", "5"),
        ("1e300", "1e300"),
    ],
)
def test_whole_numbers(value: str, sent: str) -> None:
    """A whole number is the same request whatever its type; temperature, which is no integer, stays as it is."""
    problem, body = written(f"SELECT '1' AS custom_id, 'x' AS prompt, {value} AS max_tokens, 1::DOUBLE AS temperature")
    assert problem is None
    assert f',"max_tokens":{sent}' in body
    assert '"temperature":1.0' in body


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ("'nan'::DOUBLE AS stop", "a number in stop that is NaN or infinite"),
        ("'-inf'::FLOAT AS model, 1 AS top_p", "a number in model that is NaN or infinite"),
        ("['nan'::DOUBLE] AS stop", "a number in stop that is NaN or infinite"),
        ("{'a': 'inf'::DOUBLE} AS metadata, 'x' AS model", "a number in metadata that is NaN or infinite"),
        ("'nan'::DOUBLE AS top_p, 'a: b' AS metadata", "a metadata that is not JSON"),
        ("'' AS n, 'nope' AS metadata", "a metadata that is not JSON"),
        ("'nan' AS model, '[1]' AS stop", None),
    ],
)
def test_options_that_cannot_be_sent(columns: str, problem: str | None) -> None:
    """The problem names the option that is not JSON, or else the one whose number JSON does not have."""
    assert request_of(f"SELECT '1' AS custom_id, 'x' AS prompt, {columns}")[0] == problem
