"""The ten endpoints: the table of their fields, what a row becomes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bodies import BODIES
from openapi import SAMPLES, document, request_problems
from support import load_script, rows

import duckdb_mistral
from duckdb_mistral.api.endpoints import CONTENT_COLUMNS, RESULT_FAMILIES, all_endpoints, endpoint_of
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

ROOT = Path(__file__).resolve().parents[2]

#: endpoint, the SELECT of one row, and the body that it becomes.


@pytest.fixture
def plain() -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection that has no key and no server."""
    with duckdb_mistral.connect() as connection:
        yield connection


def preview(con: duckdb.DuckDBPyConnection, source: str, arguments: str) -> list[dict[str, Any]]:
    """Return the bodies that a submit would send, as Python values."""
    found = rows(con, f"FROM mistral_batch_preview($source, {arguments})", {"source": source})
    return [json.loads(row["body"]) for row in found]


@pytest.mark.parametrize(
    ("endpoint", "columns", "body"),
    [
        ("embeddings", "['a', 'b']::VARIANT AS input", {"input": ["a", "b"]}),
        ("embeddings", "'a'::VARIANT AS input", {"input": "a"}),
        ("chat/completions", "'hi' AS prompt, ['a', 'b']::VARIANT AS stop", {"stop": ["a", "b"]}),
        ("chat/completions", "'hi' AS prompt, 100::VARIANT AS max_tokens", {"max_tokens": 100}),
        ("chat/completions", "'hi' AS prompt, '{\"t\": null}'::JSON->'t' AS temperature", {}),
        ("chat/completions", "'{\"p\": \"hi\"}'::JSON->'p' AS prompt", {}),
        ("chat/completions", "'{\"p\": {\"hi\": 1}}'::JSON->'p' AS prompt", {}),
    ],
)
def test_values_of_other_types(
    endpoint: str, columns: str, body: dict[str, Any], con: duckdb.DuckDBPyConnection
) -> None:
    """A VARIANT is sent as what it holds, the null of JSON leaves a field out, and a string of JSON is its text."""
    source = f"SELECT 1 AS custom_id, {columns}"
    (row,) = rows(
        con, "FROM mistral_batch_preview($source, endpoint := $endpoint)", {"source": source, "endpoint": endpoint}
    )
    found = json.loads(row["body"])
    messages = found.pop("messages", None)
    assert found == body
    if messages is not None:
        said = '{"hi":1}' if '{"hi"' in columns else "hi"
        assert messages == [{"role": "user", "content": said}]


def test_table_is_the_api_text() -> None:
    """The table of fields is what the API's text says, with the SDK's model where that text has none."""
    script = load_script(ROOT / "scripts" / "endpoints.py")
    kept = json.loads((ROOT / "duckdb_mistral" / "api" / "endpoints.json").read_text(encoding="utf-8"))
    extracted = script.from_extract(document())
    assert list(kept) == list(extracted)
    for endpoint, described in extracted.items():
        if described is not None:
            assert kept[endpoint] == described
    conversation = script.sdk_schema("ConversationRequest")
    assert script.described(conversation, conversation["$defs"])["fields"].items() >= (
        kept["/v1/conversations"]["fields"].items()
    )


