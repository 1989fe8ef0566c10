"""The batchable endpoints according to the API's OpenAPI text: the fields of their request bodies, with JSON types."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from duckdb_mistral.api.sdk_fields import sdk_fields
from duckdb_mistral.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
FIM = "/v1/fim/completions"
MODERATIONS = "/v1/moderations"
CHAT_MODERATIONS = "/v1/chat/moderations"
OCR = "/v1/ocr"
CLASSIFICATIONS = "/v1/classifications"
CHAT_CLASSIFICATIONS = "/v1/chat/classifications"
CONVERSATIONS = "/v1/conversations"
TRANSCRIPTIONS = "/v1/audio/transcriptions"

#: The columns that can hold a row's content, per endpoint. A row uses one of them; the first is the most common.
CONTENT_COLUMNS = {
    CHAT: ("prompt", "messages"),
    EMBEDDINGS: ("input",),
    FIM: ("prompt",),
    MODERATIONS: ("input",),
    CHAT_MODERATIONS: ("prompt", "messages", "input"),
    OCR: ("document",),
    CLASSIFICATIONS: ("input",),
    CHAT_CLASSIFICATIONS: ("prompt", "messages", "input"),
    CONVERSATIONS: ("prompt", "messages", "inputs"),
    TRANSCRIPTIONS: ("file_url", "file_id"),
}
#: Endpoints that take a system message before the content.
TAKES_SYSTEM = frozenset({CHAT, CHAT_MODERATIONS, CHAT_CLASSIFICATIONS, CONVERSATIONS})
#: Endpoints that write their answers, which are paid by the token.
WRITING = frozenset({CHAT, FIM, CONVERSATIONS})
#: The default models of endpoints that the chat models do not serve.
USUAL_MODELS = {
    EMBEDDINGS: "mistral-embed",
    FIM: "codestral-latest",
    MODERATIONS: "mistral-moderation-latest",
    CHAT_MODERATIONS: "mistral-moderation-latest",
    OCR: "mistral-ocr-latest",
    TRANSCRIPTIONS: "voxtral-mini-latest",
}
#: Endpoints by the shape of their answers; each family has a template `{family}_results`.
RESULT_FAMILIES = {
    CHAT: "chat",
    FIM: "chat",
    EMBEDDINGS: "embedding",
    MODERATIONS: "judgement",
    CHAT_MODERATIONS: "judgement",
    CLASSIFICATIONS: "judgement",
    CHAT_CLASSIFICATIONS: "judgement",
    OCR: "ocr",
    CONVERSATIONS: "conversation",
    TRANSCRIPTIONS: "transcription",
}
#: The body field that asks for a declared output, and the SQL that finds the text of the answer to it.
OUTPUT_FIELDS = {CHAT: "response_format", OCR: "document_annotation_format"}
OUTPUT_TEXTS = {OCR: "(body->>'$.document_annotation')"}
#: The JSON types assumed for a field when only its name is known.
ANY_TYPE = frozenset({"array", "boolean", "integer", "number", "object", "string"})
#: Columns of `source` that are never a field of a request body.
OWN_COLUMNS = ("custom_id", "body")


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of the enum ApiEndpoint, and the fields of its request body: {name: JSON types}."""

    path: str
    fields: dict[str, frozenset[str]]
    #: The fields that are newer than the API's text.
    added: frozenset[str] = frozenset()

    @property
    def content_columns(self) -> tuple[str, ...]:
        """The columns of `source` that can hold the content of a request, besides `body`."""
        return CONTENT_COLUMNS[self.path]

    @property
    def takes_system(self) -> bool:
        """Whether a system message may precede the content."""
        return self.path in TAKES_SYSTEM

    @property
    def own_columns(self) -> tuple[str, ...]:
        """The columns of `source` that have a meaning of their own, apart from the options."""
        return (*OWN_COLUMNS, *self.content_columns, *(("system",) if self.takes_system else ()))

    @property
    def option_fields(self) -> tuple[str, ...]:
        """The fields that a column of the same name fills, in the order of the API's text."""
        filled = {*self.content_columns, "messages"} if "messages" in self.content_columns else {*self.content_columns}
        return tuple(name for name in self.fields if name not in filled)


@cache
def all_endpoints() -> dict[str, Endpoint]:
    """Return every endpoint that the API accepts batches for, by its path."""
    added = _table("added_fields")
    return {
        path: Endpoint(path, _types(entry["fields"] | added.get(path, {})), frozenset(added.get(path, {})))
        for path, entry in _table("endpoints").items()
    }


def endpoint_of(name: str) -> Endpoint:
    """Return the endpoint with this path or short name; raise ArgumentError if there is none."""
    known = all_endpoints()
    path = name if name in known else f"/v1/{name.strip('/').removeprefix('v1/')}"
    if path not in known:
        raise ArgumentError(f"There is no batch endpoint {name!r}; the API has {', '.join(known)}. Nothing was sent.")
    return _with_sdk_fields(known[path])


def _with_sdk_fields(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint, including fields that only the installed SDK knows."""
    newer = sorted(sdk_fields(endpoint.path) - set(endpoint.fields))
    if not newer:
        return endpoint
    fields = endpoint.fields | dict.fromkeys(newer, ANY_TYPE)
    return Endpoint(endpoint.path, fields, endpoint.added | set(newer))


def _table(name: str) -> dict[str, Any]:
    text = (resources.files("duckdb_mistral.api") / f"{name}.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def _types(fields: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    return {name: frozenset(types) for name, types in fields.items()}


def usual_model(endpoint: Endpoint, model: str, default: str) -> str:
    """Return the model for a call that names none: `model`, or the endpoint's if `model` is just the `default`."""
    return USUAL_MODELS.get(endpoint.path, model) if model == default else model
