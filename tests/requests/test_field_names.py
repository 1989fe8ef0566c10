"""Columns that are no field of the request: sent where the API has come to know them, else told, or plain data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import connect, rows

import duckdb_mistral
from duckdb_mistral.api import endpoints, sdk_fields
from duckdb_mistral.api.endpoints import all_endpoints, endpoint_of
from duckdb_mistral.requests.checks import check_columns
from duckdb_mistral.requests.field_names import OTHER_FIELDS, OTHER_NAMES, unsent_columns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection that needs no server."""
    with duckdb_mistral.connect() as connection:
        yield connection


def body_of(con: duckdb.DuckDBPyConnection, columns: str, endpoint: str = "chat/completions") -> Any:
    """Return the body of the one request of a source with these columns."""
    source = f"SELECT 1 AS custom_id, {columns}"
    call = "FROM mistral_batch_preview($source, endpoint := $endpoint)"
    (row,) = rows(con, call, {"source": source, "endpoint": endpoint})
    return json.loads(row["body"])


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        (
            "5 AS top_k, 2 AS min_tokens, 1.1 AS repetition_penalty",
            {"top_k": 5, "min_tokens": 2, "repetition_penalty": 1.1},
        ),
        ("true AS logprobs, 3 AS top_logprobs", {"logprobs": True, "top_logprobs": 3}),
        ("true AS prompt_logprobs, 3 AS top_prompt_logprobs", {"prompt_logprobs": True, "top_prompt_logprobs": 3}),
        ("'standard_only' AS service_tier, NULL AS top_k", {"service_tier": "standard_only"}),
    ],
)
def test_newer_fields(columns: str, fields: dict[str, Any], con: duckdb.DuckDBPyConnection) -> None:
    """Fields that the API has come to know since the extract of its text are sent as others are."""
    messages = [{"role": "user", "content": "hi"}]
    assert body_of(con, f"'hi' AS prompt, {columns}") == {"messages": messages} | fields


def test_newer_fields_of_a_transcription(con: duckdb.DuckDBPyConnection) -> None:
    """So are those of another endpoint."""
    columns = "'https://example.com/a.mp3' AS file_url, {'Ann': 'https://example.com/ann.mp3'} AS speaker_references"
    assert body_of(con, columns, "audio/transcriptions") == {
        "file_url": "https://example.com/a.mp3",
        "speaker_references": {"Ann": "https://example.com/ann.mp3"},
    }


def test_newer_fields_are_answered(emulator: Emulator, home: Path) -> None:
    """The local server takes them too."""
    with connect(emulator, home) as con:
        source = "SELECT 1 AS custom_id, 'hi' AS prompt, 5 AS top_k, 'standard_only' AS service_tier"
        (job,) = con.execute("FROM mistral_batch_submit($source)", {"source": source}).fetchall()
        con.execute("FROM mistral_batch_wait($id)", {"id": job[0]}).fetchall()
        assert con.execute(f"SELECT outcome FROM mistral_batch_results('{job[0]}')").fetchall() == [("ok",)]


def test_fields_of_a_newer_sdk(con: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field that only the installed SDK knows is sent, whatever its type; the SDK is read, not imported."""
    (tmp_path / "chatcompletionrequest.py").write_text(
        "class ChatCompletionRequest(BaseModel):\n"
        "    model: str\n"
        "    tomorrows_field: OptionalNullable[int] = UNSET\n"
        '    shouted: Annotated[Optional[str], pydantic.Field(alias="whispered")] = None\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(sdk_fields, "_models", lambda: tmp_path)
    sdk_fields.sdk_fields.cache_clear()
    try:
        assert sdk_fields.sdk_fields("/v1/chat/completions") == {"model", "tomorrows_field", "whispered"}
        assert sdk_fields.sdk_fields("/v1/ocr") == frozenset()
        body = body_of(con, "'hi' AS prompt, 5 AS tomorrows_field, 'low' AS whispered")
        assert (body["tomorrows_field"], body["whispered"]) == (5, "low")
        body = body_of(con, "'hi' AS prompt, [1, 2] AS tomorrows_field, {'a': 1} AS whispered")
        assert (body["tomorrows_field"], body["whispered"]) == ([1, 2], {"a": 1})
    finally:
        sdk_fields.sdk_fields.cache_clear()


@pytest.mark.parametrize("path", sorted(sdk_fields.REQUEST_MODELS))
def test_the_sdk_is_read_as_it_is(path: str) -> None:
    """What is read of the installed SDK's source is what its models say."""
    from mistralai.client import models

    model = getattr(models, sdk_fields.REQUEST_MODELS[path][1])
    assert sdk_fields.sdk_fields(path) == {field.alias or name for name, field in model.model_fields.items()}
    assert set(endpoint_of(path).fields) >= sdk_fields.sdk_fields(path)


def test_an_sdk_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the SDK's source, or with one that is no Python, the tables of this package count alone."""
    for text in ("class (", "\udcff", "class Another:\n    a: int\n"):
        (tmp_path / "ocrrequest.py").write_text(text, encoding="utf-8", errors="surrogateescape")
        monkeypatch.setattr(sdk_fields, "_models", lambda: tmp_path)
        sdk_fields.sdk_fields.cache_clear()
        assert endpoint_of("ocr") == all_endpoints()["/v1/ocr"]
    sdk_fields.sdk_fields.cache_clear()


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("max_completion_tokens", "max_tokens"),
        ("seed", "random_seed"),
        ("Seed", "random_seed"),
        ("stop_sequences", "stop"),
        ("response_schema", "response_format"),
        ("system_prompt", "system"),
        ("topk", "top_k"),
        ("top_logprob", "top_logprobs"),
        ("repetition_penality", "repetition_penalty"),
    ],
)
@pytest.mark.parametrize("function", ["preview", "estimate"])
def test_names_of_other_apis(column: str, field: str, function: str, con: duckdb.DuckDBPyConnection) -> None:
    """A column that is another API's name for a field is refused with Mistral's."""
    source = f"SELECT 1 AS custom_id, 'hi' AS prompt, 5 AS {column}"
    with pytest.raises(duckdb.Error, match=rf"column {column} .*\. Rename it to {field}, or .*Nothing was sent"):
        con.execute(f"FROM mistral_batch_{function}($source)", {"source": source}).fetchall()