@pytest.mark.newest
def test_added_fields_are_the_sdks() -> None:
    """The fields that are newer than the API's text are those of the newest SDK, with their types."""
    script = load_script(ROOT / "scripts" / "endpoints.py")
    kept, added = (
        json.loads((ROOT / "duckdb_mistral" / "api" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("endpoints", "added_fields")
    )
    assert script.added_fields(kept) == added


def test_every_endpoint_can_be_used() -> None:
    """Each endpoint of the API has its content columns and the shape of its answers."""
    assert set(CONTENT_COLUMNS) == set(RESULT_FAMILIES) == set(all_endpoints())
    assert len(all_endpoints()) == 10
    for family in RESULT_FAMILIES.values():
        assert "AS answered" in template(f"{family}_results").template


@pytest.mark.parametrize("path", sorted(CONTENT_COLUMNS))
def test_short_names(path: str) -> None:
    """An endpoint goes by its path, its path without a slash, and its short name."""
    short = path.removeprefix("/v1/")
    assert {endpoint_of(name).path for name in (path, path[1:], short, f"/{short}")} == {path}


def test_unknown_endpoint() -> None:
    """An endpoint that does not exist is refused with the names of those that do."""
    with pytest.raises(ArgumentError, match=r"no batch endpoint 'embedding'; the API has .*, /v1/embeddings,"):
        endpoint_of("embedding")


@pytest.mark.parametrize(("endpoint", "source", "body"), BODIES)
def test_bodies(plain: duckdb.DuckDBPyConnection, endpoint: str, source: str, body: dict[str, Any]) -> None:
    """A row becomes the request body that the endpoint takes, by the API's own text."""
    (found,) = preview(plain, source, f"endpoint := '{endpoint}'")
    assert found == body
    if endpoint != "conversations":
        assert request_problems(f"/v1/{endpoint}", found) == []


@pytest.mark.parametrize(
    ("name", "endpoint", "columns"),
    [
        ("chat", "chat/completions", "messages, max_tokens, temperature"),
        ("structured", "chat/completions", "messages, response_format, max_tokens, temperature"),
        ("embeddings", "embeddings", "input"),
        ("ocr", "ocr", "document"),
        ("transcriptions", "audio/transcriptions", "file_url"),
    ],
)
def test_real_request_lines(plain: duckdb.DuckDBPyConnection, name: str, endpoint: str, columns: str) -> None:
    """The request lines of Mistral's own pages come out of a staging table of their fields, and of their bodies."""
    path = SAMPLES / f"{name}.input.jsonl"
    expected = [json.loads(line)["body"] for line in path.read_text(encoding="utf-8").splitlines()]
    lines = f"read_json('{path}', columns = {{custom_id: 'VARCHAR', body: 'JSON'}}, format = 'newline_delimited')"
    plain.execute(f"CREATE TABLE lines AS FROM {lines}")
    fields = ", ".join(f"body->'$.{column.strip()}' AS {column.strip()}" for column in columns.split(","))
    for source in (f"SELECT custom_id, {fields} FROM lines ORDER BY custom_id", "FROM lines ORDER BY custom_id"):
        assert preview(plain, source, f"endpoint := '{endpoint}'") == expected
    for body in expected:
        assert request_problems(f"/v1/{endpoint}", body) == []


@pytest.mark.parametrize(
    ("endpoint", "source", "words"),
    [
        ("embeddings", "SELECT 1 AS custom_id, 'x' AS prompt", "no column input or body"),
        ("embeddings", "SELECT 1 AS custom_id, 'x' AS inputs", "was inputs meant to be input"),
        ("ocr", "SELECT 1 AS custom_id, 'x' AS documents", "no column document or body .*documents"),
        ("embeddings", "SELECT 1 AS custom_id, NULL::VARCHAR AS input", "no input"),
        ("embeddings", "SELECT 1 AS custom_id, []::VARCHAR[] AS input", "an empty list of input"),
        ("embeddings", "SELECT 1 AS custom_id, 'x' AS input, 3 AS output_dimensions", "misspelt output_dimension"),
        ("embeddings", "SELECT 1 AS custom_id, 'x' AS input, {'input': 'y'} AS body", "both body and input"),
        ("chat/moderations", "SELECT 1 AS custom_id, 'x' AS prompt, [1] AS input", "both prompt and input"),
        ("chat/moderations", "SELECT 1 AS custom_id, 'x' AS input", "input not given as a JSON list"),
        ("chat/classifications", "SELECT 1 AS custom_id, 'x' AS input", "an input that is not JSON"),
        ("ocr", "SELECT 1 AS custom_id, [1] AS document", "a document that is not a JSON object"),
        ("ocr", "SELECT 1 AS custom_id, 'https://x' AS document, 'all' AS image_limit", "image_limit that is not JSON"),
        (
            "audio/transcriptions",
            "SELECT 1 AS custom_id, 'https://x' AS file_url, 'y' AS file_id",
            "both file_url and file_id",
        ),
        ("conversations", "SELECT 1 AS custom_id, NULL AS prompt", "no prompt"),
    ],
)
def test_refusals(plain: duckdb.DuckDBPyConnection, endpoint: str, source: str, words: str) -> None:
    """What an endpoint cannot be asked is refused in words of its columns."""
    with pytest.raises(Exception, match=words):
        preview(plain, source, f"endpoint := '{endpoint}'")


def test_system_where_there_is_none(plain: duckdb.DuckDBPyConnection) -> None:
    """A system message is refused where the endpoint takes none, and so is a content column in params."""
    with pytest.raises(Exception, match="takes no system message"):
        preview(plain, "SELECT 1 AS custom_id, 'x' AS input", "endpoint := 'embeddings', system := 'be kind'")
    with pytest.raises(Exception, match="params cannot hold input"):
        preview(plain, "SELECT 1 AS custom_id, 'x' AS input", "endpoint := 'embeddings', params := {input: 'y'}")


def test_params_fill_what_the_row_leaves_out(plain: duckdb.DuckDBPyConnection) -> None:
    """Params stand in every row's body, and a row's own column beats them."""
    source = "SELECT * FROM (VALUES (1, 'a', 3), (2, 'b', NULL)) AS t(custom_id, input, output_dimension)"
    arguments = "endpoint := 'embeddings', params := {output_dimension: 9, output_dtype: 'int8'}"
    found = sorted(preview(plain, source, arguments), key=lambda body: str(body["input"]))
    assert found == [
        {"input": "a", "output_dimension": 3, "output_dtype": "int8"},
        {"input": "b", "output_dimension": 9, "output_dtype": "int8"},
    ]
    instructed = preview(
        plain,
        "SELECT 1 AS custom_id, 'x' AS prompt",
        "endpoint := 'conversations', params := {instructions: 'be brief'}",
    )
    assert instructed == [{"inputs": "x", "instructions": "be brief"}]
