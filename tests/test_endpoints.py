"""The table of endpoints: made from the API's text, and loaded from the package."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from duckdb_mistral.endpoints import CHAT, all_endpoints, endpoint_of
from duckdb_mistral.errors import ArgumentError

ROOT = Path(__file__).resolve().parent.parent
#: Enum ApiEndpoint of the API's text.
PATHS = {
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/fim/completions",
    "/v1/moderations",
    "/v1/chat/moderations",
    "/v1/ocr",
    "/v1/classifications",
    "/v1/chat/classifications",
    "/v1/conversations",
    "/v1/audio/transcriptions",
}


def test_table_is_what_the_text_says() -> None:
    """endpoints.json is what scripts/endpoints.py makes of the OpenAPI text."""
    specification = importlib.util.spec_from_file_location("endpoints_script", ROOT / "scripts" / "endpoints.py")
    assert specification
    assert specification.loader
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    made = script.rendered()
    assert made == (ROOT / "duckdb_mistral" / "endpoints.json").read_text(encoding="utf-8")


def test_all_endpoints() -> None:
    """Every batchable endpoint of the API's text is there."""
    assert set(all_endpoints()) == PATHS


@pytest.mark.parametrize(
    ("field", "types"),
    [
        ("max_tokens", {"integer"}),
        ("temperature", {"number"}),
        ("stop", {"string", "array"}),
        ("response_format", {"object"}),
        ("tools", {"array"}),
        ("tool_choice", {"string", "object"}),
        ("safe_prompt", {"boolean"}),
    ],
)
def test_types_of_chat_fields(field: str, types: set[str]) -> None:
    """References, choices and nulls of the API's text come down to plain JSON types."""
    assert endpoint_of(CHAT).fields[field] == types


def test_option_fields() -> None:
    """What says the request itself is no option, and every other field is one, in the text's order."""
    endpoint = endpoint_of(CHAT)
    assert endpoint.content_columns == ("prompt", "messages")
    assert "messages" not in endpoint.option_fields
    assert set(endpoint.option_fields) == set(endpoint.fields) - {"messages"}
    table = json.loads((ROOT / "duckdb_mistral" / "endpoints.json").read_text(encoding="utf-8"))
    assert list(endpoint.option_fields) == [name for name in table[CHAT]["fields"] if name != "messages"]


@pytest.mark.parametrize("path", ["", "/v1/chat", "chat/completions", "/v1/models", "/V1/CHAT/COMPLETIONS"])
def test_unknown_endpoint(path: str) -> None:
    """A path that is no endpoint is refused with those that are."""
    with pytest.raises(ArgumentError, match=r"There is no batch endpoint .*; the API has /v1/chat/completions, "):
        endpoint_of(path)