@pytest.mark.parametrize(
    ("column", "endpoint", "said"),
    [
        ("logit_bias", "chat/completions", "is a field of other APIs that Mistral's does not have"),
        (
            "output_dimension",
            "chat/completions",
            "is a field of /v1/embeddings that /v1/chat/completions does not have",
        ),
        ("table_format", "chat/completions", "is a field of /v1/ocr that /v1/chat/completions does not have"),
        ("max_tokens", "embeddings", "is a field of /v1/chat/completions that /v1/embeddings does not have"),
    ],
)
def test_fields_of_others(column: str, endpoint: str, said: str, con: duckdb.DuckDBPyConnection) -> None:
    """A column that can hardly be anything but a field, and is none here, is refused with how to go on."""
    content = "prompt" if endpoint == "chat/completions" else "input"
    given = {"source": f"SELECT 1 AS custom_id, 'hi' AS {content}, 5 AS {column}", "endpoint": endpoint}
    with pytest.raises(duckdb.Error, match=f"{said}.*EXCLUDE.*params.*Nothing was sent"):
        con.execute("FROM mistral_batch_preview($source, endpoint := $endpoint)", given).fetchall()


#: Columns that data has.
DATA = [
    "id",
    "product",
    "created_at",
    "updated_at",
    "user",
    "user_id",
    "customer_id",
    "name",
    "description",
    "language",
    "pages",
    "suffix",
    "store",
    "status",
    "tokens",
    "n_tokens",
    "in_tokens",
    "service_time",
    "service_type",
    "title",
    "text",
    "url",
    "document_id",
    "agent_id",
    "file_id",
    "label",
    "category",
    "score",
    "price",
    "topic",
    "seed_money",
    "stop_time",
    "verbosity",
    "reasoning",
    "store_id",
    "dimension",
    "thinking",
    "include",
    "audio",
]


def test_data_is_left_alone(con: duckdb.DuckDBPyConnection) -> None:
    """Columns of data are not sent and no error; an estimate's note lists them, and it alone."""
    check_columns(endpoint_of("chat/completions"), ["custom_id", "prompt", *DATA])
    source = "SELECT 1 AS custom_id, 'hi' AS prompt, 'socks' AS product, 7 AS \"Id\", 5 AS max_tokens"
    assert set(body_of(con, "'hi' AS prompt, 'socks' AS product, 7 AS id")) == {"messages"}
    (row,) = rows(con, "FROM mistral_batch_estimate($source)", {"source": source})
    assert row["note"] == "the columns product, Id are not sent"
    (row,) = rows(con, "FROM mistral_batch_estimate($$SELECT 1 AS custom_id, 'hi' AS prompt, 1 AS x, 5 AS n$$)")
    assert row["note"].endswith("; the column x is not sent")


def test_a_field_beside_its_other_name(con: duckdb.DuckDBPyConnection) -> None:
    """Another API's name is no error beside the field itself: the same table serves both."""
    body = body_of(con, "'hi' AS prompt, 5 AS max_tokens, 6 AS max_completion_tokens, 7 AS random_seed, 8 AS seed")
    assert (body["max_tokens"], body["random_seed"]) == (5, 7)
    assert set(body) == {"messages", "max_tokens", "random_seed"}


def test_params_send_what_they_hold(con: duckdb.DuckDBPyConnection) -> None:
    """What params hold is sent under its own name, as a server of one's own may know it."""
    source = "SELECT 1 AS custom_id, 'hi' AS prompt"
    call = "FROM mistral_batch_preview($source, params := {'logit_bias': {'5': 1}, 'seed': 3})"
    (row,) = rows(con, call, {"source": source})
    assert json.loads(row["body"])["seed"] == 3


def test_the_names_are_sound() -> None:
    """Each name of another API stands for a field that some endpoint has, and is none itself."""
    known = {name for endpoint in all_endpoints().values() for name in endpoint.fields} | {"system"}
    assert set(OTHER_NAMES.values()) <= known
    assert not (set(OTHER_NAMES) | OTHER_FIELDS) & known
    assert unsent_columns(endpoint_of("chat/completions"), ["custom_id", "Prompt", "a", "TOP_K"]) == ["a"]
    assert {
        kind for endpoint in all_endpoints().values() for kinds in endpoint.fields.values() for kind in kinds
    } <= endpoints.ANY_TYPE
